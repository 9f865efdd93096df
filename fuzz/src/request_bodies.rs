/// The JSON bodies of all requests but create: execs, updates, commits, volumes, networks.
pub fn request_bodies(input: &[u8]) {
    dory_api::fuzzing::other_bodies(input);
}
