//! Where things are.
//!
//! ```text
//! target/<triple>/{debug,release}/   what cargo builds
//! target/tests/images                archives of the test images, made from the binary under test
//! ~/.cache/dory/tools                docker commands, docker-py, cargo-deny   ($DORY_CACHE instead of ~/.cache/dory)
//! ~/.cache/dory/images               archives that take long to make
//! ~/.cache/dory/vm                   the disk of the Debian machine
//! ```

use std::path::{Path, PathBuf};

/// The root of the work tree.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// What cargo builds goes here.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// What is slow to make and does not depend on our code survives `cargo clean` here.
pub fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("DORY_CACHE") {
        return cache.into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("dory")
}

/// The binary `name` of a build; every build is static and for the host, whose triple is a folder.
pub fn built(profile: &str, name: &str) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    target().join(triple).join(profile).join(name)
}
