//! What a container asks of the embedded DNS server.

/// No message ends the server, and every answer belongs to its question and fits.
pub fn dns_question(input: &[u8]) {
    dory_net::fuzzing::answer(input);
}
