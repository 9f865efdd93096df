//! A laboratory of network namespaces: an engine's, an outside world behind it, containers.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use dory_net::{BridgeConfig, BridgeNetwork, Endpoint, EndpointConfig};
use dory_sys::netlink::{in_network_namespace, new_network_namespace};

/// The engine's address on the wire to the outside.
pub const ENGINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The outside's address.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A new network namespace that forwards nothing. Without privilege the test fails here.
pub fn namespace() -> OwnedFd {
    let namespace = new_network_namespace().expect("this test needs CAP_SYS_ADMIN");
    // The kernel copies the first namespace's forwarding (`net.core.devconf_inherit_init_net` 0), which any engine on the
    // machine may have turned on. Where `/proc/sys` is read-only the copy stays.
    let _ = inside(&namespace, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "0"));
    namespace
}

/// Does `work` with `namespace` as the thread's network namespace.
pub fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    in_network_namespace(namespace.as_fd(), work).unwrap()
}

/// Runs a command line, in the thread's network namespace, and returns what it printed.
pub fn run(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// As [`run`], read as JSON.
pub fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(&run(line)).unwrap()
}

/// An engine's namespace with an uplink to an outside that knows no route back to any container.
pub struct Lab {
    pub engine: OwnedFd,
    pub outside: OwnedFd,
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self { engine: namespace(), outside: namespace() };
        let path = format!("/proc/{}/fd/{}", std::process::id(), lab.outside.as_raw_fd());
        inside(&lab.engine, || {
            run("ip link set lo up");
            run(&format!("ip link add uplink mtu 1400 type veth peer name wire mtu 1400 netns {path}"));
            run(&format!("ip addr add {ENGINE}/24 dev uplink && ip link set uplink up"));
        });
        inside(&lab.outside, || {
            run(&format!("ip link set lo up && ip addr add {OUTSIDE}/24 dev wire && ip link set wire up"))
        });
        inside(&lab.engine, || run(&format!("ip route add default via {OUTSIDE}")));
        lab
    }
}

/// What most tests ask for.
pub fn config(owner: &str) -> BridgeConfig {
    BridgeConfig::new("ab".repeat(32).parse().unwrap(), "bridge", "dory0", owner)
}

/// A container: its namespace and its place in the network.
pub struct Container {
    pub netns: OwnedFd,
    pub endpoint: Endpoint,
}

impl Container {
    /// Its IPv4 address.
    pub fn address(&self) -> Ipv4Addr {
        match self.endpoint.ipv4.unwrap().address {
            std::net::IpAddr::V4(address) => address,
            other => panic!("{other} is not of IPv4"),
        }
    }
}

/// A container that published ports lead to.
pub fn target(address: Ipv4Addr) -> dory_net::PublishTarget {
    dory_net::PublishTarget { ipv4: Some(address), ipv6: None }
}

/// The network's IPv4 subnet, as text.
pub fn subnet(network: &BridgeNetwork) -> String {
    network.network().ipv4().unwrap().subnet.to_string()
}

/// Starts a container in `network`, whose engine's namespace is the thread's.
pub fn container(network: &BridgeNetwork) -> Container {
    container_in(network, namespace())
}

/// As [`container`], in a namespace that exists.
pub fn container_in(network: &BridgeNetwork, netns: OwnedFd) -> Container {
    let endpoint = network.connect(netns.as_fd(), &endpoint_config(network)).unwrap();
    Container { netns, endpoint }
}

/// An endpoint's configuration with the next free address.
pub fn endpoint_config(network: &BridgeNetwork) -> EndpointConfig {
    EndpointConfig {
        mark: "test".into(),
        interface: "eth0".into(),
        addresses: network.allocate(&[]).unwrap(),
        link_local: Vec::new(),
        mac: None,
        default_route: true,
        sysctls: Vec::new(),
    }
}

/// Serves `count` connections on `port` of `namespace`, each answered with the client's address, on a thread.
pub fn serve(
    namespace: &OwnedFd,
    address: impl Into<std::net::IpAddr>,
    port: u16,
    count: usize,
) -> std::thread::JoinHandle<()> {
    let address = SocketAddr::from((address.into(), port));
    let listener = inside(namespace, || TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
        }
    })
}

/// Connects from `namespace` and returns what the server says.
pub fn ask(namespace: &OwnedFd, address: impl Into<std::net::IpAddr>, port: u16) -> std::io::Result<String> {
    let address = SocketAddr::from((address.into(), port));
    inside(namespace, || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// True where `address` answers an ICMP echo request of the thread's network namespace within two seconds.
pub fn ping(address: Ipv4Addr) -> bool {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrV4, SocketType, ipproto, sockopt};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)).unwrap();
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(2))).unwrap();
    // Type 8, code 0, checksum of the rest, identifier 0x1234, sequence number 1.
    let request = [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1];
    if rustix::net::sendto(&socket, &request, SendFlags::empty(), &SocketAddrV4::new(address, 0)).is_err() {
        return false;
    }
    let mut answer = [0; 128];
    loop {
        match rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()) {
            // An IP header of 20 bytes, then type 0 and our identifier; a request to oneself is seen as well.
            Ok(_) if answer[20] == 0 && answer[24..26] == [0x12, 0x34] => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
