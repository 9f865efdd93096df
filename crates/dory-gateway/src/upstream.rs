//! The engine behind the gateway, and the gateway's own questions to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::head::ResponseHead;
use crate::wire::{Body, Stream, Wire};

/// Most that the gateway reads of an answer that it looks at.
pub(crate) const ANSWER_LIMIT: usize = 64 << 20;

/// Where requests go.
#[derive(Clone)]
pub enum Upstream {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, in the clear.
    Tcp(String),
    /// An engine in this process: makes a connection whose other end the engine serves.
    Local(Arc<dyn Fn() -> io::Result<UnixStream> + Send + Sync>),
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(address) => write!(formatter, "tcp://{address}"),
            Self::Local(_) => formatter.write_str("local"),
        }
    }
}

/// The address of an upstream is none.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address of an engine: unix:///PATH or tcp://HOST:PORT")]
pub struct AddressError(String);

impl std::str::FromStr for Upstream {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        match text.strip_prefix("tcp://").map(|address| address.trim_end_matches('/')) {
            Some(address) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            _ => Err(AddressError(text.to_owned())),
        }
    }
}

impl Upstream {
    /// True where paths of this machine are the upstream's too.
    pub(crate) fn is_here(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }

    pub(crate) async fn connect(&self) -> io::Result<Wire> {
        let stream: Box<dyn Stream> = match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Local(connect) => Box::new(connect()?),
        };
        Ok(Wire::new(stream))
    }

    /// Asks, and reads the whole answer: status, head and body.
    ///
    /// # Errors
    /// Those of the connection, and an answer that is none.
    pub(crate) async fn ask(
        &self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> io::Result<(ResponseHead, Vec<u8>)> {
        let mut wire = self.connect().await?;
        let body = body.map(Value::to_string);
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n");
        if let Some(body) = &body {
            head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        head.push_str(body.as_deref().unwrap_or_default());
        wire.send(head.as_bytes()).await?;
        let head = answer_head(&mut wire, method).await?;
        let body = Body::new(head.length).whole(&mut wire, ANSWER_LIMIT).await?;
        Ok((head, body))
    }

    /// Asks for JSON; `None` where the answer is 404.
    ///
    /// # Errors
    /// As [`Self::ask`], and any other status.
    pub(crate) async fn get(&self, target: &str) -> io::Result<Option<Value>> {
        let (head, body) = self.ask("GET", target, None).await?;
        match head.status {
            200 => serde_json::from_slice(&body).map(Some).map_err(io::Error::other),
            // An ambiguous prefix of an id is a name of nothing.
            400 | 404 => Ok(None),
            status => Err(io::Error::other(format!("the engine answers {status} to GET {target}"))),
        }
    }

    /// The newest minor version of the API that the engine speaks.
    ///
    /// # Errors
    /// As [`Self::ask`], and an answer without a version.
    pub async fn version(&self) -> io::Result<u32> {
        let (head, _) = self.ask("GET", "/_ping", None).await?;
        let minor = head.header("api-version").and_then(|version| version.strip_prefix("1.")?.parse().ok());
        minor.ok_or_else(|| io::Error::other("the engine does not say which version of the API it speaks"))
    }
}

/// The head of an answer; informational ones before it are skipped.
pub(crate) async fn answer_head(wire: &mut Wire, method: &str) -> io::Result<ResponseHead> {
    loop {
        let bytes = wire.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = ResponseHead::parse(&bytes, method).map_err(io::Error::other)?;
        if head.status != 100 {
            return Ok(head);
        }
    }
}
