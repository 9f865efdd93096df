//! The extractor: what layers may contain, what comes of it, and what hostile ones try.
//!
//! They make device nodes, foreign owners and mounts, so they need root; without it they fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;

use dory_types::with_causes;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use archives::{Layer, store, tree};
use dory_store::{ImagePlatform, ImportOptions, Store, StoreError};
use rustix::fs::lgetxattr;
use tar::EntryType;

/// Imports an archive; where its files are.
fn import(store: &Arc<Store>, tar: &[u8]) -> Result<PathBuf, StoreError> {
    let options = ImportOptions {
        reference: None,
        changes: Vec::new(),
        message: String::new(),
        platform: ImagePlatform::current(),
    };
    let id = store.import(tar, options)?;
    Ok(store.layer_chain(&id)?.0.remove(0))
}

/// The value of an attribute of the file itself.
fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    lgetxattr(path, name, &mut value).ok().map(|length| value[..length].to_vec())
}

/// A file's permissions with setuid, setgid and sticky.
fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn privileged_climbing_archives_leave_nothing() {
    let (directory, store) = store();
    let data = directory.path().join("data");
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let outside_name = outside.to_str().unwrap();
    let before = tree(directory.path());
    let cases = [
        ("dots", Layer::new().file("../evil", b"x").tar(), "it climbs out"),
        ("inner dots", Layer::new().file("a/../../evil", b"x").tar(), "it climbs out"),
        ("link dots", Layer::new().hard_link("a", "../../outside/secret").tar(), "it climbs out"),
        ("root file", Layer::new().entry(EntryType::Fifo, ".", "", b"", |_| {}).tar(), "invalid path"),
        (
            "through a climbing link",
            Layer::new().symlink("l", "../../../../../outside").file("l/evil", b"x").tar(),
            "cannot open the parent of `l/evil`",
        ),
        (
            "through an absolute link",
            Layer::new().symlink("l", outside_name).file("l/evil", b"x").tar(),
            "cannot open the parent of `l/evil`",
        ),
        ("hard link outside", Layer::new().hard_link("a", &format!("{outside_name}/secret")).tar(), "`a`"),
        (
            "hard link through a link",
            Layer::new().symlink("l", outside_name).hard_link("a", "l/secret").tar(),
            "cannot open the link target's directory",
        ),
        (
            "directory through a link",
            Layer::new().symlink("l", outside_name).directory("l/d", 0o777).tar(),
            "l/d",
        ),
        ("whiteout through a link", Layer::new().symlink("l", outside_name).whiteout("l/secret").tar(), "l/"),
        ("whiteout of nothing", Layer::new().file(".wh.", b"").tar(), "invalid path"),
        ("whiteout of dots", Layer::new().file("d/.wh...", b"").tar(), "invalid path"),
        (
            "a file as parent",
            Layer::new().file("f", b"x").file("f/g", b"x").tar(),
            "cannot open the parent of `f/g`",
        ),
        (
            "an unknown kind",
            Layer::new().entry(EntryType::new(b'Q'), "q", "", b"", |_| {}).tar(),
            "unknown kind",
        ),
        ("a zero byte", Layer::new().pax(&[("path", b"a\0b")]).file("x", b"").tar(), "invalid path"),
        ("a link to the root", Layer::new().hard_link("a", "/").tar(), "invalid path"),
        (
            "a lying size",
            Layer::new().entry(EntryType::Regular, "big", "", b"x", |header| header.set_size(1 << 50)).tar(),
            "ends within an entry",
        ),
        (
            "a huge name",
            Layer::new().pax(&[("size", b"9223372036854775807")]).file("x", b"").tar(),
            "ends within",
        ),
    ];
    for (name, tar, message) in cases {
        let error = import(&store, &tar).expect_err(name);
        let text = with_causes(&error);
        assert!(text.contains(message), "{name}: {text}");
        store.wait_until_removed();
        assert_eq!(tree(directory.path()), before, "{name}");
    }
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(outside.join("secret").metadata().unwrap().nlink(), 1);
    assert!(store.images().unwrap().is_empty() && data.join("lock").exists());
}

#[test]
fn privileged_links_of_the_layer_are_followed_within_it() {
    let (_directory, store) = store();
    let tar = Layer::new()
        .directory("usr/bin", 0o755)
        .symlink("bin", "usr/bin")
        .symlink("abs", "/usr")
        .symlink("up", "../../usr")
        .file("bin/a", b"a")
        .file("abs/bin/b", b"b")
        .file("up/bin/c", b"c")
        .file("/etc/absolute", b"d")
        .file("./x/../y", b"e")
        .hard_link("bin/hard", "/abs/bin/a")
        .symlink("usr/bin/dangling", "/nowhere")
        .hard_link("soft", "bin/dangling")
        .tar();
    let root = import(&store, &tar).unwrap();
    assert_eq!(
        tree(&root),
        [
            "abs",
            "bin",
            "etc",
            "etc/absolute",
            "soft",
            "up",
            "usr",
            "usr/bin",
            "usr/bin/a",
            "usr/bin/b",
            "usr/bin/c",
            "usr/bin/dangling",
            "usr/bin/hard",
            "y"
        ]
    );
    assert_eq!(root.join("usr/bin/a").metadata().unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(root.join("soft")).unwrap(), Path::new("/nowhere"));
    assert_eq!(mode(&root.join("etc")), 0o755, "a directory that the archive leaves out");
}

