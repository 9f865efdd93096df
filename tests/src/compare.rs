//! Compares two file trees in everything that an image can say of a file.
//!
//! ```
//! for difference in compare::trees(&ours, &theirs)? {
//!     println!("{difference}");
//! }
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What of a file can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Whether there is such a name.
    Name,
    /// Regular file, directory, symbolic link, fifo, socket, device.
    Kind,
    /// Permissions with set-user-id, set-group-id and sticky bits.
    Mode,
    /// User and group.
    Owner,
    /// When it was last modified, to the nanosecond.
    Time,
    /// The length of a regular file.
    Length,
    /// The bytes of a regular file.
    Content,
    /// Where a symbolic link leads.
    Target,
    /// The first name of the same file, in the order of names.
    HardLink,
    /// The numbers of a device.
    Device,
    /// Extended attributes, file capabilities and access lists among them.
    Attributes,
}

/// Something that one tree has otherwise than the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The file, relative to the trees' roots.
    pub path: PathBuf,
    /// What of it differs.
    pub aspect: Aspect,
    /// What the first tree has, in words.
    pub left: String,
    /// What the second tree has, in words.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, aspect, left, right } = self;
        write!(formatter, "{aspect:?} of `{}`: {left} <> {right}", path.display())
    }
}

/// All differences of the trees beneath two directories, in the order of their names. Symbolic links are not followed.
///
/// # Errors
/// A file or directory cannot be read.
pub fn trees(left: &Path, right: &Path) -> Result<Vec<Difference>> {
    let (ours, theirs) = (Tree::read(left)?, Tree::read(right)?);
    let mut differences = Vec::new();
    let names: std::collections::BTreeSet<_> = ours.files.keys().chain(theirs.files.keys()).collect();
    for path in names {
        let mut differs = |aspect, left: String, right: String| {
            if left != right {
                differences.push(Difference { path: path.clone(), aspect, left, right });
            }
        };
        match (ours.files.get(path), theirs.files.get(path)) {
            (Some(one), Some(other)) => {
                one.aspects()
                    .zip(other.aspects())
                    .for_each(|((aspect, one), (_, other))| differs(aspect, one, other));
                if one.is_regular()
                    && other.is_regular()
                    && one.metadata.len() == other.metadata.len()
                    && !same_content(&left.join(path), &right.join(path))?
                {
                    differs(Aspect::Content, "one".to_owned(), "another".to_owned());
                }
            }
            (one, other) => {
                let word = |file: Option<&Entry>| if file.is_some() { "there" } else { "missing" }.to_owned();
                differs(Aspect::Name, word(one), word(other));
            }
        }
    }
    Ok(differences)
}

/// The files of a tree by their names.
struct Tree {
    files: BTreeMap<PathBuf, Entry>,
}

/// What is known of a file without reading it.
struct Entry {
    metadata: Metadata,
    /// Where a symbolic link leads.
    target: Option<PathBuf>,
    attributes: BTreeMap<OsString, Vec<u8>>,
    /// The first name of the same file, where that is another one.
    first_name: Option<PathBuf>,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { files: BTreeMap::new() };
        tree.add(root, Path::new(""))?;
        let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, file) in &mut tree.files {
            if file.metadata.is_dir() {
                continue;
            }
            let first =
                first_names.entry((file.metadata.dev(), file.metadata.ino())).or_insert_with(|| path.clone());
            file.first_name = (first != path).then(|| first.clone());
        }
        Ok(tree)
    }

    fn add(&mut self, root: &Path, path: &Path) -> Result<()> {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
        let entry = Entry::read(&full).with_context(|| format!("cannot read `{}`", full.display()))?;
        if entry.metadata.is_dir() {
            for child in fs::read_dir(&full).with_context(|| format!("cannot list `{}`", full.display()))? {
                self.add(root, &path.join(child?.file_name()))?;
            }
        }
        self.files.insert(path.to_owned(), entry);
        Ok(())
    }
}

impl Entry {
    fn read(path: &Path) -> Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let target = metadata.is_symlink().then(|| fs::read_link(path)).transpose()?;
        Ok(Self { metadata, target, attributes: attributes(path)?, first_name: None })
    }

    fn is_regular(&self) -> bool {
        self.metadata.is_file()
    }

    /// What is compared, in words.
    fn aspects(&self) -> impl Iterator<Item = (Aspect, String)> {
        let metadata = &self.metadata;
        let kind = metadata.file_type();
        let is_device = kind.is_char_device() || kind.is_block_device();
        let name = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "none".to_owned(), |path| format!("{path:?}"))
        };
        let length = if metadata.is_file() { metadata.len() } else { 0 };
        let device = if is_device { metadata.rdev() } else { 0 };
        [
            (Aspect::Kind, kind_name(metadata).to_owned()),
            (Aspect::Mode, format!("{:o}", metadata.mode() & 0o7777)),
            (Aspect::Owner, format!("{}:{}", metadata.uid(), metadata.gid())),
            (Aspect::Time, format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec())),
            (Aspect::Length, length.to_string()),
            (Aspect::Target, name(&self.target)),
            (Aspect::HardLink, name(&self.first_name)),
            (Aspect::Device, format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))),
            (Aspect::Attributes, format!("{:?}", self.attributes)),
        ]
        .into_iter()
    }
}

