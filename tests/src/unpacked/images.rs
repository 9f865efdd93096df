//! Images with whatever layers can say: made here, entry by entry.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tar::{EntryType, Header};

use crate::archive;

/// `cap_net_raw=ep` as the kernel keeps it (struct vfs_cap_data, revision 2).
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// Writes the archives of all images to `folder`.
///
/// # Errors
/// They cannot be written.
pub(super) fn make(folder: &Path) -> Result<Vec<PathBuf>> {
    let images: [(&str, Vec<Vec<u8>>); 4] = [
        ("whiteouts", whiteouts()?),
        ("capabilities", vec![capabilities()?]),
        ("hard-links", hard_links()?),
        ("kinds", vec![kinds()?]),
    ];
    let write = |(name, layers): &(&str, Vec<Vec<u8>>)| {
        let path = folder.join(format!("{name}.tar"));
        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
        archive::write_layers(&path, &format!("{name}:latest"), &layers, "{}").map(|()| path)
    };
    images.iter().map(write).collect()
}

/// Deleted files, deleted directories that come again, opaque directories and what is in them, over three layers.
fn whiteouts() -> Result<Vec<Vec<u8>>> {
    let mut lowest = Layer::default();
    for name in ["kept", "deleted", "opaque", "opaque/below", "again", "again/below", "becomes-file", "two"] {
        lowest.folder(name)?;
    }
    for name in [
        "kept/stays",
        "kept/goes",
        "kept/goes-later",
        "deleted/file",
        "opaque/old",
        "opaque/below/old",
        "again/old",
        "again/below/old",
        "becomes-file/old",
        "becomes-folder",
        "two/first",
        "two/second",
        "top-level",
    ] {
        lowest.file(name, name.as_bytes())?;
    }
    lowest.symlink("link-to-kept", "kept")?;
    let mut middle = Layer::default();
    for name in
        ["kept/.wh.goes", ".wh.deleted", "opaque/.wh..wh..opq", ".wh.becomes-folder", ".wh.link-to-kept"]
    {
        middle.file(name, b"")?;
    }
    middle.folder("opaque")?;
    middle.file("opaque/new", b"new")?;
    middle.folder("opaque/below")?;
    middle.file("opaque/below/new", b"new")?;
    middle.file(".wh.again", b"")?;
    middle.file(".wh.becomes-file", b"")?;
    middle.file("becomes-file", b"a file now")?;
    middle.folder("becomes-folder")?;
    middle.file("becomes-folder/inside", b"")?;
    middle.file("two/.wh.first", b"")?;
    let mut upper = Layer::default();
    upper.folder("again")?;
    upper.folder("again/below")?;
    upper.file("again/below/new", b"new")?;
    upper.file("kept/.wh.goes-later", b"")?;
    upper.folder("opaque")?;
    upper.file("opaque/.wh.new", b"")?;
    upper.file("opaque/newest", b"newest")?;
    upper.file("two/.wh.second", b"")?;
    upper.file("two/first", b"again")?;
    upper.file("link-to-kept", b"no link now")?;
    upper.file(".wh.top-level", b"")?;
    [lowest, middle, upper].into_iter().map(Layer::finish).collect()
}

/// File capabilities and other attributes, of files and directories.
fn capabilities() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.folder("bin")?;
    layer.attributes(&[("security.capability", CAPABILITY)]);
    layer.file("bin/ping", b"a program")?;
    layer.attributes(&[("user.text", b"value"), ("user.bytes", b"\x00\xff\n=")]);
    layer.file("bin/attributes", b"")?;
    layer.attributes(&[("user.of-a-folder", b"value")]);
    layer.folder("folder")?;
    // Ownership is set before the capability, or the kernel would take the capability away.
    layer.attributes(&[("security.capability", CAPABILITY)]);
    layer.owned("bin/owned", 1000, 1000)?;
    layer.finish()
}

/// Links across directories, in one layer and to what a layer replaces.
fn hard_links() -> Result<Vec<Vec<u8>>> {
    let mut lower = Layer::default();
    for name in ["a", "a/b", "a/b/c", "other"] {
        lower.folder(name)?;
    }
    lower.file("a/b/c/file", b"one of four")?;
    for name in ["other/link", "top", "a/zz-last"] {
        lower.link(name, "a/b/c/file")?;
    }
    lower.file("pair", b"")?;
    lower.link("a/pair", "pair")?;
    let mut upper = Layer::default();
    upper.folder("other")?;
    upper.file("other/link", b"on its own now")?;
    upper.link("a/its-link", "other/link")?;
    [lower, upper].into_iter().map(Layer::finish).collect()
}

