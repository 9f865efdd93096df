//! Names to addresses without the C library, whose name service modules a static binary must not load.
//!
//! As glibc with `hosts: files dns`: /etc/hosts first, then the servers of /etc/resolv.conf with its search list.
//! Files are read each time: a laptop changes its network while the engine runs.

mod files;
mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use files::ResolvConf;
use message::{Answer, RecordType};

/// Where a host's own names stand (hosts(5)).
const HOSTS: &str = "/etc/hosts";
/// Which servers to ask (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The longest answer by UDP without EDNS (RFC 1035, section 4.2.1), and some room for servers that do not know it.
const DATAGRAM_LENGTH_MAX: usize = 4096;

/// A name has no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The servers know no such name, or none of its addresses.
    #[error("lookup {0}: no such host")]
    NoSuchHost(String),
    /// The text cannot be a host's name.
    #[error("lookup {0}: invalid host name")]
    InvalidName(String),
    /// No server gave an answer.
    #[error("lookup {host} on {server}")]
    Server {
        host: String,
        server: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// The addresses of `host` in the order in which they are to be tried: IPv4 first, which works in more containers.
pub(crate) async fn resolve(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let host = host.trim_end_matches('.');
    let known = files::hosts(&read(HOSTS).await, host);
    if !known.is_empty() {
        return Ok(known);
    }
    // RFC 6761, section 6.3: never asked of anybody.
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let configuration = ResolvConf::parse(&read(RESOLV_CONF).await);
    let mut failure = None;
    for candidate in configuration.candidates(host) {
        let (four, six) = tokio::join!(
            ask_all(&configuration, &candidate, RecordType::A),
            ask_all(&configuration, &candidate, RecordType::Aaaa),
        );
        let mut addresses = Vec::new();
        for result in [four, six] {
            match result {
                Ok(found) => addresses.extend(found),
                Err(error) => failure = Some(error),
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
    }
    Err(failure.unwrap_or_else(|| ResolveError::NoSuchHost(host.to_owned())))
}

/// A file's text; an unreadable one is an empty one, as for the C library.
async fn read(path: &str) -> String {
    tokio::fs::read_to_string(path).await.unwrap_or_default()
}

/// Asks one server after the other, round the list, until one answers.
async fn ask_all(
    configuration: &ResolvConf,
    name: &str,
    record_type: RecordType,
) -> Result<Vec<IpAddr>, ResolveError> {
    let question = message::Question::new(name, record_type, random_id())
        .ok_or_else(|| ResolveError::InvalidName(name.to_owned()))?;
    let mut failure = ResolveError::NoSuchHost(name.to_owned());
    for _ in 0..configuration.attempts {
        for server in &configuration.servers {
            match ask(*server, &question, configuration.timeout).await {
                Ok(Answer::Addresses(addresses)) => return Ok(addresses),
                Ok(Answer::NoSuchName) => return Ok(Vec::new()),
                Ok(Answer::Truncated | Answer::ServerFailure) => {}
                Err(source) => {
                    failure = ResolveError::Server { host: name.to_owned(), server: *server, source };
                }
            }
        }
    }
    Err(failure)
}

async fn ask(server: SocketAddr, question: &message::Question, patience: Duration) -> io::Result<Answer> {
    match timed(patience, ask_datagram(server, question)).await? {
        Answer::Truncated => timed(patience, ask_stream(server, question)).await,
        answer => Ok(answer),
    }
}

async fn timed<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask_datagram(server: SocketAddr, question: &message::Question) -> io::Result<Answer> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    // Connected: the kernel drops what others send, and tells when nobody listens there.
    socket.connect(server).await?;
    socket.send(question.bytes()).await?;
    let mut buffer = vec![0; DATAGRAM_LENGTH_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What is no answer to this question may be somebody's guess: wait on.
        if let Some(answer) = question.answer(&buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn ask_stream(server: SocketAddr, question: &message::Question) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.bytes().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.bytes()].concat()).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    match question.answer(&bytes) {
        Some(Answer::Truncated) | None => Err(io::ErrorKind::InvalidData.into()),
        Some(answer) => Ok(answer),
    }
}

fn random_id() -> u16 {
    let mut bytes = [0; 2];
    // The port is of the kernel's choosing too: without entropy that has to do.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_needs_no_server() {
        assert_eq!(resolve("192.0.2.1").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolve("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(resolve("any.localhost").await.unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }

    #[tokio::test]
    async fn asks_by_datagram_then_by_stream() {
        let stream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = stream.local_addr().unwrap();
        let datagram = UdpSocket::bind(server).await.unwrap();
        let question = message::Question::new("a.example", RecordType::A, 7).unwrap();
        let serve = async {
            let mut buffer = [0; 512];
            let (length, client) = datagram.recv_from(&mut buffer).await.unwrap();
            let mut answer = buffer[..length].to_vec();
            // A guess with another id, and then: truncated.
            answer[2] = 0x82;
            datagram.send_to(&[&[0, 9], &answer[2..]].concat(), client).await.unwrap();
            datagram.send_to(&answer, client).await.unwrap();
            let (mut connection, _) = stream.accept().await.unwrap();
            let length = connection.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            connection.read_exact(&mut answer).await.unwrap();
            answer[2] = 0x80;
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
            connection.write_u16(answer.len() as u16).await.unwrap();
            connection.write_all(&answer).await.unwrap();
        };
        let (answer, ()) = tokio::join!(ask(server, &question, Duration::from_secs(5)), serve);
        assert_eq!(answer.unwrap(), Answer::Addresses(vec![Ipv4Addr::new(192, 0, 2, 1).into()]));
    }
}
