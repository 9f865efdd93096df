/// The body of `POST /containers/create`; the first byte chooses the API version.
///
/// What is accepted is printed by `inspect` and kept in the record: both have to be read again as the same.
pub fn create_body(input: &[u8]) {
    let Some((&minor, body)) = input.split_first() else { return };
    let Some(request) = dory_api::fuzzing::create_body(body, minor) else { return };
    let config = serde_json::to_vec(&request.config).expect("a configuration can be written");
    let again = dory_engine::config::json::from_slice(&config).expect("what was written can be read");
    assert_eq!(request.config, again);
    let host_config = serde_json::to_vec(&request.host_config).expect("a configuration can be written");
    let again = dory_engine::config::json::from_slice(&host_config).expect("what was written can be read");
    assert_eq!(request.host_config, again);
    dory_engine::fuzzing::validate(&request);
}
