//! The verbs of images.

mod archive;
mod build_dind;
mod copy;
mod history;
mod list;
mod manage;
mod progress;
mod pull;
mod push;

use crate::command::{Entry, entry};

pub(super) use archive::{IMPORT, Input, LOAD, SAVE, write_body};
pub(super) use history::HISTORY;
pub(super) use list::{ImageSummary, LIST, TITLES};
use manage::PRUNE;
pub(super) use manage::{REMOVE, Removed, TAG};
pub(super) use progress::Progress;
pub(super) use pull::{PULL, pull};
pub(super) use push::PUSH;

/// `dory image ...`.
pub(super) const COMMANDS: &[Entry] = &[
    entry(&["build-dind"], &build_dind::BUILD_DIND),
    entry(&["copy"], &copy::COPY),
    entry(&["history"], &HISTORY),
    entry(&["import"], &IMPORT),
    entry(&["inspect"], &super::inspect::INSPECT_IMAGE),
    entry(&["load"], &LOAD),
    entry(&["ls", "list"], &LIST),
    entry(&["prune"], &PRUNE),
    entry(&["pull"], &PULL),
    entry(&["push"], &PUSH),
    entry(&["rm", "remove"], &REMOVE),
    entry(&["save"], &SAVE),
    entry(&["tag"], &TAG),
];

/// A reference's name and its tag or digest, the latter empty where there is none.
pub(super) fn split_reference(reference: &str) -> (&str, &str) {
    if let Some((name, digest)) = reference.split_once('@') {
        return (name, digest);
    }
    // A colon before the last slash belongs to the registry's port.
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (reference, ""),
    }
}

/// The reference with the tag that Docker means where there is none.
pub(super) fn with_tag(reference: &str) -> String {
    match split_reference(reference) {
        (name, "") => format!("{name}:latest"),
        _ => reference.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_references() {
        for (reference, name, tag) in [
            ("busybox", "busybox", ""),
            ("host:5000/a/b", "host:5000/a/b", ""),
            ("host:5000/a/b:1", "host:5000/a/b", "1"),
            ("a@sha256:ab", "a", "sha256:ab"),
        ] {
            assert_eq!(split_reference(reference), (name, tag));
        }
        assert_eq!(with_tag("host:5000/a"), "host:5000/a:latest");
    }
}
