//! Publishing a container's ports, all or none, and finding them again.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{PortAllocator, PortMapping, PortProxy, PortRequest, Protocol, PublishTarget, reserve::reserve};
use crate::bridge::BridgeNetwork;
use crate::conntrack;
use crate::netlink::NetlinkError;
use crate::nftables::PublishedPort;

/// A port could not be published. The sentences are those of dockerd 20.10, which clients look for; the engine puts
/// Docker's "driver failed programming external connectivity on endpoint NAME (ID): " before them.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another container of this engine has the port.
    #[error("Bind for {}:{port} failed: port is already allocated", Host(*.address))]
    Allocated {
        /// The address on which it was to be published.
        address: IpAddr,
        /// The port of this machine.
        port: u16,
    },
    /// Another program has the port, or this machine lacks the address.
    #[error("Error starting userland proxy: listen {protocol}{} {}:{port}: bind: {}", if .address.is_ipv4() { 4 } else { 6 }, Host(*.address), Reason(*.reason))]
    Bind {
        /// The protocol.
        protocol: Protocol,
        /// The address on which it was to be published.
        address: IpAddr,
        /// The port of this machine.
        port: u16,
        /// The refusal, which the sentence tells already: it is no source.
        reason: Errno,
    },
    /// The kernel has no such protocol. A program in a container could not listen to the port either.
    #[error("Error starting userland proxy: protocol not supported: this kernel has no {0}")]
    NoProtocol(Protocol),
    /// No port of the range is free.
    #[error("all ports are allocated")]
    Exhausted,
    /// The packet filter refused.
    #[error("cannot publish the ports in the packet filter")]
    Filter(#[source] NetlinkError),
}

/// An address as it stands before a port.
struct Host(IpAddr);

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(formatter, "{address}"),
            IpAddr::V6(address) => write!(formatter, "[{address}]"),
        }
    }
}

/// An error number in the words that Go has for it, which is what dockerd's clients see.
struct Reason(Errno);

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::ADDRINUSE => formatter.write_str("address already in use"),
            Errno::ADDRNOTAVAIL => formatter.write_str("cannot assign requested address"),
            Errno::ACCESS => formatter.write_str("permission denied"),
            other => write!(formatter, "{other}"),
        }
    }
}

/// A container's published ports, and the sockets that reserve them: whoever closes those gives the ports back to the
/// machine, so that a process that lives as long as the container must hold them.
#[derive(Debug)]
pub struct Publication {
    /// The ports, in the order of the requests.
    pub ports: Vec<PortMapping>,
    /// The reservations.
    pub sockets: Vec<OwnedFd>,
    /// What is to be run for as long as the ports are published.
    pub proxy: PortProxy,
}

impl BridgeNetwork {
    /// Publishes the ports of the container at `target`: all of them or, with an error, none.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(
        &self,
        allocator: &PortAllocator,
        target: PublishTarget,
        requests: &[PortRequest],
    ) -> Result<Publication, PublishError> {
        let mut ports = Vec::new();
        let mut sockets = Vec::new();
        let all = requests
            .iter()
            .try_for_each(|request| {
                let (mapping, socket) = reserve_one(allocator, request)?;
                ports.push(mapping);
                sockets.extend(socket);
                if request.also_ipv6 {
                    let (mapping, socket) = reserve_beside(allocator, target, mapping);
                    ports.extend(mapping);
                    sockets.extend(socket);
                }
                Ok(())
            })
            .and_then(|()| self.firewall().publish(&elements(target, &ports)).map_err(PublishError::Filter));
        if let Err(error) = all {
            ports.iter().for_each(|mapping| allocator.release(mapping));
            return Err(error);
        }
        forget_connections(&ports);
        let proxy = PortProxy::bind(target, &ports);
        Ok(Publication { ports, sockets, proxy })
    }

    /// Takes the ports of the container at `target` back, in one change of the packet filter. The reservations go with
    /// their sockets.
    ///
    /// # Errors
    /// The refusal of the packet filter; the ports are given back to the engine all the same.
    pub fn unpublish(
        &self,
        allocator: &PortAllocator,
        target: PublishTarget,
        ports: &[PortMapping],
    ) -> Result<(), NetlinkError> {
        ports.iter().for_each(|mapping| allocator.release(mapping));
        self.stop_forwarding(target, ports)
    }

    /// Sends connections to `ports`, which are published already, to the container at `target`: the container's other
    /// network had them.
    ///
    /// # Errors
    /// The refusal of the packet filter.
    pub fn forward_ports(&self, target: PublishTarget, ports: &[PortMapping]) -> Result<(), NetlinkError> {
        self.firewall().publish(&elements(target, ports))?;
        forget_connections(ports);
        Ok(())
    }

    /// The counterpart of [`Self::forward_ports`]: the ports stay reserved.
    ///
    /// # Errors
    /// The refusal of the packet filter.
    pub fn stop_forwarding(&self, target: PublishTarget, ports: &[PortMapping]) -> Result<(), NetlinkError> {
        if ports.is_empty() {
            return Ok(());
        }
        self.firewall().unpublish(&elements(target, ports))?;
        forget_connections(ports);
        Ok(())
    }

    /// Takes over what an earlier engine published for the containers that still run: their ports are taken, what the
    /// packet filter lacks is put back, and what belongs to no container is removed. Ports that are in order are not
    /// touched, and their connections see no gap.
    ///
    /// # Errors
    /// The refusal of the packet filter.
    pub fn restore_ports(
        &self,
        allocator: &PortAllocator,
        containers: &[(PublishTarget, Vec<PortMapping>)],
    ) -> Result<(), NetlinkError> {
        containers.iter().flat_map(|(_, ports)| ports).for_each(|mapping| allocator.restore(mapping));
        let wanted: Vec<_> = containers.iter().flat_map(|(target, ports)| elements(*target, ports)).collect();
        let there = self.firewall().published()?;
        let stale: Vec<_> = there.iter().filter(|port| !wanted.contains(port)).copied().collect();
        if !stale.is_empty() {
            self.firewall().unpublish(&stale)?;
        }
        let missing: Vec<_> = wanted.into_iter().filter(|port| !there.contains(port)).collect();
        self.firewall().publish(&missing)
    }
}

