/// What a client sends that is attached over a WebSocket.
///
/// Every connection ends with its client, and the process gets no more bytes than came.
pub fn websocket(input: &[u8]) {
    assert!(dory_api::fuzzing::websocket(input).len() <= input.len());
}
