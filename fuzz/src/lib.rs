//! Everything that reads bytes of strangers, and what must hold for it.
//!
//! A target is a function of bytes in a module of its own that panics where a promise is broken. It is named in
//! [`TARGETS`], has a program in `fuzz_targets/` that hands it to libFuzzer, and seeds in `seeds/<name>/`.
//! `cargo xtask fuzz` runs the programs; this crate's test runs every target over its seeds.

mod create_body;
mod dns_question;
mod dockerfile;
mod filesync;
mod ignore_file;
mod image_archive;
mod image_config;
mod image_reference;
mod layer_archive;
mod log_chain;
mod mount_text;
mod query;
mod registry_auth;
mod registry_challenge;
mod registry_manifest;
mod request_bodies;
mod solve_request;
mod stream_frames;
mod unpack;
mod websocket;

pub use create_body::create_body;
pub use dns_question::dns_question;
pub use dockerfile::dockerfile;
pub use filesync::filesync;
pub use ignore_file::ignore_file;
pub use image_archive::image_archive;
pub use image_config::image_config;
pub use image_reference::image_reference;
pub use layer_archive::layer_archive;
pub use log_chain::{json_log, local_log};
pub use mount_text::mount_text;
pub use query::query;
pub use registry_auth::registry_auth;
pub use registry_challenge::registry_challenge;
pub use registry_manifest::registry_manifest;
pub use request_bodies::request_bodies;
pub use solve_request::solve_request;
pub use stream_frames::stream_frames;
pub use unpack::unpack;
pub use websocket::websocket;

/// What a target is: it takes any bytes, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("create_body", create_body),
    ("dns_question", dns_question),
    ("dockerfile", dockerfile),
    ("ignore_file", ignore_file),
    ("filesync", filesync),
    ("image_archive", image_archive),
    ("image_config", image_config),
    ("image_reference", image_reference),
    ("json_log", json_log),
    ("layer_archive", layer_archive),
    ("local_log", local_log),
    ("mount_text", mount_text),
    ("query", query),
    ("registry_auth", registry_auth),
    ("registry_challenge", registry_challenge),
    ("registry_manifest", registry_manifest),
    ("request_bodies", request_bodies),
    ("solve_request", solve_request),
    ("stream_frames", stream_frames),
    ("unpack", unpack),
    ("websocket", websocket),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Cuts and bit flips at every place are a small fuzzer of their own, but slow for long seeds.
    const MUTATED_LENGTH: usize = 512;

    #[test]
    fn every_target_stands_its_seeds() {
        for (name, target) in TARGETS {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
            let mut seeds = 0;
            for entry in fs::read_dir(&directory).unwrap_or_else(|_| panic!("`{name}` has no seeds")) {
                let seed = fs::read(entry.unwrap().path()).unwrap();
                target(&seed);
                for length in 0..seed.len().min(MUTATED_LENGTH) {
                    target(&seed[..length]);
                    let mut mutated = seed.clone();
                    mutated[length] ^= 1 << (length % 8);
                    target(&mutated);
                }
                seeds += 1;
            }
            assert!(seeds > 0, "`{name}` has no seeds");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
        let mut names: Vec<String> = fs::read_dir(programs)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        let mut targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        targets.sort();
        assert_eq!(names, targets);
    }
}
