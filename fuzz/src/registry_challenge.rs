/// The value of a `WWW-Authenticate` header.
///
/// No challenge is made up: there are at most sixteen, and none says more than the header has.
pub fn registry_challenge(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (count, longest) = dory_registry::fuzzing::challenges(text);
    assert!(count <= 16 && longest <= text.len());
    if let Some(address) = dory_registry::fuzzing::location(text) {
        assert!(address.starts_with("http://") || address.starts_with("https://"), "{address}");
        assert!(!address.split('?').next().unwrap_or_default().contains('@') || address[8..].contains('/'));
    }
}
