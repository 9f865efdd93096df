//! A layer's archive made of pieces: files of a [`View`](super::View) under other names, and new ones.

use std::io::Write;

use tar::EntryType;

use super::FileError;
use super::header::{Member, write_member, write_padding};
use super::ids::IdMap;
use super::pack::Packer;
use super::view::Node;

/// What an entry gets in place of what its file has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// User and group.
    pub owner: Option<(u32, u32)>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Seconds since 1970.
    pub modified: Option<i64>,
}

/// Writes one layer's archive, entry by entry; parents come before what is in them.
pub struct LayerArchive<'a, W> {
    packer: Packer<'a, W>,
}

impl<'a, W: Write> LayerArchive<'a, W> {
    /// An archive that goes to `sink`.
    pub fn new(sink: &'a mut W) -> Self {
        Self { packer: Packer::new(sink) }
    }

    /// Writes `node` itself, without what is in it, as `name` (relative, without a slash at its end).
    ///
    /// # Errors
    /// [`FileError::Write`] and [`FileError::Path`].
    pub fn node(&mut self, name: &[u8], node: &Node, attributes: Attributes) -> Result<(), FileError> {
        self.packer.attributes = attributes;
        self.packer.entry(node.fd(), node.stat(), name, &IdMap::default())
    }

    /// Nodes from here on are no links to those before, though they may be to one another.
    pub fn forget_links(&mut self) {
        self.packer.forget_links();
    }

    /// Writes a directory that nobody has had.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn directory(
        &mut self,
        name: &[u8],
        mode: u32,
        owner: (u32, u32),
        modified: i64,
    ) -> Result<(), FileError> {
        let name = [name, b"/"].concat();
        let member = member(&name, EntryType::Directory, mode, owner, modified, 0);
        write_member(self.packer.sink(), &member).map_err(FileError::Write)
    }

    /// Writes a file whose content is here.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn file(
        &mut self,
        name: &[u8],
        content: &[u8],
        mode: u32,
        owner: (u32, u32),
        modified: i64,
    ) -> Result<(), FileError> {
        let size = content.len() as u64;
        let member = member(name, EntryType::Regular, mode, owner, modified, size);
        let sink = self.packer.sink();
        write_member(sink, &member)
            .and_then(|()| sink.write_all(content))
            .and_then(|()| write_padding(sink, size))
            .map_err(FileError::Write)
    }

    /// Writes a symbolic link.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn link(
        &mut self,
        name: &[u8],
        target: &[u8],
        owner: (u32, u32),
        modified: i64,
    ) -> Result<(), FileError> {
        let member = Member { link: target, ..member(name, EntryType::Symlink, 0o777, owner, modified, 0) };
        write_member(self.packer.sink(), &member).map_err(FileError::Write)
    }

    /// Writes the archive's end.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub fn finish(self) -> Result<(), FileError> {
        self.packer.finish()
    }
}

impl<W> std::fmt::Debug for LayerArchive<'_, W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LayerArchive").finish_non_exhaustive()
    }
}

fn member(
    name: &[u8],
    kind: EntryType,
    mode: u32,
    (uid, gid): (u32, u32),
    modified: i64,
    size: u64,
) -> Member<'_> {
    Member { name, kind, link: &[], mode, uid, gid, size, modified, device: (0, 0), xattrs: &[] }
}
