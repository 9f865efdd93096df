//! The epoll set and what its tokens stand for.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dory_log::Stream;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventFlags};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The engine connects.
    Listener,
    /// A process ended.
    Ended(u64),
    /// A process wrote.
    Output(u64, Stream),
    /// A process takes input again.
    Input(u64),
    /// A client sent something, or takes output again.
    Client(u64),
    /// An engine that watches; it says nothing, so this is its end.
    Monitor(u64),
    /// The log's recorder takes records again, says something, or has gone.
    Recorder,
}

/// The epoll set.
///
/// A descriptor is always taken out explicitly before it is closed: the kernel forgets a closed one only when no duplicate
/// of it is left, and a terminal's master has three.
pub struct Registry {
    epoll: OwnedFd,
    tokens: BTreeMap<Source, u64>,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
}

impl Registry {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, tokens: BTreeMap::new(), sources: BTreeMap::new(), next_token: 0 })
    }

    /// Watches `descriptor`; a source that is watched already only gets the new `flags`.
    pub fn watch(&mut self, descriptor: BorrowedFd<'_>, source: Source, flags: EventFlags) -> io::Result<()> {
        if let Some(token) = self.tokens.get(&source) {
            return Ok(epoll::modify(&self.epoll, descriptor, epoll::EventData::new_u64(*token), flags)?);
        }
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.epoll, descriptor, epoll::EventData::new_u64(token), flags)?;
        self.tokens.insert(source, token);
        self.sources.insert(token, source);
        Ok(())
    }

    /// Watches it no more; what is not watched is left alone.
    pub fn unwatch(&mut self, descriptor: BorrowedFd<'_>, source: Source) {
        if let Some(token) = self.tokens.remove(&source) {
            self.sources.remove(&token);
            let _never_fails = epoll::delete(&self.epoll, descriptor.as_fd());
        }
    }

    /// What happened, at the latest after `timeout`. A source may have been taken out by the time that its turn comes:
    /// ask [`Self::is_watched`].
    pub fn wait(&self, timeout: Option<&Timespec>) -> io::Result<Vec<(Source, EventFlags)>> {
        let mut space = [MaybeUninit::<epoll::Event>::uninit(); 64];
        match epoll::wait(&self.epoll, &mut space, timeout) {
            Ok((events, _)) => Ok(events
                .iter()
                .filter_map(|event| Some((*self.sources.get(&event.data.u64())?, event.flags)))
                .collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// True while `source` is watched.
    pub fn is_watched(&self, source: Source) -> bool {
        self.tokens.contains_key(&source)
    }
}
