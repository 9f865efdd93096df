//! `ADDRESS#REF:DIRECTORY`, as `docker build` and `ADD` take it.

use super::GitError;

/// Files of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitAddress {
    /// The repository.
    pub(crate) repository: String,
    /// Branch, tag, full name of a ref, or id of a commit; what the repository's `HEAD` says where it is empty.
    pub(crate) reference: String,
    /// A directory in it; all of it where this is empty.
    pub(crate) directory: String,
}

impl GitAddress {
    /// Reads an address; `None` where it is none of a repository (docs.docker.com, "Git repositories": `git://`, `ssh://`,
    /// `git@HOST:PATH`, and what ends in `.git` over http).
    ///
    /// # Errors
    /// [`GitError::Scheme`] for repositories that are not reached over http.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, GitError>> {
        let (repository, fragment) = text.split_once('#').unwrap_or((text, ""));
        let repository = match repository.strip_prefix("github.com/") {
            Some(_) => format!("https://{repository}"),
            None => repository.to_owned(),
        };
        let scheme = match repository.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                let path = rest.split(['?']).next().unwrap_or_default();
                let is_repository = path.ends_with(".git")
                    || repository.starts_with("https://github.com/") && text.starts_with("github.com/");
                if !is_repository {
                    return None;
                }
                scheme
            }
            Some((scheme @ ("git" | "ssh"), _)) => scheme,
            None if repository.starts_with("git@") && repository.contains(':') => "ssh",
            _ => return None,
        };
        if scheme != "http" && scheme != "https" {
            return Some(Err(GitError::Scheme(scheme.to_owned())));
        }
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        Some(Ok(Self { repository, reference: reference.to_owned(), directory: directory.to_owned() }))
    }

    /// The address of a submodule whose `.gitmodules` says `url`: relative ones begin at this repository (gitmodules(5)).
    pub(super) fn submodule(&self, url: &str) -> Result<Self, GitError> {
        let is_relative = url.starts_with("./") || url.starts_with("../");
        let mut repository =
            if is_relative { self.repository.trim_end_matches('/').to_owned() } else { url.to_owned() };
        if is_relative {
            for component in url.split('/') {
                match component {
                    "." | "" => {}
                    ".." => match repository.rfind('/') {
                        Some(end) if !repository[..end].ends_with('/') => repository.truncate(end),
                        _ => return Err(GitError::Scheme(url.to_owned())),
                    },
                    name => repository = format!("{repository}/{name}"),
                }
            }
        }
        let scheme = repository.split_once("://").map_or("ssh", |(scheme, _)| scheme);
        if !matches!(scheme, "http" | "https") {
            return Err(GitError::Scheme(scheme.to_owned()));
        }
        Ok(Self { repository, reference: String::new(), directory: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        for (text, expected) in [
            ("https://host/repo.git", Some(("https://host/repo.git", "", ""))),
            ("https://host/repo.git#main:sub/dir", Some(("https://host/repo.git", "main", "sub/dir"))),
            ("http://host/repo.git#:dir", Some(("http://host/repo.git", "", "dir"))),
            ("github.com/a/b#v1", Some(("https://github.com/a/b", "v1", ""))),
            ("https://host/file.tar.gz", None),
            ("https://host/repo.git/file", None),
            ("src/git", None),
            (".", None),
        ] {
            let parsed = GitAddress::parse(text).map(|parsed| parsed.unwrap());
            let shown = parsed.as_ref().map(|address| {
                (address.repository.as_str(), address.reference.as_str(), address.directory.as_str())
            });
            assert_eq!(shown, expected, "{text}");
        }
        for text in ["git@host:path.git", "ssh://git@host/path", "git://host/path.git"] {
            assert!(GitAddress::parse(text).unwrap().is_err(), "{text}");
        }
    }

    #[test]
    fn submodules_may_be_relative() {
        let address = GitAddress::parse("https://host/group/repo.git").unwrap().unwrap();
        for (url, expected) in [
            ("../other.git", Some("https://host/group/other.git")),
            ("../../x/y.git", Some("https://host/x/y.git")),
            ("https://elsewhere/z", Some("https://elsewhere/z")),
            ("git@host:z", None),
            ("../../../../z", None),
        ] {
            let found = address.submodule(url).ok().map(|address| address.repository);
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }
}
