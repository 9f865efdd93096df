//! The engine's side of a start: spawns a shim and leads it through the order of `trust.md`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use dory_sys::fault_point;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::StartFailure;
use crate::protocol::{self, Launch, Progress};
use crate::spec::ContainerSpec;
use crate::stopped::{self, StoppedError, StoppedFiles, StoppedRoot};

/// Starts containers. Made once per engine.
#[derive(Debug)]
pub struct Launcher {
    /// This binary in a sealed memfd. Shim and init run from it, so that a container that gets hold of
    /// `/proc/<pid>/exe` of either can neither write the engine's binary nor replace it (CVE-2019-5736).
    executable: OwnedFd,
}

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    /// Its first process, as the engine numbers it.
    pub pid: i32,
    /// What the surroundings refused and nobody asked for by name.
    pub facts: Vec<String>,
    /// Carries [`protocol::Event`]s from here on; its end without an `Exited` event means that the shim was killed.
    pub monitor: UnixStream,
    /// The shim, a child of the caller's: to be waited for once `monitor` has ended.
    pub shim: Child,
}

/// A container does not run; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError<E> {
    /// The shim could not be spawned.
    #[error("cannot start a shim")]
    Spawn(#[source] io::Error),
    /// The shim went away in the middle.
    #[error("the shim went away during the start")]
    Lost(#[source] io::Error),
    /// The container's process did not start.
    #[error(transparent)]
    Failed(StartFailure),
    /// The network callback failed.
    #[error("cannot set up the network")]
    Network(E),
}

impl Launcher {
    /// Copies this process's own binary into a sealed memfd (memfd_create(2), `F_ADD_SEALS`).
    ///
    /// # Errors
    /// Those of reading `/proc/self/exe` and of the memfd.
    pub fn new() -> io::Result<Self> {
        let mut source = File::open("/proc/self/exe")?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(rustix::fs::memfd_create("dory", flags)?);
        io::copy(&mut source, &mut copy)?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&copy, seals)?;
        Ok(Self { executable: copy.into() })
    }

    /// Runs a container: spawns its shim, calls `network` with its new network namespace (not called where the
    /// namespace is shared), then `before_run`, and returns when the user's program has been executed. Blocks; a few
    /// milliseconds.
    ///
    /// `network` returns descriptors that the shim holds while the container lives. When `before_run` is called the
    /// shim already listens and the program has not begun: whoever attaches there misses no byte.
    ///
    /// # Errors
    /// As [`LaunchError`]; in every case no process, mount or namespace of the container remains.
    pub fn start<E>(
        &self,
        spec: ContainerSpec,
        network: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<OwnedFd>, E>,
        before_run: impl FnOnce(),
    ) -> Result<Started, LaunchError<E>> {
        let (connection, mut shim) =
            self.spawn(&[crate::shim::ROLE, spec.id.as_str()]).map_err(LaunchError::Spawn)?;
        fault_point!("start.shim-spawned");
        match lead(&connection, spec, network, before_run) {
            Ok((pid, facts)) => Ok(Started { pid, facts, monitor: connection, shim }),
            Err(error) => {
                // It ends by itself, in its own time, once the connection is closed.
                std::thread::spawn(move || shim.wait());
                Err(error)
            }
        }
    }

    /// The files of a container that does not run, its volumes and binds included. Blocks; a few milliseconds. The caller
    /// sees to it that the container is not started meanwhile: two overlays over one upper directory are undefined.
    ///
    /// # Errors
    /// [`StoppedError`]; nothing is mounted then.
    pub fn open_stopped(&self, files: &StoppedFiles) -> Result<StoppedRoot, StoppedError> {
        let (connection, mut helper) = self.spawn(&[stopped::ROLE]).map_err(StoppedError::Spawn)?;
        let answer = stopped::ask(&connection, files);
        drop(connection);
        helper.wait().map_err(StoppedError::Spawn)?;
        answer
    }

    /// Spawns a process of ours whose standard input is its end of a connection: so it needs no code between fork and
    /// exec, and the standard library takes posix_spawn(3), which copies no page tables of a large engine.
    fn spawn(&self, arguments: &[&str]) -> io::Result<(UnixStream, Child)> {
        let (ours, theirs) = UnixStream::pair()?;
        let executable = format!("/proc/self/fd/{}", self.executable.as_raw_fd());
        let mut command = Command::new(executable);
        command
            .arg0("dory-shim")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        dory_sys::fault::pass_on(&mut command);
        Ok((ours, command.spawn()?))
    }
}

/// Leads the shim at the other end of `connection` through the start: the pid of the container's process, and facts.
fn lead<E>(
    connection: &UnixStream,
    spec: ContainerSpec,
    network: impl FnOnce(BorrowedFd<'_>) -> Result<Vec<OwnedFd>, E>,
    before_run: impl FnOnce(),
) -> Result<(i32, Vec<String>), LaunchError<E>> {
    protocol::send(connection, &Launch::Prepare(Box::new(spec)), &[]).map_err(LaunchError::Lost)?;
    fault_point!("start.spec-sent");
    let (pid, namespace) = match protocol::receive(connection).map_err(LaunchError::Lost)? {
        (Progress::Namespaces { pid }, mut descriptors) => (pid, descriptors.pop()),
        (other, _) => return Err(early_end(other)),
    };
    let held = match namespace {
        Some(namespace) => network(namespace.as_fd()).map_err(LaunchError::Network)?,
        None => Vec::new(),
    };
    let held: Vec<BorrowedFd<'_>> = held.iter().map(AsFd::as_fd).collect();
    before_run();
    fault_point!("start.before-run");
    // A shim that failed meanwhile has said why: its word is better than our broken pipe.
    let sent = protocol::send(connection, &Launch::Run, &held);
    fault_point!("start.run-sent");
    match protocol::receive(connection).map_err(LaunchError::Lost)? {
        (Progress::Started { facts }, _) => {
            sent.map_err(LaunchError::Lost)?;
            Ok((pid, facts))
        }
        (other, _) => Err(early_end(other)),
    }
}

fn early_end<E>(progress: Progress) -> LaunchError<E> {
    match progress {
        Progress::Failed(failure) => LaunchError::Failed(failure),
        other => LaunchError::Lost(io::Error::other(format!("unexpected answer {other:?}"))),
    }
}
