//! Bridges, veth pairs, addresses, NAT and published ports over netlink.
//!
//! Everything is done by messages to the kernel: no `ip`, `iptables` or `nft` program is run. The messages are built
//! here rather than by the asynchronous rtnetlink crate, because one small builder of attributes serves rtnetlink and
//! nf_tables alike (for which no crate has NAT expressions without a C library), blocking calls need no runtime, and
//! some twenty crates stay out.
//!
//! All functions block and act in the network namespace of the calling thread, which is the engine's; the engine calls
//! them where blocking is allowed. A container's namespace is given by descriptor.

mod address;
mod bridge;
mod conntrack;
mod dns;
mod endpoint;
mod foreign;
mod forwarding;
mod hosts;
mod ipam;
mod legacy;
mod lock;
mod netlink;
mod network;
mod nftables;
mod parent;
mod poll;
mod pool;
mod port;
mod relay;
mod resolv_conf;
mod route;
mod subnet;
mod survey;

pub use address::{AddressError, Ipv4Subnet, MacAddress};
pub use bridge::{
    BridgeConfig, BridgeError, BridgeNetwork, NetworkFact, SubnetWish, sweep_bridges, sweep_endpoints,
};
#[cfg(feature = "fuzzing")]
pub use dns::fuzzing;
pub use dns::{
    DnsClient, DnsDirectory, DnsForwarder, DnsMember, DnsNetwork, DnsOrigin, DnsServer, DnsServerError,
    DnsUpstream, ForwarderError, RESOLVER,
};
pub use endpoint::{
    Endpoint, EndpointAddress, EndpointConfig, EndpointError, configure_loopback, disconnect,
    set_default_routes,
};
pub use hosts::{ExtraHost, ExtraHostError, HostTarget, Hosts};
pub use ipam::{Ipam, IpamError};
pub use netlink::NetlinkError;
pub use network::{Driver, Network, NetworkSubnet};
pub use parent::{ParentError, ParentMode, ParentNetwork, remove_interface};
pub use pool::{AddressPool, AddressPoolError};
pub use port::{
    PortAllocator, PortMapping, PortProxy, PortRequest, Protocol, Publication, PublishError, PublishTarget,
};
pub use resolv_conf::ResolvConf;
pub use subnet::{Subnet, SubnetError};
