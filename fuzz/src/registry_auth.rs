use dory_registry::Credentials;

/// The `X-Registry-Auth` header, and the body of `POST /auth`.
///
/// What was accepted is the same when it is sent on.
pub fn registry_auth(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(credentials) = Credentials::from_header(text)
    {
        let again = Credentials::from_header(credentials.to_header("r.example").expose());
        assert_eq!(again.ok(), Some(credentials));
    }
    if let Ok((credentials, _)) = Credentials::from_auth_config(input) {
        assert!(!format!("{credentials:?}").is_empty());
    }
}
