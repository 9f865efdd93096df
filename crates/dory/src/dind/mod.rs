//! The roles of `docker:dind` and `docker`, for images that have this binary in place of Docker's programs
//! (`dory image build-dind`): what somebody types there, and what the images' entry points do.
//!
//! | called | does |
//! |---|---|
//! | `dockerd-entrypoint.sh [FLAG...]` | makes certificates unless `DOCKER_TLS_CERTDIR` is empty, then is `dockerd` |
//! | `dockerd-entrypoint.sh COMMAND` | runs the command, as the next one does |
//! | `docker-entrypoint.sh COMMAND` | says where the engine is, then runs a command of `docker`'s or any other |
//! | `dockerd [FLAG...]` | is `dory serve`, with Docker's places, flags and configuration file |
//! | `docker ...` | is the command line, whose engine is behind `/var/run/docker.sock` unless another is named |

mod certificates;
mod daemon;
mod entrypoint;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Where Docker's own engine listens.
pub const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";

/// What this program was called as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The command line.
    Docker,
    /// The engine.
    Dockerd,
    /// The entry point of `docker:dind`.
    EngineEntrypoint,
    /// The entry point of `docker`.
    ClientEntrypoint,
}

impl Role {
    /// The role that goes with the name of a program; none for our own.
    pub fn of(name: &OsStr) -> Option<Self> {
        match Path::new(name).file_name()?.to_str()? {
            "docker" => Some(Self::Docker),
            "dockerd" => Some(Self::Dockerd),
            "dockerd-entrypoint.sh" => Some(Self::EngineEntrypoint),
            "docker-entrypoint.sh" => Some(Self::ClientEntrypoint),
            _ => None,
        }
    }
}

/// Is dockerd.
pub fn dockerd(words: Vec<OsString>) -> ExitCode {
    done(daemon::serve(words))
}

/// Is the entry point of `docker:dind`.
pub fn engine_entrypoint(words: Vec<OsString>) -> ExitCode {
    done(entrypoint::engine(words))
}

/// Is the entry point of `docker`.
pub fn client_entrypoint(words: Vec<OsString>) -> ExitCode {
    done(entrypoint::client(words))
}

fn done(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_go_by_the_name_alone() {
        for (name, role) in [
            ("/usr/local/bin/docker", Some(Role::Docker)),
            ("dockerd", Some(Role::Dockerd)),
            ("dockerd-entrypoint.sh", Some(Role::EngineEntrypoint)),
            ("/usr/local/bin/docker-entrypoint.sh", Some(Role::ClientEntrypoint)),
            ("dory", None),
            ("/proc/self/exe", None),
            ("", None),
        ] {
            assert_eq!(Role::of(OsStr::new(name)), role, "{name}");
        }
    }
}
