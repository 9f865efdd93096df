//! Published ports in real network namespaces: reached from where they must be, and from nowhere else.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{Container, ENGINE, Lab, OUTSIDE, ask, config, container, inside, json, run, serve, target};
use dory_net::{BridgeNetwork, PortAllocator, PortMapping, PortRequest, Protocol, Publication, PublishError};

const ALL: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// An engine with a network and two containers.
struct Engine {
    lab: Lab,
    network: BridgeNetwork,
    ports: PortAllocator,
    server: Container,
    neighbour: Container,
}

impl Engine {
    fn new() -> Self {
        let lab = Lab::new();
        let (network, server, neighbour) = inside(&lab.engine, || {
            let network = BridgeNetwork::ensure(&config("one")).unwrap();
            let (server, neighbour) = (container(&network), container(&network));
            (network, server, neighbour)
        });
        Self { lab, network, ports: PortAllocator::new(), server, neighbour }
    }

    fn publish(&self, requests: &[PortRequest]) -> Result<Publication, PublishError> {
        let address = self.server.address();
        inside(&self.lab.engine, || self.network.publish(&self.ports, target(address), requests))
    }

    fn unpublish(&self, ports: &[PortMapping]) {
        let address = self.server.address();
        inside(&self.lab.engine, || self.network.unpublish(&self.ports, target(address), ports)).unwrap();
    }
}

fn tcp(host_address: Ipv4Addr, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        container_port,
        host_address: host_address.into(),
        also_ipv6: false,
        host_ports: Some(host_port..=host_port),
    }
}

#[test]
fn privileged_a_published_port_is_reached_from_everywhere() {
    for bridged_frames_are_filtered in ["1", "0"] {
        let engine = Engine::new();
        inside(&engine.lab.engine, || {
            let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
            std::fs::write(setting, bridged_frames_are_filtered).unwrap();
        });
        let published = engine.publish(&[tcp(ALL, 8080, 80)]).unwrap();
        let server = serve(&engine.server.netns, engine.server.address(), 80, 6);
        let gateway = engine.network.gateway().unwrap();
        for (client, target, seen) in [
            (&engine.lab.outside, ENGINE, OUTSIDE),
            (&engine.lab.engine, Ipv4Addr::LOCALHOST, gateway),
            (&engine.lab.engine, ENGINE, ENGINE),
            (&engine.neighbour.netns, ENGINE, gateway),
            (&engine.neighbour.netns, gateway, gateway),
            (&engine.server.netns, ENGINE, gateway),
        ] {
            let answer = ask(client, target, 8080);
            assert_eq!(answer.as_deref().ok(), Some(seen.to_string().as_str()), "to {target}: {answer:?}");
        }
        server.join().unwrap();
        engine.unpublish(&published.ports);
        for (client, target) in [(&engine.lab.outside, ENGINE), (&engine.lab.engine, Ipv4Addr::LOCALHOST)] {
            assert_eq!(ask(client, target, 8080).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    }
}

#[test]
fn privileged_a_port_on_one_address_is_reached_there_alone() {
    let engine = Engine::new();
    let _published = engine.publish(&[tcp(Ipv4Addr::LOCALHOST, 8080, 80)]).unwrap();
    let _server = serve(&engine.server.netns, engine.server.address(), 80, 9);
    assert!(ask(&engine.lab.engine, Ipv4Addr::LOCALHOST, 8080).is_ok());
    assert!(ask(&engine.lab.engine, ENGINE, 8080).is_err());
    assert!(ask(&engine.lab.outside, ENGINE, 8080).is_err());
    // A neighbour on the wire that sends packets for 127.0.0.1 to the engine's MAC address.
    inside(&engine.lab.outside, || {
        run("sysctl -qw net.ipv4.conf.wire.route_localnet=1");
        run("ip addr del 127.0.0.1/8 dev lo && ip route flush table local 127.0.0.0/8 2>/dev/null; true");
        run(&format!("ip route add 127.0.0.1/32 via {ENGINE} src {OUTSIDE}"));
    });
    assert!(ask(&engine.lab.outside, Ipv4Addr::LOCALHOST, 8080).is_err());
    inside(&engine.lab.engine, || {
        let chain = json("nft -a -j list chain ip dory0 prerouting");
        let first = &chain["nftables"][2]["rule"]["handle"];
        run(&format!("nft delete rule ip dory0 prerouting handle {first}"));
    });
    assert!(
        ask(&engine.lab.outside, Ipv4Addr::LOCALHOST, 8080).is_ok(),
        "that rule is what stood in the way"
    );
}

#[test]
fn privileged_what_is_not_published_is_not_reached() {
    let engine = Engine::new();
    let address = engine.server.address();
    let _server = serve(&engine.server.netns, address, 80, 9);
    assert!(ask(&engine.neighbour.netns, address, 80).is_ok(), "neighbours talk");
    assert!(ask(&engine.lab.engine, address, 80).is_ok(), "the machine reaches its containers");
    inside(&engine.lab.outside, || run(&format!("ip route add 172.17.0.0/16 via {ENGINE}")));
    assert!(
        ask(&engine.lab.outside, address, 80).is_err(),
        "the outside does not, even where it knows a route"
    );
}

#[test]
fn privileged_a_container_does_not_reach_the_machines_loopback() {
    let engine = Engine::new();
    let _server = serve(&engine.lab.engine, Ipv4Addr::LOCALHOST, 9000, 9);
    inside(&engine.neighbour.netns, || {
        run("sysctl -qw net.ipv4.conf.eth0.route_localnet=1");
        run("ip addr del 127.0.0.1/8 dev lo; ip route flush table local 127.0.0.0/8 2>/dev/null; true");
        run("ip route add 127.0.0.1/32 via 172.17.0.1 src 172.17.0.3");
    });
    let error = ask(&engine.neighbour.netns, Ipv4Addr::LOCALHOST, 9000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    inside(&engine.lab.engine, || run("nft flush chain ip dory0 loopback"));
    assert!(
        ask(&engine.neighbour.netns, Ipv4Addr::LOCALHOST, 9000).is_ok(),
        "that rule is what stood in the way"
    );
}

#[test]
fn privileged_udp_and_free_ports_and_ranges() {
    let engine = Engine::new();
    let requests = [
        PortRequest {
            protocol: Protocol::Udp,
            container_port: 53,
            host_address: ALL.into(),
            also_ipv6: false,
            host_ports: None,
        },
        PortRequest {
            protocol: Protocol::Udp,
            container_port: 54,
            host_address: ALL.into(),
            also_ipv6: false,
            host_ports: None,
        },
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_address: ALL.into(),
            also_ipv6: false,
            host_ports: Some(7000..=7001),
        },
        PortRequest {
            protocol: Protocol::Tcp,
            container_port: 81,
            host_address: ALL.into(),
            also_ipv6: false,
            host_ports: Some(7000..=7001),
        },
    ];
    let published = engine.publish(&requests).unwrap();
    let hosts: Vec<_> = published.ports.iter().map(|port| port.host_port).collect();
    assert_eq!(hosts, [32768, 32769, 7000, 7001]);
    let server = inside(&engine.server.netns, || UdpSocket::bind((ALL, 53)).unwrap());
    let client = inside(&engine.lab.outside, || UdpSocket::bind((ALL, 0)).unwrap());
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send_to(b"question", (ENGINE, 32768)).unwrap();
    let mut buffer = [0; 16];
    let (length, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], peer.ip()), (&b"question"[..], OUTSIDE.into()));
    server.send_to(b"answer", peer).unwrap();
    assert_eq!(client.recv_from(&mut buffer).unwrap(), (6, (ENGINE, 32768).into()));
}

