use dory_registry::{Document, MediaType, Platform};

/// A manifest or an index, announced as anything.
///
/// What was accepted says the same when it is written and read again, and has no more layers than overlayfs takes.
pub fn registry_manifest(input: &[u8]) {
    let Ok(document) = Document::parse(input, &MediaType::default()) else { return };
    match &document {
        Document::Manifest(manifest) => {
            assert!(manifest.layers.len() <= 500);
            let written = serde_json::to_vec(manifest).expect("a manifest is JSON");
            assert_eq!(
                Document::parse(&written, &document.media_type(&MediaType::default())).ok(),
                Some(document)
            );
        }
        Document::Index(index) => {
            if let Ok(entry) = Platform::current().select(index) {
                assert!(!entry.is_attestation());
            }
            let written = serde_json::to_vec(index).expect("an index is JSON");
            assert_eq!(
                Document::parse(&written, &document.media_type(&MediaType::default())).ok(),
                Some(document)
            );
        }
    }
}
