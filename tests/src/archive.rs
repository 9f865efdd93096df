//! Writes image archives in the format of `docker save`: layers, their configuration, their manifest.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The date of everything in test images, so that the same input gives the same image id.
pub const CREATED: (u64, &str) = (1_704_067_200, "2024-01-01T00:00:00Z");

/// Writes `layer` (a tar archive) as the image `tag` to `out`; `config` overrides parts of the image's configuration.
///
/// # Errors
/// The archive cannot be written, or `config` is no JSON object.
pub fn write(out: &Path, tag: &str, layer: &[u8], config: &str) -> Result<()> {
    write_layers(out, tag, &[layer], config)
}

/// As [`write`], with any number of layers, the lowest first.
///
/// # Errors
/// As [`write`].
pub fn write_layers(out: &Path, tag: &str, layers: &[&[u8]], config: &str) -> Result<()> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| hex(&Sha256::digest(layer))).collect();
    let configuration = configuration(&diff_ids, config)?.to_string();
    let image_id = hex(&Sha256::digest(configuration.as_bytes()));
    let layer_names: Vec<String> = diff_ids.iter().map(|diff_id| format!("{diff_id}/layer.tar")).collect();
    let config_name = format!("{image_id}.json");
    let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": layer_names}]).to_string();
    let file = File::create(out).with_context(|| format!("cannot write `{}`", out.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    let layers = layer_names.iter().map(String::as_str).zip(layers.iter().copied());
    let documents =
        [(config_name.as_str(), configuration.as_bytes()), ("manifest.json", manifest.as_bytes())];
    for (name, content) in layers.chain(documents) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(CREATED.0);
        archive.append_data(&mut header, name, content)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn configuration(diff_ids: &[String], overrides: &str) -> Result<Value> {
    let mut config = json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["sh"],
    });
    let overrides: Value = serde_json::from_str(overrides).context("image configuration is no JSON")?;
    for (name, value) in overrides.as_object().context("image configuration is no object")? {
        config[name] = value.clone();
    }
    let history = json!({"created": CREATED.1, "created_by": "dory-tests", "comment": "test image"});
    let diff_ids: Vec<String> = diff_ids.iter().map(|diff_id| format!("sha256:{diff_id}")).collect();
    Ok(json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": CREATED.1,
        "config": config,
        "history": diff_ids.iter().map(|_| history.clone()).collect::<Vec<_>>(),
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