fn kind_name(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () if kind.is_char_device() => "character device",
        () => "block device",
    }
}

/// The extended attributes of a file itself, with their values.
fn attributes(path: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut names = vec![0; rustix::fs::llistxattr(path, &mut [0_u8; 0])?];
    let length = rustix::fs::llistxattr(path, &mut names)?;
    let mut attributes = BTreeMap::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; rustix::fs::lgetxattr(path, name, &mut [0_u8; 0])?];
        let length = rustix::fs::lgetxattr(path, name, &mut value)?;
        value.truncate(length);
        attributes.insert(std::ffi::OsStr::from_bytes(name).to_owned(), value);
    }
    Ok(attributes)
}

fn same_content(left: &Path, right: &Path) -> Result<bool> {
    let mut left = File::open(left).with_context(|| format!("cannot open `{}`", left.display()))?;
    let mut right = File::open(right).with_context(|| format!("cannot open `{}`", right.display()))?;
    let (mut one, mut other) = (vec![0; 256 << 10], vec![0; 256 << 10]);
    loop {
        let length = left.read(&mut one)?;
        if length == 0 {
            return Ok(right.read(&mut other)? == 0);
        }
        if right.read_exact(&mut other[..length]).is_err() || one[..length] != other[..length] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Two trees of the same files with the same times.
    fn trees_of(parent: &Path) -> (PathBuf, PathBuf) {
        let roots = ["left", "right"].map(|name| parent.join(name));
        for root in &roots {
            fs::create_dir_all(root.join("d")).unwrap();
            fs::write(root.join("d/file"), "content").unwrap();
            fs::hard_link(root.join("d/file"), root.join("linked")).unwrap();
            symlink("d/file", root.join("symlink")).unwrap();
            set_times(root);
        }
        let [left, right] = roots;
        (left, right)
    }

    fn set_times(root: &Path) {
        let set = std::process::Command::new("find")
            .arg(root)
            .args(["-exec", "touch", "-hd@1000", "{}", ";"])
            .status();
        assert!(set.unwrap().success());
    }

    #[test]
    fn the_same_trees_do_not_differ() {
        let parent = tempfile::tempdir().unwrap();
        let (left, right) = trees_of(parent.path());
        assert_eq!(trees(&left, &right).unwrap(), []);
    }

    /// The name of the file that it changes, the change, and what differs then.
    type Change = (&'static str, fn(&Path), Aspect);

    #[test]
    fn every_change_is_found() {
        let cases: [Change; 7] = [
            ("d/more", |root| fs::write(root.join("d/more"), "").unwrap(), Aspect::Name),
            ("d/file", |root| fs::write(root.join("d/file"), "Content").unwrap(), Aspect::Content),
            ("d/file", |root| fs::write(root.join("d/file"), "longer content").unwrap(), Aspect::Length),
            (
                "d",
                |root| fs::set_permissions(root.join("d"), PermissionsExt::from_mode(0o1755)).unwrap(),
                Aspect::Mode,
            ),
            (
                "linked",
                |root| {
                    fs::remove_file(root.join("linked")).unwrap();
                    fs::write(root.join("linked"), "content").unwrap();
                },
                Aspect::HardLink,
            ),
            (
                "symlink",
                |root| {
                    fs::remove_file(root.join("symlink")).unwrap();
                    symlink("elsewhere", root.join("symlink")).unwrap();
                },
                Aspect::Target,
            ),
            (
                "symlink",
                |root| {
                    fs::remove_file(root.join("symlink")).unwrap();
                    fs::create_dir(root.join("symlink")).unwrap();
                },
                Aspect::Kind,
            ),
        ];
        for (path, change, aspect) in cases {
            let parent = tempfile::tempdir().unwrap();
            let (left, right) = trees_of(parent.path());
            change(&right);
            set_times(&right);
            let found = trees(&left, &right).unwrap();
            let expected = |found: &&Difference| found.path == Path::new(path) && found.aspect == aspect;
            assert!(found.iter().any(|found| expected(&found)), "{aspect:?} of `{path}`: {found:?}");
        }
    }

    #[test]
    fn times_count_to_the_nanosecond() {
        let parent = tempfile::tempdir().unwrap();
        let (left, right) = trees_of(parent.path());
        let touched =
            std::process::Command::new("touch").arg("-d@1000.000000001").arg(right.join("d")).status();
        assert!(touched.unwrap().success());
        let found = trees(&left, &right).unwrap();
        let expected = ("1000.000000000".to_owned(), "1000.000000001".to_owned());
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].aspect, (found[0].left.clone(), found[0].right.clone())),
            (Aspect::Time, expected)
        );
    }
}
