//! sd_notify(3): tells a service manager how far we are. Without one nothing happens.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The engine answers.
pub fn ready() {
    send(format!("READY=1\nMAINPID={}\n", std::process::id()).as_bytes());
}

/// The engine is about to end.
pub fn stopping() {
    send(b"STOPPING=1\n");
}

fn send(message: &[u8]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(message, &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "Cannot notify the service manager");
    }
}
