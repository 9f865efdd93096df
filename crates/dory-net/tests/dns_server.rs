//! The embedded DNS server in containers' network namespaces.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ENGINE, Lab, config, container, inside, namespace, run};
use dory_net::{
    BridgeNetwork, DnsClient, DnsDirectory, DnsMember, DnsNetwork, DnsOrigin, DnsServer, DnsUpstream,
    RESOLVER,
};
use dory_types::NetworkId;

/// A question for the addresses of `name`.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// What an answer says: its code, and the bytes of its last record where it has one.
fn read(answer: &[u8]) -> (u8, Option<[u8; 4]>) {
    let last = (answer[7] > 0).then(|| *answer.last_chunk().unwrap());
    (answer[3] & 0xf, last)
}

/// Asks by UDP out of `namespace`.
fn ask(namespace: &OwnedFd, name: &str) -> std::io::Result<Vec<u8>> {
    let server = SocketAddr::from((RESOLVER, 53));
    let socket = inside(namespace, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.connect(server).unwrap();
    socket.send(&question(name))?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Asks by TCP out of `namespace`, for several names by one connection.
fn ask_by_stream(namespace: &OwnedFd, names: &[&str]) -> Vec<Vec<u8>> {
    let mut stream = inside(namespace, || TcpStream::connect((RESOLVER, 53)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for name in names {
        let question = question(name);
        stream.write_all(&[&(question.len() as u16).to_be_bytes(), question.as_slice()].concat()).unwrap();
    }
    let read = |_: &&str| {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).unwrap();
        message
    };
    names.iter().map(read).collect()
}

/// Serves on `address` of `namespace` for as long as the test runs: the question marked as an answer with `code`, and by
/// TCP sixty thousand bytes more.
fn resolver(namespace: &OwnedFd, address: Ipv4Addr, code: u8) -> SocketAddr {
    let (datagrams, listener) = inside(namespace, || {
        let datagrams = UdpSocket::bind((address, 0)).unwrap();
        let port = datagrams.local_addr().unwrap().port();
        (datagrams, TcpListener::bind((address, port)).unwrap())
    });
    let place = datagrams.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = datagrams.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            buffer[3] = code;
            datagrams.send_to(&buffer[..length], client).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            message[2] |= 0x80;
            message.resize(60_000, 7);
            stream.write_all(&[&60_000_u16.to_be_bytes(), message.as_slice()].concat()).unwrap();
        }
    });
    place
}

fn network(number: u8) -> DnsNetwork {
    DnsNetwork { id: NetworkId::from_bytes([number; 32]), name: format!("net{number}"), links: Vec::new() }
}

fn directory() -> Arc<DnsDirectory> {
    let directory = Arc::new(DnsDirectory::default());
    for (number, name) in [(1, "web"), (2, "secret")] {
        let addresses = vec![IpAddr::from([10, 0, number, 7])];
        let member = DnsMember { name: name.into(), names: vec![name.into()], addresses };
        directory.join(&NetworkId::from_bytes([number; 32]), name, member);
    }
    directory
}

fn client(upstreams: &[(SocketAddr, DnsOrigin)]) -> DnsClient {
    let upstreams = upstreams
        .iter()
        .map(|(address, origin)| DnsUpstream { address: *address, origin: *origin })
        .collect();
    DnsClient { networks: vec![network(1)], upstreams, ..DnsClient::default() }
}

/// A namespace with nothing but loopback.
fn lonely() -> OwnedFd {
    let namespace = namespace();
    inside(&namespace, || run("ip link set lo up"));
    namespace
}

