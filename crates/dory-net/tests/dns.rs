//! The DNS forwarder between a container and a resolver on its machine's loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{ENGINE, Lab, OUTSIDE, config, container, inside, run};
use dory_net::{BridgeNetwork, PortAllocator, PortRequest, Protocol};

/// Docker's embedded server, as an engine in an outer container sees it: not on port 53, which a packet filter rewrites.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// The port on which it really is.
const RESOLVER_PORT: u16 = 5353;

/// A question for `a`, with id `id`.
fn question(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1]
}

/// What the resolver of these tests answers: the question, marked as an answer, and `more` bytes.
fn answer(question: &[u8], more: usize) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer.resize(answer.len() + more, 7);
    answer
}

/// Serves on `RESOLVER` for as long as the test runs.
fn resolver(namespace: &OwnedFd) {
    let (datagrams, listener) = inside(namespace, || {
        let address = (RESOLVER, RESOLVER_PORT);
        (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap())
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = datagrams.recv_from(&mut buffer) {
            datagrams.send_to(&answer(&buffer[..length], 0), client).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(&answer(&asked, 60_000)).unwrap();
        }
    });
}

/// Runs a forwarder of `network` on a thread until the pipe's end is dropped.
fn run_forwarder(lab: &Lab, network: &BridgeNetwork, upstreams: &[Ipv4Addr]) -> (OwnedFd, JoinHandle<()>) {
    let upstreams = upstreams.iter().map(|address| SocketAddr::from((*address, RESOLVER_PORT))).collect();
    let forwarder = inside(&lab.engine, || network.dns_forwarder(upstreams).unwrap());
    let (stop, stopper) = rustix::pipe::pipe().unwrap();
    let engine = lab.engine.try_clone().unwrap();
    let thread = std::thread::spawn(move || inside(&engine, || forwarder.run(stop.as_fd()).unwrap()));
    (stopper, thread)
}

/// Asks `server` by UDP from `namespace`.
fn ask(namespace: &OwnedFd, server: impl Into<IpAddr>, id: u16) -> std::io::Result<Vec<u8>> {
    let server = SocketAddr::from((server.into(), 53));
    let socket = inside(namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    socket.send_to(&question(id), server).unwrap();
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, server);
    Ok(buffer[..length].to_vec())
}

#[test]
fn privileged_a_container_asks_the_machines_loopback_resolver() {
    let lab = Lab::new();
    resolver(&lab.engine);
    let (network, container) = inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let container = container(&network);
        (network, container)
    });
    // Nobody listens on the first.
    let (stopper, thread) = run_forwarder(&lab, &network, &[Ipv4Addr::new(127, 0, 0, 99), RESOLVER]);
    let gateway = network.gateway().unwrap();
    let start = Instant::now();
    for id in 1..50 {
        assert_eq!(ask(&container.netns, gateway, id).unwrap(), answer(&question(id), 0));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "a closed port is not waited for");

    for _ in 0..2 {
        let mut stream = inside(&container.netns, || TcpStream::connect((gateway, 53)).unwrap());
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all(&question(7)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).unwrap();
        assert!(answered == answer(&question(7), 60_000), "{} bytes", answered.len());
    }

    inside(&lab.outside, || run(&format!("ip route add {gateway} via {ENGINE}")));
    assert!(ask(&lab.outside, gateway, 9).is_err(), "no open resolver for the world");

    // The next engine's forwarder takes over, and a container may publish a port 53 beside it.
    drop(stopper);
    thread.join().unwrap();
    let _running = run_forwarder(&lab, &network, &[RESOLVER]);
    let request = PortRequest {
        protocol: Protocol::Udp,
        container_port: 53,
        host_address: Ipv4Addr::UNSPECIFIED.into(),
        also_ipv6: false,
        host_ports: Some(53..=53),
    };
    let ports = PortAllocator::new();
    let address = container.address();
    let _published =
        inside(&lab.engine, || network.publish(&ports, common::target(address), &[request]).unwrap());
    let server = inside(&container.netns, || UdpSocket::bind((address, 53)).unwrap());
    assert_eq!(ask(&container.netns, gateway, 60).unwrap(), answer(&question(60), 0));
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        let (_, client) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(client.ip(), OUTSIDE);
        server.send_to(b"the container", client).unwrap();
    });
    assert_eq!(ask(&lab.outside, ENGINE, 61).unwrap(), b"the container");
    inside(&lab.engine, || network.restore_ports(&ports, &[]).unwrap());
    assert!(ask(&container.netns, gateway, 62).is_ok(), "the forwarder's ports are no container's");
}

#[test]
fn privileged_a_question_that_nobody_answers_fails() {
    let lab = Lab::new();
    let (network, container) = inside(&lab.engine, || {
        let network = BridgeNetwork::ensure(&config("one")).unwrap();
        let container = container(&network);
        (network, container)
    });
    let _running = run_forwarder(&lab, &network, &[RESOLVER]);
    let refused = ask(&container.netns, network.gateway().unwrap(), 5).unwrap();
    assert_eq!(refused[..4], [0, 5, 0x81, 0x82], "SERVFAIL, at once");
}
