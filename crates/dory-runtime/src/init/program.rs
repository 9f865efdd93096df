//! Finds the program inside the container and becomes it.

use std::ffi::CString;
use std::io;

use rustix::fs::{Access, AtFlags, CWD, FileType};

use crate::error::{FailureKind, StartFailure};

/// Where programs are looked up when the environment names no `PATH` (execvp(3) has no better idea either).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Environment of the new program: `HOME` is added where missing, duplicates keep their last value, as runc does.
pub fn environment(entries: &[String], home: &str) -> Vec<String> {
    let mut result: Vec<String> = Vec::with_capacity(entries.len() + 1);
    for entry in entries {
        let name = entry.split('=').next().unwrap_or_default();
        match result.iter_mut().find(|known| known.split('=').next() == Some(name)) {
            Some(known) => known.clone_from(entry),
            None => result.push(entry.clone()),
        }
    }
    match result.iter_mut().find(|entry| entry.starts_with("HOME=")) {
        Some(entry) if entry == "HOME=" => *entry = format!("HOME={home}"),
        Some(_) => {}
        None => result.push(format!("HOME={home}")),
    }
    result
}

/// The path of `program`, looked up as execvp(3) does in this process's own root.
pub fn find(program: &str, environment: &[String]) -> Result<String, StartFailure> {
    if program.is_empty() {
        return Err(not_found(program, "executable file not found in $PATH"));
    }
    if program.contains('/') {
        return check(program)
            .map(|()| program.to_owned())
            .map_err(|error| describe(program, &error, "stat"));
    }
    let path = environment.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut denied = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{program}");
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(denied.map_or_else(
        || not_found(program, "executable file not found in $PATH"),
        |error| describe(program, &error, "exec"),
    ))
}

/// An ordinary file that this process may execute.
fn check(path: &str) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::ISDIR.raw_os_error()));
    }
    // Effective ids: the process has changed to its user by now, its real ids too, but only EACCESS counts.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    Ok(())
}

/// Executes `path`; returns why it could not.
pub fn execute(path: &str, arguments: &[String], environment: &[String]) -> StartFailure {
    match (CString::new(path), c_strings(arguments), c_strings(environment)) {
        (Ok(file), Ok(arguments), Ok(environment)) => {
            let error = dory_sys::process::execve(&file, &arguments, &environment);
            describe(path, &error, "exec")
        }
        _ => StartFailure::new(FailureKind::Invalid, "a NUL byte in the arguments or the environment"),
    }
}

/// C strings of `texts`.
pub fn c_strings(texts: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    texts.iter().map(|text| CString::new(text.as_str())).collect()
}

fn not_found(program: &str, why: &str) -> StartFailure {
    StartFailure::new(FailureKind::NotFound, format!("exec: {program:?}: {why}"))
}

/// Docker's clients choose exit codes by these very words.
fn describe(program: &str, error: &io::Error, operation: &str) -> StartFailure {
    use rustix::io::Errno;
    let (kind, why) = match Errno::from_io_error(error) {
        Some(Errno::NOENT) => (FailureKind::NotFound, "no such file or directory"),
        Some(Errno::NOTDIR) => (FailureKind::NotExecutable, "not a directory"),
        Some(Errno::ISDIR) => (FailureKind::NotExecutable, "is a directory"),
        Some(Errno::ACCESS | Errno::PERM) => (FailureKind::NotExecutable, "permission denied"),
        Some(Errno::NOEXEC) => (FailureKind::NotExecutable, "exec format error"),
        _ => return StartFailure::refused(format!("exec: {program:?}"), error),
    };
    StartFailure::new(kind, format!("exec: {program:?}: {operation} {program}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_has_a_home_and_no_duplicates() {
        let given = ["A=1".to_owned(), "B=2".to_owned(), "A=3".to_owned()];
        assert_eq!(environment(&given, "/root"), ["A=3", "B=2", "HOME=/root"]);
        assert_eq!(environment(&["HOME=/x".to_owned()], "/root"), ["HOME=/x"]);
        assert_eq!(environment(&["HOME=".to_owned()], "/root"), ["HOME=/root"]);
    }

    #[test]
    fn finds_programs_and_says_what_is_missing() {
        let path = ["PATH=/nowhere:/bin:/usr/bin".to_owned()];
        assert_eq!(find("sh", &path).unwrap(), "/bin/sh");
        for (program, kind, text) in [
            ("nope", FailureKind::NotFound, "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", FailureKind::NotFound, "exec: \"/nope\": stat /nope: no such file or directory"),
            ("/etc", FailureKind::NotExecutable, "exec: \"/etc\": stat /etc: is a directory"),
            (
                "/etc/passwd",
                FailureKind::NotExecutable,
                "exec: \"/etc/passwd\": stat /etc/passwd: permission denied",
            ),
        ] {
            let failure = find(program, &path).unwrap_err();
            assert_eq!((failure.kind, failure.message.as_str()), (kind, text));
        }
    }
}
