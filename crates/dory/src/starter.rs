//! Starts an engine for a command that found none.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::serve;

/// How long such an engine stays when nothing runs.
const IDLE_SECONDS: &str = "60";
/// No engine takes so long to answer, not even an emulated one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts this very binary as an engine that goes away when it is idle.
pub struct Starter;

impl dory_cli::EngineStarter for Starter {
    fn start(&self) -> Result<PathBuf> {
        let socket = serve::default_socket();
        let directory = socket.parent().context("the socket has no directory")?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
        let log_path = directory.join("engine.log");
        let log =
            File::create(&log_path).with_context(|| format!("cannot write `{}`", log_path.display()))?;
        let mut engine = Command::new("/proc/self/exe")
            .args(["serve", "--idle-exit", IDLE_SECONDS, "--host"])
            .arg(format!("unix://{}", socket.display()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start an engine")?;
        let begin = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = engine.try_wait()? {
                let said = std::fs::read_to_string(&log_path).unwrap_or_default();
                bail!("the engine ended at once ({status}): {}", said.trim().trim_start_matches("error: "));
            }
            if begin.elapsed() > PATIENCE {
                bail!(
                    "the engine does not answer after {} s, see `{}`",
                    PATIENCE.as_secs(),
                    log_path.display()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(socket)
    }
}
