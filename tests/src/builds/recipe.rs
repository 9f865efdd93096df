//! A Dockerfile of `tests/dockerfiles`, and how it is built.
//!
//! Lines that begin with `#@` tell what the Dockerfile cannot; to a builder they are comments.
//!
//! ```text
//! #@flags --build-arg A=b --target last     more words for `docker build`, as a shell reads them
//! #@env SOURCE_DATE_EPOCH=0                  set where `docker build` runs
//! #@before chmod 4755 run.sh                 a shell's line, run first in the copy of the context
//! #@base onbuild-base                        another Dockerfile of the folder, built first and tagged with its name
//! #@fails unknown instruction                must not build, and the builder must say so
//! #@without classic: the syntax is newer     a builder that does not know it, and why
//! ```
//!
//! Where `Dockerfile.reference` stands beside it, builders of dockerd get that one: it says in old words what dockerd's
//! builder has no word for yet.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::builder::Builder;

/// Where dockerd's builders look instead.
const REFERENCE: &str = "Dockerfile.reference";
/// The date of all files of a context, so that nothing depends on when the repository was checked out.
const DATE: &str = "@1704067200";

/// One folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Name of the folder, and of the image.
    pub name: String,
    folder: PathBuf,
    has_reference: bool,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    before: Vec<String>,
    /// What has to be built first.
    pub bases: Vec<String>,
    /// It must fail, and the output must have this text.
    pub fails: Option<String>,
    without: Vec<(String, String)>,
}

impl Recipe {
    /// Reads the Dockerfile in `folder`.
    ///
    /// # Errors
    /// No Dockerfile, or a line with `#@` that means nothing.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("Dockerfile");
        let text = std::fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut recipe = Self { name, folder: folder.to_owned(), ..Self::default() };
        recipe.has_reference = folder.join(REFERENCE).exists();
        for line in String::from_utf8_lossy(&text).lines().filter_map(|line| line.strip_prefix("#@")) {
            recipe.take(line.trim()).with_context(|| format!("`{}`: `#@{line}`", path.display()))?;
        }
        Ok(recipe)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "flags" => self.flags.push(rest.to_owned()),
            "env" => {
                let (name, value) = rest.split_once('=').context("no `=`")?;
                self.environment.push((name.to_owned(), value.to_owned()));
            }
            "before" => self.before.push(rest.to_owned()),
            "base" => self.bases.push(rest.to_owned()),
            "fails" => self.fails = Some(rest.to_owned()),
            "without" => {
                let (builder, why) = rest.split_once(": ").context("no reason")?;
                self.without.push((builder.to_owned(), why.to_owned()));
            }
            _ => bail!("unknown word `{verb}`"),
        }
        Ok(())
    }

    /// Why `builder` does not build it.
    pub fn left_out(&self, builder: Builder) -> Option<&str> {
        let names = [builder.name(), builder.kind()];
        self.without.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, why)| why.as_str())
    }

    /// Copies the context to `to`, the way that it is in every run: owned by root, with two modes and one date.
    ///
    /// # Errors
    /// A file cannot be copied, or a `#@before` fails.
    pub fn lay_out(&self, to: &Path) -> Result<()> {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir_all(to)?;
        copy(&self.folder, to).with_context(|| format!("cannot copy `{}`", self.folder.display()))?;
        for line in &self.before {
            let status = Command::new("sh").args(["-euc", line]).current_dir(to).status()?;
            ensure!(status.success(), "`{line}` fails");
        }
        let dated = Command::new("find")
            .arg(to)
            .args(["-exec", "touch", "--no-dereference", "--date", DATE, "{}", "+"])
            .status()?;
        ensure!(dated.success(), "`touch` fails in `{}`", to.display());
        Ok(())
    }

    /// The words after `docker build`, for a shell that runs in the context.
    pub fn words(&self, builder: Builder) -> String {
        let mut words = self.flags.join(" ");
        if self.has_reference && builder.is_dockerd() {
            words.push_str(&format!(" --file {REFERENCE}"));
        }
        words
    }

    /// Whether the two build from different texts.
    pub fn in_other_words(&self, one: Builder, other: Builder) -> bool {
        self.has_reference && one.is_dockerd() != other.is_dockerd()
    }

    /// What is set where it runs.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }
}

/// Reads all folders in `folder`, in order of their names, those that others build upon first.
///
/// # Errors
/// See [`Recipe::read`]; a base that is not there.
pub fn read_all(folder: &Path) -> Result<Vec<Recipe>> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list `{}`", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let mut recipes: Vec<Recipe> = folders.iter().map(|path| Recipe::read(path)).collect::<Result<_>>()?;
    for recipe in &recipes {
        for base in &recipe.bases {
            ensure!(recipes.iter().any(|other| other.name == *base), "`{}`: no base `{base}`", recipe.name);
        }
    }
    // Bases have none of their own, so one step of order is enough.
    recipes.sort_by_key(|recipe| !recipe.bases.is_empty());
    Ok(recipes)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&source)?, &target)?;
        } else {
            std::fs::copy(&source, &target)?;
            let mode = if entry.metadata()?.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_lines() {
        let mut recipe = Recipe::default();
        for line in [
            "flags --target x",
            "env A=b=c",
            "before chmod 1777 d",
            "base other",
            "fails no such",
            "without classic: newer",
        ] {
            recipe.take(line).unwrap();
        }
        assert_eq!(recipe.words(Builder::DoryClassic), "--target x");
        assert_eq!(recipe.environment(), [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(recipe.left_out(Builder::DockerdClassic), Some("newer"));
        assert_eq!(recipe.left_out(Builder::DockerdBuildkit), None);
        assert!(recipe.take("nonsense").is_err() && recipe.take("without classic").is_err());
    }

    #[test]
    fn every_dockerfile_of_ours_reads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dockerfiles");
        assert!(read_all(&folder).unwrap().len() >= 80);
    }
}
