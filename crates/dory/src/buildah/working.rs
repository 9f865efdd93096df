//! Working containers on disk: a record each, and an image without a name that keeps the layers.
//!
//! ```text
//! <data-root>/working/<id>.json     the record, replaced as a whole
//! <data-root>/working/<id>/         upper, work and merged, while it is mounted
//! ```
//!
//! A change first takes in the image that it came to, then replaces the record, then drops the image before it. A death between
//! two of these leaves an image without a name, and a true record.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use dory_store::{ImageConfig, LayerLease, NewImage, RemoveOptions, Store};
use dory_types::{ContainerId, ContainerName, Digest, ImageId, Timestamp};
use serde::{Deserialize, Serialize};

/// The directory of the records in the data-root.
const DIRECTORY: &str = "working";
/// What Buildah puts behind the base image's name.
const SUFFIX: &str = "working-container";

/// A working container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Working {
    /// Its id.
    pub(super) id: ContainerId,
    /// Its name.
    pub(super) name: ContainerName,
    /// The image that it began from, as it was named; empty for `scratch`.
    pub(super) base: String,
    /// That image's id.
    pub(super) base_id: Option<ImageId>,
    /// What it is now, as an image of the store.
    pub(super) image: ImageId,
    /// When it was made.
    pub(super) created: Timestamp,
    /// Its files are mounted.
    #[serde(default)]
    pub(super) mounted: bool,
}

/// All working containers of a store.
#[derive(Debug)]
pub(super) struct Shelf {
    store: Arc<Store>,
    directory: PathBuf,
}