/// Many kernels lack SCTP; then its port is refused before anything is published.
#[test]
fn privileged_sctp_goes_with_the_kernel() {
    use rustix::net::{AddressFamily, SocketType, ipproto, socket};

    let engine = Engine::new();
    let request = PortRequest {
        protocol: Protocol::Sctp,
        container_port: 54,
        host_address: ALL.into(),
        also_ipv6: false,
        host_ports: None,
    };
    let has_sctp = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::SCTP)).is_ok();
    match engine.publish(&[request]) {
        Ok(published) => {
            assert!(has_sctp);
            assert_eq!(published.ports[0].host_port, 32768);
        }
        Err(error) => {
            assert!(!has_sctp, "{error}");
            assert!(matches!(error, PublishError::NoProtocol(Protocol::Sctp)), "{error}");
        }
    }
}

#[test]
fn privileged_a_udp_client_that_was_early_is_served() {
    let engine = Engine::new();
    let client = inside(&engine.lab.outside, || UdpSocket::bind((ALL, 0)).unwrap());
    let server = inside(&engine.server.netns, || UdpSocket::bind((ALL, 53)).unwrap());
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 16];
    let request = PortRequest {
        protocol: Protocol::Udp,
        container_port: 53,
        host_address: ALL.into(),
        also_ipv6: false,
        host_ports: Some(5353..=5353),
    };
    for round in 0..3 {
        // Refused, but remembered by the engine's machine as a connection without NAT.
        let _ = client.send_to(b"too early", (ENGINE, 5353));
        std::thread::sleep(Duration::from_millis(20));
        let published = engine.publish(std::slice::from_ref(&request)).unwrap();
        // The first send after a refusal reports that.
        let _ = client.send_to(b"question", (ENGINE, 5353));
        let _ = client.send_to(b"question", (ENGINE, 5353));
        let (length, _) = server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(&buffer[..length], b"question");
        engine.unpublish(&published.ports);
        drop(published.sockets);
    }
}

