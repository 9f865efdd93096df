//! The verbs that begin, end and list: `from`, `config`, `commit`, `rm`, and those of images.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dory_build::{Cancel, PullPolicy};
use dory_engine::Engine;
use dory_registry::Platform;
use dory_store::{Image, ImageConfig, NewImage, RemoveOptions, Removed};
use dory_types::{Digest, ImageId, ImageReference, Timestamp};
use serde_json::json;

use super::config::ConfigFlags;
use super::working::{Shelf, Working};
use super::{ListFlags, mounted};
use crate::build;

/// The name of the image that has nothing.
const SCRATCH: &str = "scratch";

/// Flags of Buildah's `from`.
#[derive(Debug, Args)]
pub(super) struct FromFlags {
    /// A name for the working container.
    #[arg(long)]
    name: Option<String>,
    /// Ask the registry for a newer image (`always`, `true`), or only where there is none (`missing`).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_name = "WHEN")]
    pull: Option<String>,
    /// Ask the registry for a newer image.
    #[arg(long)]
    pull_always: bool,
    /// For which machine.
    #[arg(long)]
    platform: Option<String>,
    /// Print nothing while pulling; nothing is printed anyway.
    #[arg(short, long)]
    quiet: bool,
    /// The image, or `scratch`.
    image: String,
}

/// Makes a working container, and prints its name.
pub(super) fn from(engine: &Engine, shelf: &Shelf, flags: &FromFlags) -> Result<()> {
    let platform: Platform = match &flags.platform {
        Some(text) => text.parse().with_context(|| format!("`{text}` is no platform"))?,
        None => Platform::current(),
    };
    let always =
        flags.pull_always || matches!(flags.pull.as_deref(), Some("always" | "true" | "newer" | "ifnewer"));
    let working = if flags.image == SCRATCH {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        shelf.add(flags.name.as_deref(), "", None, &config, Vec::new())?
    } else {
        let policy = if always { PullPolicy::Always } else { PullPolicy::Missing };
        let name = named(&flags.image)?;
        let id = find(engine, name, &platform, policy)?;
        let image = shelf.store().image(id.as_str())?;
        let mut config = (*image.config).clone();
        // They are for builds from a Dockerfile.
        config.config.on_build.clear();
        shelf.add(flags.name.as_deref(), name, Some(id.clone()), &config, shelf.store().lease_layers(&id)?)?
    };
    println!("{}", working.name);
    Ok(())
}

/// A name of an image without the transport that Buildah's users may write.
fn named(image: &str) -> Result<&str> {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    match name.split_once(':') {
        Some((
            transport @ ("docker-archive" | "oci-archive" | "oci" | "dir" | "containers-storage"
            | "docker-daemon"),
            _,
        )) => {
            bail!(
                "images at `{transport}:` are not read: load the archive with `dory load`, or push it to a registry"
            )
        }
        _ => Ok(name),
    }
}

fn find(engine: &Engine, name: &str, platform: &Platform, policy: PullPolicy) -> Result<ImageId> {
    let images = build::images(engine)?;
    Ok(images.find(name, platform, policy, &|_, _, _, _| {}, &Cancel::new())?.id)
}

/// Changes what the image says about itself.
pub(super) fn config(shelf: &Shelf, flags: &ConfigFlags) -> Result<()> {
    let mut working = shelf.find(&flags.container)?;
    let mut config = shelf.config(&working)?;
    flags.apply(&mut config)?;
    let layers = shelf.layers(&working)?;
    shelf.change(&mut working, &config, layers)
}

/// Flags of Buildah's `commit`.
#[derive(Debug, Args)]
pub(super) struct CommitFlags {
    /// Remove the working container when the image is there.
    #[arg(long)]
    rm: bool,
    /// Print nothing but the image's id; it is all that is printed.
    #[arg(short, long)]
    quiet: bool,
    /// Manifests are OCI's; `oci` and `docker` are accepted.
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Write the image's id to a file.
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// The image's time, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// The working container.
    container: String,
    /// The image's name, or `docker://NAME` to push it too.
    image: Option<String>,
}

