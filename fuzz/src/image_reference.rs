use dory_types::ImageReference;

/// An image reference as people type it.
///
/// The full and the short form of what was accepted mean the same reference.
pub fn image_reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(reference) = text.parse::<ImageReference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference), "full form");
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference), "short form");
        assert!(reference.tag().is_some() || reference.digest().is_some());
    }
    if let Ok(reference) = ImageReference::parse_untagged(text) {
        assert_eq!(ImageReference::parse_untagged(&reference.to_string()).as_ref(), Ok(&reference));
    }
}
