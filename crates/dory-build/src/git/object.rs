//! Objects of git, by the digests of their content.

use std::fmt;
use std::str::FromStr;

use sha1::{Digest as _, Sha1};

/// The name of an object: SHA-1 of its kind, length and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ObjectId(pub(super) [u8; 20]);

impl ObjectId {
    /// The id of an object with this content.
    pub(super) fn of(kind: Kind, content: &[u8]) -> Self {
        let mut hasher = Sha1::new();
        hasher.update(format!("{} {}\0", kind.as_str(), content.len()));
        hasher.update(content);
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Not 40 hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoObjectId;

impl FromStr for ObjectId {
    type Err = NoObjectId;

    fn from_str(text: &str) -> Result<Self, NoObjectId> {
        if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoObjectId);
        }
        let mut id = [0; 20];
        for (byte, at) in id.iter_mut().zip((0..40).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NoObjectId)?;
        }
        Ok(Self(id))
    }
}

/// What an object is (gitformat-pack(5), "Object types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// An entry of a tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Kind and permissions, as in stat(2), but with few values.
    pub(super) mode: u32,
    pub(super) name: &'a [u8],
    pub(super) id: ObjectId,
}

/// Reads a tree: `MODE SP NAME NUL ID`, over and over.
pub(super) fn entries(mut tree: &[u8]) -> Result<Vec<Entry<'_>>, &'static str> {
    let mut entries = Vec::new();
    while !tree.is_empty() {
        let space = tree.iter().position(|byte| *byte == b' ').ok_or("a tree's entry has no name")?;
        let mode =
            std::str::from_utf8(&tree[..space]).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        let rest = &tree[space + 1..];
        let end = rest.iter().position(|byte| *byte == 0).ok_or("a tree's entry has no end")?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let (id, rest) = rest.split_first_chunk::<20>().ok_or("a tree's entry has no id")?;
        if !is_name(name) {
            return Err("a tree has a name that no file may have");
        }
        entries.push(Entry { mode: mode.ok_or("a tree's entry has no mode")?, name, id: ObjectId(*id) });
        tree = rest;
    }
    Ok(entries)
}

/// Whether a file of a repository may have this name: one component, and not git's own directory.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.eq_ignore_ascii_case(b".git")
}

/// The value of a header line of a commit or tag.
pub(super) fn header<'a>(object: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(object.split(|byte| *byte == b'\n').next()?).ok()?;
    head.strip_prefix(name)?.strip_prefix(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_gits() {
        // printf 'hello\n' | git hash-object --stdin
        let id = ObjectId::of(Kind::Blob, b"hello\n");
        assert_eq!(id.to_string(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(id.to_string().parse::<ObjectId>().unwrap(), id);
        assert!("ce01".parse::<ObjectId>().is_err());
    }

    #[test]
    fn trees_have_no_hostile_names() {
        let id = [7; 20];
        let tree = |name: &str| [format!("100644 {name}\0").as_bytes(), &id].concat();
        let good = tree("file");
        assert_eq!(entries(&good).unwrap(), [Entry { mode: 0o100_644, name: b"file", id: ObjectId(id) }]);
        for wrong in ["..", ".", "", ".git", ".GIT", "a/b"] {
            assert!(entries(&tree(wrong)).is_err(), "{wrong}");
        }
        assert!(entries(&good[..good.len() - 1]).is_err());
        assert!(entries(b"100644").is_err());
    }
}
