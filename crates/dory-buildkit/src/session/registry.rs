//! All sessions that are open.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};

use super::Session;
use crate::grpc::{Channel, Code, Status};

/// How long a build waits for its session: clients open both at the same time. BuildKit waits five seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// The open sessions; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    open: Mutex<HashMap<String, Arc<Session>>>,
    opened: Notify,
}

impl Sessions {
    /// Keeps the session that `stream` is the connection of, until the client closes it.
    ///
    /// # Errors
    /// Headers without an id, a handshake that fails, a connection that breaks.
    pub async fn serve<Stream>(&self, headers: &HeaderMap, stream: Stream) -> io::Result<()>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (channel, connection) = Channel::open(stream).await?;
        // Dropped at the end, however that comes: then the session is closed.
        let (closing, closed) = watch::channel(false);
        let session = Arc::new(Session::new(headers, channel, closed).map_err(io::Error::other)?);
        tracing::debug!(session.id = session.id(), "Session opened");
        let _entry = Entry::new(self.0.clone(), session);
        let result = connection.await;
        let _ = closing.send(true);
        result
    }

    /// The session `id`, which may be about to open.
    ///
    /// # Errors
    /// [`Code::NotFound`] where it does not open in time.
    pub async fn get(&self, id: &str) -> Result<Arc<Session>, Status> {
        // BuildKit lets a prefix keep contexts apart that come from one session.
        let id = id.split_once(':').map_or(id, |(_, id)| id);
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let opened = self.0.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                if let Some(session) = self.0.lock().get(id).filter(|session| !session.is_closed()) {
                    return session.clone();
                }
                opened.await;
            }
        });
        found.await.map_err(|_| Status::new(Code::NotFound, format!("no active session for {id}")))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among the open ones.
struct Entry {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Entry {
    fn new(shared: Arc<Shared>, session: Arc<Session>) -> Self {
        shared.lock().insert(session.id().to_owned(), session.clone());
        shared.opened.notify_waiters();
        Self { shared, session }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        // A client may have opened another one of the same id meanwhile.
        if open.get(self.session.id()).is_some_and(|session| Arc::ptr_eq(session, &self.session)) {
            open.remove(self.session.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(id: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("X-Docker-Expose-Session-Uuid", id.parse().unwrap());
        headers.append(
            "X-Docker-Expose-Session-Grpc-Method",
            "/moby.filesync.v1.FileSync/DiffCopy".parse().unwrap(),
        );
        headers
    }

    #[tokio::test]
    async fn a_build_finds_its_session_even_before_it_opens() {
        let sessions = Sessions::default();
        let waiting = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.get("unit:one").await }
        });
        tokio::task::yield_now().await;
        let (client, engine) = tokio::io::duplex(4096);
        let served = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.serve(&headers("one"), engine).await }
        });
        let session = waiting.await.unwrap().unwrap();
        assert!(session.serves("/moby.filesync.v1.filesync/diffcopy") && !session.serves("/other"));
        assert!(!session.is_closed());
        drop(client);
        session.closed().await;
        let _ = served.await.unwrap();
        assert!(sessions.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_session_without_an_id_is_refused() {
        let (_client, engine) = tokio::io::duplex(4096);
        assert!(Sessions::default().serve(&HeaderMap::new(), engine).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_never_opens_is_not_waited_for_for_ever() {
        let error = Sessions::default().get("none").await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no active session for none"));
    }
}
