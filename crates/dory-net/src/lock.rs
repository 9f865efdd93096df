//! One engine at a time surveys a network namespace and takes a name and a subnet in it.
//!
//! The lock is a name in the abstract namespace of UNIX sockets, which each network namespace has of its own, and which
//! the kernel gives back when its holder dies.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The socket's name.
const NAME: &str = "dory-network-set-up";
/// How long another engine is waited for. Setting up takes milliseconds; anybody may hold the name, so that an engine
/// which waited long enough goes on without, as if there were no others.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the lock is tried.
const INTERVAL: Duration = Duration::from_millis(5);

/// Takes the lock, which is held as long as the value. None where it could not be had in time.
pub(crate) fn acquire() -> Option<UnixDatagram> {
    let address = SocketAddr::from_abstract_name(NAME).ok()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UnixDatagram::bind_addr(&address) {
            Ok(lock) => return Some(lock),
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(INTERVAL);
            }
            Err(_) => return None,
        }
    }
}
