//! `image build-dind`: images that take the places of `docker:dind` and `docker`, made of this very binary.
//!
//! One layer is put on top of a base image: the binary, and links under the names of Docker's programs, by which it knows
//! its role. Both images have the same layers and differ in their entry point. What comes out is an archive as `docker
//! save` writes it, which is loaded into the engine or written to a file: no builder is needed, and any engine will do.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use dory_types::Digest;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::progress::{self, Progress};
use super::with_tag;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::{ApiError, ExitStatus};
use crate::flags::{FlagsEnd, long_value, value};

/// Where Docker's images have their programs.
const FOLDER: &str = "usr/local/bin";
/// The names under which the binary is found there.
const NAMES: &[&str] = &["docker", "dockerd", "dockerd-entrypoint.sh", "docker-entrypoint.sh"];
/// The most that a base image may have: it is held in memory.
const BASE_MAX: u64 = 1 << 30;

/// `dory image build-dind`.
pub(crate) const BUILD_DIND: Command = Command {
    usage: "[OPTIONS]",
    about: "Make images that take the places of docker:dind and docker",
    flags: &[&[
        value("tag", 't', "string", "Name of the engine's image (default \"docker:dind\")"),
        long_value(
            "client-tag",
            "string",
            "Name of the client's image; empty for none (default \"docker:latest\")",
        ),
        long_value(
            "base",
            "string",
            "Image to put it on, which brings the shell; or scratch (default \"busybox\")",
        ),
        value("output", 'o', "string", "Write an archive to this file instead of loading it into the engine"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(build(invocation)),
};

async fn build(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let base = match arguments.value("base").unwrap_or("busybox") {
        "scratch" => Base::scratch(),
        name => Base::read(&save(invocation, &with_tag(name)).await?)
            .with_context(|| format!("cannot use the base image `{name}`"))?,
    };
    let binary = std::fs::read("/proc/self/exe").context("cannot read this program")?;
    let engine = arguments.value("tag").unwrap_or("docker:dind");
    let client = arguments.value("client-tag").unwrap_or("docker:latest");
    let mut images = vec![(engine, Kind::Engine)];
    if !client.is_empty() {
        images.push((client, Kind::Client));
    }
    let archive = archive(&base, &layer(&binary)?, &images)?;
    match arguments.value("output") {
        Some(file) => std::fs::write(file, archive).with_context(|| format!("cannot write `{file}`"))?,
        None => {
            let body = Full::from(Bytes::from(archive)).map_err(|never| match never {}).boxed_unsync();
            let path = Path::new(&["images", "load"]).query("quiet", 1);
            let response = invocation.client.post_stream(path.as_str(), body).await?;
            progress::show(response, Progress::Stdout).await?;
        }
    }
    Ok(ExitStatus::Success)
}

/// The archive of an image, which is pulled where it is missing.
async fn save(invocation: &Invocation<'_>, name: &str) -> Result<Vec<u8>> {
    let path = Path::new(&["images", name, "json"]);
    match invocation.client.get::<Value>(path.as_str()).await {
        Ok(_) => {}
        Err(error) if error.downcast_ref::<ApiError>().is_some_and(|error| error.status == 404) => {
            super::pull(invocation, name, "", false, Progress::Stderr).await?;
        }
        Err(error) => return Err(error),
    }
    let path = Path::new(&["images", "get"]).query("names", name);
    let mut body = invocation.client.get_stream(path.as_str()).await?.into_body();
    let mut archive = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.context("the engine's answer broke off")?.into_data() {
            archive.extend_from_slice(&data);
        }
        if archive.len() as u64 > BASE_MAX {
            bail!("the image `{name}` is larger than {BASE_MAX} bytes: choose a smaller base");
        }
    }
    Ok(archive)
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Engine,
    Client,
}

/// The image below: its configuration, and its layers as tar archives.
#[derive(Debug)]
struct Base {
    config: Value,
    layers: Vec<Vec<u8>>,
}

impl Base {
    fn scratch() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        Self { config, layers: Vec::new() }
    }

    /// Reads what `save` writes.
    fn read(archive: &[u8]) -> Result<Self> {
        let mut members = BTreeMap::new();
        for member in tar::Archive::new(archive).entries()? {
            let mut member = member?;
            let name = member.path()?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            member.read_to_end(&mut content)?;
            members.insert(name, content);
        }
        let mut member =
            |name: &str| members.remove(name).with_context(|| format!("the archive has no member `{name}`"));
        let manifest: Value = serde_json::from_slice(&member("manifest.json")?)?;
        let image = manifest.get(0).context("the archive has no image")?;
        let config = image["Config"].as_str().context("the archive's image has no configuration")?;
        let config = serde_json::from_slice(&member(config)?)?;
        let names = image["Layers"].as_array().context("the archive's image has no layers")?;
        let layers = names.iter().map(|name| member(name.as_str().unwrap_or_default()));
        Ok(Self { config, layers: layers.collect::<Result<_>>()? })
    }

    /// The configuration of an image that has `diff_id` as one more layer.
    fn with_layer(&self, diff_id: &str, kind: Kind) -> Value {
        let mut config = self.config.clone();
        if !config["rootfs"]["diff_ids"].is_array() {
            config["rootfs"] = json!({"type": "layers", "diff_ids": []});
        }
        if let Some(layers) = config["rootfs"]["diff_ids"].as_array_mut() {
            layers.push(json!(diff_id));
        }
        let entry = json!({"created_by": "dory image build-dind"});
        match config["history"].as_array_mut() {
            Some(history) => history.push(entry),
            // Without one there is none of the layers below either, and a history must tell of all.
            None => {
                config.as_object_mut().map(|config| config.remove("history"));
            }
        }
        let run = &mut config["config"];
        let mut environment: Vec<Value> = run["Env"].as_array().cloned().unwrap_or_default();
        environment.retain(|it| !it.as_str().is_some_and(|it| it.starts_with("DOCKER_TLS_CERTDIR=")));
        environment.push(json!("DOCKER_TLS_CERTDIR=/certs"));
        run["Env"] = json!(environment);
        match kind {
            Kind::Engine => {
                run["Entrypoint"] = json!(["dockerd-entrypoint.sh"]);
                run["Cmd"] = json!([]);
                run["ExposedPorts"] = json!({"2375/tcp": {}, "2376/tcp": {}});
                run["Volumes"] = json!({"/var/lib/docker": {}});
            }
            Kind::Client => {
                run["Entrypoint"] = json!(["docker-entrypoint.sh"]);
                run["Cmd"] = json!(["sh"]);
            }
        }
        config
    }
}

/// The layer: the binary, its names, and the folders that people mount volumes on.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let directories =
        [("usr", 0o755), ("usr/local", 0o755), (FOLDER, 0o755), ("certs", 0o1777), ("certs/client", 0o1777)];
    for (path, mode) in directories.into_iter().chain([("tmp", 0o1777)]) {
        let mut header = header(tar::EntryType::Directory, 0, mode);
        archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
    }
    let mut program = header(tar::EntryType::Regular, binary.len() as u64, 0o755);
    archive.append_data(&mut program, format!("{FOLDER}/dory"), binary)?;
    for name in NAMES {
        let mut link = header(tar::EntryType::Symlink, 0, 0o777);
        archive.append_link(&mut link, format!("{FOLDER}/{name}"), "dory")?;
    }
    Ok(archive.into_inner()?)
}

