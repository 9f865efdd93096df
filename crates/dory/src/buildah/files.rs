//! `dory buildah copy` and `add`: files into a working container.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dory_build::context::DirectoryContext;
use dory_build::{NamedContext, Request};
use dory_engine::Engine;

use super::run::{Stepped, list, step, word};
use super::working::{Shelf, absolute};

/// What `--from` is called in the line that copies.
const FROM: &str = "buildah-from";

/// Flags of Buildah's `copy` and `add`.
#[derive(Debug, Args)]
pub(super) struct CopyFlags {
    /// Owner, `USER[:GROUP]`.
    #[arg(long)]
    chown: Option<String>,
    /// Permissions.
    #[arg(long)]
    chmod: Option<String>,
    /// Copy from an image or a working container instead of this machine.
    #[arg(long)]
    from: Option<String>,
    /// Directory that sources are relative to.
    #[arg(long, value_name = "DIR")]
    contextdir: Option<String>,
    /// Paths that are left out, as in an ignore file.
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Checksum of what is fetched (`add`).
    #[arg(long)]
    checksum: Option<String>,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
    /// Say in the history what was copied; it is always said.
    #[arg(long)]
    add_history: bool,
    /// The working container.
    container: String,
    /// Sources, and where they go where there are several words: the working directory otherwise.
    #[arg(required = true)]
    paths: Vec<String>,
}

/// Copies; `instruction` is `COPY` or `ADD`.
pub(super) fn copy(engine: &Engine, shelf: &Shelf, flags: &CopyFlags, instruction: &str) -> Result<()> {
    let mut working = shelf.find(&flags.container)?;
    let (sources, destination) = match flags.paths.split_last() {
        Some((destination, sources)) if !sources.is_empty() => (sources, destination.clone()),
        _ => (flags.paths.as_slice(), "./".to_owned()),
    };
    let several = sources.len() > 1 && !destination.ends_with('/');
    let destination = if several { format!("{destination}/") } else { destination };
    let mut options = String::new();
    for (name, value) in [("chown", &flags.chown), ("chmod", &flags.chmod), ("checksum", &flags.checksum)] {
        if let Some(value) = value {
            options.push_str(&format!("--{name}={} ", word(value)));
        }
    }
    for pattern in &flags.exclude {
        options.push_str(&format!("--exclude={} ", word(pattern)));
    }
    for source in sources {
        let mut request = Request::default();
        let (options, path) = match (&flags.from, is_address(source)) {
            (Some(from), _) => {
                let image = match shelf.find(from) {
                    Ok(other) => other.image.to_string(),
                    Err(_) => from.clone(),
                };
                request.named_contexts.insert(FROM.to_owned(), NamedContext::Image(image));
                (format!("--from={FROM} {options}"), word(source))
            }
            (None, true) if instruction == "ADD" => (options.clone(), word(source)),
            (None, true) => bail!("`copy` does not fetch `{source}`; `add` does"),
            (None, false) => {
                let (directory, path) = place(flags.contextdir.as_deref(), source)?;
                request.context = Some(Arc::new(DirectoryContext::plain(directory)));
                (options.clone(), path)
            }
        };
        // ADD has no `--from`; what comes out of images is copied as it is.
        let instruction = if flags.from.is_some() { "COPY" } else { instruction };
        let line = format!("{instruction} {options}{}", list(&[path, word(&destination)])?);
        let said = format!("buildah {} {source} {destination}", instruction.to_lowercase());
        let stepped = step(engine, shelf, &mut working, &line, request, &said)?;
        ensure!(stepped == Stepped::Done, "nothing runs in a copy");
    }
    if !flags.quiet {
        println!("{}", working.image);
    }
    Ok(())
}

fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// The directory that is the context, and the path in it: a directory is copied with what is in it.
fn place(contextdir: Option<&str>, source: &str) -> Result<(std::path::PathBuf, String)> {
    let path = match contextdir {
        Some(directory) => absolute(directory)?.join(source.trim_start_matches('/')),
        None => absolute(source)?,
    };
    if path.is_dir() {
        return Ok((path, ".".to_owned()));
    }
    let (parent, name) = (path.parent(), path.file_name());
    let parent = parent.unwrap_or(Path::new("/")).to_owned();
    let name = name.with_context(|| format!("`{source}` is no file"))?.to_string_lossy().into_owned();
    // A name that exists means itself, whatever signs it has; others may be patterns.
    let literal = path.symlink_metadata().is_ok();
    let name = match literal {
        true => name.chars().fold(String::new(), |mut escaped, character| {
            if matches!(character, '*' | '?' | '[' | '\\') {
                escaped.push('\\');
            }
            escaped.push(character);
            escaped
        }),
        false => name,
    };
    Ok((parent, word(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_their_directories() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("a[1] b"), "").unwrap();
        let root = folder.path().to_str().unwrap();
        for (source, directory, path) in [
            ("d", "d", "."),
            ("a[1] b", "", "a\\\\[1]\\ b"),
            ("/a[1] b", "", "a\\\\[1]\\ b"),
            ("*.txt", "", "*.txt"),
        ] {
            let (found, name) = place(Some(root), source).unwrap();
            let expected =
                if directory.is_empty() { folder.path().to_owned() } else { folder.path().join(directory) };
            assert_eq!((found, name.as_str()), (expected, path), "{source}");
        }
    }
}
