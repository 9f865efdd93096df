//! The client against small servers of the tests' own.

use std::cell::Cell;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// A server that reads one request's head, sends `answer`, and returns what came after the head until the end.
async fn serve_once(listener: UnixListener, answer: &'static [u8]) -> (String, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    (String::from_utf8(bytes).unwrap(), rest)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

struct Starter {
    socket: PathBuf,
    calls: Cell<u32>,
}

impl EngineStarter for Starter {
    fn start(&self) -> Result<PathBuf> {
        self.calls.set(self.calls.get() + 1);
        Ok(self.socket.clone())
    }
}

#[test]
fn starts_an_engine_only_where_none_was_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine");
    let starter = Starter { socket: socket.clone(), calls: Cell::new(0) };
    let absent = Address::Unix(directory.path().join("absent"));
    run(async {
        let listener = UnixListener::bind(&socket).unwrap();
        let server = tokio::spawn(serve_once(
            listener,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n42",
        ));
        let client = Client::new(Target::Search(vec![absent.clone()]), Some(&starter));
        assert_eq!(client.get::<u32>("/answer").await.unwrap(), 42);
        assert_eq!(starter.calls.get(), 1);
        drop(client);
        assert!(server.await.unwrap().0.starts_with("GET /answer HTTP/1.1\r\n"));

        let client = Client::new(Target::Named(absent), Some(&starter));
        let error = client.get::<u32>("/answer").await.unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to the engine at unix://"), "{error}");
        assert_eq!(starter.calls.get(), 1);
    });
}

#[test]
fn an_error_carries_the_engines_message() {
    for (answer, status, message) in [
        (
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 21\r\nConnection: close\r\n\r\n{\"message\":\"no such\"}"[..],
            404,
            "no such",
        ),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 6\r\nConnection: close\r\n\r\nplain\n", 500, "plain"),
        (b"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 503, "503 Service Unavailable"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("engine");
        run(async {
            tokio::spawn(serve_once(UnixListener::bind(&socket).unwrap(), answer));
            let client = Client::new(Target::Named(Address::Unix(socket)), None);
            let error = client.post("/x").await.unwrap_err();
            let expected = ApiError { status, message: message.to_owned() };
            assert_eq!(error.downcast_ref::<ApiError>(), Some(&expected));
        });
    }
}

#[test]
fn a_hijacked_connection_keeps_early_bytes_and_closes_by_halves() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine");
    run(async {
        let answer = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly";
        let server = tokio::spawn(serve_once(UnixListener::bind(&socket).unwrap(), answer));
        let client = Client::new(Target::Named(Address::Unix(socket)), None);
        let (mut reader, mut writer) = tokio::io::split(client.hijack("/attach", None::<&()>).await.unwrap());
        let mut early = [0; 5];
        reader.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
        writer.write_all(b"input").await.unwrap();
        writer.shutdown().await.unwrap();
        let (head, rest) = server.await.unwrap();
        assert!(head.contains("upgrade: tcp") && head.contains("connection: Upgrade"), "{head}");
        assert_eq!(rest, b"input");
    });
}

#[test]
fn an_answer_cut_off_is_a_lost_connection() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("engine");
    run(async {
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
        });
        let client = Client::new(Target::Named(Address::Unix(socket)), None);
        let error = client.get::<u32>("/x").await.unwrap_err();
        assert!(error.is::<ConnectionLost>(), "{error:#}");
    });
}

#[test]
fn paths_are_escaped() {
    let path = Path::new(&["images", "registry:5000/a b", "json"])
        .query("filters", r#"{"a":["b&c"]}"#)
        .flag("all", true)
        .flag("no", false)
        .optional("empty", "");
    let expected = "/images/registry:5000/a%20b/json?filters=%7B%22a%22:%5B%22b%26c%22%5D%7D&all=1";
    assert_eq!(path.as_str(), expected);
}
