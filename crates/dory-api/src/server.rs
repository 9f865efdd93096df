//! Accepts connections and stops cleanly.

use std::io;
use std::time::Duration;

use dory_engine::Engine;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::builds;
use crate::connection;
use crate::dispatch::Dispatcher;
use crate::routes;
use crate::socket::Socket;
use crate::tls::ServerTls;

/// How long requests that are in progress may take to end once the server stops. Streams are cut at once: containers
/// outlive the engine, its connections do not.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept (out of descriptors, usually), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens already. The binary makes it, since who may connect (mode, group, address) is configuration.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
    /// A TCP socket.
    Tcp(std::net::TcpListener),
    /// A TCP socket whose connections are encrypted.
    Tls(std::net::TcpListener, ServerTls),
}

/// The same, known to tokio.
enum AsyncListener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, ServerTls),
}

/// A connection that has not been shaken hands on yet.
enum Accepted {
    Ready(Socket),
    Tls(TcpStream, ServerTls),
}

impl Accepted {
    /// The connection; none where the client does not speak TLS, or is not let in.
    async fn shake_hands(self) -> Option<Socket> {
        let (stream, tls) = match self {
            Self::Ready(socket) => return Some(socket),
            Self::Tls(stream, tls) => (stream, tls),
        };
        let address = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
        match tls.accept(stream).await {
            Ok(socket) => Some(Socket::Tls(Box::new(socket))),
            Err(error) => {
                tracing::info!(client.address = %address, error = %error, "TLS handshake failed");
                None
            }
        }
    }
}

impl AsyncListener {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Listener::Tls(listener, tls) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(|listener| Self::Tls(listener, tls))
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Unix(listener) => Accepted::Ready(Socket::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => Accepted::Ready(Socket::Tcp(accept_tcp(listener).await?)),
            Self::Tls(listener, tls) => Accepted::Tls(accept_tcp(listener).await?, tls.clone()),
        })
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The API of one engine.
#[derive(Debug)]
pub struct Server {
    dispatcher: Dispatcher,
    /// Turns true when the server ends.
    stop: watch::Sender<bool>,
}

/// Makes connections to the API from within this process.
#[derive(Debug, Clone)]
pub struct Connector {
    dispatcher: Dispatcher,
    stopped: watch::Receiver<bool>,
}

impl Connector {
    /// A new connection: this is the client's end. It ends with the server. Called on the runtime that serves the API.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn connect(&self) -> io::Result<UnixStream> {
        let (client, server) = UnixStream::pair()?;
        tokio::spawn(connection::serve(Socket::Unix(server), self.dispatcher.clone(), self.stopped.clone()));
        Ok(client)
    }
}

impl Server {
    /// The API of `engine`. Called on the runtime that serves it.
    pub fn new(engine: Engine) -> Self {
        let version = engine.version().version;
        let buildkit = builds::buildkit(&engine);
        let router = routes::router(engine, &buildkit);
        let dispatcher = Dispatcher::new(router, &version).with_buildkit(buildkit);
        Self { dispatcher, stop: watch::Sender::new(false) }
    }

    /// For connections that need no listener.
    pub fn connector(&self) -> Connector {
        Connector { dispatcher: self.dispatcher.clone(), stopped: self.stop.subscribe() }
    }

    /// Serves on every listener until `shutdown` completes; then takes no new connections, ends streams, and lets
    /// requests in progress end for some seconds.
    ///
    /// # Errors
    /// A listener that tokio cannot register.
    pub async fn serve(self, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        serve(self.dispatcher, self.stop, listeners, shutdown).await
    }
}

/// Serves `dispatcher` on every listener until `shutdown` completes.
///
/// # Errors
/// A listener that tokio cannot register.
async fn serve(
    dispatcher: Dispatcher,
    stop: watch::Sender<bool>,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listeners = listeners.into_iter().map(AsyncListener::new).collect::<io::Result<Vec<_>>>()?;
    let stopped = stop.subscribe();
    let mut acceptors = JoinSet::new();
    for listener in listeners {
        acceptors.spawn(accept(listener, dispatcher.clone(), stopped.clone()));
    }
    drop(stopped);
    shutdown.await;
    // The receivers are gone only if every acceptor has ended, which leaves nobody to tell.
    let _ = stop.send(true);
    while acceptors.join_next().await.is_some() {}
    Ok(())
}

/// Accepts on one listener until the server stops, then waits for its connections.
async fn accept(listener: AsyncListener, dispatcher: Dispatcher, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let stop = stopped.clone();
    let mut stopping = Box::pin(async move { stopped.wait_for(|stop| *stop).await.map(drop) });
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => {
                    let (dispatcher, stop) = (dispatcher.clone(), stop.clone());
                    connections.spawn(async move {
                        if let Some(socket) = accepted.shake_hands().await {
                            connection::serve(socket, dispatcher, stop).await;
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "Cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopping => break,
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
        tracing::warn!(seconds = STOP_GRACE.as_secs(), "Requests did not end in time");
    }
}
