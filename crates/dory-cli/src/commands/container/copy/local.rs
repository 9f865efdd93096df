//! Paths of this machine's, as Go's `filepath` and moby's `pkg/archive` take them apart.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Destination;

/// Links that are followed from a destination.
const LINKS_MAX: usize = 10;

/// `path` without empty and `.` components, and with `..` taken back by the text alone.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if path.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    match (path.starts_with('/'), parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// True for a path that means what is in a directory: `x/.`.
pub(super) fn is_content(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// True for a path that only a directory can have.
pub(super) fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || is_content(path)
}

/// The directory of a path, and its name there, which is `.` for a directory's content.
pub(super) fn split(path: &str) -> (String, String) {
    let cleaned = clean(path);
    if is_content(path) {
        return (cleaned, ".".to_owned());
    }
    match cleaned.rsplit_once('/') {
        Some(("", "")) => ("/".to_owned(), "/".to_owned()),
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((directory, name)) => (directory.to_owned(), name.to_owned()),
        None => (".".to_owned(), cleaned),
    }
}

/// `path` as an absolute one, with the slash or dot that it ends with.
pub(super) fn absolute(path: &str) -> Result<String> {
    let here = std::env::current_dir().context("cannot tell the working directory")?;
    let full = here.join(path);
    let Some(full) = full.to_str() else { bail!("`{}` is no UTF-8", full.display()) };
    Ok(preserve_ending(clean(full), path))
}

/// Gives a cleaned path the ending that `original` has.
pub(super) fn preserve_ending(mut cleaned: String, original: &str) -> String {
    let slash = if cleaned.ends_with('/') { "" } else { "/" };
    if is_content(original) {
        cleaned.push_str(slash);
        cleaned.push('.');
    } else if original.ends_with('/') {
        cleaned.push_str(slash);
    }
    cleaned
}

/// Looks at a destination: links are followed, also to what does not exist yet.
pub(super) fn destination(path: &str) -> Result<Destination> {
    let mut target = path.to_owned();
    for _ in 0..=LINKS_MAX {
        let metadata = match fs::symlink_metadata(&target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, _) = split(&target);
                let parent = fs::metadata(&parent).with_context(|| format!("stat {parent}"))?;
                if !parent.is_dir() {
                    bail!("not a directory");
                }
                return Ok(Destination { path: target, is_directory: None });
            }
            Err(error) => return Err(error).with_context(|| format!("lstat {target}")),
        };
        if !metadata.is_symlink() {
            return Ok(Destination { path: target, is_directory: Some(metadata.is_dir()) });
        }
        let link = fs::read_link(target.trim_end_matches('/')).context("cannot follow a link")?;
        let (parent, _) = split(&target);
        let next = Path::new(&parent).join(link);
        target = utf8(next.as_os_str())?.to_owned();
    }
    bail!("too many symlinks in {path}")
}

/// A source with its links resolved: all of them, or those before its last component only.
pub(super) fn source(path: &str, follow: bool) -> Result<(String, Option<String>)> {
    let canonical = |path: &str| -> Result<String> {
        let resolved: PathBuf = fs::canonicalize(path).with_context(|| format!("lstat {path}"))?;
        Ok(utf8(resolved.as_os_str())?.to_owned())
    };
    if follow {
        let resolved = preserve_ending(canonical(path)?, path);
        let name = rebased_name(path, &resolved);
        return Ok((resolved, name));
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    let directory = canonical(if directory.is_empty() { "/" } else { directory })?;
    let resolved = format!("{}/{name}", directory.trim_end_matches('/'));
    let rebased = Some(path).filter(|path| path.ends_with('/')).and_then(|_| rebased_name(path, &resolved));
    Ok((resolved, rebased))
}

/// The name that was asked for, where links changed it.
pub(super) fn rebased_name(path: &str, resolved: &str) -> Option<String> {
    Some(base(path)).filter(|name| *name != base(resolved))
}

/// Go's `filepath.Base`.
pub(super) fn base(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".".to_owned(),
        "" => "/".to_owned(),
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed).to_owned(),
    }
}

fn utf8(path: &OsStr) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is no UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_paths_apart_as_go_does() {
        for (path, cleaned, directory, name) in [
            ("/a/b/", "/a/b", "/a", "b"),
            ("/a/b/.", "/a/b", "/a/b", "."),
            ("/", "/", "/", "/"),
            ("a", "a", ".", "a"),
            (".", ".", ".", "."),
            ("../x", "../x", "..", "x"),
            ("/../x", "/x", "/", "x"),
            ("a/../../b", "../b", "..", "b"),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
            assert_eq!(split(path), (directory.to_owned(), name.to_owned()), "{path}");
        }
        assert_eq!(preserve_ending("/a".into(), "x/"), "/a/");
        assert_eq!(preserve_ending("/".into(), "x/."), "/.");
        assert_eq!((base("/a/b/"), base("/"), base("a/.")), ("b".into(), "/".into(), ".".into()));
    }

    #[test]
    fn follows_links_of_destinations_and_sources() {
        let path = tempfile::tempdir().unwrap();
        let root = path.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/f"), "x").unwrap();
        for (target, link) in [("d", "l"), ("d/new", "dangling"), ("d/f", "f")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        assert_eq!(destination(&at("l")).unwrap(), Destination { path: at("d"), is_directory: Some(true) });
        assert_eq!(
            destination(&at("f")).unwrap(),
            Destination { path: at("d/f"), is_directory: Some(false) }
        );
        assert_eq!(
            destination(&at("dangling")).unwrap(),
            Destination { path: at("d/new"), is_directory: None }
        );
        assert!(destination(&at("nope/x")).is_err() && destination(&at("d/f/x")).is_err());
        assert_eq!(source(&at("l"), false).unwrap(), (at("l"), None));
        assert_eq!(source(&at("l"), true).unwrap(), (at("d"), Some("l".into())));
        assert_eq!(source(&at("l/."), false).unwrap(), (format!("{}/.", at("d")), None));
        assert!(source(&at("nope"), true).is_err());
    }
}
