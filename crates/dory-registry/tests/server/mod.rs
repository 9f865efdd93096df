//! A registry that answers what a test says, bytes and all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dory_registry::{Access, Credentials, Registries, RegistryConfig, Remote, Secret};
use dory_types::ImageReference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is done with the connection.
pub enum Answer {
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// These bytes, and then nothing for ever.
    Hang(Vec<u8>),
    /// These bytes, and then the others again and again.
    Endless(Vec<u8>, Vec<u8>),
}

/// A whole answer.
pub fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Answer::Raw([head(status, headers, Some(body.len())).as_bytes(), body].concat())
}

/// An answer's head; the length is stated where there is one.
pub fn head(status: &str, headers: &[(&str, &str)], length: Option<usize>) -> String {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head + "\r\n"
}

/// 404.
pub fn missing() -> Answer {
    answer("404 Not Found", &[], b"")
}

/// The registry.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub async fn start(answers: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let (answers, requests) = (Arc::new(answers), Arc::clone(&seen));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answers, requests) = (Arc::clone(&answers), Arc::clone(&requests));
                tokio::spawn(async move {
                    let Some((request, mut stream)) = read(stream).await else { return };
                    requests.lock().unwrap().push(request.clone());
                    let answer = match request.path.as_str() {
                        "/v2/" => super::greeting(&request),
                        _ => answers(&request),
                    };
                    // Whoever hangs up early has seen enough.
                    let _ = write(&mut stream, answer).await;
                });
            }
        });
        Self { address, seen }
    }

    /// The requests so far that are no greeting.
    pub fn requests(&self) -> Vec<Request> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.path != "/v2/").cloned().collect()
    }

    /// The repository `a/b` of the registry, by the user `u` with the password `p`.
    pub fn remote(&self) -> Remote {
        self.remote_with(Credentials::Basic { username: "u".to_owned(), password: Secret::new("p") })
    }

    pub fn remote_with(&self, credentials: Credentials) -> Remote {
        let config =
            RegistryConfig { silence_timeout: 1, max_download_attempts: 3, ..RegistryConfig::default() };
        let registries = Arc::new(Registries::new(config).unwrap());
        registries.remote(self.reference("x").repository().clone(), Access::Push, credentials)
    }

    pub fn reference(&self, tag: &str) -> ImageReference {
        format!("{}/a/b:{tag}", self.address).parse().unwrap()
    }
}

async fn read(mut stream: TcpStream) -> Option<(Request, TcpStream)> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        // What begins like TLS gets the end that a plain server makes of it.
        if text.first() == Some(&0x16) {
            return None;
        }
        text.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(text).ok()?;
    let mut lines = text.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    Some((Request { method, path, headers: headers.collect() }, stream))
}

async fn write(stream: &mut TcpStream, answer: Answer) -> std::io::Result<()> {
    match answer {
        Answer::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            // Reading on until the other side has all of it: a reset would take it away.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            Ok(())
        }
        Answer::Hang(bytes) => {
            stream.write_all(&bytes).await?;
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(())
        }
        Answer::Endless(bytes, more) => {
            stream.write_all(&bytes).await?;
            loop {
                stream.write_all(&more).await?;
            }
        }
    }
}