#[test]
fn privileged_names_are_answered_inside_and_port_53_stays_free() {
    let engine = lonely();
    let directory = directory();
    let server = inside(&engine, || DnsServer::start(Arc::clone(&directory)).unwrap());
    let container = lonely();
    let begun = Instant::now();
    server.attach("one", container.try_clone().unwrap(), client(&[])).unwrap();
    eprintln!("attached in {:?}", begun.elapsed());
    assert_eq!(read(&ask(&container, "web").unwrap()), (0, Some([10, 0, 1, 7])));
    assert_eq!(read(&ask(&container, "WEB.net1").unwrap()), (0, Some([10, 0, 1, 7])));
    assert_eq!(read(&ask(&container, "secret").unwrap()), (2, None), "nobody to ask");
    let answers = ask_by_stream(&container, &["web", "secret", "web.net1"]);
    let answers: Vec<_> = answers.iter().map(|answer| read(answer)).collect();
    assert_eq!(answers, [(0, Some([10, 0, 1, 7])), (2, None), (0, Some([10, 0, 1, 7]))]);
    inside(&container, || {
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
    });
    server.update("one", DnsClient { networks: vec![network(2), network(1)], ..DnsClient::default() });
    let both = || read(&ask(&container, "secret").unwrap()) == (0, Some([10, 0, 2, 7]));
    assert!((0..100).any(|_| both() || {
        std::thread::sleep(Duration::from_millis(10));
        false
    }));
    directory.leave(&NetworkId::from_bytes([1; 32]), "web");
    assert_eq!(read(&ask(&container, "web").unwrap()), (2, None));
}

#[test]
fn privileged_the_next_engine_answers_in_place_of_the_last() {
    let engine = lonely();
    let container = lonely();
    let start = || {
        let server = inside(&engine, || DnsServer::start(directory()).unwrap());
        server.attach("one", container.try_clone().unwrap(), client(&[])).unwrap();
        server
    };
    let first = start();
    assert_eq!(read(&ask(&container, "web").unwrap()).0, 0);
    drop(first);
    let refused = || ask(&container, "web").is_err();
    assert!((0..100).any(|_| refused() || {
        std::thread::sleep(Duration::from_millis(10));
        false
    }));
    let second = start();
    assert_eq!(read(&ask(&container, "web").unwrap()).0, 0);
    assert_eq!(inside(&container, || run("nft list tables")), "table ip dory-dns\n");
    second.detach("one");
    assert!((0..100).any(|_| refused() || {
        std::thread::sleep(Duration::from_millis(10));
        false
    }));
}

#[test]
fn privileged_other_names_go_to_resolvers_of_the_engine_and_of_the_container() {
    let engine = lonely();
    let server = inside(&engine, || DnsServer::start(directory()).unwrap());
    let container = lonely();
    let at_engine = resolver(&engine, RESOLVER, 0);
    let failing = resolver(&engine, Ipv4Addr::LOCALHOST, 2);
    let at_container = resolver(&container, Ipv4Addr::LOCALHOST, 0);
    for upstreams in [
        vec![(at_engine, DnsOrigin::Engine)],
        vec![(at_container, DnsOrigin::Container)],
        vec![(at_engine, DnsOrigin::Container), (failing, DnsOrigin::Engine), (at_engine, DnsOrigin::Engine)],
    ] {
        server.attach("one", container.try_clone().unwrap(), client(&upstreams)).unwrap();
        let mut expected = question("example.org");
        expected[2] |= 0x80;
        assert_eq!(ask(&container, "example.org").unwrap(), expected);
        assert_eq!(read(&ask(&container, "web").unwrap()).1, Some([10, 0, 1, 7]));
        let answers = ask_by_stream(&container, &["example.org", "web"]);
        assert_eq!(answers[0].len(), 60_000);
        assert_eq!(read(&answers[1]).1, Some([10, 0, 1, 7]));
    }
    server.attach("one", container.try_clone().unwrap(), client(&[(failing, DnsOrigin::Engine)])).unwrap();
    assert_eq!(read(&ask(&container, "example.org").unwrap()), (2, None), "its own failure");
}

#[test]
fn privileged_a_container_reaches_a_resolver_by_its_network() {
    let lab = Lab::new();
    let network = inside(&lab.engine, || BridgeNetwork::ensure(&config("one")).unwrap());
    let container = inside(&lab.engine, || container(&network));
    let server = inside(&lab.engine, || DnsServer::start(directory()).unwrap());
    let outer = resolver(&lab.engine, ENGINE, 0);
    let upstreams = [(outer, DnsOrigin::Container)];
    server.attach("one", container.netns.try_clone().unwrap(), client(&upstreams)).unwrap();
    assert_eq!(read(&ask(&container.netns, "example.org").unwrap()).0, 0);
    let started = Instant::now();
    for _ in 0..1000 {
        ask(&container.netns, "web").unwrap();
    }
    eprintln!("a thousand questions in {:?}", started.elapsed());
}
