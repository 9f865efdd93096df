//! Which files a line's paths and patterns mean.

use dory_dockerfile::{Glob, IgnorePatterns};
use dory_store::{FileError, Node, View};
use dory_types::with_causes;

use crate::error::StepError;

/// Names that are suggested where one is missing.
const NEAR_MAX: usize = 3;

/// A file or directory that is copied.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Where it is, links followed: components from the root.
    pub(crate) place: Vec<Vec<u8>>,
    /// As it was written, or as the pattern found it: its last name is the copy's, and `--parents` keeps all of them.
    pub(crate) written: Vec<Vec<u8>>,
}

impl Selected {
    /// Its path from the root.
    pub(crate) fn path(&self) -> String {
        String::from_utf8_lossy(&self.place.join(&b'/')).into_owned()
    }

    /// The file itself.
    pub(crate) fn node(&self, view: &View) -> Result<Option<Node>, FileError> {
        view.at(&self.place)
    }
}

/// Finds what `pattern` means; a pattern that finds nothing, like a name that is not there, is an error.
pub(crate) fn select(
    view: &View,
    pattern: &str,
    ignore: Option<&IgnorePatterns>,
) -> Result<Vec<Selected>, StepError> {
    let components = clean(pattern);
    let files = |error: FileError| StepError::Copy { path: pattern.to_owned(), message: with_causes(&error) };
    let is_literal = !components.iter().any(|component| component.contains(['*', '?', '[', '\\']));
    let mut found = Vec::new();
    if is_literal {
        found.push(components.iter().map(|component| component.as_bytes().to_vec()).collect::<Vec<_>>());
    } else {
        let globs = components.iter().map(|component| Glob::parse(component));
        let globs: Vec<Glob> = globs
            .collect::<Result<_, _>>()
            .map_err(|error| StepError::Invalid(format!("{pattern}: {error}")))?;
        expand(view, &globs, &mut Vec::new(), &mut found).map_err(files)?;
    }
    let mut selected = Vec::new();
    for written in found {
        let place = view.resolve(&written.join(&b'/'), true).map_err(files)?;
        let path = String::from_utf8_lossy(&place.join(&b'/')).into_owned();
        let Some(node) = view.at(&place).map_err(files)? else { continue };
        // What an ignore file keeps out is not there, unless it is a directory that something is taken back into.
        let out = ignore.is_some_and(|ignore| !path.is_empty() && ignore.excludes(&path));
        if out && !(node.is_directory() && ignore.is_some_and(IgnorePatterns::has_exceptions)) {
            continue;
        }
        selected.push(Selected { place, written });
    }
    if selected.is_empty() {
        return Err(missing(view, pattern, &components, ignore));
    }
    Ok(selected)
}

/// Components without `.` and `..`, which ends at the root.
pub(crate) fn clean(path: &str) -> Vec<String> {
    let mut components: Vec<String> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            component => components.push(component.to_owned()),
        }
    }
    components
}

fn expand(
    view: &View,
    globs: &[Glob],
    path: &mut Vec<Vec<u8>>,
    found: &mut Vec<Vec<Vec<u8>>>,
) -> Result<(), FileError> {
    let Some((first, rest)) = globs.split_first() else {
        found.push(path.clone());
        return Ok(());
    };
    let directory = view.find(&path.join(&b'/'), true)?.filter(Node::is_directory);
    let Some(directory) = directory else { return Ok(()) };
    for name in directory.names()? {
        if !std::str::from_utf8(&name).is_ok_and(|name| first.matches(name))
            || directory.child(&name)?.is_none()
        {
            continue;
        }
        path.push(name);
        expand(view, rest, path, found)?;
        path.pop();
    }
    Ok(())
}

fn missing(view: &View, pattern: &str, components: &[String], ignore: Option<&IgnorePatterns>) -> StepError {
    let path = components.join("/");
    let there = view.find(path.as_bytes(), true).is_ok_and(|node| node.is_some());
    let parent = components.split_last().map(|(_, parent)| parent.join("/")).unwrap_or_default();
    let wanted = components.last().map(String::as_str).unwrap_or_default();
    let names = match view.find(parent.as_bytes(), true) {
        Ok(Some(directory)) => directory.names().unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut near: Vec<(usize, String)> = names
        .into_iter()
        .filter_map(|name| String::from_utf8(name).ok())
        .map(|name| (distance(&name.to_lowercase(), &wanted.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 2.max(wanted.len() / 4) && *distance < name.len())
        .collect();
    near.sort();
    let near = near.into_iter().filter(|(distance, _)| *distance > 0 || !there).take(NEAR_MAX);
    StepError::Missing {
        path: format!("/{path}"),
        near: near.map(|(_, name)| name).collect(),
        ignored: there && ignore.is_some(),
        pattern: path != pattern && components.iter().any(|component| component.contains(['*', '?', '['])),
    }
}

/// Levenshtein's.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(a != *b)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_as_go_matches() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["a.txt", "b.txt", "d/c.txt", "d/e/f", ".hidden"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        std::os::unix::fs::symlink("/d", directory.path().join("link")).unwrap();
        let view = View::of_directory(std::fs::File::open(directory.path()).unwrap().into()).unwrap();
        let cases: [(&str, &[&str]); 8] = [
            ("*.txt", &["a.txt", "b.txt"]),
            ("/../a.txt", &["a.txt"]),
            ("*/c.txt", &["d/c.txt", "link/c.txt"]),
            ("link", &["link"]),
            ("[ab].txt", &["a.txt", "b.txt"]),
            (".", &[""]),
            ("?.txt", &["a.txt", "b.txt"]),
            ("d/e", &["d/e"]),
        ];
        for (pattern, expected) in cases {
            let found = select(&view, pattern, None).unwrap();
            let found: Vec<_> =
                found.iter().map(|one| String::from_utf8(one.written.join(&b'/')).unwrap()).collect();
            assert_eq!(found, expected, "{pattern}");
        }
        assert_eq!(select(&view, "link", None).unwrap()[0].path(), "d");
        let error = select(&view, "a.text", None).unwrap_err().to_string();
        assert!(error.contains("\"/a.text\": not found (did you mean a.txt"), "{error}");
        let ignore = IgnorePatterns::parse("d\n!d/e").unwrap();
        assert!(select(&view, "d/c.txt", Some(&ignore)).is_err());
        assert_eq!(select(&view, "d/e/f", Some(&ignore)).unwrap().len(), 1);
    }
}
