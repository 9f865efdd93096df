//! `cp`: what is copied where, by the rules of `docker cp`.
//!
//! ```text
//!  DEST exists, a directory   SRC goes into it                  (`SRC/.`: what is in SRC)
//!  DEST exists, a file        SRC replaces it; a directory cannot
//!  DEST does not exist        SRC is called so; `DEST/` asks for a directory
//! ```

mod from;
mod local;
mod to;

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::client::{Client, Path};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, switch};
use crate::{terminal, units};

/// `dory cp`.
pub(crate) const COPY: Command = Command {
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n       dory cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files from and to a container",
    flags: &[&[
        switch("archive", 'a', "Files in the container belong to its user"),
        switch("follow-link", 'L', "Copy what SRC_PATH leads to where it is a link"),
        switch("quiet", 'q', "Do not say how much was copied"),
    ]],
    arity: Arity::Exactly(2),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(copy(invocation)),
};

/// One side of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side<'a> {
    container: Option<&'a str>,
    path: &'a str,
}

impl<'a> Side<'a> {
    /// Reads `CONTAINER:PATH`; what begins with `/` or `.` is a path here, whatever colons it has.
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with('/') && !container.starts_with('.') => {
                Self { container: Some(container).filter(|container| !container.is_empty()), path }
            }
            _ => Self { container: None, path: text },
        }
    }
}

async fn copy(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let words = invocation.arguments.positional();
    for (word, name) in words.iter().zip(["source", "destination"]) {
        if word.is_empty() {
            bail!("{name} can not be empty");
        }
    }
    let (source, destination) = (Side::parse(&words[0]), Side::parse(&words[1]));
    match (source.container, destination.container) {
        (Some(container), None) => {
            from::copy(invocation, container, source.path, destination.path).await?;
        }
        (None, Some(container)) => to::copy(invocation, container, source.path, destination.path).await?,
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source"),
    }
    Ok(ExitStatus::Success)
}

/// What stands at the end of a copy, for people only.
fn report(invocation: &Invocation<'_>, bytes: u64, destination: &str) {
    if !invocation.arguments.on_or("quiet", !terminal::stdout_is_terminal()) {
        eprintln!("Successfully copied {} to {destination}", units::short_size(bytes as f64));
    }
}

/// What is at a path in a container; API 1.51, `X-Docker-Container-Path-Stat`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStat {
    /// In the bits of Go's `os.FileMode`.
    mode: u32,
    link_target: String,
}

impl ContainerStat {
    fn is_directory(&self) -> bool {
        self.mode & (1 << 31) != 0
    }

    fn is_link(&self) -> bool {
        self.mode & (1 << 27) != 0
    }

    /// True for devices, sockets and fifos.
    fn is_special(&self) -> bool {
        self.mode & ((1 << 26) | (1 << 25) | (1 << 24)) != 0
    }

    fn read(headers: &http::HeaderMap) -> Result<Self> {
        let missing = || anyhow::anyhow!("the engine did not say what is at the path");
        let header = headers.get("x-docker-container-path-stat").ok_or_else(missing)?;
        Ok(serde_json::from_slice(&STANDARD.decode(header.as_bytes())?)?)
    }

    async fn ask(client: &Client<'_>, container: &str, path: &str) -> Result<Self> {
        Self::read(&client.head(archive_path(container, path).as_str()).await?)
    }
}

fn archive_path(container: &str, path: &str) -> Path {
    Path::new(&["containers", container, "archive"]).query("path", path)
}

/// A place that something is copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Destination {
    path: String,
    /// `None` where nothing is there.
    is_directory: Option<bool>,
}

/// Where an archive is unpacked, and what its entries are called then.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    directory: String,
    /// In place of the source's own name; `None` keeps it.
    name: Option<String>,
}

impl Destination {
    /// Decides how a source of this kind gets there.
    fn plan(&self, source_is_directory: bool) -> Result<Plan> {
        let (directory, name) = local::split(&self.path);
        match self.is_directory {
            Some(true) => return Ok(Plan { directory: self.path.clone(), name: None }),
            Some(false) if source_is_directory => bail!("cannot copy directory"),
            None if !source_is_directory && local::asserts_directory(&self.path) => {
                bail!("no such directory")
            }
            _ => {}
        }
        Ok(Plan { directory, name: Some(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_containers_from_paths() {
        for (text, container, path) in [
            ("c:/x", Some("c"), "/x"),
            ("c:x:y", Some("c"), "x:y"),
            ("/a:b", None, "/a:b"),
            ("./a:b", None, "./a:b"),
            ("file", None, "file"),
            ("-", None, "-"),
            ("c:", Some("c"), ""),
        ] {
            assert_eq!(Side::parse(text), Side { container, path }, "{text}");
        }
    }

    #[test]
    fn plans_as_docker_does() {
        let plan = |path: &str, is_directory, source| {
            let destination = Destination { path: path.to_owned(), is_directory };
            destination
                .plan(source)
                .map(|plan| (plan.directory, plan.name))
                .map_err(|error| error.to_string())
        };
        let to = |directory: &str, name: Option<&str>| Ok((directory.to_owned(), name.map(str::to_owned)));
        assert_eq!(plan("/d", Some(true), true), to("/d", None));
        assert_eq!(plan("/d/f", Some(false), false), to("/d", Some("f")));
        assert_eq!(plan("/d/f", Some(false), true), Err("cannot copy directory".to_owned()));
        assert_eq!(plan("/d/new", None, true), to("/d", Some("new")));
        assert_eq!(plan("/d/new/", None, true), to("/d", Some("new")));
        assert_eq!(plan("/d/new/", None, false), Err("no such directory".to_owned()));
        assert_eq!(plan("/new", None, false), to("/", Some("new")));
    }
}
