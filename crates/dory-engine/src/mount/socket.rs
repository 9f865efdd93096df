//! Binds of the engine's own socket: whoever reaches it commands the engine, and with it the machine.
//!
//! What is recognised is the socket itself, by whatever path, and the conventional path, whatever lies there: beside a
//! dockerd it would hand over that one's root, and without one Docker would make a useless directory of it. Directories
//! above a socket are mounted with the container's own socket on top of each that is meant.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dory_runtime::protocol::{GUARD_DIRECTORY, GUARD_SOCKET};

use super::{Point, PointKind};
use crate::options::{EngineConfig, SocketMount};
use crate::{EngineError, ErrorKind, Result};

/// Where every client and agent looks for an engine; one is usually the other through the link `/var/run`.
const CONVENTIONAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

/// What a bind of a socket of the engine's becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocketMeaning {
    /// This socket of the engine's, as Docker has it.
    Raw(PathBuf),
    /// The container's own.
    Guarded,
    /// A guarded one of another container's, which shares it: what a session makes is the session's.
    Shared,
}

/// What `point` means, where it names an engine's socket; `None` for any other point.
///
/// Looked at when a container is created and again at each start: sockets come and go with engines, and so does the
/// configuration.
///
/// # Errors
/// `Forbidden` where the configuration refuses it, `Invalid` where Docker's meaning is configured and this engine listens
/// on no unix socket.
pub(crate) fn socket_meaning(point: &Point, options: &EngineConfig) -> Result<Option<SocketMeaning>> {
    if point.kind != PointKind::Bind {
        return Ok(None);
    }
    let source = Path::new(&point.source);
    if is_guarded(source, options) {
        return Ok(Some(SocketMeaning::Shared));
    }
    let own = options.sockets.iter().find(|socket| is_same(source, socket));
    if own.is_none() && !CONVENTIONAL.iter().any(|path| is_same(source, Path::new(path))) {
        return Ok(None);
    }
    match (options.socket_mount, own.or(options.sockets.first())) {
        (SocketMount::Guarded, _) => Ok(Some(SocketMeaning::Guarded)),
        (SocketMount::Refuse, _) => Err(refusal(&point.source)),
        (SocketMount::Raw, Some(socket)) => Ok(Some(SocketMeaning::Raw(socket.clone()))),
        (SocketMount::Raw, None) => Err(EngineError::invalid(format!(
            "`{}` means the engine's own socket, and this engine listens on no unix socket (`dory serve --host unix:///PATH`)",
            point.source
        ))),
    }
}

/// As [`socket_meaning`], for whoever only wants to know whether there is a meaning.
///
/// # Errors
/// As [`socket_meaning`].
pub(crate) fn check_socket(point: &Point, options: &EngineConfig) -> Result<Option<()>> {
    socket_meaning(point, options).map(|meaning| meaning.map(drop))
}

/// A path of [`crate::container::GuardedSocket`]: `<exec-root>/containers/<id>/guard/docker.sock`.
fn is_guarded(source: &Path, options: &EngineConfig) -> bool {
    let below = source.strip_prefix(options.exec_root.join("containers"));
    below.is_ok_and(|rest| {
        rest.components().count() == 3 && rest.ends_with(Path::new(GUARD_DIRECTORY).join(GUARD_SOCKET))
    })
}

/// What has to lie on top of a bind of a directory: the container's own `socket` on each of an engine's below it, and
/// nothing where the shims of all containers listen. This keeps whoever asks for `/run` from getting the engine; it is no
/// wall for who mounts the host's root, or may unmount in the container.
pub(crate) fn covers(point: &Point, options: &EngineConfig, socket: &Path) -> Vec<Point> {
    if point.kind != PointKind::Bind || options.socket_mount != SocketMount::Guarded {
        return Vec::new();
    }
    let Ok(source) = fs::canonicalize(&point.source) else { return Vec::new() };
    let destination = |path: &Path| {
        let inside = path.strip_prefix(&source).ok()?;
        (inside != Path::new(""))
            .then(|| Path::new(&point.destination).join(inside))?
            .into_os_string()
            .into_string()
            .ok()
    };
    let mut covers: Vec<Point> = Vec::new();
    let sockets = options.sockets.iter().map(PathBuf::as_path).chain(CONVENTIONAL.map(Path::new));
    for real in sockets.filter_map(|path| fs::canonicalize(path).ok()) {
        let is_socket = fs::metadata(&real).is_ok_and(|metadata| metadata.file_type().is_socket());
        if let Some(destination) = destination(&real).filter(|_| is_socket) {
            covers.push(Point {
                source: socket.to_string_lossy().into_owned(),
                writable: point.writable,
                socket: true,
                ..Point::new(PointKind::Bind, destination)
            });
        }
    }
    let shims = fs::canonicalize(options.exec_root.join("containers")).ok();
    if let Some(destination) = shims.and_then(|shims| destination(&shims)) {
        covers.push(Point {
            tmpfs: "ro,size=4096,mode=755".to_owned(),
            ..Point::new(PointKind::Tmpfs, destination)
        });
    }
    covers.dedup_by(|one, other| one.destination == other.destination);
    covers
}

/// True for two paths of one file: the same text, the same path behind links, or the same inode, which covers a socket
/// that is bound elsewhere.
fn is_same(source: &Path, socket: &Path) -> bool {
    if source == socket {
        return true;
    }
    match (fs::canonicalize(source), fs::canonicalize(socket)) {
        (Ok(source), Ok(socket)) if source == socket => return true,
        // A dangling link to the conventional path would mean the next engine there.
        (_, Err(_)) => return fs::read_link(source).is_ok_and(|target| target == socket),
        _ => {}
    }
    let inode = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    inode(source).is_some_and(|source| inode(socket) == Some(source))
}

