//! Symbolic links followed by hand, where the kernel cannot: several layers seen as one, paths that end in nothing.

use std::collections::VecDeque;

/// Links that are followed at most, as the kernel does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where `path` leads when links on the way are followed, the last component too where `follow_last`. Components without a
/// slash; `..` of the root is the root, and what does not exist is taken as it is written.
///
/// `read_link` tells the target of what is at the path that it gets, links in which are followed already; `None` where that
/// is no link or nothing. The result is `None` for links that lead round in circles (`ELOOP`).
///
/// # Errors
/// Those of `read_link`.
pub(super) fn follow<E>(
    path: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    follow_last: bool,
    mut read_link: impl FnMut(&[Vec<u8>]) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Vec<Vec<u8>>>, E> {
    let mut waiting: VecDeque<Vec<u8>> = path.into_iter().map(Into::into).collect();
    let mut walked: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(name) = waiting.pop_front() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                walked.pop();
                continue;
            }
            _ => walked.push(name),
        }
        let is_last = waiting.iter().all(|name| name.is_empty() || name == b".");
        if is_last && !follow_last {
            break;
        }
        let Some(target) = read_link(&walked)? else { continue };
        links += 1;
        if links > LINKS_MAX {
            return Ok(None);
        }
        walked.pop();
        if target.starts_with(b"/") {
            walked.clear();
        }
        for component in target.split(|byte| *byte == b'/').rev() {
            waiting.push_front(component.to_vec());
        }
    }
    Ok(Some(walked))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A tree of links: what is in no line is no link.
    fn followed(path: &str, follow_last: bool) -> Option<String> {
        let links = |walked: &[Vec<u8>]| {
            Ok(match walked.join(&b'/').as_slice() {
                b"lib" => Some(b"usr/lib".to_vec()),
                b"usr/lib/up" => Some(b"../../etc".to_vec()),
                b"absolute" => Some(b"/usr//lib/".to_vec()),
                b"out" => Some(b"../../..".to_vec()),
                b"round" => Some(b"./round".to_vec()),
                _ => None,
            })
        };
        let Ok(walked) = follow::<Infallible>(path.split('/'), follow_last, links);
        walked.map(|walked| String::from_utf8(walked.join(&b'/')).unwrap())
    }

    #[test]
    fn follows_as_the_kernel_does() {
        for (path, all, but_last) in [
            ("/", "", ""),
            ("a/./b//c/..", "a/b", "a/b"),
            ("lib", "usr/lib", "lib"),
            ("lib/.", "usr/lib", "lib"),
            ("lib/x", "usr/lib/x", "usr/lib/x"),
            ("lib/up/passwd", "etc/passwd", "etc/passwd"),
            ("absolute/up", "etc", "usr/lib/up"),
            ("out/etc", "etc", "etc"),
            ("../../none", "none", "none"),
        ] {
            assert_eq!(followed(path, true).as_deref(), Some(all), "{path}");
            assert_eq!(followed(path, false).as_deref(), Some(but_last), "{path}");
        }
        assert_eq!(followed("round", true), None);
        assert_eq!(followed("round", false).as_deref(), Some("round"));
    }
}
