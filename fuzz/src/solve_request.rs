/// What a client of BuildKit asks to be built: the message, and the attributes of the frontend as lines. Nothing panics.
pub fn solve_request(input: &[u8]) {
    dory_buildkit::fuzzing::solve_request(input);
    if let Ok(text) = std::str::from_utf8(input) {
        dory_buildkit::fuzzing::attributes(text);
    }
}
