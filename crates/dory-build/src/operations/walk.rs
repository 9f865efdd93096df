//! Walks over what is copied: the same one for the key and for the archive.

use dory_dockerfile::{IgnorePatterns, Verdict};
use dory_store::{FileError, Node};

/// Directories within one another: more have no path that a system call takes (`PATH_MAX`).
const DEPTH_MAX: usize = 2048;

/// What stays out of a walk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filters<'a> {
    /// The context's ignore file, for paths from the context's root.
    pub(crate) ignore: Option<&'a IgnorePatterns>,
    /// `--exclude`, for paths from what is copied.
    pub(crate) exclude: Option<&'a IgnorePatterns>,
}

/// A file in a walk.
#[derive(Debug)]
pub(crate) struct Visit<'v> {
    /// Its path from the top of the walk; empty for the top itself.
    pub(crate) path: &'v [u8],
    /// The file.
    pub(crate) node: &'v Node,
}

struct Walk<'a, F> {
    filters: Filters<'a>,
    visit: F,
    /// From the top.
    path: Vec<u8>,
    /// The top's own path from the context's root, with a slash unless it is empty.
    prefix: String,
    /// Directories that are left out, unless something in them is taken back in.
    pending: Vec<(Vec<u8>, Node)>,
}

/// Calls `visit` with everything below `top`, itself included, parents before what is in them, names in the order of their
/// bytes. `from_root` is the top's path from the context's root.
pub(crate) fn walk(
    top: &Node,
    from_root: &str,
    filters: Filters<'_>,
    visit: impl FnMut(Visit<'_>) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let prefix = if from_root.is_empty() { String::new() } else { format!("{from_root}/") };
    let mut walk = Walk { filters, visit, path: Vec::new(), prefix, pending: Vec::new() };
    (walk.visit)(Visit { path: b"", node: top })?;
    let ignored = ancestors(filters.ignore, from_root);
    walk.directory(top, &ignored, &Verdict::default(), 0)
}

/// What the ignore file says of the directories down to `path`.
fn ancestors(ignore: Option<&IgnorePatterns>, path: &str) -> Verdict {
    let Some(ignore) = ignore.filter(|_| !path.is_empty()) else { return Verdict::default() };
    let mut verdict = Verdict::default();
    for (end, _) in path.match_indices('/') {
        verdict = ignore.verdict(&path[..end], &verdict);
    }
    ignore.verdict(path, &verdict)
}

impl<F: FnMut(Visit<'_>) -> Result<(), FileError>> Walk<'_, F> {
    fn directory(
        &mut self,
        directory: &Node,
        ignored: &Verdict,
        excluded: &Verdict,
        depth: usize,
    ) -> Result<(), FileError> {
        if depth >= DEPTH_MAX {
            let path = String::from_utf8_lossy(&self.path[..self.path.len().min(100)]).into_owned();
            return Err(FileError::TooDeep { path });
        }
        let length = self.path.len();
        for name in directory.names()? {
            self.path.truncate(length);
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let Some(node) = directory.child(&name)? else { continue };
            self.entry(&node, ignored, excluded, depth)?;
        }
        self.path.truncate(length);
        Ok(())
    }

    fn entry(
        &mut self,
        node: &Node,
        ignored: &Verdict,
        excluded: &Verdict,
        depth: usize,
    ) -> Result<(), FileError> {
        let (mut ignored_here, mut excluded_here) = (Verdict::default(), Verdict::default());
        if self.filters.ignore.is_some() || self.filters.exclude.is_some() {
            let path = String::from_utf8_lossy(&self.path);
            if let Some(ignore) = self.filters.ignore {
                ignored_here = ignore.verdict(&format!("{}{path}", self.prefix), ignored);
            }
            if let Some(exclude) = self.filters.exclude {
                excluded_here = exclude.verdict(&path, excluded);
            }
        }
        let is_out = ignored_here.excluded || excluded_here.excluded;
        if !is_out {
            for (path, node) in std::mem::take(&mut self.pending) {
                (self.visit)(Visit { path: &path, node: &node })?;
            }
            (self.visit)(Visit { path: &self.path, node })?;
        }
        if !node.is_directory() || (is_out && !self.has_exceptions()) {
            return Ok(());
        }
        let waiting = self.pending.len();
        if is_out {
            self.pending.push((self.path.clone(), node.reopened()?));
        }
        self.directory(node, &ignored_here, &excluded_here, depth + 1)?;
        self.pending.truncate(waiting);
        Ok(())
    }

    fn has_exceptions(&self) -> bool {
        [self.filters.ignore, self.filters.exclude].into_iter().flatten().any(IgnorePatterns::has_exceptions)
    }
}
