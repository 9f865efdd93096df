//! The sockets that an engine listens on.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dory_api::{Listener, ServerTls};
use rustix::fs::{Gid, Mode};

/// systemd passes its sockets from this descriptor on (sd_listen_fds(3)).
const FIRST_PASSED: i32 = 3;

/// A listening socket, and the path to remove at the end.
pub struct Bound {
    /// The socket.
    pub listener: Listener,
    /// Its path, where it has one that we made.
    pub path: Option<PathBuf>,
}

/// Takes the sockets that systemd passed, where an address (`fd://`) asks for them.
///
/// # Errors
/// They are asked for, and there are none or they cannot be taken.
pub fn passed(hosts: &[String]) -> Result<Vec<Bound>> {
    if !hosts.iter().any(|host| host.starts_with("fd://")) {
        return Ok(Vec::new());
    }
    passed_sockets().context("cannot take the sockets of systemd")
}

/// Paths of the unix sockets that an engine on `hosts` listens on, whether they exist yet or not.
///
/// # Errors
/// A relative path without a current directory.
pub fn unix_paths(hosts: &[String], passed: &[Bound]) -> Result<Vec<PathBuf>> {
    let bound = passed.iter().filter_map(|bound| match &bound.listener {
        Listener::Unix(listener) => Some(listener.local_addr().ok()?.as_pathname()?.to_owned()),
        _ => None,
    });
    let named = hosts.iter().filter_map(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    named
        .chain(bound)
        .map(|path| std::path::absolute(&path).with_context(|| format!("invalid path `{}`", path.display())))
        .collect()
}

/// Listens on every address.
///
/// TCP sockets speak `tls`, where there is one, whoever made them.
///
/// # Errors
/// An address that is none, or is taken; a unix socket that nobody answers on is replaced.
pub fn bind_all(
    hosts: &[String],
    passed: Vec<Bound>,
    group: Option<&str>,
    tls: Option<&ServerTls>,
) -> Result<Vec<Bound>> {
    let secured = |listener, tls: Option<&ServerTls>| match tls {
        Some(tls) => Listener::Tls(listener, tls.clone()),
        None => Listener::Tcp(listener),
    };
    let secure = |bound: Bound| match bound.listener {
        Listener::Tcp(listener) => Bound { listener: secured(listener, tls), path: bound.path },
        _ => bound,
    };
    let mut all: Vec<_> = passed.into_iter().map(secure).collect();
    for host in hosts {
        if let Some(path) = host.strip_prefix("unix://") {
            let listener =
                bind_unix(Path::new(path), group).with_context(|| format!("cannot listen on `{host}`"))?;
            all.push(Bound { listener: Listener::Unix(listener), path: Some(PathBuf::from(path)) });
        } else if let Some(address) = host.strip_prefix("tcp://") {
            let port = if tls.is_some() { 2376 } else { 2375 };
            let listener = TcpListener::bind(with_port(address, port))
                .with_context(|| format!("cannot listen on `{host}`"))?;
            if tls.is_none() {
                warn_about_tcp(&listener, host);
            }
            all.push(Bound { listener: secured(listener, tls), path: None });
        } else if !host.starts_with("fd://") {
            bail!("invalid address `{host}`: unix://PATH, tcp://ADDRESS:PORT or fd:// is needed");
        }
    }
    Ok(all)
}

/// Whoever reaches the port is root on this machine, as with dockerd.
fn warn_about_tcp(listener: &TcpListener, host: &str) {
    if listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            address = host,
            "Listening on TCP without TLS: whoever reaches it controls the engine"
        );
    }
}

fn with_port(address: &str, port: u16) -> String {
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { address.to_owned() } else { format!("{address}:{port}") }
}

fn bind_unix(path: &Path, group: Option<&str>) -> Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    }
    // A socket that somebody answers on belongs to a living engine; one that nobody does was left by a dead one.
    match UnixStream::connect(path) {
        Ok(_) => bail!("another engine answers there"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => fs::remove_file(path).with_context(|| format!("cannot replace `{}`", path.display()))?,
    }
    // Nobody may connect before the mode is set.
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    if let Some(gid) = group_id(group)? {
        rustix::fs::chown(path, None, Some(Gid::from_raw(gid)))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    }
    Ok(listener)
}

/// The group's id, read from /etc/group by ourselves: a static binary has no name services.
fn group_id(name: Option<&str>) -> Result<Option<u32>> {
    let wanted = name.unwrap_or("docker");
    if let Ok(number) = wanted.parse() {
        return Ok(Some(number));
    }
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let found =
        text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == wanted);
    match (found.and_then(|fields| fields.get(2)?.parse().ok()), name) {
        (Some(gid), _) => Ok(Some(gid)),
        (None, None) => Ok(None),
        (None, Some(name)) => bail!("no group `{name}` in /etc/group"),
    }
}

fn passed_sockets() -> Result<Vec<Bound>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let (pid, count) = (number("LISTEN_PID"), number("LISTEN_FDS").unwrap_or(0));
    if pid != Some(std::process::id()) || count == 0 {
        bail!("no socket was passed (LISTEN_PID, LISTEN_FDS)");
    }
    (FIRST_PASSED..FIRST_PASSED + i32::try_from(count)?).map(passed_socket).collect()
}

fn passed_socket(number: i32) -> Result<Bound> {
    let descriptor = dory_sys::process::take_descriptor(number)
        .with_context(|| format!("descriptor {number} is not open"))?;
    let listener = match domain(descriptor.as_fd())? {
        rustix::net::AddressFamily::UNIX => Listener::Unix(descriptor.into()),
        _ => Listener::Tcp(descriptor.into()),
    };
    Ok(Bound { listener, path: None })
}

fn domain(descriptor: BorrowedFd<'_>) -> Result<rustix::net::AddressFamily> {
    Ok(rustix::net::sockopt::socket_domain(descriptor)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_unix_sockets_before_and_after_they_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passed.sock");
        let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
        let hosts = ["tcp://127.0.0.1:1", "unix:///a/./b.sock", "fd://"].map(str::to_owned);
        let paths = unix_paths(&hosts, &[Bound { listener, path: None }]).unwrap();
        assert_eq!(paths, [PathBuf::from("/a/b.sock"), path]);
    }
}
