//! The last steps before a program runs, shared by init and exec.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use dory_sys::fault_point;
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::process::DumpableBehavior;

use crate::error::{FailureKind, StartFailure};
use crate::spec::{ContainerSpec, ExecSpec, Process};

use super::root::Root;
use super::{check_working_directory, die_with, own_root, privilege, program, user};

/// What becomes standard input, output and error.
#[derive(Debug)]
pub enum Streams {
    /// Three descriptors.
    Pipes {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal for all three.
    Terminal(OwnedFd),
    /// A terminal that is yet to be opened inside the container.
    TerminalToCome,
}

/// AppArmor's attribute file of this process (`/proc/self/attr`, apparmor(7)), if a profile is to be entered.
pub fn open_apparmor_attribute(process: &Process) -> Result<Option<File>, StartFailure> {
    if process.apparmor.is_none() {
        return Ok(None);
    }
    let open = |path| File::options().write(true).open(path);
    open("/proc/thread-self/attr/apparmor/exec")
        .or_else(|_| open("/proc/thread-self/attr/exec"))
        .map(Some)
        .map_err(|error| StartFailure::refused("cannot reach AppArmor", error))
}

/// Makes the working directory where it is missing, as Docker does for a container's own process.
pub fn make_working_directory(root: Root<'_>, path: &str) -> Result<(), StartFailure> {
    root.ensure_directory(path).map(drop).map_err(|error| working_directory_failure(path, &error))
}

/// The container's own process.
pub fn execute_init(
    spec: &ContainerSpec,
    streams: Streams,
    attribute: Option<&File>,
    reaper: Option<OwnedFd>,
    shim: &OwnedFd,
) -> StartFailure {
    let Err(failure) = execute(&spec.process, streams, attribute, reaper, shim);
    failure
}

/// One more process of a running container, already inside its namespaces.
pub fn enter(spec: &ExecSpec, streams: Streams, attribute: Option<&File>, shim: &OwnedFd) -> StartFailure {
    let Err(failure) = execute(&spec.process, streams, attribute, None, shim);
    failure
}

fn execute(
    process: &Process,
    streams: Streams,
    attribute: Option<&File>,
    reaper: Option<OwnedFd>,
    shim: &OwnedFd,
) -> Result<Infallible, StartFailure> {
    let refused = |what: &'static str| move |error: io::Error| StartFailure::refused(what, error);
    let root = own_root().map_err(refused("cannot open `/`"))?;
    let identity = user::resolve(Root::new(root.as_fd()), &process.user, &process.additional_groups)?;
    // A session of its own, and with a terminal that terminal as the controlling one: job control needs both.
    rustix::process::setsid().map_err(|error| StartFailure::refused("cannot make a session", error))?;
    install_streams(streams, &identity).map_err(refused("cannot set up the standard streams"))?;
    rustix::process::chdir(process.cwd.as_str())
        .map_err(|error| working_directory_failure(&process.cwd, &error.into()))?;
    check_working_directory().map_err(refused("working directory"))?;
    privilege::set_rlimits(&process.rlimits)?;
    let environment = program::environment(&process.env, &identity.home);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    privilege::confine(process, &identity)?;
    // Only now: changing ids clears it. The shim's death is the container's (trust.md, "What must outlive the engine").
    die_with(shim)?;
    let first = process.args.first().map(String::as_str).unwrap_or_default();
    let path = program::find(first, &environment)?;
    if let (Some(attribute), Some(profile)) = (attribute, &process.apparmor) {
        privilege::set_apparmor_profile(attribute, profile)?;
    }
    fault_point!("init.before-execution");
    dory_sys::process::reset_signals();
    // Whatever descriptor somebody forgot: none may reach the program (CVE-2024-21626).
    dory_sys::process::close_on_exec_from(3).map_err(refused("cannot close descriptors"))?;
    if let Some(reaper) = reaper {
        return Err(execute_reaper(&reaper, &process.args, &environment));
    }
    Err(program::execute(&path, &process.args, &environment))
}

/// `--init`: the reaper is this binary, from the shim's sealed memfd, under the name that Docker's has.
fn execute_reaper(reaper: &OwnedFd, arguments: &[String], environment: &[String]) -> StartFailure {
    let mut all = vec![crate::reaper::NAME.to_owned(), "--".to_owned()];
    all.extend_from_slice(arguments);
    match (program::c_strings(&all), program::c_strings(environment)) {
        (Ok(arguments), Ok(environment)) => {
            let error = dory_sys::process::execute_descriptor(reaper.as_fd(), &arguments, &environment);
            StartFailure::refused("cannot execute the reaper", error)
        }
        _ => StartFailure::new(FailureKind::Invalid, "a NUL byte in the arguments or the environment"),
    }
}

/// Puts the streams at 0, 1 and 2, owned by the process's user: programs reopen them through `/dev/stdout`.
fn install_streams(streams: Streams, identity: &user::Identity) -> io::Result<()> {
    let owner = |stream: &OwnedFd| {
        // Never a device: `/dev/null` is the engine's own.
        let is_pipe = rustix::fs::fstat(stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // A pipe that cannot be given away (an unmapped owner) works all the same, only `/dev/stdout` does not.
            let _unmapped = rustix::fs::fchown(stream, Some(Uid::from_raw(identity.uid)), None);
        }
    };
    match streams {
        Streams::Pipes { stdin, stdout, stderr } => {
            for stream in [&stdin, &stdout, &stderr] {
                owner(stream);
            }
            rustix::stdio::dup2_stdin(&stdin)?;
            rustix::stdio::dup2_stdout(&stdout)?;
            rustix::stdio::dup2_stderr(&stderr)?;
        }
        Streams::Terminal(slave) => {
            rustix::fs::fchown(&slave, Some(Uid::from_raw(identity.uid)), None)?;
            install_terminal(&slave)?;
        }
        Streams::TerminalToCome => return Err(io::Error::other("no terminal was opened")),
    }
    Ok(())
}

fn install_terminal(slave: &OwnedFd) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(slave)?;
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    rustix::stdio::dup2_stderr(slave)?;
    Ok(())
}

/// `/dev/null` for a stream that leads nowhere.
pub fn null_device() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Hides this process from those it is about to live among, until execve makes it theirs (CVE-2016-9962, -2019-5736).
pub fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn working_directory_failure(path: &str, error: &io::Error) -> StartFailure {
    use rustix::io::Errno;
    let (kind, why) = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => (FailureKind::NotFound, "no such file or directory".to_owned()),
        Some(Errno::NOTDIR) => (FailureKind::NotExecutable, "not a directory".to_owned()),
        Some(Errno::ACCESS) => (FailureKind::NotExecutable, "permission denied".to_owned()),
        _ => (FailureKind::Refused, error.to_string()),
    };
    StartFailure::new(kind, format!("chdir to cwd (\"{path}\") set in config.json failed: {why}"))
}
