//! Mounts of working containers: an overlay whose upper directory becomes a layer with the next verb.
//!
//! The mount is made where the command runs, so that a script sees it; it goes with `umount`, `commit` keeps it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dory_store::{IdMap, LayeredFiles};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use super::working::{Shelf, Working, extend};

/// The directories of a mount.
struct Places {
    upper: PathBuf,
    work: PathBuf,
    merged: PathBuf,
}

impl Places {
    fn of(shelf: &Shelf, working: &Working) -> Self {
        let files = shelf.files(&working.id);
        Self { upper: files.join("upper"), work: files.join("work"), merged: files.join("merged") }
    }

    fn make(&self) -> Result<()> {
        for path in [&self.upper, &self.work, &self.merged] {
            fs::create_dir_all(path).with_context(|| format!("cannot make `{}`", path.display()))?;
        }
        Ok(())
    }
}

/// Mounts, and prints where; what is mounted where nobody is named.
pub(super) fn mount(shelf: &Shelf, names: &[String]) -> Result<()> {
    if names.is_empty() {
        for working in shelf.all()?.iter().filter(|working| working.mounted) {
            println!("{} {}", working.name, Places::of(shelf, working).merged.display());
        }
        return Ok(());
    }
    for name in names {
        let mut working = shelf.find(name)?;
        let places = Places::of(shelf, &working);
        if !working.mounted {
            working.mounted = true;
            // First the record: a mount that nobody knows of would never go.
            shelf.write(&working)?;
        }
        if !is_mounted(&places.merged) {
            attach(shelf, &working, &places)?;
        }
        match names.len() {
            1 => println!("{}", places.merged.display()),
            _ => println!("{} {}", working.name, places.merged.display()),
        }
    }
    Ok(())
}

/// Takes mounts away; what was written there is kept.
pub(super) fn umount(shelf: &Shelf, all: bool, names: &[String]) -> Result<()> {
    let chosen = match all {
        true => shelf.all()?.into_iter().filter(|working| working.mounted).collect(),
        false => names.iter().map(|name| shelf.find(name)).collect::<Result<Vec<_>>>()?,
    };
    ensure!(all || !chosen.is_empty(), "name a working container, or use --all");
    for mut working in chosen {
        take_over(shelf, &mut working)?;
        detach(&Places::of(shelf, &working).merged)?;
        working.mounted = false;
        shelf.write(&working)?;
        println!("{}", working.id);
    }
    Ok(())
}

/// Makes a layer of what was written to a mount so far.
pub(super) fn take_over(shelf: &Shelf, working: &mut Working) -> Result<()> {
    let places = Places::of(shelf, working);
    if !working.mounted || !places.upper.is_dir() {
        return Ok(());
    }
    let mut layers = shelf.layers(working)?;
    let lower = shelf.store().layer_directories(&layers);
    let files = LayeredFiles::open(&places.upper, &lower, IdMap::default())?;
    if files.changes()?.is_empty() {
        return Ok(());
    }
    layers.push(shelf.store().ingest_written(|sink| files.pack_changes(sink).map(drop))?);
    let mut config = shelf.config(working)?;
    extend(&mut config, &layers, "buildah mount");
    shelf.change(working, &config, layers)?;
    renew(shelf, working)
}

/// Mounts what the container is now, at the same place.
pub(super) fn renew(shelf: &Shelf, working: &Working) -> Result<()> {
    let places = Places::of(shelf, working);
    if !working.mounted || !is_mounted(&places.merged) {
        return Ok(());
    }
    detach(&places.merged)?;
    for path in [&places.upper, &places.work] {
        fs::remove_dir_all(path).with_context(|| format!("cannot empty `{}`", path.display()))?;
    }
    attach(shelf, working, &places)
}

fn attach(shelf: &Shelf, working: &Working, places: &Places) -> Result<()> {
    places.make()?;
    let lower = shelf.store().layer_directories(&shelf.layers(working)?);
    let lower = if lower.is_empty() { vec![empty(shelf, working)?] } else { lower };
    let mount = dory_runtime::mount_overlay(&lower, &places.upper, &places.work)
        .context("cannot mount the container's files")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", rustix::fs::CWD, &places.merged, flags)
        .with_context(|| format!("cannot mount at `{}`", places.merged.display()))
}

/// A directory for what has no layers: overlay wants one.
fn empty(shelf: &Shelf, working: &Working) -> Result<PathBuf> {
    let path = shelf.files(&working.id).join("empty");
    fs::create_dir_all(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
    Ok(path)
}

fn detach(merged: &Path) -> Result<()> {
    while is_mounted(merged) {
        // Whoever stands in it keeps seeing it.
        unmount(merged, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount `{}`", merged.display()))?;
    }
    Ok(())
}

/// Whether something is mounted at `path`: it lies on another filesystem than its parent.
fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| path.symlink_metadata().ok().map(|metadata| metadata.dev());
    let parent = path.parent().and_then(device);
    device(path).is_some_and(|device| Some(device) != parent)
}

/// Takes a mount away and what was written there with it.
pub(super) fn abandon(shelf: &Shelf, working: &Working) -> Result<()> {
    detach(&Places::of(shelf, working).merged)
}
