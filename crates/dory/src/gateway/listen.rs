//! Binds a listener of the gateway.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dory_gateway::Listener;

/// Binds `unix:///PATH` or `tcp://ADDRESS:PORT`; with the path of a unix socket.
///
/// # Errors
/// An address that is none, that is taken, or that everybody could reach.
pub fn bind(address: &str) -> Result<(Option<PathBuf>, Listener)> {
    if let Some(path) = address.strip_prefix("unix://").map(Path::new).filter(|path| path.is_absolute()) {
        let listener = bind_unix(path).with_context(|| format!("cannot listen on `{}`", path.display()))?;
        return Ok((Some(path.to_owned()), Listener::Unix(listener)));
    }
    let Some(address) = address.strip_prefix("tcp://") else {
        bail!("`{address}` is no address to listen on: unix:///PATH or tcp://ADDRESS:PORT");
    };
    let listener =
        std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on `{address}`"))?;
    // Without certificates there is no identity but who can reach it.
    if !listener.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
        bail!(
            "`{address}` can be reached from elsewhere, and listeners with TLS are not there yet; use a loopback address"
        );
    }
    Ok((None, Listener::Tcp(listener)))
}

/// A socket that nobody answers on any more gives way.
fn bind_unix(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    if path.symlink_metadata().is_ok()
        && UnixStream::connect(path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Users of containers that mount it are of any number; on the host its directory says who may come.
    let private = path.parent().and_then(|directory| directory.metadata().ok());
    let private = private.is_some_and(|metadata| metadata.permissions().mode() & 0o077 == 0);
    let mode = if private { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
