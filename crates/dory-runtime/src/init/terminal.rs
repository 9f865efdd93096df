//! A pseudo terminal from the container's own devpts, so that `ttyname` and `/dev/console` are right inside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::filesystem::{attach, clone_mount};
use crate::spec::ConsoleSize;

use super::root::Root;

/// The two ends of a terminal.
#[derive(Debug)]
pub struct Terminal {
    /// For the shim.
    pub master: OwnedFd,
    /// For the process.
    pub slave: OwnedFd,
}

/// Opens a new terminal of the devpts at `/dev/pts` beneath `root`.
pub fn open(root: Root<'_>, size: Option<ConsoleSize>) -> io::Result<Terminal> {
    let master = root.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    if let Some(size) = size {
        resize(master.as_fd(), size)?;
    }
    Ok(Terminal { master, slave })
}

/// Binds the slave on `/dev/console`, where a container's first process expects its terminal.
pub fn bind_console(root: Root<'_>, terminal: &Terminal) -> io::Result<()> {
    let name = rustix::pty::ptsname(&terminal.master, Vec::new())?;
    let number = name.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned();
    let source = root.locate(&format!("/dev/pts/{number}"))?;
    let copy = clone_mount(source.as_fd(), Path::new(""), false)?;
    let place = root.ensure_file("/dev/console")?;
    attach(copy.as_fd(), place.as_fd())
}

/// Sets a terminal's size.
pub fn resize(master: BorrowedFd<'_>, size: ConsoleSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
