//! The image that is measured, made of this machine's own files: as an archive for `load`, and in a registry's storage.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{NAME, PORT, Registry};
use crate::engine::NetworkNamespace;

/// How the files are divided among the layers.
const WEIGHTS: [u64; 12] = [30, 20, 12, 9, 7, 6, 5, 4, 3, 2, 1, 1];

/// Where the image is.
#[derive(Debug)]
pub(super) struct Material {
    /// Its layers, uncompressed; the compressed ones lie beside them with `.gz`.
    pub(super) layers: Vec<PathBuf>,
    /// As `docker save` would write it.
    pub(super) archive: PathBuf,
    /// A registry's storage that has it.
    pub(super) registry: PathBuf,
}

impl Material {
    /// Makes the image of `size` bytes of files in `folder`, unless it is there.
    pub(super) fn make(folder: &Path, size: u64, dory: &Path) -> Result<Self> {
        let folder = folder.join((size >> 20).to_string());
        let layers = (0..WEIGHTS.len()).map(|number| folder.join(format!("layer{number}.tar"))).collect();
        let material = Self { layers, archive: folder.join("image.tar"), registry: folder.join("registry") };
        if !folder.join("complete").exists() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder)?;
            material.pack_layers(&folder, size)?;
            let config = material.config()?;
            material.pack_archive(&config)?;
            material.fill_registry(&folder, &config, dory)?;
            fs::write(folder.join("complete"), "")?;
        }
        Ok(material)
    }

    /// What the image is called in the registry at `port`.
    pub(super) fn remote(&self, port: u16) -> String {
        format!("localhost:{port}/big:1")
    }

    /// The compressed form of a layer.
    pub(super) fn compressed(layer: &Path) -> PathBuf {
        layer.with_extension("tar.gz")
    }

    /// The length of all layers in bytes.
    pub(super) fn length(&self, compressed: bool) -> Result<u64> {
        let path = |layer: &PathBuf| if compressed { Self::compressed(layer) } else { layer.clone() };
        self.layers.iter().map(|layer| Ok(fs::metadata(path(layer))?.len())).sum()
    }

    /// Packs programs, libraries and documents, as images have, and compresses them as other tools do.
    fn pack_layers(&self, folder: &Path, size: u64) -> Result<()> {
        let listed =
            output(Command::new("find").args(["/usr", "-xdev", "-type", "f", "-printf", "%s %P\n"]))?;
        let mut files = Vec::new();
        let mut total = 0;
        for line in listed.lines() {
            let Some((length, name)) = line.split_once(' ') else { continue };
            let length: u64 = length.parse()?;
            if total + length <= size {
                total += length;
                files.push((length, name));
            }
        }
        let mut rest = files.as_slice();
        for (layer, weight) in self.layers.iter().zip(WEIGHTS) {
            let wanted = total * weight / WEIGHTS.iter().sum::<u64>();
            let mut taken = 0;
            let count = rest.iter().take_while(|(length, _)| {
                taken += length;
                taken <= wanted
            });
            let (part, left) = rest.split_at(count.count());
            rest = left;
            let list = folder.join("list");
            fs::write(&list, part.iter().map(|(_, name)| format!("usr/{name}\n")).collect::<String>())?;
            let options =
                ["--format=posix", "--no-recursion", "--pax-option=delete=atime,delete=ctime", "-C", "/"];
            output(Command::new("tar").args(options).arg("-cf").arg(layer).arg("-T").arg(&list))?;
        }
        let names = self.layers.iter().map(|layer| format!("{}\n", layer.display())).collect::<String>();
        fs::write(folder.join("list"), names)?;
        output(
            Command::new("xargs")
                .args(["-P2", "-n1", "-a"])
                .arg(folder.join("list"))
                .args(["gzip", "-k", "-n"]),
        )?;
        Ok(())
    }

    fn config(&self) -> Result<Value> {
        let diff_ids = self.layers.iter().map(|layer| digest(layer)).collect::<Result<Vec<_>>>()?;
        Ok(json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["/usr/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
    }

    /// Puts the uncompressed layers into one archive in docker's form.
    fn pack_archive(&self, config: &Value) -> Result<()> {
        let names: Vec<String> = (0..self.layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let manifest = json!([{"Config": "config.json", "RepoTags": [NAME], "Layers": names}]);
        let mut archive = tar::Builder::new(BufWriter::new(File::create(&self.archive)?));
        for (name, layer) in names.iter().zip(&self.layers) {
            archive.append_file(name, &mut File::open(layer)?)?;
        }
        for (name, document) in [("config.json", config), ("manifest.json", &manifest)] {
            let text = document.to_string();
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, text.as_bytes())?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// Copies the image with compressed layers into a registry's storage, by way of an OCI layout.
    fn fill_registry(&self, folder: &Path, config: &Value, dory: &Path) -> Result<()> {
        let layout = folder.join("layout");
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let put = |text: String, media_type: &str| -> Result<Value> {
            let hex = format!("{:x}", Sha256::digest(&text));
            fs::write(blobs.join(&hex), &text)?;
            Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": text.len()}))
        };
        let mut layers = Vec::new();
        for layer in &self.layers {
            let compressed = Self::compressed(layer);
            let digest = digest(&compressed)?;
            fs::hard_link(&compressed, blobs.join(digest.trim_start_matches("sha256:")))?;
            let size = fs::metadata(&compressed)?.len();
            layers.push(json!({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": digest, "size": size}));
        }
        let config = put(config.to_string(), "application/vnd.docker.container.image.v1+json")?;
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let mut manifest = put(manifest.to_string(), media_type)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
        fs::write(
            layout.join("index.json"),
            json!({"schemaVersion": 2, "manifests": [manifest]}).to_string(),
        )?;
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let network = NetworkNamespace::new()?;
        let _registry = Registry::start(&network, &self.registry)?;
        let from = format!("oci:{}:1", layout.display());
        let to = format!("docker://{}", self.remote(PORT));
        output(network.command(&dory.display().to_string()).args(["image", "copy", &from, &to]))?;
        fs::remove_dir_all(layout)?;
        Ok(())
    }
}

fn digest(path: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(path))?;
    Ok(format!("sha256:{}", line.split_whitespace().next().context("no digest")?))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
