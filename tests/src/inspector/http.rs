//! One request over a unix socket, in HTTP/1.0, so that answers come whole and end with the connection.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// Status and body of an answer; a body that is not JSON is a string.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body; `null` where there is none.
    pub body: Value,
}

/// Sends `method path` with `body` and reads the answer.
///
/// # Errors
/// Nobody listens, or the answer is no HTTP.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let path = encoded(path);
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: docker\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).with_context(|| format!("`{method} {path}` is not answered"))?;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("`{method} {path}` gets no HTTP answer"))
}

/// `path` with what may not stand in a URL escaped.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=:.,-_%+".contains(&byte);
    path.bytes().fold(String::new(), |mut text, byte| {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = match body.trim() {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    };
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_answers_apart() {
        let answer = parse("HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"x\"}\n").unwrap();
        assert_eq!((answer.status, answer.body["message"].as_str()), (404, Some("x")));
        assert_eq!(parse("HTTP/1.1 204 No Content\r\n\r\n").unwrap().body, Value::Null);
        assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\nOK").unwrap().body, Value::from("OK"));
        assert!(parse("nonsense").is_none());
        assert_eq!(encoded("/x?filters={\"a\"}"), "/x?filters=%7B%22a%22%7D");
    }
}
