//! The images of the tests, made of what the machine has: no registry is asked.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tar::{EntryType, Header};

use crate::archive::{self, CREATED};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
    www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str =
    "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nstaff:x:50:www-data\nusers:x:100:\nnobody:x:65534:\n";

/// Makes `busybox`, `hello-world` and, if its binary is given, `dory` in `out`.
///
/// # Errors
/// No static busybox on this machine, or a file that cannot be read or written.
pub fn make_all(out: &Path, dory: Option<&Path>) -> Result<()> {
    std::fs::create_dir_all(out)?;
    archive::write(&out.join("busybox.tar"), "busybox:latest", &busybox()?, "{}")?;
    let hello = std::env::current_exe()?.with_file_name("hello");
    let mut layer = Layer::new();
    layer.file(
        "hello",
        0o755,
        &std::fs::read(&hello).with_context(|| format!("no `{}`", hello.display()))?,
    )?;
    archive::write(
        &out.join("hello-world.tar"),
        "hello-world:latest",
        &layer.finish()?,
        r#"{"Cmd":["/hello"]}"#,
    )?;
    if let Some(dory) = dory {
        let mut layer = Layer::new();
        layer.folder("usr/local/bin", 0o755)?;
        layer.folder("var/lib", 0o755)?;
        layer.folder("tmp", 0o1777)?;
        layer.file("usr/local/bin/dory", 0o755, &std::fs::read(dory)?)?;
        let config = r#"{"Entrypoint":["dory"],"Cmd":null,"Volumes":{"/var/lib/dory":{}}}"#;
        archive::write(&out.join("dory.tar"), "dory:latest", &layer.finish()?, config)?;
    }
    Ok(())
}

/// Packs the directory `root`, or what the archive `root` has, as the image `tag`.
///
/// # Errors
/// `tar` fails, or the archive cannot be written.
pub fn pack(root: &Path, out: &Path, tag: &str, config: &str) -> Result<()> {
    if root.is_file() {
        let layer = std::fs::read(root).with_context(|| format!("cannot read `{}`", root.display()))?;
        return archive::write(out, tag, &layer, config);
    }
    let packed = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--sort=name", &format!("--mtime=@{}", CREATED.0), "-C"])
        .arg(root)
        .args(["-cf", "-", "."])
        .output()
        .context("cannot start `tar`")?;
    ensure!(packed.status.success(), "`tar` fails: {}", String::from_utf8_lossy(&packed.stderr));
    archive::write(out, tag, &packed.stdout, config)
}

/// A root of hard links to Debian's static busybox, as the official image has it.
fn busybox() -> Result<Vec<u8>> {
    let list = Command::new("busybox").arg("--list-full").output().context("cannot start `busybox`")?;
    let mut layer = Layer::new();
    for folder in
        ["bin", "sbin", "usr/bin", "usr/sbin", "etc", "home", "var/www", "dev", "proc", "sys", "mnt"]
    {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("root", 0o700)?;
    layer.folder("tmp", 0o1777)?;
    let binary = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    layer.file("bin/busybox", 0o755, &binary.context("no static busybox")?)?;
    let names = String::from_utf8(list.stdout)?;
    for name in names.lines().filter(|name| *name != "bin/busybox" && name.contains('/')) {
        layer.link(name, "bin/busybox")?;
    }
    layer.file("etc/passwd", 0o644, PASSWD.as_bytes())?;
    layer.file("etc/group", 0o644, GROUP.as_bytes())?;
    layer.finish()
}

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(CREATED.0);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        let mut header = Self::header(EntryType::Directory, mode, 0);
        Ok(self.0.append_data(&mut header, format!("{name}/"), std::io::empty())?)
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = Self::header(EntryType::Regular, mode, content.len());
        Ok(self.0.append_data(&mut header, name, content)?)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let mut header = Self::header(EntryType::Link, 0o755, 0);
        Ok(self.0.append_link(&mut header, name, target)?)
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}
