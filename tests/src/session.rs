//! One bash per case: the steps of a transcript are typed into it one after the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// What a step left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status as the shell saw it (128 + signal number for a signal).
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A shell that takes commands until it is dropped; what it started in the background dies with it.
#[derive(Debug)]
pub struct Session {
    shell: Child,
    stdin: ChildStdin,
    statuses: Receiver<i32>,
    folder: PathBuf,
    steps: usize,
}

impl Session {
    /// Starts bash with `environment` in the new directory `folder`, and reads `prelude` into it.
    ///
    /// # Errors
    /// The directory or the shell cannot be made.
    pub fn start(folder: &Path, prelude: &Path, environment: &[(String, String)]) -> Result<Self> {
        let cwd = folder.join("cwd");
        std::fs::create_dir_all(&cwd).with_context(|| format!("cannot make `{}`", cwd.display()))?;
        let mut shell = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(&cwd)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start `bash`")?;
        let stdin = shell.stdin.take().context("bash has no standard input")?;
        let stdout = shell.stdout.take().context("bash has no standard output")?;
        let (sender, statuses) = channel();
        // Only statuses come this way: each step has files for its own output.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(status) = line.strip_prefix("@@ ").and_then(|text| text.parse().ok())
                    && sender.send(status).is_err()
                {
                    return;
                }
            }
        });
        let mut session = Self { shell, stdin, statuses, folder: folder.to_owned(), steps: 0 };
        writeln!(session.stdin, ". '{}' </dev/null >/dev/null", prelude.display())?;
        Ok(session)
    }

    /// Types `command`, and waits for it no longer than `deadline`.
    ///
    /// # Errors
    /// The time is up, or the shell has gone.
    pub fn run(&mut self, command: &str, deadline: Instant) -> Result<Output> {
        let base = self.folder.join(self.steps.to_string());
        self.steps += 1;
        let file = |extension| base.with_extension(extension);
        std::fs::write(file("sh"), format!("{command}\n"))?;
        let path = |extension| file(extension).display().to_string();
        writeln!(
            self.stdin,
            "{{ . '{}'; }} </dev/null >'{}' 2>'{}'; echo \"@@ $?\"",
            path("sh"),
            path("out"),
            path("err")
        )?;
        self.stdin.flush()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let status = self.statuses.recv_timeout(left);
        let read = |extension| {
            std::fs::read(file(extension)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let (stdout, stderr) = (read("out").unwrap_or_default(), read("err").unwrap_or_default());
        match status {
            Ok(status) => Ok(Output { status, stdout, stderr }),
            Err(RecvTimeoutError::Timeout) => {
                bail!("time is up; standard output so far:\n{stdout}\nstandard error so far:\n{stderr}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the step ended its shell: {stderr}"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.shell.id()).ok().and_then(Pid::from_raw) {
            // The group may be gone already, which is what this wants.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.shell.wait();
    }
}
