//! Heads of HTTP/1.1 messages, to the letter of RFC 9112.
//!
//! Whatever two readers could take differently is refused: both ways of saying how long a body is, one of them twice,
//! folded lines, lines that end in LF alone, spaces before a colon, other codings than `chunked`, HTTP/1.0 and HTTP/2.

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none.
    None,
    /// This many bytes.
    Bytes(u64),
    /// In pieces that say themselves how long they are.
    Chunked,
    /// Until the connection ends: answers only.
    UntilClose,
}

/// A head that is refused, with the status that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct HeadError {
    pub status: u16,
    pub message: &'static str,
}

fn bad(message: &'static str) -> HeadError {
    HeadError { status: 400, message }
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub method: String,
    pub target: String,
    pub length: Length,
    /// `Connection: Upgrade` with `Upgrade: tcp`.
    pub upgrade: bool,
    pub expects_continue: bool,
    pub close: bool,
    pub content_type: Option<String>,
    pub registry_auth: Option<String>,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub status: u16,
    pub length: Length,
    /// The connection ends with this answer.
    pub close: bool,
    pub headers: Vec<(String, String)>,
}

/// Names in lower case, and values.
type Fields<'h> = Vec<(String, &'h str)>;

/// Lines of a head, which ends in an empty line; the fields with names in lower case.
fn lines(bytes: &[u8]) -> Result<(&str, Fields<'_>), HeadError> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("the head is not text"))?;
    let text = text.strip_suffix("\r\n\r\n").ok_or(bad("the head does not end"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(bad("a header without a colon"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(bad("a header's name is not a token"));
        }
        let value = value.trim_matches([' ', '\t']);
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(bad("a header has a control character"));
        }
        fields.push((name.to_ascii_lowercase(), value));
    }
    if first.chars().any(char::is_control) {
        return Err(bad("the first line has a control character"));
    }
    Ok((first, fields))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The only header of this name.
fn single<'f>(fields: &[(String, &'f str)], name: &str) -> Result<Option<&'f str>, HeadError> {
    let mut found = fields.iter().filter(|field| field.0 == name).map(|field| field.1);
    let first = found.next();
    if found.next().is_some() { Err(bad("a header that may come once comes twice")) } else { Ok(first) }
}

fn length(fields: &[(String, &str)]) -> Result<Option<Length>, HeadError> {
    match (single(fields, "content-length")?, single(fields, "transfer-encoding")?) {
        (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Length::Chunked)),
        (None, Some(_)) => Err(HeadError { status: 501, message: "a transfer coding other than chunked" }),
        (Some(digits), None) => {
            let plain =
                !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let bytes = digits.parse().ok().filter(|_| plain).ok_or(bad("Content-Length is not a number"))?;
            Ok(Some(if bytes == 0 { Length::None } else { Length::Bytes(bytes) }))
        }
        (None, None) => Ok(None),
    }
}

fn tokens(fields: &[(String, &str)], name: &str) -> Vec<String> {
    let values = fields.iter().filter(|field| field.0 == name).flat_map(|field| field.1.split(','));
    values.map(|token| token.trim().to_ascii_lowercase()).filter(|token| !token.is_empty()).collect()
}

impl RequestHead {
    /// Reads a head with its empty line.
    ///
    /// # Errors
    /// [`HeadError`]; the connection cannot be used after one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeadError> {
        let (first, fields) = lines(bytes)?;
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("the request line has not three words"));
        };
        if version != "HTTP/1.1" {
            return Err(HeadError { status: 505, message: "only HTTP/1.1 is spoken" });
        }
        if method.is_empty() || method.len() > 16 || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(bad("the method is not a word in upper case"));
        }
        if !target.starts_with('/') || !target.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
            return Err(bad("the target is not a path"));
        }
        if single(&fields, "host")?.is_none() {
            return Err(bad("there is no Host"));
        }
        let connection = tokens(&fields, "connection");
        if connection.iter().any(|token| !matches!(token.as_str(), "close" | "keep-alive" | "upgrade" | "te"))
        {
            return Err(bad("Connection names a header"));
        }
        let upgrade = single(&fields, "upgrade")?;
        let upgrade = match (upgrade, connection.iter().any(|token| token == "upgrade")) {
            (Some(protocol), true) if protocol.eq_ignore_ascii_case("tcp") => true,
            (None, false) => false,
            (Some(_), true) => {
                return Err(HeadError { status: 403, message: "only upgrades to tcp have a model" });
            }
            _ => return Err(bad("Upgrade and Connection do not agree")),
        };
        let expects_continue = match single(&fields, "expect")? {
            None => false,
            Some(value) if value.eq_ignore_ascii_case("100-continue") => true,
            Some(_) => return Err(HeadError { status: 417, message: "an expectation that nobody can meet" }),
        };
        if single(&fields, "content-encoding")?.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
            return Err(HeadError { status: 415, message: "bodies are not to be encoded" });
        }
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            length: length(&fields)?.unwrap_or(Length::None),
            upgrade,
            expects_continue,
            close: connection.iter().any(|token| token == "close"),
            content_type: single(&fields, "content-type")?.map(str::to_owned),
            registry_auth: single(&fields, "x-registry-auth")?.map(str::to_owned),
        })
    }
}

