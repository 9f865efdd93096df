//! The socket options by which a table of the older iptables is read and replaced (`linux/netfilter_ipv4/ip_tables.h`; those of
//! `linux/netfilter_ipv6/ip6_tables.h` have the same numbers and structures, on a socket of the other family).
//!
//! Nothing here knows what an entry says; `dory-net` reads and changes those. Whoever replaces a table should hold the lock
//! that iptables itself takes.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Size of a table's name, closing NUL included (`XT_TABLE_MAXNAMELEN`).
const NAME: usize = 32;
/// `NF_INET_NUMHOOKS`.
const HOOKS: usize = 5;

/// `IPT_SO_SET_REPLACE` and `IPT_SO_GET_INFO`.
const REPLACE_OR_INFO: libc::c_int = 64;
/// `IPT_SO_SET_ADD_COUNTERS` and `IPT_SO_GET_ENTRIES`.
const COUNTERS_OR_ENTRIES: libc::c_int = 65;

/// What the kernel counts for an entry (`struct xt_counters`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Where a table's chains begin and end, in bytes from its first entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// A bit for each hook that has a chain.
    pub valid_hooks: u32,
    /// Where each hook's chain begins.
    pub hook_entry: [u32; HOOKS],
    /// The entry that is each chain's policy.
    pub underflow: [u32; HOOKS],
    /// How many entries there are.
    pub entries: u32,
}

/// `struct ipt_getinfo`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    name: [u8; NAME],
    valid_hooks: u32,
    hook_entry: [u32; HOOKS],
    underflow: [u32; HOOKS],
    entries: u32,
    size: u32,
}

/// `struct ipt_replace` without its entries, which follow it.
#[repr(C)]
struct Replace {
    name: [u8; NAME],
    valid_hooks: u32,
    entries: u32,
    size: u32,
    hook_entry: [u32; HOOKS],
    underflow: [u32; HOOKS],
    counters_count: u32,
    counters: *mut Counters,
}

/// Whose packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Those of IPv4.
    Ipv4,
    /// Those of IPv6.
    Ipv6,
}

/// A table in the network namespace where it was opened.
#[derive(Debug)]
pub struct XtTable {
    socket: OwnedFd,
    level: libc::c_int,
    name: [u8; NAME],
}

impl XtTable {
    /// Opens the table `name` of `protocol`, of at most 31 bytes. Reading one that does not exist makes the kernel create it.
    ///
    /// # Errors
    /// The error of `socket(2)`; `EINVAL` for a name that is too long.
    pub fn open(protocol: Protocol, name: &str) -> io::Result<Self> {
        let mut bytes = [0; NAME];
        if name.len() >= NAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let flags = SocketFlags::CLOEXEC;
        let (family, level) = match protocol {
            Protocol::Ipv4 => (AddressFamily::INET, libc::IPPROTO_IP),
            Protocol::Ipv6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
        };
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        Ok(Self { socket, level, name: bytes })
    }

    /// The table's layout, and its entries as the kernel has them.
    ///
    /// # Errors
    /// `ENOENT` or `ENOPROTOOPT` where the kernel has no such table, `EPERM` without `CAP_NET_ADMIN`, `EAGAIN` where the
    /// table changed meanwhile.
    pub fn read(&self) -> io::Result<(Layout, Vec<u8>)> {
        let mut info = Info {
            name: self.name,
            valid_hooks: 0,
            hook_entry: [0; HOOKS],
            underflow: [0; HOOKS],
            entries: 0,
            size: 0,
        };
        // SAFETY: `Info` is plain integers without padding, so that every byte of it may be read and written.
        let bytes = unsafe {
            std::slice::from_raw_parts_mut(std::ptr::from_mut(&mut info).cast::<u8>(), size_of::<Info>())
        };
        self.get(REPLACE_OR_INFO, bytes)?;
        // `struct ipt_get_entries`: name, size, padding to eight bytes, entries.
        let head = (NAME + size_of::<u32>()).next_multiple_of(align_of::<u64>());
        let mut answer = vec![0; head + info.size as usize];
        answer[..NAME].copy_from_slice(&self.name);
        answer[NAME..NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
        self.get(COUNTERS_OR_ENTRIES, &mut answer)?;
        let layout = Layout {
            valid_hooks: info.valid_hooks,
            hook_entry: info.hook_entry,
            underflow: info.underflow,
            entries: info.entries,
        };
        Ok((layout, answer.split_off(head)))
    }

    /// Puts `entries` in place of the table's, in one step, and returns what the `old` ones had counted. The new ones begin
    /// at zero.
    ///
    /// # Errors
    /// `EAGAIN` where the table has not `old` entries (any more), `EINVAL` for entries that make no sense.
    pub fn replace(&self, layout: &Layout, entries: &[u8], old: u32) -> io::Result<Vec<Counters>> {
        let mut counters = vec![Counters::default(); old as usize];
        let head = Replace {
            name: self.name,
            valid_hooks: layout.valid_hooks,
            entries: layout.entries,
            size: u32::try_from(entries.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            hook_entry: layout.hook_entry,
            underflow: layout.underflow,
            counters_count: old,
            counters: counters.as_mut_ptr(),
        };
        // SAFETY: `Replace` is integers and a pointer without padding (its integers take 88 bytes, a multiple of the
        // pointer's alignment), so that every byte of it may be read.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(&head).cast::<u8>(), size_of::<Replace>())
        };
        // The kernel writes `old` counters through the pointer, into the vector that lives until the end of this function.
        self.set(REPLACE_OR_INFO, &[bytes, entries].concat())?;
        Ok(counters)
    }

    /// Adds to what the table's entries have counted: one value for each.
    ///
    /// # Errors
    /// `EINVAL` where the table has another number of entries.
    pub fn add_counters(&self, counters: &[Counters]) -> io::Result<()> {
        let mut request = self.name.to_vec();
        request.extend(u32::try_from(counters.len()).unwrap_or(u32::MAX).to_ne_bytes());
        request.resize(request.len().next_multiple_of(align_of::<u64>()), 0);
        for it in counters {
            request.extend(it.packets.to_ne_bytes());
            request.extend(it.bytes.to_ne_bytes());
        }
        self.set(COUNTERS_OR_ENTRIES, &request)
    }

    fn get(&self, option: libc::c_int, bytes: &mut [u8]) -> io::Result<()> {
        let mut length = bytes.len() as libc::socklen_t;
        // SAFETY: the pointer and `length` describe `bytes`, which the kernel reads and writes within that length.
        let outcome = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                bytes.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn set(&self, option: libc::c_int, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`, which the kernel only reads. A pointer within them (that of
        // `Replace`) is valid for as many counters as stand beside it, as its maker sees to.
        let outcome = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                bytes.as_ptr().cast(),
                bytes.len() as libc::socklen_t,
            )
        };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
