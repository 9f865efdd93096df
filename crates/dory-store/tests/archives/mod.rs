//! Archives made in memory, honest and otherwise.
#![allow(dead_code, reason = "each test program uses some of them")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use dory_store::Store;
use dory_types::Digest;
use serde_json::json;
use tar::{EntryType, Header};

/// Fails where the test cannot show what it is for.
pub fn require_root() {
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(uid, 0, "this test needs root: it unpacks device nodes and foreign owners");
}

/// A store in a directory of its own.
pub fn store() -> (tempfile::TempDir, Arc<Store>) {
    require_root();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("data"), "test").unwrap();
    (directory, store)
}

/// Every path below `directory`, relative.
pub fn tree(directory: &Path) -> Vec<String> {
    let find = std::process::Command::new("find")
        .arg(directory)
        .args(["-mindepth", "1", "-printf", "%P\n"])
        .output();
    let mut names: Vec<_> =
        String::from_utf8(find.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Removes an image by its name, whatever other names it has.
pub fn remove(store: &Store, name: &str) {
    store
        .remove_image(name, dory_store::RemoveOptions { force: true, no_prune: false }, &|_| Vec::new())
        .unwrap();
}

/// The tags of all images.
pub fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<_> = store.images().unwrap().iter().flat_map(|image| image.repo_tags()).collect();
    names.sort();
    names
}

/// A layer in the making.
#[derive(Default)]
pub struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any entry; names are written as they are, whatever they contain.
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &str,
        link: &str,
        content: &[u8],
        set: impl Fn(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        set(&mut header);
        header.set_cksum();
        self.bytes.extend(header.as_bytes());
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Adds pax records for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|length| length.to_string().len() + rest == *length).unwrap();
            text.extend(format!("{length} {key}=").into_bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.entry(EntryType::XHeader, "pax", "", &text, |_| {})
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content, |_| {})
    }

    pub fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path, "", b"", |header| header.set_mode(mode))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path, target, b"", |_| {})
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path, target, b"", |_| {})
    }

    pub fn whiteout(self, path: &str) -> Self {
        let (directory, name) =
            path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
        let slash = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{slash}.wh.{name}"), b"")
    }

    /// The archive with its end marker.
    pub fn tar(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

/// An image's configuration over layers with these diff-ids.
pub fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let value = json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "created": "2024-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    value.to_string().into_bytes()
}

/// What `docker save` would write for an image of these layers.
pub fn docker_archive(tags: &[&str], layers: &[Vec<u8>]) -> Vec<u8> {
    let pairs: Vec<_> = layers.iter().map(|layer| (layer.clone(), layer.clone())).collect();
    docker_archive_of(tags, &pairs)
}

/// The same with what the configuration counts on, and what the archive has instead, for each layer.
pub fn docker_archive_of(tags: &[&str], layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|(stated, _)| Digest::of(stated)).collect();
    let config = config(&diff_ids);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let names: Vec<_> = (0..layers.len()).map(|index| format!("layer{index}/layer.tar")).collect();
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]).to_string();
    let mut archive = Layer::new();
    for (name, (_, content)) in names.iter().zip(layers) {
        archive = archive.file(name, content);
    }
    archive.file(&config_name, &config).file("manifest.json", manifest.as_bytes()).tar()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An OCI image layout with one image; each layer as the configuration counts on it, and as the layout has it.
pub fn oci_archive(name: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Layer::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    let mut add = |media_type: &str, content: &[u8]| {
        let digest = Digest::of(content);
        archive = std::mem::take(&mut archive)
            .pax(&[("path", format!("blobs/sha256/{}", digest.hex()).as_bytes())]);
        archive = std::mem::take(&mut archive).file("blob", content);
        json!({"mediaType": media_type, "digest": digest, "size": content.len()})
    };
    let diff_ids: Vec<_> = layers.iter().map(|(stated, _)| Digest::of(stated)).collect();
    let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    let blobs: Vec<_> = layers.iter().map(|(_, blob)| add(layer_type, blob)).collect();
    let config = add("application/vnd.oci.image.config.v1+json", &config(&diff_ids));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": blobs}).to_string();
    let mut manifest = add("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    archive.file("index.json", index.as_bytes()).tar()
}
