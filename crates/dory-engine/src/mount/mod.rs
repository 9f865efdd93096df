//! A container's mounts: from the request's texts to points that a record keeps.

mod bind;
mod options;
mod socket;

use dory_runtime::spec::Propagation;
use serde::{Deserialize, Serialize};

pub(crate) use bind::parse_bind;
pub(crate) use options::{from_mount, parse_volumes_from};
pub(crate) use socket::{SocketMeaning, check_socket, covers, socket_meaning};

use crate::container::MountPoint;

/// What is mounted at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PointKind {
    /// A path of the host's.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
}

impl PointKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// One mount of one container, resolved at creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) kind: PointKind,
    /// Absolute, cleaned path in the container.
    pub(crate) destination: String,
    /// Host path of a bind, or of the volume's data.
    pub(crate) source: String,
    /// Name of the volume; empty until an anonymous one has been made.
    pub(crate) volume: String,
    /// Made for this container alone: `--rm` and `rm -v` remove it.
    pub(crate) anonymous: bool,
    /// As the request gave it, for inspect.
    pub(crate) mode: String,
    pub(crate) writable: bool,
    /// Docker's word for a bind's propagation.
    pub(crate) propagation: String,
    /// Take the mounts below a bind's source along.
    pub(crate) recursive: bool,
    /// Read-only for the mounts below too.
    pub(crate) recursive_readonly: bool,
    /// Fill an empty volume from the image.
    pub(crate) copy: bool,
    /// Make a missing source directory.
    pub(crate) create_source: bool,
    /// A directory in the volume.
    pub(crate) subpath: String,
    /// Options of a tmpfs.
    pub(crate) tmpfs: String,
    /// A socket of ours, which a start puts in the place of the engine's: mounted with its ids as they are.
    #[serde(skip)]
    pub(crate) socket: bool,
    /// Labels and options of a volume that has to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume_labels: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) volume_options: Option<std::collections::BTreeMap<String, String>>,
}

impl Point {
    pub(crate) fn new(kind: PointKind, destination: impl Into<String>) -> Self {
        Self {
            kind,
            destination: destination.into(),
            source: String::new(),
            volume: String::new(),
            anonymous: false,
            mode: String::new(),
            writable: true,
            propagation: String::new(),
            recursive: true,
            recursive_readonly: false,
            copy: kind == PointKind::Volume,
            create_source: false,
            subpath: String::new(),
            tmpfs: String::new(),
            socket: false,
            volume_labels: None,
            volume_options: None,
        }
    }

    /// An anonymous volume at `destination`.
    pub(crate) fn anonymous(destination: &str) -> Self {
        Self { anonymous: true, ..Self::new(PointKind::Volume, destination) }
    }

    /// What inspect shows.
    pub(crate) fn summary(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.as_str().to_owned(),
            name: self.volume.clone(),
            source: match self.subpath.as_str() {
                "" => self.source.clone(),
                subpath => format!("{}{}", self.source, clean(subpath)),
            },
            destination: self.destination.clone(),
            driver: if self.kind == PointKind::Volume { "local".to_owned() } else { String::new() },
            mode: self.mode.clone(),
            rw: self.writable,
            propagation: self.propagation.clone(),
        }
    }

    /// What the list of containers shows: as inspect, but without the path of an anonymous volume, as dockerd has it.
    pub(crate) fn listed(&self) -> MountPoint {
        let summary = self.summary();
        if self.anonymous { MountPoint { source: String::new(), ..summary } } else { summary }
    }

    /// The runtime's word for the propagation.
    pub(crate) fn runtime_propagation(&self) -> Propagation {
        match self.propagation.as_str() {
            "private" => Propagation::Private,
            "shared" => Propagation::Shared,
            "rshared" => Propagation::RecursiveShared,
            "slave" => Propagation::Slave,
            "rslave" => Propagation::RecursiveSlave,
            _ => Propagation::RecursivePrivate,
        }
    }
}

/// True for Docker's propagation words.
fn is_propagation(word: &str) -> bool {
    matches!(word, "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave")
}

/// `path` without empty and `.` components, and with `..` resolved by the text alone, as Go's `path.Clean` does for
/// absolute paths.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, cleaned) in [("/a//b/./c/../d/", "/a/b/d"), ("/", "/"), ("/../..", "/"), ("a", "/a")] {
            assert_eq!(clean(path), cleaned);
        }
    }
}
