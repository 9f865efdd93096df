//! Manifests that we make.

use serde::Serialize;

use super::{Descriptor, MediaType};

/// A descriptor with its members in the order of distribution's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    media_type: &'a str,
    size: u64,
    digest: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenManifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Written<'a>,
    layers: Vec<Written<'a>>,
}

/// The manifest of an image with this configuration and these layers, the lowest first; its type and its bytes.
///
/// It is one of Docker's where every layer has one of Docker's types, and byte for byte as dockerd writes it: an image
/// that was pulled from a registry and pushed to another keeps its digest. Otherwise it is an OCI manifest.
pub fn write_manifest(config: &Descriptor, layers: &[Descriptor]) -> (MediaType, Vec<u8>) {
    let docker = layers.iter().all(|layer| layer.media_type.as_str() == MediaType::DOCKER_LAYER_GZIP);
    let (media_type, config_type) = match docker {
        true => (MediaType::DOCKER_MANIFEST, MediaType::DOCKER_CONFIG),
        false => (MediaType::OCI_MANIFEST, MediaType::OCI_CONFIG),
    };
    let written = |descriptor: &Descriptor| (descriptor.size, descriptor.digest.to_string());
    let (size, digest) = written(config);
    let manifest = WrittenManifest {
        schema_version: 2,
        media_type,
        config: Written { media_type: config_type, size, digest },
        layers: layers
            .iter()
            .map(|layer| {
                let (size, digest) = written(layer);
                let media_type =
                    if docker { layer.media_type.as_str() } else { oci_layer(&layer.media_type) };
                Written { media_type, size, digest }
            })
            .collect(),
    };
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    manifest.serialize(&mut serializer).expect("strings and numbers are always JSON");
    (MediaType::new(media_type), bytes)
}

/// The OCI name of a layer's type: one manifest has types of one family.
fn oci_layer(media_type: &MediaType) -> &str {
    match media_type.as_str() {
        MediaType::DOCKER_LAYER_GZIP => MediaType::OCI_LAYER_GZIP,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dory_types::Digest;

    #[test]
    fn as_dockerd_writes_it() {
        let layer = |media_type| Descriptor::new(media_type, Digest::of(b"layer"), 3);
        let config = Descriptor::new("", Digest::of(b"config"), 2);
        let (media_type, bytes) = write_manifest(&config, &[layer(MediaType::DOCKER_LAYER_GZIP)]);
        let text = String::from_utf8(bytes).unwrap();
        let start = "{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker.distribution.manifest.v2+json\",\n   \
                     \"config\": {\n      \"mediaType\": \"application/vnd.docker.container.image.v1+json\",\n      \"size\": 2,\n      \
                     \"digest\": \"sha256:";
        assert!(text.starts_with(start), "{text}");
        assert!(
            text.contains("\"layers\": [\n      {\n         \"mediaType\": ")
                && text.ends_with("\n      }\n   ]\n}")
        );
        assert!(media_type.is_manifest());
        let zstd = layer("application/vnd.oci.image.layer.v1.tar+zstd");
        let (media_type, bytes) = write_manifest(&config, &[layer(MediaType::DOCKER_LAYER_GZIP), zstd]);
        assert_eq!(media_type.as_str(), MediaType::OCI_MANIFEST);
        assert!(!String::from_utf8(bytes).unwrap().contains("docker"));
    }
}
