//! The socket that a container gets in place of the engine's.
//!
//! Held here, because a bind mount pins the inode: a socket that the next engine made would be another one, and never seen
//! in the container. The kernel queues who connects meanwhile.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::protocol::{GUARD_DIRECTORY, GUARD_SOCKET};

use super::start::{bind_in, open_directory};

/// Listens below `runtime_directory`.
///
/// Every user of the container may connect, whatever ids it has there and here: the container is the identity. On the host
/// its directory lets nobody but root come near, and who runs as such a user there has nothing of it.
pub fn listen(runtime_directory: &Path) -> io::Result<UnixListener> {
    let path = runtime_directory.join(GUARD_DIRECTORY);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let directory = open_directory(&path)?;
    let listener = bind_in(directory.as_fd(), GUARD_SOCKET)?;
    let socket = format!("/proc/self/fd/{}/{GUARD_SOCKET}", directory.as_raw_fd());
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}