fn refusal(source: &str) -> EngineError {
    EngineError::new(
        ErrorKind::Forbidden,
        format!(
            "the engine's socket `{source}` is not mounted: the engine's configuration refuses it (`socket-mount = \"refuse\"`). \
             With `socket-mount = \"guarded\"` the container gets a socket that shows it its own objects only; `\"raw\"` is \
             Docker's meaning: whoever reaches it commands this engine, and through it the whole machine"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn bind(source: impl AsRef<Path>) -> Point {
        let source = source.as_ref().to_str().unwrap().to_owned();
        Point { source, ..Point::new(PointKind::Bind, "/s") }
    }

    fn config(socket_mount: SocketMount, sockets: &[&Path]) -> EngineConfig {
        let sockets = sockets.iter().map(|path| path.to_path_buf()).collect();
        EngineConfig { socket_mount, sockets, ..EngineConfig::new("/d", "/r") }
    }

    #[test]
    fn finds_the_socket_by_every_path_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let socket = path("engine.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(&socket, path("link")).unwrap();
        symlink(directory.path(), path("directory")).unwrap();
        fs::hard_link(&socket, path("second-name")).unwrap();
        let _other = UnixListener::bind(path("other.sock")).unwrap();

        let (refuse, raw) = (config(SocketMount::Refuse, &[&socket]), config(SocketMount::Raw, &[&socket]));
        for name in ["engine.sock", "link", "directory/engine.sock", "second-name"] {
            let error = socket_meaning(&bind(path(name)), &refuse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{name}");
            assert_eq!(
                socket_meaning(&bind(path(name)), &raw).unwrap(),
                Some(SocketMeaning::Raw(socket.clone())),
                "{name}"
            );
        }
        for source in [path("other.sock"), path("missing"), directory.path().to_owned(), "/".into()] {
            assert_eq!(socket_meaning(&bind(&source), &refuse).unwrap(), None, "{}", source.display());
        }
    }

    #[test]
    fn the_conventional_path_means_an_engine_whatever_lies_there() {
        let socket = Path::new("/nowhere/engine.sock");
        let directory = tempfile::tempdir().unwrap();
        symlink("/var/run/docker.sock", directory.path().join("link")).unwrap();
        let sources = CONVENTIONAL.map(PathBuf::from).into_iter().chain([directory.path().join("link")]);
        for source in sources {
            let point = bind(&source);
            let error = socket_meaning(&point, &config(SocketMount::Refuse, &[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden);
            for word in [source.to_str().unwrap(), "socket-mount = \"guarded\"", "`\"raw\"`"] {
                assert!(error.message().contains(word), "{word}: {error}");
            }
            let meant = socket_meaning(&point, &config(SocketMount::Raw, &[socket])).unwrap();
            assert_eq!(meant, Some(SocketMeaning::Raw(socket.to_owned())));
            let meant = socket_meaning(&point, &config(SocketMount::Guarded, &[])).unwrap();
            assert_eq!(meant, Some(SocketMeaning::Guarded));
            let error = socket_meaning(&point, &config(SocketMount::Raw, &[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn volumes_and_memory_are_no_sockets() {
        let options = config(SocketMount::Refuse, &[]);
        for kind in [PointKind::Volume, PointKind::Tmpfs] {
            let point = Point { source: CONVENTIONAL[0].into(), ..Point::new(kind, "/s") };
            assert_eq!(socket_meaning(&point, &options).unwrap(), None);
        }
    }

    #[test]
    fn directories_above_a_socket_are_covered() {
        let directory = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir_all(top.join("run/exec/containers")).unwrap();
        let socket = top.join("run/engine.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        symlink(top.join("run"), top.join("link")).unwrap();
        let options = EngineConfig {
            sockets: vec![top.join("link/engine.sock")],
            ..EngineConfig::new("/d", top.join("run/exec"))
        };
        for (source, below) in [(top.clone(), "/s/run"), (top.join("link"), "/s"), (top.join("run"), "/s")] {
            let covers = covers(&bind(&source), &options, Path::new("/own"));
            let found: Vec<_> = covers
                .iter()
                .map(|point| (point.kind, point.destination.as_str(), point.source.as_str()))
                .collect();
            let (socket, shims) = (format!("{below}/engine.sock"), format!("{below}/exec/containers"));
            assert_eq!(found, [(PointKind::Bind, &*socket, "/own"), (PointKind::Tmpfs, &*shims, "")]);
        }
        let inside = top.join("run/exec");
        assert_eq!(covers(&bind(&inside), &options, Path::new("/own")).len(), 1);
        let raw = EngineConfig { socket_mount: SocketMount::Raw, ..options };
        assert!(covers(&bind(&top), &raw, Path::new("/own")).is_empty());
    }

    #[test]
    fn a_guarded_socket_of_another_container_is_shared() {
        let options = config(SocketMount::Guarded, &[]);
        let point = bind("/r/containers/abc/guard/docker.sock");
        assert_eq!(socket_meaning(&point, &options).unwrap(), Some(SocketMeaning::Shared));
        for source in ["/r/containers/abc/shim.sock", "/r/containers/guard/docker.sock"] {
            assert_eq!(socket_meaning(&bind(source), &options).unwrap(), None);
        }
    }
}