/// Every kind of file, with unusual permissions, owners, times and names.
fn kinds() -> Result<Vec<u8>> {
    let mut layer = Layer::default();
    layer.folder("dev")?;
    layer.device("dev/null", EntryType::Char, (1, 3))?;
    layer.device("dev/loop", EntryType::Block, (7, 300))?;
    layer.device("dev/fifo", EntryType::Fifo, (0, 0))?;
    layer.symlink("absolute", "/dev/null")?;
    layer.symlink("dangling", "../../../nowhere")?;
    for (name, mode) in
        [("set-user-id", 0o4755), ("set-group-id", 0o2711), ("no-one", 0), ("everyone", 0o777)]
    {
        layer.mode = mode;
        layer.file(name, b"#!")?;
    }
    layer.mode = 0o700;
    layer.folder("./")?;
    layer.mode = 0o3777;
    layer.folder("tmp")?;
    layer.mode = 0o2755;
    layer.folder("inherits-group")?;
    layer.mode = 0o644;
    layer.file("inherits-group/file", b"")?;
    layer.owned("owned", 100_000, 4_000_000)?;
    layer.modified = "1234567890.123456789";
    layer.file("nanoseconds", b"")?;
    layer.folder("old-folder")?;
    layer.modified = "-1.5";
    layer.file("old-folder/before-1970", b"")?;
    layer.modified = "5000000000";
    layer.file("after-2038", b"")?;
    layer.modified = "1000000000";
    layer.file("without/parents/file", b"")?;
    layer.file(&format!("long/{}", "name-of-two-hundred-".repeat(10)), b"")?;
    layer.folder(&"deep/".repeat(60))?;
    layer.file("unicode-\u{e4}\u{1f433}-e\u{301}", b"")?;
    layer.file("quotes'\"\\ \t\n", b"")?;
    layer.file("empty", b"")?;
    layer.file("large", &vec![7; 3_000_001])?;
    layer.file("/absolute-name", b"")?;
    layer.file("./dot/./name", b"")?;
    layer.finish()
}

/// An archive in the making; what it says of the next entry.
struct Layer {
    archive: tar::Builder<Vec<u8>>,
    mode: u32,
    /// Seconds since 1970, as pax has them.
    modified: &'static str,
    owner: (u64, u64),
    attributes: Vec<(String, Vec<u8>)>,
}

impl Default for Layer {
    fn default() -> Self {
        let archive = tar::Builder::new(Vec::new());
        Self { archive, mode: 0o755, modified: "1000000000", owner: (0, 0), attributes: Vec::new() }
    }
}

impl Layer {
    /// Writes one entry; name, target and time go into a pax header, which has room for all of them.
    fn entry(
        &mut self,
        kind: EntryType,
        name: &str,
        target: &str,
        device: (u32, u32),
        content: &[u8],
    ) -> Result<()> {
        let (uid, gid) = (self.owner.0.to_string(), self.owner.1.to_string());
        let mut records = vec![("path", name), ("mtime", self.modified), ("uid", &uid), ("gid", &gid)];
        if !target.is_empty() {
            records.push(("linkpath", target));
        }
        let attributes = std::mem::take(&mut self.attributes);
        let attributes = attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let records = records.iter().map(|(key, value)| (*key, value.as_bytes()));
        self.archive.append_pax_extensions(records.chain(attributes))?;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(device.0)?;
            header.set_device_minor(device.1)?;
        }
        header.as_old_mut().name[..4].copy_from_slice(b"name");
        header.set_cksum();
        Ok(self.archive.append(&header, content)?)
    }

    /// Attributes of the entry that follows.
    fn attributes(&mut self, attributes: &[(&str, &[u8])]) {
        let records = attributes.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.to_vec()));
        self.attributes = records.collect();
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(EntryType::Directory, name, "", (0, 0), b"")
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(EntryType::Regular, name, "", (0, 0), content)
    }

    fn owned(&mut self, name: &str, uid: u64, gid: u64) -> Result<()> {
        self.owner = (uid, gid);
        self.file(name, b"owned")?;
        self.owner = (0, 0);
        Ok(())
    }

    fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(EntryType::Symlink, name, target, (0, 0), b"")
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(EntryType::Link, name, target, (0, 0), b"")
    }

    fn device(&mut self, name: &str, kind: EntryType, numbers: (u32, u32)) -> Result<()> {
        self.entry(kind, name, "", numbers, b"")
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.archive.into_inner()?)
    }
}
