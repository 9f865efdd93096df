//! Starting the probe child from the engine, which has threads.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::facilities::Facilities;
use crate::role::{FULL, PROBE_ROLE, QUICK};

/// How long the whole probe may take; its trials give up earlier by themselves.
const PATIENCE: Duration = Duration::from_secs(120);

/// The probe did not end in an answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child cannot be started.
    #[error("starting the probe failed")]
    Spawn(#[source] io::Error),
    /// Its answer cannot be read.
    #[error("reading the probe's answer failed")]
    Read(#[source] io::Error),
    /// It took too long and was killed.
    #[error("the probe did not end within `{0}` s")]
    Timeout(u64),
    /// It answered something else.
    #[error("the probe's answer is not understood")]
    Decode(#[source] serde_json::Error),
}

/// What the engine must know to start: everything direct, and the user namespace only where that decides the tier.
/// `data_root` should exist. Blocks for some milliseconds.
///
/// # Errors
/// [`ProbeError`] where there was no answer; refusals are no errors.
pub fn quick(data_root: &Path) -> Result<Facilities, ProbeError> {
    launch(QUICK, data_root)
}

/// Everything, as `dory info` shows it. Blocks about twice as long as [`quick`].
///
/// # Errors
/// As [`quick`].
pub fn full(data_root: &Path) -> Result<Facilities, ProbeError> {
    launch(FULL, data_root)
}

fn launch(depth: &str, data_root: &Path) -> Result<Facilities, ProbeError> {
    let mut child = Command::new("/proc/self/exe")
        .args([PROBE_ROLE, depth])
        .arg(data_root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ProbeError::Spawn)?;
    let answer = read_answer(&mut child);
    if answer.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    serde_json::from_slice(&answer?).map_err(ProbeError::Decode)
}

fn read_answer(child: &mut Child) -> Result<Vec<u8>, ProbeError> {
    let start = Instant::now();
    let mut pipe = child.stdout.take().expect("standard output was asked for as a pipe");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(ProbeError::Timeout(PATIENCE.as_secs())),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(ProbeError::Read(error.into())),
        }
        match pipe.read(&mut buffer).map_err(ProbeError::Read)? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
}