impl Shelf {
    /// Those of `store`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(super) fn open(store: Arc<Store>) -> Result<Self> {
        let directory = store.data_root().join(DIRECTORY);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make `{}`", directory.display()))?;
        Ok(Self { store, directory })
    }

    /// The store.
    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// All of them, the oldest first.
    ///
    /// # Errors
    /// The directory or a record cannot be read.
    pub(super) fn all(&self) -> Result<Vec<Working>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).context("cannot list the working containers")? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let failed = || format!("cannot read `{}`", path.display());
            let bytes = fs::read(&path).with_context(failed)?;
            all.push(serde_json::from_slice::<Working>(&bytes).with_context(failed)?);
        }
        all.sort_by(|one, other| one.created.cmp(&other.created).then(one.id.cmp(&other.id)));
        Ok(all)
    }

    /// The one that `text` names: its name, or the unambiguous beginning of its id.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub(super) fn find(&self, text: &str) -> Result<Working> {
        let all = self.all()?;
        if let Some(found) = all.iter().find(|working| working.name.as_str() == text) {
            return Ok(found.clone());
        }
        let by_id = |working: &&Working| !text.is_empty() && working.id.as_str().starts_with(text);
        match all.iter().filter(by_id).collect::<Vec<_>>().as_slice() {
            [found] => Ok((*found).clone()),
            [] => bail!("no such working container: {text}"),
            _ => bail!("several working containers have ids that begin with `{text}`"),
        }
    }

    /// A new one upon `layers`, under `name` or one made of the base's.
    ///
    /// # Errors
    /// The name is taken or none, or the disk fails.
    pub(super) fn add(
        &self,
        name: Option<&str>,
        base: &str,
        base_id: Option<ImageId>,
        config: &ImageConfig,
        layers: Vec<LayerLease>,
    ) -> Result<Working> {
        let taken: Vec<ContainerName> = self.all()?.into_iter().map(|working| working.name).collect();
        let name = match name {
            Some(name) => {
                let name = name.parse().with_context(|| format!("`{name}` is no name of a container"))?;
                ensure!(!taken.contains(&name), "the name `{name}` is in use");
                name
            }
            None => free_name(base, &taken)?,
        };
        let mut random = [0; 32];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .context("no random bytes")?;
        let image = self.keep(config, layers)?;
        let id = ContainerId::from_bytes(random);
        let created = Timestamp::now();
        let working = Working { id, name, base: base.to_owned(), base_id, image, created, mounted: false };
        self.write(&working)?;
        Ok(working)
    }

    /// What it is now.
    ///
    /// # Errors
    /// Its image is gone.
    pub(super) fn config(&self, working: &Working) -> Result<ImageConfig> {
        let image = self.store.image(working.image.as_str())?;
        Ok((*image.config).clone())
    }

    /// Its layers, the lowest first.
    ///
    /// # Errors
    /// Its image is gone.
    pub(super) fn layers(&self, working: &Working) -> Result<Vec<LayerLease>> {
        Ok(self.store.lease_layers(&working.image)?)
    }

    /// Makes it what `config` and `layers` say.
    ///
    /// # Errors
    /// The disk fails; it is then as it was.
    pub(super) fn change(
        &self,
        working: &mut Working,
        config: &ImageConfig,
        layers: Vec<LayerLease>,
    ) -> Result<()> {
        let before = std::mem::replace(&mut working.image, self.keep(config, layers)?);
        self.write(working)?;
        self.drop_image(&before)
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn write(&self, working: &Working) -> Result<()> {
        let path = self.record(&working.id);
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(working)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// Removes it.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn remove(&self, working: &Working) -> Result<()> {
        let path = self.record(&working.id);
        fs::remove_file(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
        match fs::remove_dir_all(self.files(&working.id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context("cannot remove its files");
            }
            _ => {}
        }
        self.drop_image(&working.image)
    }

    /// The directory of a mounted one.
    pub(super) fn files(&self, id: &ContainerId) -> PathBuf {
        self.directory.join(id.as_str())
    }

    fn record(&self, id: &ContainerId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Takes an image in that has no name. Its time tells it from others of the same content.
    fn keep(&self, config: &ImageConfig, layers: Vec<LayerLease>) -> Result<ImageId> {
        let config = ImageConfig { created: Some(Timestamp::now()), ..config.clone() };
        let bytes = serde_json::to_vec(&config)?;
        let new = NewImage { config: &bytes, layers, references: &[], parent: None };
        Ok(self.store.add_image(new)?.id)
    }

    /// Drops an image that only a working container had.
    fn drop_image(&self, image: &ImageId) -> Result<()> {
        let Ok(found) = self.store.image(image.as_str()) else { return Ok(()) };
        if found.references.is_empty() && self.all()?.iter().all(|working| working.image != *image) {
            self.store.remove_image(image.as_str(), RemoveOptions::default(), &|_| Vec::new())?;
        }
        Ok(())
    }
}

/// `busybox-working-container`, with a number behind where that is taken.
fn free_name(base: &str, taken: &[ContainerName]) -> Result<ContainerName> {
    let short = base.rsplit('/').next().unwrap_or(base);
    let short = short.split([':', '@']).next().filter(|name| !name.is_empty()).unwrap_or(SUFFIX);
    let first = if short == SUFFIX { SUFFIX.to_owned() } else { format!("{short}-{SUFFIX}") };
    let names = std::iter::once(first.clone()).chain((1..).map(|number| format!("{first}-{number}")));
    for name in names {
        let name: ContainerName = name.parse().with_context(|| format!("`{name}` is no name"))?;
        if !taken.contains(&name) {
            return Ok(name);
        }
    }
    bail!("no name is free")
}

/// Adds what a step changed to a configuration: `layers` are all that there are now.
pub(super) fn extend(config: &mut ImageConfig, layers: &[LayerLease], created_by: &str) {
    let known = config.rootfs.diff_ids.len();
    let layers: Vec<Digest> = layers.iter().map(LayerLease::diff_id).collect();
    for _ in known..layers.len() {
        config.history.push(dory_store::HistoryEntry {
            created: Some(Timestamp::now()),
            created_by: created_by.to_owned(),
            ..dory_store::HistoryEntry::default()
        });
    }
    config.rootfs.diff_ids = layers;
}

/// A path of this machine, absolute.
pub(super) fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(Path::new(path)).with_context(|| format!("`{path}` is no path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_the_base() {
        let name = |text: &str| text.parse::<ContainerName>().unwrap();
        for (base, taken, expected) in [
            ("busybox", &[][..], "busybox-working-container"),
            ("localhost:5000/a/b:1@sha256:x", &[], "b-working-container"),
            ("", &[], "working-container"),
            ("x", &[name("x-working-container")], "x-working-container-1"),
        ] {
            assert_eq!(free_name(base, taken).unwrap().as_str(), expected, "{base}");
        }
    }
}
