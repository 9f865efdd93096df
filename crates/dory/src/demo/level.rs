//! One level: an engine of its own, an image, and a container with the next level in it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::image;
use super::report::{Kind, Report};

/// An emulated machine may take seconds for what takes milliseconds here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the volume that holds the inner engine's data: its layers may not lie on the container's own overlay.
const VOLUME: &str = "dory-demo";

/// A running engine and its files.
pub struct Level {
    number: u32,
    directory: PathBuf,
    engine: Child,
    report: Report,
}

impl Level {
    /// Starts an engine on a private socket.
    ///
    /// # Errors
    /// With the engine's own words where it does not start.
    pub fn start(number: u32) -> Result<Self> {
        let directory = if number == 1 {
            std::env::temp_dir().join(format!("dory-demo-{}", std::process::id()))
        } else {
            PathBuf::from("/run/dory-demo")
        };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make `{}`", directory.display()))?;
        let data_root = if number == 1 { directory.join("data") } else { PathBuf::from("/var/lib/dory") };
        let begin = Instant::now();
        let mut engine = Command::new("/proc/self/exe")
            .args(["serve", "--ephemeral", "--log-level", "warn"])
            .args(["--bridge", if number == 1 { "dory-demo0" } else { "dory0" }])
            .args(["--cgroup-parent", if number == 1 { "dory-demo" } else { "dory" }])
            .arg("--host")
            .arg(address(&directory))
            .arg("--data-root")
            .arg(data_root)
            .arg("--exec-root")
            .arg(directory.join("exec"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start an engine")?;
        await_engine(&mut engine, &directory.join("dory.sock"), begin)?;
        let start_ms = begin.elapsed().as_secs_f64() * 1000.0;
        let tier = tier(&directory).unwrap_or_else(|| "unknown".to_owned());
        let report = Report::new(number, Kind::Engine { tier, pid: engine.id(), start_ms })?;
        Ok(Self { number, directory, engine, report })
    }

    /// This level's report.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Runs the next level in a container, handing its reports and those from deeper inside to `show`.
    ///
    /// # Errors
    /// With the words of whichever level failed.
    pub fn nest(&mut self, depth: u32, mut show: impl FnMut(&Report)) -> Result<()> {
        self.import().with_context(|| format!("level {}: cannot import the image", self.number))?;
        let next = self.number + 1;
        let begin = Instant::now();
        let mut run = self.docker(&["run", "--rm", "--interactive", "--privileged", "--name"]);
        run.arg(format!("level-{next}"));
        run.arg("--volume").arg(format!("{VOLUME}:/var/lib/dory"));
        run.args([image::NAME, "/dory", "demo", "--depth"]).arg(depth.to_string());
        run.arg("--level").arg(next.to_string());
        // The innermost process waits for the end of this: until it has been looked at from the outside.
        run.stdin(if self.number == 1 { Stdio::piped() } else { Stdio::inherit() });
        let mut run =
            run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run a container")?;
        let mut input = run.stdin.take();
        let output = run.stdout.take().context("no output")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            let Ok(mut report) = serde_json::from_str::<Report>(&line) else {
                eprintln!("level {next}: {line}");
                continue;
            };
            if report.level == next {
                report.container_start_ms = Some(begin.elapsed().as_secs_f64() * 1000.0);
            }
            show(&report);
            if report.level == depth {
                drop(input.take());
            }
        }
        let mut said = String::new();
        run.stderr.take().context("no errors")?.read_to_string(&mut said)?;
        let status = run.wait()?;
        if !status.success() {
            let said = said.trim();
            bail!("level {next}: {}", said.strip_prefix("error: ").unwrap_or(said));
        }
        Ok(())
    }

    /// Ends the engine and removes everything that this level made.
    ///
    /// # Errors
    /// Files that cannot be removed.
    pub fn end(mut self) -> Result<()> {
        let _not_there = self.docker(&["volume", "rm", "--force", VOLUME]).output();
        let pid = rustix::process::Pid::from_child(&self.engine);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot end the engine")?;
        self.engine.wait()?;
        std::fs::remove_dir_all(&self.directory)
            .with_context(|| format!("cannot remove `{}`", self.directory.display()))
    }

    fn import(&self) -> Result<()> {
        let mut import = self.docker(&["import", "-", image::NAME]);
        let mut import = import.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let input = import.stdin.take().context("no input")?;
        let written = image::write_archive(input);
        let output = import.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        written.context("cannot write the archive")
    }

    /// The command line of this very binary, talking to this level's engine.
    fn docker(&self, words: &[&str]) -> Command {
        client(&self.directory, words)
    }
}

fn client(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--host").arg(address(directory)).args(words).stdin(Stdio::null());
    command
}

fn address(directory: &Path) -> String {
    format!("unix://{}", directory.join("dory.sock").display())
}

fn await_engine(engine: &mut Child, socket: &Path, begin: Instant) -> Result<()> {
    while UnixStream::connect(socket).is_err() {
        if engine.try_wait()?.is_some() {
            let mut said = String::new();
            engine.stderr.take().context("no errors")?.read_to_string(&mut said)?;
            bail!("the engine ended at once: {}", said.trim().trim_start_matches("error: "));
        }
        if begin.elapsed() > PATIENCE {
            bail!("the engine does not answer after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The tier that the engine names in its `/info`.
fn tier(directory: &Path) -> Option<String> {
    let output = client(directory, &["info", "--format", "{{json .}}"]).output().ok()?;
    let info: Value = serde_json::from_slice(&output.stdout).ok()?;
    let options = info["SecurityOptions"].as_array()?;
    options.iter().find_map(|option| option.as_str()?.strip_prefix("name=tier ").map(str::to_owned))
}