/// Makes an image of a working container, and prints its id.
pub(super) fn commit(engine: &Engine, shelf: &Shelf, flags: &CommitFlags) -> Result<()> {
    let mut working = shelf.find(&flags.container)?;
    mounted::take_over(shelf, &mut working)?;
    let mut config = shelf.config(&working)?;
    config.created = match flags.timestamp {
        Some(seconds) => Some(Timestamp::from_unix(seconds, 0).context("--timestamp is no time")?),
        None => Some(Timestamp::now()),
    };
    if flags.timestamp.is_some() {
        config.history.iter_mut().for_each(|entry| entry.created = config.created);
    }
    let pushed = flags.image.as_deref().and_then(|image| image.strip_prefix("docker://"));
    let name = pushed.or(flags.image.as_deref());
    let names: Vec<ImageReference> = name.map(reference).transpose()?.into_iter().collect();
    let bytes = serde_json::to_vec(&config)?;
    let layers = shelf.layers(&working)?;
    let image =
        shelf.store().add_image(NewImage { config: &bytes, layers, references: &names, parent: None })?;
    if pushed.is_some() {
        names.iter().try_for_each(|name| push_name(engine, name).map(drop))?;
    }
    if let Some(path) = &flags.iidfile {
        std::fs::write(path, format!("sha256:{}", image.id)).context("cannot write the image's id")?;
    }
    if flags.rm {
        remove(shelf, &working)?;
    }
    println!("{}", image.id);
    Ok(())
}

fn reference(name: &str) -> Result<ImageReference> {
    name.parse().with_context(|| format!("`{name}` is no name of an image"))
}

fn remove(shelf: &Shelf, working: &Working) -> Result<()> {
    mounted::abandon(shelf, working)?;
    shelf.remove(working)
}

/// Removes working containers, and prints their ids.
pub(super) fn rm(shelf: &Shelf, all: bool, names: &[String]) -> Result<()> {
    ensure!(all || !names.is_empty(), "name a working container, or use --all");
    let chosen = match all {
        true => shelf.all()?,
        false => names.iter().map(|name| shelf.find(name)).collect::<Result<Vec<_>>>()?,
    };
    for working in chosen {
        remove(shelf, &working)?;
        println!("{}", working.id);
    }
    Ok(())
}