impl ResponseHead {
    /// Reads the answer to a request of `method`.
    ///
    /// # Errors
    /// [`HeadError`], of the other side this time.
    pub(crate) fn parse(bytes: &[u8], method: &str) -> Result<Self, HeadError> {
        let (first, fields) = lines(bytes)?;
        let status = first.strip_prefix("HTTP/1.1 ").or_else(|| first.strip_prefix("HTTP/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse::<u16>().ok());
        let status =
            status.filter(|status| (100..600).contains(status)).ok_or(bad("the status line is none"))?;
        let length = match (status, method) {
            (_, "HEAD") | (100..=199 | 204 | 304, _) => Length::None,
            _ => length(&fields)?.unwrap_or(Length::UntilClose),
        };
        let close = length == Length::UntilClose
            || tokens(&fields, "connection").iter().any(|token| token == "close");
        let headers = fields.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Ok(Self { status, length, close, headers })
    }

    /// The value of a header, whose name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &str) -> Result<RequestHead, HeadError> {
        RequestHead::parse(format!("{lines}\r\n\r\n").as_bytes())
    }

    #[test]
    fn reads_what_clients_send() {
        let head = parse("POST /v1.41/containers/create?name=x HTTP/1.1\r\nHost: docker\r\nContent-Length: 12\r\nContent-Type: application/json").unwrap();
        assert_eq!((head.method.as_str(), head.length, head.upgrade), ("POST", Length::Bytes(12), false));
        let head = parse("POST /x HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nTransfer-Encoding: chunked").unwrap();
        assert!(head.upgrade && head.length == Length::Chunked && !head.close);
    }

    #[test]
    fn refuses_what_could_be_taken_for_something_else() {
        for (number, lines) in [
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nX: a\r\n b"),
            (3, "POST /x HTTP/1.1\nHost: a"),
            (3, "POST /x HTTP/1.1\r\nHost: a\nX: y"),
            (3, "POST /x HTTP/1.1\r\nHost: a\0"),
            (3, "POST  /x HTTP/1.1\r\nHost: a"),
            (3, "POST /x\tHTTP/1.1\r\nHost: a"),
            (3, "POST /x HTTP/1.1\r\nHost: a\r\nHost: b"),
            (3, "POST /x HTTP/1.1"),
            (7, "PRI * HTTP/2.0\r\nHost: a"),
            (7, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c"),
            (5, "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: tcp"),
            (10, "POST http://x/y HTTP/1.1\r\nHost: a"),
            (10, "CONNECT a:1 HTTP/1.1\r\nHost: a"),
            (10, "OPTIONS * HTTP/1.1\r\nHost: a"),
            (10, "post /x HTTP/1.1\r\nHost: a"),
            (11, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 200-ok"),
            (12, "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Content-Type"),
            (13, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip"),
            (17, "POST /x HTTP/1.1\r\nHost: a\r\nX-Registry-Auth: a\r\nX-Registry-Auth: b"),
            (3, "GET /x HTTP/1.0\r\nHost: a"),
        ] {
            assert!(parse(lines).is_err(), "{number}: {lines:?}");
        }
    }

    #[test]
    fn answers_have_bodies_by_their_status() {
        for (text, method, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "GET", Length::Bytes(3)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", Length::None),
            ("HTTP/1.1 204 No Content\r\n\r\n", "POST", Length::None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", Length::Chunked),
            ("HTTP/1.1 200 OK\r\n\r\n", "GET", Length::UntilClose),
            ("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n", "POST", Length::None),
        ] {
            assert_eq!(ResponseHead::parse(text.as_bytes(), method).unwrap().length, expected, "{text}");
        }
    }
}