#[test]
fn privileged_later_entries_replace_earlier_ones() {
    let (_directory, store) = store();
    let tar = Layer::new()
        .directory("d", 0o755)
        .file("d/old", b"1")
        .directory("e", 0o755)
        .symlink("d", "e")
        .file("d/new", b"2")
        .file("f", b"first")
        .hard_link("g", "f")
        .file("f", b"second")
        .directory("h", 0o700)
        .file("h/kept", b"3")
        .directory("h", 0o750)
        .symlink("l", "f")
        .file("l", b"a file now")
        .tar();
    let root = import(&store, &tar).unwrap();
    assert_eq!(tree(&root), ["d", "e", "e/new", "f", "g", "h", "h/kept", "l"]);
    assert_eq!(std::fs::read(root.join("g")).unwrap(), b"first", "the old content keeps its other name");
    assert_eq!(std::fs::read(root.join("f")).unwrap(), b"second");
    assert_eq!(mode(&root.join("h")), 0o750);
    assert!(root.join("l").symlink_metadata().unwrap().is_file());
}

#[test]
fn privileged_metadata_is_kept() {
    let (_directory, store) = store();
    let owned = |uid: u64, gid: u64, mode: u32| {
        move |header: &mut tar::Header| {
            header.set_uid(uid);
            header.set_gid(gid);
            header.set_mode(mode);
            header.set_mtime(1_600_000_000);
        }
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let acl = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255,
        255, 255,
    ];
    let tar = Layer::new()
        .entry(EntryType::Directory, "./", "", b"", owned(0, 0, 0o711))
        .entry(EntryType::Regular, "setuid", "", b"x", owned(1000, 50, 0o4755))
        .entry(EntryType::Directory, "shared", "", b"", owned(0, 50, 0o2775))
        .entry(EntryType::Regular, "shared/file", "", b"x", owned(0, 0, 0o666))
        .entry(EntryType::Directory, "shared/plain", "", b"", owned(0, 0, 0o755))
        .entry(EntryType::Symlink, "shared/link", "file", b"", owned(7, 8, 0o777))
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl), ("mtime", b"1600000000.25")])
        .entry(EntryType::Directory, "acl", "", b"", owned(0, 0, 0o1777))
        .entry(EntryType::Regular, "acl/file", "", b"x", owned(0, 0, 0o640))
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("SCHILY.xattr.user.note", b"n=1")])
        .entry(EntryType::Regular, "capable", "", b"x", owned(1, 1, 0o755))
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .entry(EntryType::Directory, "sly", "", b"", owned(0, 0, 0o755))
        .entry(EntryType::Fifo, "fifo", "", b"", owned(3, 4, 0o622))
        .entry(EntryType::Char, "null", "", b"", |header| {
            owned(0, 6, 0o666)(header);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .tar();
    let root = import(&store, &tar).unwrap();
    let meta = |name: &str| root.join(name).symlink_metadata().unwrap();
    assert_eq!(mode(&root), 0o755, "the archive's word on the root does not count");
    assert_eq!((meta("setuid").uid(), meta("setuid").gid(), mode(&root.join("setuid"))), (1000, 50, 0o4755));
    assert_eq!((meta("shared/file").gid(), mode(&root.join("shared/file"))), (0, 0o666));
    assert_eq!((meta("shared/plain").gid(), mode(&root.join("shared/plain"))), (0, 0o755));
    assert_eq!((meta("shared/link").uid(), meta("shared/link").gid()), (7, 8));
    assert_eq!((meta("acl").mtime(), meta("acl").mtime_nsec()), (1_600_000_000, 250_000_000));
    assert_eq!(xattr(&root.join("acl"), "system.posix_acl_default").as_deref(), Some(&acl[..]));
    assert_eq!(xattr(&root.join("acl/file"), "system.posix_acl_access"), None, "nothing was inherited");
    assert_eq!(xattr(&root.join("capable"), "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(xattr(&root.join("capable"), "user.note").as_deref(), Some(&b"n=1"[..]));
    for name in ["trusted.overlay.redirect", "user.overlay.opaque", "trusted.overlay.opaque"] {
        assert_eq!(xattr(&root.join("sly"), name), None, "{name}");
    }
    assert!(
        meta("fifo").file_type().is_fifo() && mode(&root.join("fifo")) == 0o622 && meta("fifo").uid() == 3
    );
    assert_eq!((meta("null").rdev(), mode(&root.join("null")), meta("null").gid()), (0x103, 0o666, 6));
    for name in ["setuid", "shared", "shared/link", "fifo", "null", "sly"] {
        assert_eq!(meta(name).mtime(), 1_600_000_000, "{name}");
    }
}

#[test]
fn privileged_sparse_files_stay_sparse() {
    let (directory, store) = store();
    let path = directory.path().join("sparse");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(8 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 5 << 30).unwrap();
    for form in [&["--format=gnu"][..], &["--format=pax", "--sparse-version=1.0"]] {
        let mut tar = Command::new("tar");
        tar.arg("-S").args(form).arg("-C").arg(directory.path()).args(["-cf", "-", "sparse"]);
        let root = import(&store, &tar.output().unwrap().stdout).unwrap();
        let meta = root.join("sparse").metadata().unwrap();
        assert_eq!(meta.len(), 8 << 30);
        assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    }
}

/// Mounts `layers`, the top one first, and lists what is seen.
fn overlay(layers: &[PathBuf], options: &str) -> Vec<String> {
    let lower = layers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    let script = format!(
        "mount -t overlay overlay -o ro,{options}lowerdir={lower} /mnt && cd /mnt && find . -mindepth 1 -printf '%P\\n'"
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut names: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn privileged_whiteouts_hide_what_is_below() {
    let (_directory, store) = store();
    let lower = Layer::new()
        .file("gone", b"1")
        .file("stays", b"1")
        .file("opaque/lower", b"1")
        .file("remade/lower", b"1")
        .file("remade2/lower", b"1")
        .file("deep/a/b/c", b"1");
    let upper = Layer::new()
        .whiteout("gone")
        .directory("opaque", 0o755)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/upper", b"2")
        .whiteout("remade")
        .directory("remade", 0o755)
        .file("remade/upper", b"2")
        .directory("remade2", 0o755)
        .file("remade2/upper", b"2")
        .whiteout("remade2")
        .file(".wh..wh.plnk/ignored", b"x")
        .file(".wh..wh.aufs", b"x")
        .whiteout("deep/a/b");
    let archive = archives::docker_archive(&["a:1"], &[lower.tar(), upper.tar()]);
    let id = store.load(archive.as_slice(), &mut |_| {}).unwrap().remove(0).id;
    let (layers, _) = store.layer_chain(&id).unwrap();
    let expected = [
        "deep",
        "deep/a",
        "opaque",
        "opaque/upper",
        "remade",
        "remade/upper",
        "remade2",
        "remade2/upper",
        "stays",
    ];
    for options in ["", "userxattr,"] {
        let mut seen = overlay(&layers, options);
        seen.retain(|name| !name.starts_with(".wh."));
        assert_eq!(seen, expected, "{options}");
    }
}

#[test]
fn privileged_in_a_user_namespace() {
    archives::require_root();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(program)
        .args(["--exact", "--ignored", "--nocapture", "child_in_a_user_namespace"])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by privileged_in_a_user_namespace in a user namespace of its own"]
fn child_in_a_user_namespace() {
    let (_directory, store) = store();
    let foreign = Layer::new().entry(EntryType::Regular, "f", "", b"", |header| header.set_uid(1000)).tar();
    let text = with_causes(&import(&store, &foreign).unwrap_err());
    assert!(text.contains("`f` belongs to 1000:0, which is not mapped in this user namespace"), "{text}");
    let tar = Layer::new()
        .file("a", b"x")
        .whiteout("gone")
        .file("d/.wh..wh..opq", b"")
        .entry(EntryType::Char, "null", "", b"", |header| header.set_device_major(1).unwrap())
        .pax(&[("SCHILY.xattr.trusted.x", b"y")])
        .file("b", b"x")
        .tar();
    let root = import(&store, &tar).unwrap();
    assert_eq!(tree(&root), ["a", "b", "d", "gone"]);
    assert_eq!(xattr(&root.join("d"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    let record = std::fs::read_to_string(root.parent().unwrap().join("layer.json")).unwrap();
    assert!(
        record.contains("device `null` is left out") && record.contains("attribute `trusted.x`"),
        "{record}"
    );
}

#[test]
fn privileged_unpacks_as_gnu_tar_does() {
    let (directory, store) = store();
    let tar = Command::new("tar")
        .args(["-cf", "-", "-C", "/", "etc", "-C", "/usr", "sbin"])
        .output()
        .unwrap()
        .stdout;
    let root = import(&store, &tar).unwrap();
    let reference = directory.path().join("reference");
    std::fs::create_dir(&reference).unwrap();
    let mut child = Command::new("tar")
        .args(["--numeric-owner", "-xpf", "-", "-C"])
        .arg(&reference)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), &tar).unwrap();
    assert!(child.wait().unwrap().success());
    let list = |path: &Path| {
        let script = "find . -mindepth 1 ! -type d -printf '%p %m %U %G %s %T@ %l %y %n\\n' | sort; \
                      find . -mindepth 1 -type d -printf '%p %m %U %G %T@\\n' | sort; \
                      find . -type f -print0 | sort -z | xargs -0 sha256sum";
        Command::new("sh").args(["-c", script]).current_dir(path).output().unwrap().stdout
    };
    assert!(list(&root) == list(&reference), "the trees differ");
}
