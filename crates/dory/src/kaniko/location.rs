//! Where Kaniko's `--context` leads.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// A build context's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// A directory.
    Directory(PathBuf),
    /// An archive, compressed or not.
    Archive(PathBuf),
    /// An archive on standard input.
    StandardInput,
    /// A repository: its address in git's own words, with what is checked out behind `#`.
    Git(String),
}

impl Location {
    /// Reads `--context`, and the wishes of `--git`.
    ///
    /// # Errors
    /// A place that is not fetched, by name.
    pub(super) fn parse(text: &str, wishes: &[&str]) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Directory(text.into()));
        };
        match scheme {
            "dir" => Ok(Self::Directory(rest.into())),
            "tar" if rest == "stdin" => Ok(Self::StandardInput),
            "tar" => Ok(Self::Archive(rest.into())),
            // Kaniko fetches `git://` over HTTPS.
            "git" => Ok(Self::Git(with_branch(&format!("https://{rest}"), wishes)?)),
            "https" if is_repository(rest) => Ok(Self::Git(with_branch(text, wishes)?)),
            "s3" | "gs" | "https" => bail!(
                "contexts at `{scheme}://` are not fetched: unpack the context, and name its directory with --context"
            ),
            _ => bail!("unknown kind of context `{scheme}://`"),
        }
    }
}

/// Other addresses than git's are Azure's blobs.
fn is_repository(rest: &str) -> bool {
    let path = rest.split('#').next().unwrap_or(rest);
    path.ends_with(".git") || rest.contains('#')
}

/// `address#branch` where the address names nothing itself.
fn with_branch(address: &str, wishes: &[&str]) -> Result<String> {
    let mut branch = None;
    for wish in wishes.iter().flat_map(|wish| wish.split(',')) {
        match wish.split_once('=') {
            Some(("branch", name)) if !name.is_empty() => branch = Some(name),
            Some(("branch" | "single-branch" | "recurse-submodules" | "depth", _)) => {}
            Some(("insecure-skip-tls", value)) if value != "true" => {}
            _ => bail!("--git: `{wish}` is not supported"),
        }
    }
    // Kaniko writes `#refs/heads/main#commit`: the commit is what counts.
    let (address, named) = address.split_once('#').map_or((address, None), |(address, named)| {
        (address, Some(named.rsplit('#').next().unwrap_or(named)))
    });
    let named = named.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name)).or(branch);
    Ok(named.map_or_else(|| address.to_owned(), |name| format!("{address}#{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_place() {
        let git = |text: &str| Location::Git(text.to_owned());
        for (text, wishes, place) in [
            ("/workspace", &[][..], Location::Directory("/workspace".into())),
            ("dir:///workspace/", &[], Location::Directory("/workspace/".into())),
            ("tar:///x.tar.gz", &[], Location::Archive("/x.tar.gz".into())),
            ("tar://stdin", &[], Location::StandardInput),
            ("git://example.org/a/b.git", &[], git("https://example.org/a/b.git")),
            ("git://example.org/a/b#refs/heads/main", &[], git("https://example.org/a/b#main")),
            ("git://example.org/a/b#refs/heads/main#0123", &[], git("https://example.org/a/b#0123")),
            ("git://example.org/a/b", &["branch=x,single-branch=true"], git("https://example.org/a/b#x")),
            ("https://example.org/a/b.git", &[], git("https://example.org/a/b.git")),
        ] {
            assert_eq!(Location::parse(text, wishes).unwrap(), place, "{text}");
        }
        for text in
            ["s3://bucket/x", "gs://bucket/x", "https://x.blob.core.windows.net/c/x.tar.gz", "ftp://x"]
        {
            assert!(Location::parse(text, &[]).is_err(), "{text}");
        }
    }
}