fn header(kind: tar::EntryType, size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// An archive of `images`, each `base` with `layer` on top.
fn archive(base: &Base, layer: &[u8], images: &[(&str, Kind)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::with_capacity(layer.len() + (1 << 20)));
    let mut add = |name: &str, content: &[u8]| {
        let mut header = header(tar::EntryType::Regular, content.len() as u64, 0o644);
        archive.append_data(&mut header, name, content)
    };
    let mut names = Vec::new();
    for layer in base.layers.iter().map(Vec::as_slice).chain([layer]) {
        let name = format!("{}/layer.tar", Digest::of(layer).hex());
        if !names.contains(&name) {
            add(&name, layer)?;
        }
        names.push(name);
    }
    let diff_id = Digest::of(layer).to_string();
    let mut manifest = Vec::new();
    for (tag, kind) in images {
        let config = serde_json::to_vec(&base.with_layer(&diff_id, *kind))?;
        let name = format!("{}.json", Digest::of(&config).hex());
        add(&name, &config)?;
        manifest.push(json!({"Config": name, "RepoTags": [with_tag(tag)], "Layers": names}));
    }
    add("manifest.json", &serde_json::to_vec(&manifest)?)?;
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let layer = layer(b"program").unwrap();
        let first = archive(&Base::scratch(), &layer, &[("docker:dind", Kind::Engine)]).unwrap();
        let base = Base::read(&first).unwrap();
        assert_eq!(base.layers, std::slice::from_ref(&layer));
        assert_eq!(base.config["config"]["Entrypoint"], json!(["dockerd-entrypoint.sh"]));
        assert_eq!(base.config["rootfs"]["diff_ids"][0], Digest::of(&layer).to_string());
        let other = super::layer(b"other").unwrap();
        let both = [("x", Kind::Engine), ("docker", Kind::Client)];
        let second = Base::read(&archive(&base, &other, &both).unwrap()).unwrap();
        assert_eq!(second.layers, [layer, other]);
        assert_eq!(second.config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
        let environment = second.config["config"]["Env"].as_array().unwrap();
        assert_eq!(environment.iter().filter(|it| **it == "DOCKER_TLS_CERTDIR=/certs").count(), 1);
    }
}