#[test]
fn privileged_ipv6_clients_are_passed_on() {
    let engine = Engine::new();
    let everywhere = PortRequest { also_ipv6: true, ..tcp(ALL, 8080, 80) };
    let published = engine.publish(&[everywhere, tcp(Ipv4Addr::LOCALHOST, 8081, 80)]).unwrap();
    let address = engine.server.address();
    let Publication { ports, proxy, .. } = published;
    assert_eq!(proxy.ports(), &ports[1..2], "the other is published on 127.0.0.1 alone");
    let (stop, stopper) = rustix::pipe::pipe().unwrap();
    let netns = engine.lab.engine.try_clone().unwrap();
    let thread = std::thread::spawn(move || inside(&netns, || proxy.run(stop.as_fd()).unwrap()));
    let _server = serve(&engine.server.netns, address, 80, 40);
    let gateway = engine.network.gateway().unwrap().to_string();
    for _ in 0..20 {
        assert_eq!(ask(&engine.lab.engine, Ipv6Addr::LOCALHOST, 8080).unwrap(), gateway);
        assert_eq!(ask(&engine.lab.engine, Ipv4Addr::LOCALHOST, 8080).unwrap(), gateway);
    }
    drop(stopper);
    thread.join().unwrap();
    assert!(ask(&engine.lab.engine, Ipv6Addr::LOCALHOST, 8080).is_err());
}

#[test]
fn privileged_much_data_passes_the_proxy_both_ways() {
    let engine = Engine::new();
    let everywhere = PortRequest { also_ipv6: true, ..tcp(ALL, 8080, 80) };
    let proxy = engine.publish(&[everywhere]).unwrap().proxy;
    let address = engine.server.address();
    let (stop, _stopper) = rustix::pipe::pipe().unwrap();
    let netns = engine.lab.engine.try_clone().unwrap();
    std::thread::spawn(move || inside(&netns, || proxy.run(stop.as_fd()).unwrap()));
    let listener = inside(&engine.server.netns, || TcpListener::bind((address, 80)).unwrap());
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&received).unwrap();
    });
    let sent: Vec<u8> =
        (0..3_000_000u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    let mut stream = inside(&engine.lab.engine, || TcpStream::connect((Ipv6Addr::LOCALHOST, 8080)).unwrap());
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    assert!(received == sent, "{} bytes", received.len());
    echo.join().unwrap();
}

#[test]
fn privileged_many_ports_go_in_one_change() {
    let engine = Engine::new();
    let requests: Vec<_> = (10000..14000).map(|port| tcp(ALL, port, port)).collect();
    let published = engine.publish(&requests).unwrap();
    let elements = || {
        inside(&engine.lab.engine, || json("nft -j list map ip dory0 ports"))["nftables"][1]["map"]["elem"]
            .clone()
    };
    assert_eq!(elements().as_array().unwrap().len(), 4000);
    engine.unpublish(&published.ports);
    assert!(elements().is_null());
}

#[test]
fn privileged_a_taken_port_leaves_nothing_half_made() {
    let engine = Engine::new();
    let _published = engine.publish(&[tcp(ALL, 8080, 80)]).unwrap();
    let again = engine.publish(&[tcp(ALL, 8081, 80), tcp(ALL, 8080, 80)]).unwrap_err();
    assert_eq!(again.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
    let _other = inside(&engine.lab.engine, || TcpListener::bind((ALL, 9090)).unwrap());
    let others = engine.publish(&[tcp(ALL, 8081, 80), tcp(ALL, 9090, 80)]).unwrap_err();
    assert_eq!(
        others.to_string(),
        "Error starting userland proxy: listen tcp4 0.0.0.0:9090: bind: address already in use"
    );
    assert!(engine.publish(&[tcp(ALL, 8081, 80)]).is_ok(), "8081 was given back");
}

#[test]
fn privileged_ports_outlive_the_engine() {
    let engine = Engine::new();
    let published = engine.publish(&[tcp(ALL, 8080, 80), tcp(Ipv4Addr::LOCALHOST, 8081, 80)]).unwrap();
    let stale = engine.publish(&[tcp(ALL, 8082, 80)]).unwrap();
    let lost = published.ports[1];
    inside(&engine.lab.engine, || run("nft flush map ip dory0 addresses"));
    let server = serve(&engine.server.netns, engine.server.address(), 80, 4);
    assert!(ask(&engine.lab.outside, ENGINE, 8080).is_ok());

    // The next engine: nothing of the first is known but its records.
    let (network, ports) =
        inside(&engine.lab.engine, || (BridgeNetwork::ensure(&config("one")).unwrap(), PortAllocator::new()));
    assert!(ask(&engine.lab.outside, ENGINE, 8080).is_ok(), "no gap before the ports are restored");
    let records = [(target(engine.server.address()), published.ports.clone())];
    inside(&engine.lab.engine, || network.restore_ports(&ports, &records).unwrap());
    assert!(ask(&engine.lab.outside, ENGINE, 8080).is_ok());
    assert!(ask(&engine.lab.engine, Ipv4Addr::LOCALHOST, lost.host_port).is_ok(), "what was lost is back");
    server.join().unwrap();
    drop(stale.sockets);
    assert!(ask(&engine.lab.outside, ENGINE, 8082).is_err(), "what no record claims is gone");
    let again = inside(&engine.lab.engine, || {
        network.publish(&ports, target(engine.neighbour.address()), &[tcp(ALL, 8080, 80)])
    });
    assert!(matches!(again, Err(PublishError::Allocated { port: 8080, .. })));
}
