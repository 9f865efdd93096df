//! What is in the archive of an image: its configuration, and its files after all layers.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tar::{Archive, EntryType};

/// Marks a name of the layers below as gone; the rest of the name follows.
const WHITEOUT: &str = ".wh.";
/// Marks all names of the layers below in this directory as gone.
const OPAQUE: &str = ".wh..wh..opq";

/// An image, unpacked.
#[derive(Debug)]
pub struct Image {
    /// Without times and digests, and with the number of its layers.
    configuration: Value,
    /// Where its files are.
    pub root: PathBuf,
}

impl Image {
    /// Unpacks the only image of `archive`, which is as `docker save` writes it, into the folder `to`.
    ///
    /// # Errors
    /// Something else than one image, or a layer that cannot be unpacked here.
    pub fn unpack(archive: &Path, to: &Path) -> Result<Self> {
        let _ = fs::remove_dir_all(to);
        let (members, root) = (to.join("archive"), to.join("root"));
        fs::create_dir_all(&members)?;
        fs::create_dir_all(&root)?;
        tar(&members, archive, &[])?;
        let read = |name: &str| -> Result<Value> {
            let path = members.join(name);
            let text = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            Ok(serde_json::from_slice(&text)?)
        };
        let manifest = read("manifest.json")?;
        ensure!(manifest.as_array().is_some_and(|images| images.len() == 1), "not one image: {manifest}");
        let manifest = &manifest[0];
        let layers: Vec<&str> = manifest["Layers"].as_array().into_iter().flatten().map(text).collect();
        for layer in &layers {
            apply(&members.join(layer), &root).with_context(|| format!("cannot unpack `{layer}`"))?;
        }
        let mut configuration = read(text(&manifest["Config"]))?;
        mask(&mut configuration, layers.len());
        Ok(Self { configuration, root })
    }

    /// The configuration; without what tells of the Dockerfile's wording where two `wordings` are compared.
    pub fn described(&self, wordings: bool) -> Value {
        let mut configuration = self.configuration.clone();
        if wordings && let Some(fields) = configuration.as_object_mut() {
            fields.retain(|name, _| !["history", "rootfs"].contains(&name.as_str()));
        }
        configuration
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What only dockerd's classic builder writes, of the container that made the last layer; newer versions leave it out.
const OF_A_CONTAINER: [&str; 3] = ["container", "container_config", "docker_version"];

/// Takes out what is never the same twice: times, digests.
fn mask(configuration: &mut Value, layers: usize) {
    configuration["rootfs"] = layers.into();
    configuration["created"] = "<time>".into();
    for entry in configuration["history"].as_array_mut().into_iter().flatten() {
        entry["created"] = "<time>".into();
        entry["created_by"] = without_digests(text(&entry["created_by"])).into();
    }
    if let Some(fields) = configuration.as_object_mut() {
        fields.retain(|name, _| !OF_A_CONTAINER.contains(&name.as_str()));
    }
    // Go writes what is not set as null, empty or not at all, depending on the field.
    if let Some(fields) = configuration["config"].as_object_mut() {
        fields.retain(|name, value| !is_unset(value) && !["Image", "Hostname"].contains(&name.as_str()));
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) => false,
    }
}

/// `file:<digest> in /x` for `file:0123... in /x`.
fn without_digests(text: &str) -> String {
    let is_digest = |part: &str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split(' ').map(|word| match word.split_once(':') {
        Some((kind, digest)) if is_digest(digest) => format!("{kind}:<digest>"),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Puts a layer upon what is in `root`.
fn apply(layer: &Path, root: &Path) -> Result<()> {
    // Whiteouts hide what is below and nothing of their own layer, wherever in the archive they stand; and tar replaces
    // neither a directory by a file nor the other way round.
    for entry in Archive::new(fs::File::open(layer)?).entries()? {
        let entry = entry?;
        let path = beneath(root, &entry.path()?);
        let (folder, name) =
            (path.parent().unwrap_or(root), path.file_name().unwrap_or_default().to_string_lossy());
        if name == OPAQUE {
            for child in fs::read_dir(folder).into_iter().flatten() {
                remove(&child?.path())?;
            }
        } else if let Some(name) = name.strip_prefix(WHITEOUT) {
            remove(&folder.join(name))?;
        } else if let Ok(metadata) = path.symlink_metadata()
            && metadata.is_dir() != (entry.header().entry_type() == EntryType::Directory)
        {
            remove(&path)?;
        }
    }
    tar(root, layer, &["--exclude=.wh.*"])
}

/// `path` of an archive as one below `root`.
fn beneath(root: &Path, path: &Path) -> PathBuf {
    root.join(path.components().filter(|part| matches!(part, Component::Normal(_))).collect::<PathBuf>())
}

fn remove(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(_) => Ok(()),
    }
}

fn tar(to: &Path, archive: &Path, more: &[&str]) -> Result<()> {
    let mut child = Command::new("tar")
        .args(["--extract", "--preserve-permissions", "--same-owner", "--numeric-owner"])
        .args(["--xattrs", "--xattrs-include=*", "--directory"])
        .arg(to)
        .arg("--file")
        .arg(archive)
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `tar`")?;
    let mut said = String::new();
    child.stderr.take().context("no output")?.read_to_string(&mut said)?;
    ensure!(child.wait()?.success(), "`tar` fails: {said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn layer(path: &Path, entries: &[(&str, EntryType, &str)]) {
        let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o755);
            header.set_uid(rustix::process::getuid().as_raw().into());
            header.set_gid(rustix::process::getgid().as_raw().into());
            if *kind == EntryType::Link {
                header.set_size(0);
                builder.append_link(&mut header, name, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
        }
        builder.into_inner().unwrap();
    }

    fn names(root: &Path) -> BTreeSet<String> {
        let found =
            Command::new("find").arg(root).args(["-mindepth", "1", "-printf", "%P\\n"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn layers_hide_what_is_below() {
        use EntryType::{Directory, Link, Regular};
        let folder = tempfile::tempdir().unwrap();
        let (root, archive) = (folder.path().join("root"), folder.path().join("layer.tar"));
        fs::create_dir(&root).unwrap();
        let below =
            [("d/", Directory, ""), ("d/a", Regular, "a"), ("d/b", Regular, "b"), ("e", Regular, "e")];
        layer(&archive, &below);
        apply(&archive, &root).unwrap();
        layer(
            &archive,
            &[("d/.wh.a", Regular, ""), ("d/c", Link, "e"), ("g/", Directory, ""), ("g/x", Regular, "")],
        );
        apply(&archive, &root).unwrap();
        assert_eq!(names(&root), ["d", "d/b", "d/c", "e", "g", "g/x"].map(str::to_owned).into());
        layer(
            &archive,
            &[("d", Regular, "now a file"), ("g/y", Regular, ""), ("g/.wh..wh..opq", Regular, "")],
        );
        apply(&archive, &root).unwrap();
        assert_eq!(names(&root), ["d", "e", "g", "g/y"].map(str::to_owned).into());
    }
}
