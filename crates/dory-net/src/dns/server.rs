//! The embedded DNS server: one thread, one epoll, for every container.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::DnsServerError;
use super::client::DnsClient;
use super::directory::DnsDirectory;
use super::event_loop::EventLoop;
use super::redirect::Sockets;

/// What the engine tells the thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Answer this container too.
    Attach(String, OwnedFd, Sockets, DnsClient),
    /// Answer it like this from now on.
    Update(String, DnsClient),
    /// Answer it no more.
    Detach(String),
    /// End.
    Stop,
}

/// What engine and thread share.
#[derive(Debug)]
pub(super) struct Inbox {
    commands: Mutex<Vec<Command>>,
    wake: OwnedFd,
}

impl Inbox {
    fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { commands: Mutex::default(), wake })
    }

    fn send(&self, command: Command) {
        self.lock().push(command);
        // The counter of an eventfd is full only after 2^64 - 1 writes that nobody read.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// What was sent since the last call.
    pub(super) fn take(&self) -> Vec<Command> {
        let mut count = [0; 8];
        // Nothing to read means that somebody took the commands already.
        let _ = rustix::io::read(&self.wake, &mut count);
        std::mem::take(&mut *self.lock())
    }

    /// Readable while there is something to take.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The embedded DNS server of an engine. Its thread ends with this value.
#[derive(Debug)]
pub struct DnsServer {
    inbox: Arc<Inbox>,
}

impl DnsServer {
    /// Starts the server's thread; names are looked up in `directory`. Resolvers of origin
    /// [`super::DnsOrigin::Engine`] are asked from the caller's network namespace.
    ///
    /// # Errors
    /// [`DnsServerError::Start`].
    pub fn start(directory: Arc<DnsDirectory>) -> Result<Self, DnsServerError> {
        let inbox = Arc::new(Inbox::new().map_err(DnsServerError::Start)?);
        let home = File::open("/proc/thread-self/ns/net").map_err(DnsServerError::Start)?.into();
        let event_loop =
            EventLoop::new(Arc::clone(&inbox), directory, home).map_err(DnsServerError::Start)?;
        std::thread::Builder::new()
            .name("dns".to_owned())
            .spawn(move || event_loop.run())
            .map_err(DnsServerError::Start)?;
        Ok(Self { inbox })
    }

    /// Answers the container that is called `key` here, in whose network namespace loopback is up: on port 53 of
    /// [`super::RESOLVER`], by UDP and TCP. Questions that come before the thread knows of it wait in its sockets.
    /// Replaces what an earlier engine, or an earlier call, has set up.
    ///
    /// # Errors
    /// [`DnsServerError::Enter`], [`DnsServerError::Listen`], [`DnsServerError::Redirect`].
    pub fn attach(&self, key: &str, netns: OwnedFd, client: DnsClient) -> Result<(), DnsServerError> {
        let sockets = Sockets::open(netns.as_fd())?;
        self.inbox.send(Command::Attach(key.to_owned(), netns, sockets, client));
        Ok(())
    }

    /// Changes how `key` is answered; nothing where it is not attached.
    pub fn update(&self, key: &str, client: DnsClient) {
        self.inbox.send(Command::Update(key.to_owned(), client));
    }

    /// Closes what is held of `key`; its network namespace must be free to go.
    pub fn detach(&self, key: &str) {
        self.inbox.send(Command::Detach(key.to_owned()));
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.inbox.send(Command::Stop);
    }
}

/// The numbers by which the loop knows containers.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<String, u64>);

impl Keys {
    /// Gives `key` the number `number`; returns the one that it had.
    pub(super) fn replace(&mut self, key: String, number: u64) -> Option<u64> {
        self.0.insert(key, number)
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    pub(super) fn remove(&mut self, key: &str) -> Option<u64> {
        self.0.remove(key)
    }
}
