//! Binds of the engine's own socket: whoever reaches it commands the engine, and with it the machine.
//!
//! What is recognised is the socket itself, by whatever path, and the conventional path, whatever lies there: beside a
//! dockerd it would hand over that one's root, and without one Docker would make a useless directory of it. Directories
//! that contain a socket are not: a bind of `/` or `/run` is the operator's own word.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Point, PointKind};
use crate::options::{EngineConfig, SocketMount};
use crate::{EngineError, ErrorKind, Result};

/// Where every client and agent looks for an engine; one is usually the other through the link `/var/run`.
const CONVENTIONAL: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

/// The socket that has to be mounted at `point` in place of its source; `None` for a point that names no engine.
///
/// Looked at when a container is created and again at each start: sockets come and go with engines, and so does the
/// configuration.
///
/// # Errors
/// `Forbidden` where the configuration refuses it, `Invalid` where the conventional path is meant and this engine
/// listens on no unix socket.
pub(crate) fn own_socket(point: &Point, options: &EngineConfig) -> Result<Option<PathBuf>> {
    if point.kind != PointKind::Bind {
        return Ok(None);
    }
    let source = Path::new(&point.source);
    let own = options.sockets.iter().find(|socket| is_same(source, socket));
    if own.is_none() && !CONVENTIONAL.iter().any(|path| is_same(source, Path::new(path))) {
        return Ok(None);
    }
    match (options.socket_mount, own.or(options.sockets.first())) {
        (SocketMount::Refuse, _) => Err(refusal(&point.source)),
        (SocketMount::Raw, Some(socket)) => Ok(Some(socket.clone())),
        (SocketMount::Raw, None) => Err(EngineError::invalid(format!(
            "`{}` means the engine's own socket, and this engine listens on no unix socket (`dory serve --host unix:///PATH`)",
            point.source
        ))),
    }
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
            "the engine's socket `{source}` is not mounted: whoever reaches it commands this engine, and through it the \
             whole machine. Guarded sockets, which show a container its own objects only, are not there yet. To get \
             Docker's meaning nevertheless, set `socket-mount = \"raw\"` in the engine's configuration (`dory serve \
             --socket-mount raw`); to give the container an engine of its own, run one beside it and set \
             DOCKER_HOST=tcp://ADDRESS:2375"
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
            let error = own_socket(&bind(path(name)), &refuse).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{name}");
            assert_eq!(own_socket(&bind(path(name)), &raw).unwrap(), Some(socket.clone()), "{name}");
        }
        for source in [path("other.sock"), path("missing"), directory.path().to_owned(), "/".into()] {
            assert_eq!(own_socket(&bind(&source), &refuse).unwrap(), None, "{}", source.display());
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
            let error = own_socket(&point, &config(SocketMount::Refuse, &[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden);
            for word in [source.to_str().unwrap(), "socket-mount = \"raw\"", "DOCKER_HOST"] {
                assert!(error.message().contains(word), "{word}: {error}");
            }
            let meant = own_socket(&point, &config(SocketMount::Raw, &[socket])).unwrap();
            assert_eq!(meant.as_deref(), Some(socket));
            let error = own_socket(&point, &config(SocketMount::Raw, &[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn volumes_and_memory_are_no_sockets() {
        let options = config(SocketMount::Refuse, &[]);
        for kind in [PointKind::Volume, PointKind::Tmpfs] {
            let point = Point { source: CONVENTIONAL[0].into(), ..Point::new(kind, "/s") };
            assert_eq!(own_socket(&point, &options).unwrap(), None);
        }
    }
}
