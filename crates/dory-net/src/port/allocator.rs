//! Which port of this machine belongs to which container, over all networks of one engine.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{PortMapping, Protocol};

/// Where the kernel says from which ports it serves programs that name none; Docker takes its own from there too.
const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// The range where the kernel's cannot be read: its default.
const DEFAULT_RANGE: RangeInclusive<u16> = 32768..=60999;

/// The ports that an engine's containers have. One engine has one, shared by its networks and threads.
#[derive(Debug)]
pub struct PortAllocator {
    table: Mutex<Table>,
    range: RangeInclusive<u16>,
}

#[derive(Debug, Default)]
struct Table {
    taken: BTreeSet<(Protocol, u16, IpAddr)>,
    /// The port after which the search for any free one goes on, so that one just given back rests a while.
    last: Option<u16>,
}

impl Table {
    /// True where a container has `port` on an address of the same family that `address` covers, or that covers it.
    fn conflicts(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let (first, last) = match address {
            IpAddr::V4(_) => (IpAddr::from([0; 4]), IpAddr::from([u8::MAX; 4])),
            IpAddr::V6(_) => (IpAddr::from([0; 16]), IpAddr::from([u8::MAX; 16])),
        };
        self.taken
            .range((protocol, port, first)..=(protocol, port, last))
            .any(|(_, _, other)| address.is_unspecified() || other.is_unspecified() || *other == address)
    }
}

impl Default for PortAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl PortAllocator {
    /// No port is taken; free ones come from `net.ipv4.ip_local_port_range`.
    pub fn new() -> Self {
        let range = std::fs::read_to_string(LOCAL_PORT_RANGE).ok().and_then(|text| parse_range(&text));
        Self::with_range(range.unwrap_or(DEFAULT_RANGE))
    }

    /// No port is taken; free ones come from `range`.
    pub(crate) fn with_range(range: RangeInclusive<u16>) -> Self {
        Self { table: Mutex::default(), range }
    }

    /// Takes a port that an earlier engine's container has.
    pub fn restore(&self, mapping: &PortMapping) {
        self.table().taken.insert((mapping.protocol, mapping.host_port, mapping.host_address));
    }

    /// Gives a port back.
    pub fn release(&self, mapping: &PortMapping) {
        self.table().taken.remove(&(mapping.protocol, mapping.host_port, mapping.host_address));
    }

    /// Takes `port` on `address`; false where a container has it.
    pub(super) fn take(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let mut table = self.table();
        !table.conflicts(protocol, address, port) && table.taken.insert((protocol, port, address))
    }

    /// The ports to try where none was named: the whole range, beginning after the one last given.
    pub(super) fn candidates(&self) -> impl Iterator<Item = u16> + use<> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let begin = match self.table().last {
            Some(previous) if previous >= first && previous < last => previous + 1,
            _ => first,
        };
        (begin..=last).chain(first..begin)
    }

    /// Remembers `port` as the one last given.
    pub(super) fn gave(&self, port: u16) {
        self.table().last = Some(port);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves a set of ports, which is always whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads two ports with blanks between.
fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let (first, last) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (0 < first && first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_address_conflicts_with_all_addresses() {
        let other = IpAddr::from([192, 0, 2, 1]);
        let all6 = IpAddr::from([0; 16]);
        for (taken, wanted, expected) in [
            (ALL, ALL, false),
            (ALL, all6, true),
            (all6, IpAddr::from([1; 16]), false),
            (ALL, LOCALHOST, false),
            (LOCALHOST, ALL, false),
            (LOCALHOST, LOCALHOST, false),
            (LOCALHOST, other, true),
        ] {
            let ports = PortAllocator::with_range(1..=9);
            assert!(ports.take(Protocol::Tcp, taken, 80));
            assert_eq!(ports.take(Protocol::Tcp, wanted, 80), expected, "{taken} {wanted}");
            assert!(ports.take(Protocol::Udp, wanted, 80), "another protocol");
            assert!(ports.take(Protocol::Tcp, wanted, 81), "another port");
        }
    }

    #[test]
    fn candidates_go_round() {
        let ports = PortAllocator::with_range(5..=8);
        assert_eq!(ports.candidates().collect::<Vec<_>>(), [5, 6, 7, 8]);
        ports.gave(6);
        assert_eq!(ports.candidates().collect::<Vec<_>>(), [7, 8, 5, 6]);
        ports.gave(8);
        assert_eq!(ports.candidates().collect::<Vec<_>>(), [5, 6, 7, 8]);
    }

    #[test]
    fn what_is_restored_is_taken_and_can_be_given_back() {
        let ports = PortAllocator::with_range(1..=9);
        let mapping =
            PortMapping { protocol: Protocol::Tcp, container_port: 80, host_address: ALL, host_port: 8080 };
        ports.restore(&mapping);
        assert!(!ports.take(Protocol::Tcp, LOCALHOST, 8080));
        ports.release(&mapping);
        assert!(ports.take(Protocol::Tcp, LOCALHOST, 8080));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        for wrong in ["", "5", "9 5", "0 5", "a b"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }
}
