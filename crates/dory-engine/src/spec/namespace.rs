//! Which namespaces a container makes, joins or shares.

use crate::EngineError;
use crate::config::HostConfig;

/// A namespace mode of `HostConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A new one.
    Private,
    /// The engine's.
    Host,
    /// Another container's, by name or id.
    Container(String),
    /// Docker's `none`: for the network a namespace with loopback alone, for ipc one without /dev/shm.
    None,
    /// For ipc: a new one that others may join.
    Shareable,
    /// For the network: one of a user's own making. The start fails, as dockerd's does for a network that is gone.
    Named(String),
}

impl Mode {
    pub(crate) fn container(&self) -> Option<&str> {
        match self {
            Self::Container(reference) => Some(reference),
            _ => None,
        }
    }
}

/// The modes of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) network: Mode,
    pub(crate) pid: Mode,
    pub(crate) ipc: Mode,
    pub(crate) uts: Mode,
    pub(crate) cgroup: Mode,
    /// `--userns=host`.
    pub(crate) user_host: bool,
}

impl Modes {
    /// Reads the modes, with dockerd's messages for wrong ones.
    pub(crate) fn parse(host: &HostConfig) -> Result<Self, EngineError> {
        let modes = Self {
            network: network(&host.network_mode)?,
            pid: joined(&host.pid_mode, "PID mode", false)?,
            ipc: ipc(&host.ipc_mode)?,
            uts: joined(&host.uts_mode, "UTS mode", false)?,
            cgroup: match host.cgroupns_mode.as_str() {
                "" | "private" => Mode::Private,
                "host" => Mode::Host,
                other => return Err(EngineError::invalid(format!("invalid cgroup namespace mode: {other}"))),
            },
            user_host: match host.userns_mode.as_str() {
                "" => false,
                "host" => true,
                other => return Err(EngineError::invalid(format!("invalid userns mode: {other}"))),
            },
        };
        if modes.uts.container().is_some() {
            return Err(EngineError::invalid(format!("invalid UTS mode: {}", host.uts_mode)));
        }
        Ok(modes)
    }
}

fn network(mode: &str) -> Result<Mode, EngineError> {
    match mode {
        "" | "default" | "bridge" => Ok(Mode::Private),
        "host" => Ok(Mode::Host),
        "none" => Ok(Mode::None),
        _ => match mode.strip_prefix("container:") {
            Some("") => Err(EngineError::invalid("invalid container format container:<name|id>")),
            Some(reference) => Ok(Mode::Container(reference.to_owned())),
            None => Ok(Mode::Named(mode.to_owned())),
        },
    }
}

fn ipc(mode: &str) -> Result<Mode, EngineError> {
    match mode {
        "none" => Ok(Mode::None),
        "shareable" => Ok(Mode::Shareable),
        _ => joined(mode, "IPC mode", true),
    }
}

fn joined(mode: &str, what: &str, private: bool) -> Result<Mode, EngineError> {
    match mode {
        "" => Ok(Mode::Private),
        "private" if private => Ok(Mode::Private),
        "host" => Ok(Mode::Host),
        _ => match mode.strip_prefix("container:") {
            Some(reference) if !reference.is_empty() => Ok(Mode::Container(reference.to_owned())),
            _ => Err(EngineError::invalid(format!("invalid {what}: {mode}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_modes() {
        let host = HostConfig {
            network_mode: "container:web".into(),
            pid_mode: "host".into(),
            ipc_mode: "shareable".into(),
            ..HostConfig::default()
        };
        let modes = Modes::parse(&host).unwrap();
        assert_eq!(modes.network.container(), Some("web"));
        assert_eq!((modes.pid, modes.ipc, modes.uts), (Mode::Host, Mode::Shareable, Mode::Private));
    }

    #[test]
    fn refuses_unknown_modes() {
        let cases = [
            (HostConfig { pid_mode: "private".into(), ..HostConfig::default() }, "invalid PID mode: private"),
            (
                HostConfig { ipc_mode: "container:".into(), ..HostConfig::default() },
                "invalid IPC mode: container:",
            ),
            (
                HostConfig { uts_mode: "container:a".into(), ..HostConfig::default() },
                "invalid UTS mode: container:a",
            ),
            (HostConfig { userns_mode: "x".into(), ..HostConfig::default() }, "invalid userns mode: x"),
        ];
        for (host, message) in cases {
            assert_eq!(Modes::parse(&host).unwrap_err().message(), message);
        }
    }
}
