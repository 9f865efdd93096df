//! Names for containers that got none, and random ids.

use dory_types::ContainerName;

/// What a boat may be.
const ADJECTIVES: [&str; 40] = [
    "able", "amber", "bold", "brave", "breezy", "bright", "brisk", "calm", "cheerful", "clever", "coral",
    "crisp", "dapper", "eager", "fleet", "gentle", "golden", "hardy", "hearty", "jolly", "keen", "lively",
    "lucky", "merry", "misty", "nimble", "patient", "plucky", "proud", "quiet", "ready", "salty", "sandy",
    "sharp", "silver", "snug", "steady", "sturdy", "swift", "tidy",
];
/// Boats, and what is found near them.
const NOUNS: [&str; 40] = [
    "anchor", "auk", "barge", "bay", "beacon", "bosun", "bow", "buoy", "cod", "cove", "cutter", "dory",
    "eider", "ferry", "fjord", "gannet", "gull", "harbour", "heron", "jib", "kayak", "keel", "ketch",
    "lagoon", "lugger", "mast", "otter", "petrel", "pilot", "plover", "puffin", "reef", "rudder", "schooner",
    "seal", "skiff", "sloop", "tern", "tiller", "yawl",
];

/// 32 random bytes.
pub(crate) fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // 32 bytes never block or fail once the system's pool is ready; before that the call waits.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

/// A name such as `brave_dory`; from the fourth attempt on with a number behind it.
pub(crate) fn random_name(attempt: u32) -> ContainerName {
    let [first, second, number, ..] = random_bytes();
    let word = |words: &[&'static str], byte: u8| words[usize::from(byte) % words.len()];
    let mut name = format!("{}_{}", word(&ADJECTIVES, first), word(&NOUNS, second));
    if attempt > 3 {
        name.push_str(&number.to_string());
    }
    name.parse().expect("letters, an underscore and digits make a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for attempt in 0..100 {
            assert!(random_name(attempt).as_str().contains('_'));
        }
        assert_ne!(random_bytes(), random_bytes());
    }
}
