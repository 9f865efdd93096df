use dory_types::ImageReference;

/// An image reference as people type it.
///
/// The full form of what was accepted means the same reference, and so does the short one, but for those few of Docker
/// Hub whose path begins like a registry or is an id: there the registry must be said, as with Docker.
pub fn image_reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = text.parse::<ImageReference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference), "full form");
        let short = reference.familiar();
        let (domain, path) = (reference.repository().domain(), reference.repository().path());
        let on_hub = domain == "docker.io";
        if on_hub {
            assert_eq!(
                format!("{domain}/{short}").parse().as_ref(),
                Ok(&reference),
                "short form on its registry"
            );
        }
        if !(on_hub && (begins_like_registry(path) || ends_like_id(path))) {
            assert_eq!(short.parse().as_ref(), Ok(&reference), "short form");
        }
        assert!(reference.tag().is_some() || reference.digest().is_some());
    }
    if let Ok(reference) = ImageReference::parse_untagged(text) {
        assert_eq!(ImageReference::parse_untagged(&reference.to_string()).as_ref(), Ok(&reference));
    }
}

/// Whether `path` without its registry is read as one with a registry.
fn begins_like_registry(path: &str) -> bool {
    path.split_once('/').is_some_and(|(first, _)| first.contains('.') || first == "localhost")
}

/// Whether the short form may look like an image's id.
fn ends_like_id(path: &str) -> bool {
    path.strip_prefix("library/")
        .is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
