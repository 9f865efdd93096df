//! Rules about devices.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Which kind of device node a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Both.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `open` for reading.
    pub read: bool,
    /// `open` for writing.
    pub write: bool,
    /// Making the node.
    pub mknod: bool,
}

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };
    /// Making the node, but not opening it.
    pub const MKNOD: Self = Self { read: false, write: false, mknod: true };

    /// Reads Docker's `rwm` letters; `None` for any other letter and for none at all.
    pub fn parse(letters: &str) -> Option<Self> {
        let known = letters.bytes().all(|letter| b"rwm".contains(&letter));
        (known && !letters.is_empty()).then(|| Self {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        })
    }

    fn letters(self) -> String {
        [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')]
            .into_iter()
            .filter_map(|(granted, letter)| granted.then_some(letter))
            .collect()
    }
}

/// Allows or denies access to devices (OCI runtime-spec config-linux.md "Allowed Device list").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// What the rule allows or denies.
    pub access: Access,
}

impl DeviceRule {
    /// Allows `access` to one device, or to those that `None` stands for.
    pub const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    /// Docker's list for an ordinary container: any node may be made, and the harmless ones opened.
    pub fn docker_defaults() -> Vec<Self> {
        let open = |major, minor| Self::allow(DeviceKind::Char, Some(major), minor, Access::ALL);
        vec![
            Self::allow(DeviceKind::Char, None, None, Access::MKNOD),
            Self::allow(DeviceKind::Block, None, None, Access::MKNOD),
            // null, zero, full, random, urandom
            open(1, Some(3)),
            open(1, Some(5)),
            open(1, Some(7)),
            open(1, Some(8)),
            open(1, Some(9)),
            // tty, console, ptmx and the pseudo-terminals
            open(5, Some(0)),
            open(5, Some(1)),
            open(5, Some(2)),
            open(136, None),
        ]
    }

    /// Everything, for a container with Docker's meaning of `--privileged`.
    pub fn everything() -> Vec<Self> {
        vec![Self::allow(DeviceKind::All, None, None, Access::ALL)]
    }

    /// The line that v1's `devices.allow` and `devices.deny` take.
    pub(crate) fn v1_line(&self) -> String {
        let mut line = match self.kind {
            DeviceKind::All => "a",
            DeviceKind::Char => "c",
            DeviceKind::Block => "b",
        }
        .to_owned();
        for (separator, number) in [(' ', self.major), (':', self.minor)] {
            line.push(separator);
            match number {
                Some(number) => write!(line, "{number}").expect("a string takes everything"),
                None => line.push('*'),
            }
        }
        line.push(' ');
        line.push_str(&self.access.letters());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_v1_lines() {
        let lines: Vec<String> = DeviceRule::docker_defaults().iter().map(DeviceRule::v1_line).collect();
        assert_eq!(lines[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(DeviceRule::everything()[0].v1_line(), "a *:* rwm");
    }

    #[test]
    fn parses_access() {
        assert_eq!(Access::parse("mr"), Some(Access { read: true, write: false, mknod: true }));
        for wrong in ["", "x", "rwx"] {
            assert_eq!(Access::parse(wrong), None, "{wrong}");
        }
    }
}