/// The elements of the packet filter for `ports` of the container at `target`; none for a port of a family that the
/// container lacks.
fn elements(target: PublishTarget, ports: &[PortMapping]) -> Vec<PublishedPort> {
    let element = |mapping: &PortMapping| {
        Some(PublishedPort {
            protocol: mapping.protocol,
            host_address: mapping.host_address,
            host_port: mapping.host_port,
            address: target.address(mapping.host_address)?,
            port: mapping.container_port,
        })
    };
    ports.iter().filter_map(element).collect()
}

/// The port that goes with `mapping` on `[::]`, and its reservation; none where it cannot be had, or nothing would serve it.
/// A port of TCP has no reservation: it is the proxy's to listen on.
fn reserve_beside(
    allocator: &PortAllocator,
    target: PublishTarget,
    mapping: PortMapping,
) -> (Option<PortMapping>, Option<OwnedFd>) {
    let beside = PortMapping { host_address: Ipv6Addr::UNSPECIFIED.into(), ..mapping };
    let (protocol, address, port) = (beside.protocol, beside.host_address, beside.host_port);
    let served = protocol == Protocol::Tcp || target.ipv6.is_some();
    if !served || !allocator.take(protocol, address, port) {
        return (None, None);
    }
    match reserve(protocol, address, port) {
        Ok(_) if protocol == Protocol::Tcp => (Some(beside), None),
        Ok(socket) => (Some(beside), Some(socket)),
        Err(_) => {
            allocator.release(&beside);
            (None, None)
        }
    }
}

/// Forgets the connections to published UDP ports. A kernel that does not let us only makes some clients wait until
/// their entries expire, so that this is no reason to fail.
fn forget_connections(ports: &[PortMapping]) {
    let udp: Vec<_> = ports.iter().filter(|it| it.protocol == Protocol::Udp).map(|it| it.host_port).collect();
    if let Err(error) = conntrack::forget_udp(&udp) {
        tracing::warn!(error = &error as &dyn std::error::Error, "Tracked connections were not forgotten");
    }
}

/// Takes and reserves the first free port that `request` allows. With a choice, a port that somebody has is stepped
/// over; without one, it is the error.
fn reserve_one(
    allocator: &PortAllocator,
    request: &PortRequest,
) -> Result<(PortMapping, Option<OwnedFd>), PublishError> {
    let any = request.host_ports.is_none();
    let candidates: Box<dyn Iterator<Item = u16>> = match request.host_ports.clone() {
        Some(range) => Box::new(range),
        None => Box::new(allocator.candidates()),
    };
    let mut last = PublishError::Exhausted;
    for host_port in candidates {
        let mapping = PortMapping {
            protocol: request.protocol,
            container_port: request.container_port,
            host_address: request.host_address,
            host_port,
        };
        match reserve_port(allocator, &mapping) {
            Ok(socket) => {
                if any {
                    allocator.gave(host_port);
                }
                return Ok((mapping, socket));
            }
            Err(
                error
                @ (PublishError::Allocated { .. } | PublishError::Bind { reason: Errno::ADDRINUSE, .. }),
            ) => {
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(if any { PublishError::Exhausted } else { last })
}

/// Takes and reserves one port.
fn reserve_port(allocator: &PortAllocator, mapping: &PortMapping) -> Result<Option<OwnedFd>, PublishError> {
    let PortMapping { protocol, host_address: address, host_port: port, .. } = *mapping;
    if !allocator.take(protocol, address, port) {
        return Err(PublishError::Allocated { address, port });
    }
    let reserved = reserve(protocol, address, port).map_err(|source| {
        allocator.release(mapping);
        match source {
            Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT => PublishError::NoProtocol(protocol),
            reason => PublishError::Bind { protocol, address, port, reason },
        }
    })?;
    // A port of TCP on IPv6 is the proxy's to listen on.
    Ok((address.is_ipv4() || protocol != Protocol::Tcp).then_some(reserved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_dockerds() {
        let address = IpAddr::from([0; 4]);
        let bind = |reason| PublishError::Bind { protocol: Protocol::Tcp, address, port: 8080, reason };
        for (error, expected) in [
            (
                PublishError::Allocated { address, port: 8080 },
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ),
            (
                bind(Errno::ADDRINUSE),
                "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use",
            ),
            (
                bind(Errno::ADDRNOTAVAIL),
                "Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: cannot assign requested address",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_range_steps_over_what_is_taken() {
        let listener = std::net::TcpListener::bind((IpAddr::from([127, 0, 0, 1]), 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let allocator = PortAllocator::new();
        let mut request = PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_address: IpAddr::from([127, 0, 0, 1]),
            also_ipv6: false,
            host_ports: Some(taken..=taken),
        };
        assert!(matches!(reserve_one(&allocator, &request), Err(PublishError::Bind { .. })));
        request.host_ports = Some(taken..=taken.saturating_add(20));
        let (mapping, _socket) = reserve_one(&allocator, &request).unwrap();
        assert!(mapping.host_port > taken);
        request.host_ports = Some(mapping.host_port..=mapping.host_port);
        assert!(matches!(reserve_one(&allocator, &request), Err(PublishError::Allocated { .. })));
    }
}
