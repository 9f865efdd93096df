//! Packages of the machine's own Debian mirror: installed, or unpacked beside the system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{output, run};

/// Installs those of `packages` that are missing; no service is started by that.
///
/// # Errors
/// `apt-get` fails, for example for want of root.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    let policy = ServicePolicy::deny()?;
    run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
    let installed = run(Command::new("apt-get")
        .args(["--quiet=2", "--yes", "install", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null()));
    drop(policy);
    installed
}

fn is_installed(package: &str) -> bool {
    let query =
        output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]));
    query.is_ok_and(|status| status == "installed")
}

/// Debian's maintainer scripts ask `policy-rc.d` before they start a service: the tests start their own dockerd.
struct ServicePolicy(Option<PathBuf>);

impl ServicePolicy {
    fn deny() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self(None));
        }
        std::fs::write(path, "#!/bin/sh\nexit 101\n")
            .context("cannot write `/usr/sbin/policy-rc.d` (not root?)")?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self(Some(path.to_owned())))
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Downloads `packages` (`NAME/SUITE`) of the given suites and unpacks them into `root`, installing nothing.
///
/// # Errors
/// The mirror does not have them, or `apt-get` and `dpkg-deb` fail.
pub fn unpack(packages: &[&str], suites: &str, root: &Path) -> Result<()> {
    let state = root.with_extension("apt");
    let debs = state.join("debs");
    for folder in [&debs, &state.join("lists/partial"), &state.join("cache/archives/partial")] {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(state.join("debian.sources"), sources(suites)?)?;
    let apt = |verb: &[&str]| {
        let show = |name: &str| state.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        command.current_dir(&debs).args(["--quiet=2", "-o", "Dir::State::status=/dev/null"]);
        for (option, value) in [
            ("Dir::State", show("")),
            ("Dir::State::lists", show("lists")),
            ("Dir::Cache", show("cache")),
            ("Dir::Etc::sourcelist", show("debian.sources")),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            // The folder is root's own; without this apt warns that its sandbox user cannot write there.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command.args(verb);
        command
    };
    run(&mut apt(&["update"]))?;
    run(apt(&["download"]).args(packages))?;
    std::fs::create_dir_all(root)?;
    for entry in std::fs::read_dir(&debs)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(entry?.path()).arg(root))?;
    }
    std::fs::remove_dir_all(&state)?;
    Ok(())
}

/// The machine's Debian mirror in deb822 form, for other suites than its own.
fn sources(suites: &str) -> Result<String> {
    let mut folders = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        folders.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    let texts: Vec<String> = folders.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let mirrors = mirrors(&texts.join("\n\n"));
    ensure!(!mirrors.is_empty(), "no mirror of the Debian archive in `/etc/apt`");
    let mirrors: Vec<String> = mirrors.into_iter().collect();
    Ok(format!(
        "Types: deb\nURIs: {}\nSuites: {suites}\nComponents: main\n\
         Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        mirrors.join(" ")
    ))
}

/// Archives that serve a Debian release itself, which excludes security and third parties' archives.
fn mirrors(text: &str) -> BTreeSet<String> {
    let releases = ["bookworm", "trixie", "stable", "testing"];
    let mut found = BTreeSet::new();
    let mut uris: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("URIs:") {
            uris = list.split_whitespace().map(str::to_owned).collect();
        } else if let Some(list) = line.strip_prefix("Suites:") {
            if list.split_whitespace().any(|suite| releases.contains(&suite)) {
                found.append(&mut uris.drain(..).collect());
            }
        } else if let Some(entry) = line.strip_prefix("deb ") {
            let words: Vec<&str> = entry.split_whitespace().filter(|word| !word.starts_with('[')).collect();
            if let [uri, suite, ..] = words[..]
                && releases.contains(&suite)
            {
                found.insert(uri.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_releases() {
        let text = "Types: deb\nURIs: http://one.test/debian\nSuites: bookworm bookworm-updates\n\n\
            Types: deb\nURIs: http://one.test/debian-security\nSuites: bookworm-security\n\n\
            deb [arch=amd64] http://two.test/debian trixie main\ndeb http://three.test/apt other main\n";
        let found: Vec<String> = mirrors(text).into_iter().collect();
        assert_eq!(found, ["http://one.test/debian", "http://two.test/debian"]);
    }
}
