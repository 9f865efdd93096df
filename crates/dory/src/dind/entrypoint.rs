//! The entry points, as the scripts of the same names in Docker's images behave.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::{DOCKER_SOCKET, certificates, daemon};

/// Where certificates are, and whether they are wanted at all: the images set it to `/certs`, an empty one means no TLS.
const CERTIFICATES: &str = "DOCKER_TLS_CERTDIR";

/// The engine, where there are no words but flags; else the words are a command.
pub fn engine(mut words: Vec<OsString>) -> Result<ExitCode> {
    if !words.first().is_none_or(is_flag) {
        return match words.first().is_some_and(|word| word == "dockerd") {
            true => daemon::serve(words.split_off(1)),
            false => client(words),
        };
    }
    let directory = named(CERTIFICATES).map(PathBuf::from);
    if let Some(directory) = &directory {
        certificates::make(directory, &certificates::Names::of_this_container())
            .with_context(|| format!("cannot make certificates in `{}`", directory.display()))?;
    }
    let host = named("DOCKER_HOST").filter(|host| host.as_bytes().starts_with(b"unix://"));
    let mut arguments = engine_arguments(host.unwrap_or_else(|| DOCKER_SOCKET.into()), directory.as_deref());
    arguments.extend(words);
    daemon::serve(arguments)
}

/// Where an engine listens for which nothing else was said: a unix socket, and TCP with TLS or without.
fn engine_arguments(socket: OsString, certificates: Option<&Path>) -> Vec<OsString> {
    let mut arguments = vec!["--host".into(), socket];
    let Some(directory) = certificates else {
        arguments.extend(["--host".into(), "tcp://0.0.0.0:2375".into()]);
        return arguments;
    };
    arguments.extend(["--host".into(), "tcp://0.0.0.0:2376".into(), "--tlsverify".into()]);
    for (flag, file) in [("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem")] {
        arguments.extend([flag.into(), directory.join("server").join(file).into_os_string()]);
    }
    arguments
}

/// Runs a command, with the engine's place in its environment.
pub fn client(words: Vec<OsString>) -> Result<ExitCode> {
    let mut words = words.into_iter().peekable();
    let docker = match words.peek() {
        None => true,
        Some(word) => is_flag(word) || word.to_str().is_some_and(dory_cli::is_command),
    };
    let program = if docker { "docker".into() } else { words.next().unwrap_or_default() };
    let mut command = Command::new(&program);
    command.args(words);
    let secured = named(CERTIFICATES).map(|directory| Path::new(&directory).join("client"));
    let secured = secured.filter(|directory| {
        ["ca.pem", "cert.pem", "key.pem"].iter().all(|file| has_content(&directory.join(file)))
    });
    let host = named("DOCKER_HOST").unwrap_or_else(|| {
        let socket = DOCKER_SOCKET.trim_start_matches("unix://");
        let default = match std::fs::metadata(socket).is_ok_and(|file| file.file_type().is_socket()) {
            true => DOCKER_SOCKET,
            false if secured.is_some() || named("DOCKER_TLS_VERIFY").is_some() => "tcp://docker:2376",
            false => "tcp://docker:2375",
        };
        default.into()
    });
    if let Some(directory) = secured
        && host.as_bytes().starts_with(b"tcp:")
        && named("DOCKER_TLS_VERIFY").is_none()
        && named("DOCKER_CERT_PATH").is_none()
    {
        command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", directory);
    }
    command.env("DOCKER_HOST", host);
    Err(command.exec()).with_context(|| format!("cannot run `{}`", program.to_string_lossy()))
}

fn is_flag(word: &OsString) -> bool {
    word.as_bytes().starts_with(b"-")
}

/// A variable of the environment that says something.
fn named(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_listens_where_dockers_does() {
        let text = |certificates| {
            let arguments = engine_arguments("unix:///s".into(), certificates);
            arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(None), "--host unix:///s --host tcp://0.0.0.0:2375");
        assert_eq!(
            text(Some(Path::new("/certs"))),
            "--host unix:///s --host tcp://0.0.0.0:2376 --tlsverify --tlscacert /certs/server/ca.pem --tlscert \
             /certs/server/cert.pem --tlskey /certs/server/key.pem"
        );
    }
}
