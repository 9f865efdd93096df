//! The least that each step can be: every layer through the usual tools, all of them at once.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::material::Material;
use super::{PORT, Registry, measure, processor_time_of_children, report};
use crate::engine::NetworkNamespace;

/// Measures the steps that are `wanted`.
pub(super) fn run(material: &Material, work: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let network = NetworkNamespace::new()?;
    let target = work.join("floor");
    let floor = |step: &str, what: &str, script: &str| -> Result<()> {
        if wanted(step) {
            std::fs::create_dir_all(&target)?;
            let cost = measure(processor_time_of_children, || shells(&network, material, &target, script))?;
            report(step, what, cost);
            std::fs::remove_dir_all(&target)?;
        }
        Ok(())
    };
    floor("load", "tar", "mkdir \"$1\"; sha256sum \"$2\" & tar -xf \"$2\" -C \"$1\"; wait")?;
    floor("save", "cat", "sha256sum \"$2\" & cat \"$2\" >\"$1\"; wait")?;
    floor("push", "gzip", "gzip <\"$2\" | tee \"$1\" | sha256sum")?;
    if wanted("pull") {
        let _registry = Registry::start(&network, &material.registry)?;
        let piped = format!(
            "mkdir \"$1\"; mkfifo \"$1.pipe\"; sha256sum <\"$1.pipe\" & \
             curl -s http://localhost:{PORT}/v2/big/blobs/sha256:$(cat \"$2.gz.digest\") | tee \"$1.pipe\" | tar -xzC \"$1\"; wait"
        );
        for layer in &material.layers {
            let compressed = Material::compressed(layer);
            let line = Command::new("sha256sum").arg(&compressed).output()?.stdout;
            let line = String::from_utf8(line)?;
            let digest = line.split_whitespace().next().context("no digest")?;
            std::fs::write(format!("{}.digest", compressed.display()), digest)?;
        }
        floor("pull", "curl, tar", &piped)?;
    }
    Ok(())
}

/// Runs `script` for all layers at once; `$1` is a place for what it makes, `$2` the layer.
fn shells(network: &NetworkNamespace, material: &Material, target: &Path, script: &str) -> Result<()> {
    let mut children = Vec::new();
    for layer in &material.layers {
        let place = target.join(layer.file_name().unwrap_or_default());
        let mut command = network.command("sh");
        command.args(["-c", script, "sh"]).arg(place).arg(layer).stdout(Stdio::null());
        children.push(command.spawn()?);
    }
    for mut child in children {
        ensure!(child.wait()?.success(), "a layer cannot be unpacked or packed");
    }
    Ok(())
}
