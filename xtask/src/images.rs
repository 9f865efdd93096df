//! The test images: quick ones made by `dory-tests images`, and one of Debian packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{run, script};
use crate::{paths, setup};

/// A stand-in for `docker:dind`: Debian's dockerd and bash, and busybox for everything else.
const DIND_PACKAGES: &str = "docker.io,bash,iptables,iproute2,busybox-static,util-linux,mount,procps";

/// `extract` unpacks without running maintainer scripts, which saves most of the time; what those scripts would have
/// linked is linked here.
const DIND_SCRIPT: &str = r#"
root=$1/dind
rm -rf "$root"
mmdebstrap --quiet --variant=extract --include="$3" --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/*' bookworm "$root" 2>"$1/dind.log" || { cat "$1/dind.log" >&2; exit 1; }
cd "$root"
rm -rf usr/bin/dnet usr/bin/ctr usr/bin/containerd-shim usr/bin/containerd-shim-runc-v1 usr/bin/perl* usr/share var/cache
for name in iptables ip6tables; do
  for verb in '' -save -restore; do ln -sf xtables-nft-multi usr/sbin/$name$verb; done
done
for applet in $(busybox --list); do
  [ -e usr/bin/$applet ] || [ -e bin/$applet ] || [ -e sbin/$applet ] || [ -e usr/sbin/$applet ] || \
    ln -s /bin/busybox usr/bin/$applet
done
[ -e bin/busybox ] || cp /bin/busybox bin/busybox
mkdir -p root tmp proc sys dev run var/lib/docker etc
chmod 1777 tmp
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
"$2" pack . "$1/dind.tar.new" docker:dind --config '{"Cmd":["dockerd"],"Volumes":{"/var/lib/docker":{}}}'
cd /; mv "$1/dind.tar.new" "$1/dind.tar"; rm -rf "$root"
"#;

/// A Debian of its own packages; `ping` has file capabilities.
const DEBIAN_PACKAGES: &str = "iputils-ping";

const DEBIAN_SCRIPT: &str = r#"
mmdebstrap --quiet --variant=minbase --include="$3" --aptopt='Apt::Install-Recommends "false"' bookworm "$1/layer.tar" \
  2>"$1/debian.log" || { cat "$1/debian.log" >&2; exit 1; }
"$2" pack "$1/layer.tar" "$1/debian.tar.new" debian:bookworm
mv "$1/debian.tar.new" "$1/debian.tar"; rm "$1/layer.tar"
"#;

/// Makes an image of Debian, once, and gives back its archive.
///
/// # Errors
/// mmdebstrap fails.
pub fn debian() -> Result<PathBuf> {
    let cached = paths::cache().join(setup::stamp("debian", &[DEBIAN_PACKAGES, DEBIAN_SCRIPT]));
    let archive = cached.join("debian.tar");
    if !archive.exists() {
        println!("making the image debian");
        std::fs::create_dir_all(&cached)?;
        let tests = paths::built("debug", "dory-tests");
        script(DEBIAN_SCRIPT, &[cached.as_os_str(), tests.as_os_str(), DEBIAN_PACKAGES.as_ref()])?;
    }
    Ok(archive)
}

/// Makes the images, those slow to make only once, and gives back the folder of archives.
///
/// # Errors
/// busybox or mmdebstrap fail.
pub fn make(dory: Option<&Path>) -> Result<PathBuf> {
    let folder = paths::target().join("tests/images");
    let tests = paths::built("debug", "dory-tests");
    let mut quick = Command::new(&tests);
    quick.args(["images", "--out"]).arg(&folder);
    if let Some(dory) = dory {
        quick.arg("--dory").arg(dory);
    }
    run(&mut quick)?;
    let cached = paths::cache().join(setup::stamp("images", &[DIND_PACKAGES, DIND_SCRIPT]));
    let dind = cached.join("dind.tar");
    if !dind.exists() {
        println!("making the image docker:dind");
        std::fs::create_dir_all(&cached)?;
        let arguments = [cached.as_os_str(), tests.as_os_str(), DIND_PACKAGES.as_ref()];
        script(DIND_SCRIPT, &arguments)?;
    }
    link(&dind, &folder.join("dind.tar"))?;
    // Every engine gets the archives of the folder; what few cases need lies below it.
    std::fs::create_dir_all(folder.join("large"))?;
    link(&debian()?, &folder.join("large/debian.tar"))?;
    Ok(folder)
}

fn link(archive: &Path, at: &Path) -> Result<()> {
    let _ = std::fs::remove_file(at);
    Ok(std::os::unix::fs::symlink(archive, at)?)
}
