//! Paths in a container, as dockerd reads them.
//!
//! `..` is taken back by the text alone, before any link is followed. A path that ends with `/` or `/.` means what it
//! leads to; otherwise its last component is not followed.

/// A path, cleaned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The components.
    components: Vec<Vec<u8>>,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// `/a`
    Name,
    /// `/a/`, and the root
    Slash,
    /// `/a/.`
    Dot,
}

impl Place {
    /// Reads a path; a relative one begins at the root.
    pub(super) fn parse(path: &str) -> Self {
        let bytes = path.as_bytes();
        let mut components: Vec<Vec<u8>> = Vec::new();
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => drop(components.pop()),
                name => components.push(name.to_vec()),
            }
        }
        let ending = if path == "." || bytes.ends_with(b"/.") {
            Ending::Dot
        } else if components.is_empty() || bytes.ends_with(b"/") {
            Ending::Slash
        } else {
            Ending::Name
        };
        Self { components, ending }
    }

    /// The directory to look in and the name to look for there; no name for a path that is followed to its end.
    pub(super) fn split(&self) -> (Vec<u8>, Option<&[u8]>) {
        match (self.ending, self.components.split_last()) {
            (Ending::Name, Some((name, parents))) => (join(parents), Some(name)),
            _ => (join(&self.components), None),
        }
    }

    /// The path relative to the root, never empty.
    pub(super) fn relative(&self) -> Vec<u8> {
        join(&self.components)
    }

    /// What the stat header calls it: Go's `filepath.Base`.
    pub(super) fn name(&self) -> Vec<u8> {
        match (self.ending, self.components.last()) {
            (Ending::Dot, _) => b".".to_vec(),
            (_, Some(name)) => name.clone(),
            (_, None) => b"/".to_vec(),
        }
    }

    /// What the entries of its archive begin with. The root's begin with the slash behind that.
    pub(super) fn prefix(&self) -> Vec<u8> {
        match self.name() {
            name if name == b"/" => Vec::new(),
            name => name,
        }
    }

    pub(super) fn components(&self) -> &[Vec<u8>] {
        &self.components
    }

    /// The path for messages, as the caller wrote it but cleaned.
    pub(super) fn display(&self) -> String {
        let mut text = String::from("/");
        text.push_str(&String::from_utf8_lossy(&self.components.join(&b'/')));
        match self.ending {
            Ending::Slash if text != "/" => text.push('/'),
            Ending::Dot if text == "/" => text.push('.'),
            Ending::Dot => text.push_str("/."),
            _ => {}
        }
        text
    }
}

/// openat2(2) takes no empty path.
fn join(components: &[Vec<u8>]) -> Vec<u8> {
    if components.is_empty() { b".".to_vec() } else { components.join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_as_dockerd_does() {
        let cases: [(&str, &str, Option<&str>, &str, &str); 10] = [
            ("/", ".", None, "/", "/"),
            ("", ".", None, "/", "/"),
            (".", ".", None, ".", "/."),
            ("/.", ".", None, ".", "/."),
            ("/a", ".", Some("a"), "a", "/a"),
            ("a/b/", "a/b", None, "b", "/a/b/"),
            ("/a/b/.", "a/b", None, ".", "/a/b/."),
            ("/a/../b", ".", Some("b"), "b", "/b"),
            ("/../..", ".", None, "/", "/"),
            ("/a//./b", "a", Some("b"), "b", "/a/b"),
        ];
        for (path, directory, last, name, display) in cases {
            let place = Place::parse(path);
            let (found, base) = place.split();
            assert_eq!((found.as_slice(), base), (directory.as_bytes(), last.map(str::as_bytes)), "{path}");
            assert_eq!(
                (place.name(), place.display()),
                (name.as_bytes().to_vec(), display.to_owned()),
                "{path}"
            );
        }
    }
}