/// Prints a table whose columns are as wide as they have to be.
fn table(heading: &[&str], rows: &[Vec<String>], flags: &ListFlags) {
    let heading: Vec<String> = heading.iter().map(|title| (*title).to_owned()).collect();
    let shown = (!flags.noheading).then_some(&heading).into_iter().chain(rows);
    let width =
        |column: usize| shown.clone().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    for row in shown {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}

/// Lists working containers.
pub(super) fn containers(shelf: &Shelf, flags: &ListFlags) -> Result<()> {
    let all = shelf.all()?;
    if flags.json {
        let list: Vec<_> = all
            .iter()
            .map(|working| {
                json!({
                    "id": working.id, "builder": true, "imageid": working.base_id,
                    "imagename": working.base, "containername": working.name,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    if flags.quiet {
        all.iter().for_each(|working| println!("{}", working.id));
        return Ok(());
    }
    let row = |working: &Working| {
        let base = working.base_id.as_ref().map(|id| id.short().to_owned());
        let name = if working.base.is_empty() { SCRATCH } else { working.base.as_str() };
        vec![
            working.id.short().to_owned(),
            "*".to_owned(),
            base.unwrap_or_default(),
            name.to_owned(),
            working.name.to_string(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(&["CONTAINER ID", "BUILDER", "IMAGE ID", "IMAGE NAME", "CONTAINER NAME"], &rows, flags);
    Ok(())
}

/// Lists images that are no working container's.
pub(super) fn images(shelf: &Shelf, flags: &ListFlags) -> Result<()> {
    let working = shelf.all()?;
    let mut images = shelf.store().images()?;
    images.retain(|image| {
        !image.references.is_empty() || working.iter().all(|working| working.image != image.id)
    });
    if flags.json {
        let entry = |image: &Image| {
            json!({
                "id": image.id, "names": image.references.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "size": image.size, "createdatraw": image.config.created,
            })
        };
        println!("{}", serde_json::to_string_pretty(&images.iter().map(entry).collect::<Vec<_>>())?);
        return Ok(());
    }
    if flags.quiet {
        images.iter().for_each(|image| println!("{}", image.id));
        return Ok(());
    }
    let mut rows = Vec::new();
    for image in &images {
        let created = image.config.created.map(|created| created.to_string()).unwrap_or_default();
        let mut row = |repository: String, tag: String| {
            let id = image.id.short().to_owned();
            rows.push(vec![repository, tag, id, created.clone(), image.size.to_string()]);
        };
        let tagged = image.references.iter().filter_map(|name| Some((name, name.tag()?)));
        let mut is_named = false;
        for (name, tag) in tagged {
            is_named = true;
            row(name.repository().to_string(), tag.to_string());
        }
        if !is_named {
            row("<none>".to_owned(), "<none>".to_owned());
        }
    }
    table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "BYTES"], &rows, flags);
    Ok(())
}

/// Removes images, and prints what went.
pub(super) fn rmi(shelf: &Shelf, images: &[String]) -> Result<()> {
    for image in images {
        for removed in shelf.store().remove_image(image, RemoveOptions::default(), &|_| Vec::new())? {
            match removed {
                Removed::Untagged { reference, .. } => println!("untagged: {reference}"),
                Removed::Image(id) => println!("{id}"),
                Removed::Layer(_) => {}
            }
        }
    }
    Ok(())
}

/// Gives an image more names.
pub(super) fn tag(shelf: &Shelf, image: &str, names: &[String]) -> Result<()> {
    for name in names {
        shelf.store().tag(image, reference(name)?)?;
    }
    Ok(())
}

/// Flags of Buildah's `push`.
#[derive(Debug, Args)]
pub(super) struct PushFlags {
    /// Write the digest of the manifest to a file.
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print nothing.
    #[arg(short, long)]
    quiet: bool,
    /// The image.
    image: String,
    /// Where it goes, where that is not its name's registry.
    destination: Option<String>,
}

/// Brings an image somewhere.
pub(super) fn push(engine: &Engine, shelf: &Shelf, flags: &PushFlags) -> Result<()> {
    let destination = flags.destination.as_deref().unwrap_or(&flags.image);
    for transport in ["oci-archive:", "docker-archive:"] {
        if let Some(path) = destination.strip_prefix(transport) {
            ensure!(flags.digestfile.is_none(), "--digestfile is for registries");
            return save(shelf, &flags.image, Path::new(path.split(':').next().unwrap_or(path)));
        }
    }
    let name = reference(named(destination)?)?;
    if flags.destination.is_some() {
        shelf.store().tag(&flags.image, name.clone())?;
    }
    let digest = push_name(engine, &name)?;
    if let Some(path) = &flags.digestfile {
        std::fs::write(path, digest.to_string()).context("cannot write the digest")?;
    }
    if !flags.quiet {
        println!("{digest}");
    }
    Ok(())
}

fn push_name(engine: &Engine, name: &ImageReference) -> Result<Digest> {
    Ok(build::images(engine)?.push(name, false, &|_, _, _, _| {}, &Cancel::new())?)
}

fn save(shelf: &Shelf, image: &str, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make `{}`", path.display()))?;
    let mut file = BufWriter::new(file);
    shelf.store().save(&[image.to_owned()], &mut file)?;
    file.flush().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Pulls an image, and prints its id.
pub(super) fn pull(engine: &Engine, quiet: bool, image: &str) -> Result<()> {
    let name = named(image)?;
    if !quiet {
        eprintln!("Pulling {name}");
    }
    println!("{}", find(engine, name, &Platform::current(), PullPolicy::Always)?);
    Ok(())
}

/// Tells what is known, in JSON.
pub(super) fn inspect(shelf: &Shelf, kind: &str, name: &str) -> Result<()> {
    let (told, config, id) = match kind {
        "container" => {
            let working = shelf.find(name)?;
            let config = shelf.config(&working)?;
            (
                json!({
                    "Container": working.name, "ContainerID": working.id,
                    "FromImage": working.base, "FromImageID": working.base_id,
                }),
                config,
                working.image,
            )
        }
        "image" => {
            let image = shelf.store().image(name)?;
            let names: Vec<_> = image.references.iter().map(ToString::to_string).collect();
            (
                json!({ "FromImage": names.first(), "FromImageID": image.id, "Names": names }),
                (*image.config).clone(),
                image.id,
            )
        }
        other => bail!("--type {other}: `container` or `image`"),
    };
    let mut told = told;
    told["Type"] = "buildah 0.0.1".into();
    told["ImageID"] = id.as_str().into();
    told["OCIv1"] = serde_json::to_value(config)?;
    println!("{}", serde_json::to_string_pretty(&told)?);
    Ok(())
}
