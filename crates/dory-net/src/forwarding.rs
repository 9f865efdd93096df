//! IPv4 forwarding: the namespace's switch, or each interface's where `/proc/sys` is read-only, as in most containers.

use crate::bridge::NetworkFact;
use crate::netlink::Connection;
use crate::route::{self, Ipv4Setting};

/// The namespace's switch (`Documentation/networking/ip-sysctl.rst`). Writing it sets every interface, later ones too.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Where each interface's IPv6 settings are.
const IPV6: &str = "/proc/sys/net/ipv6/conf";

/// How forwarding came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Forwarding {
    WasOn,
    Enabled,
    /// The switch could not be written, for the reason given; each interface could.
    ByInterface(String),
    Refused(String),
}

/// Switches forwarding on. The kernel looks at the interface by which a packet comes in, so that `interfaces` must name
/// the uplinks (for the answers) as well as the bridge.
pub(crate) fn enable<'a>(
    connection: &mut Connection,
    interfaces: impl Iterator<Item = &'a str>,
) -> Forwarding {
    if std::fs::read_to_string(IP_FORWARD).is_ok_and(|text| text.trim() == "1") {
        return Forwarding::WasOn;
    }
    let Err(why) = std::fs::write(IP_FORWARD, "1") else { return Forwarding::Enabled };
    let requests: Vec<_> =
        interfaces.map(|interface| route::set_ipv4(interface, &[(Ipv4Setting::Forwarding, 1)])).collect();
    match connection.request(&requests) {
        Ok(()) => Forwarding::ByInterface(why.to_string()),
        Err(refusal) => Forwarding::Refused(refusal.to_string()),
    }
}

/// Switches IPv6 forwarding on, and tells what the operator should know. An interface that takes its default route from
/// routers' advertisements would lose it: from then on it must be told to take them although it forwards (`accept_ra` 2,
/// `Documentation/networking/ip-sysctl.rst`).
pub(crate) fn enable_ipv6() -> Option<NetworkFact> {
    let switch = format!("{IPV6}/all/forwarding");
    if std::fs::read_to_string(&switch).is_ok_and(|text| text.trim() == "1") {
        return None;
    }
    for entry in std::fs::read_dir(IPV6).into_iter().flatten().flatten() {
        let path = entry.path().join("accept_ra");
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == "1") {
            // Where it cannot be written, the switch below cannot either, and that is told.
            let _ = std::fs::write(&path, "2");
        }
    }
    match std::fs::write(&switch, "1") {
        Ok(()) => Some(NetworkFact::Ipv6ForwardingEnabled),
        Err(error) => Some(NetworkFact::NoIpv6Forwarding(error.to_string())),
    }
}
