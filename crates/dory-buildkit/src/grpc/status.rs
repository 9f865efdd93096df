//! How a call ends: `grpc-status`, `grpc-message` and `grpc-status-details-bin`.
//!
//! Source: gRPC over HTTP/2, "Responses" and "Status codes and their use in gRPC".

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bollard_buildkit_proto::google::protobuf::Any;
use bollard_buildkit_proto::google::rpc;
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// Most bytes of a message in a header: grpc-go refuses header lists beyond 16 KiB, and the details repeat the message.
const MESSAGE_LIMIT: usize = 4 << 10;

/// The codes that are sent or looked at; every other is [`Code::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    const ALL: [Self; 14] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::Unauthenticated,
    ];

    fn from_number(number: i32) -> Self {
        Self::ALL.into_iter().find(|code| *code as i32 == number).unwrap_or(Self::Unknown)
    }
}

/// The end of a call that failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    code: Code,
    message: String,
    details: Vec<Any>,
}

impl Status {
    /// A failure with this text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// A failure of no particular kind.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(Code::Unknown, message)
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// Something of the protocol that is not done here; `what` begins the sentence.
    pub fn not_supported(what: impl std::fmt::Display) -> Self {
        Self::new(Code::Unimplemented, format!("{what} is not supported by dory yet"))
    }

    /// The same with a typed detail, which clients show in a form of their own.
    pub fn with_detail(mut self, type_url: &str, value: Vec<u8>) -> Self {
        self.details.push(Any { type_url: type_url.to_owned(), value });
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// As a message inside others.
    pub fn to_message(&self) -> rpc::Status {
        rpc::Status { code: self.code as i32, message: self.message.clone(), details: self.details.clone() }
    }

    /// From a message inside another; nothing where it says that all is well.
    pub fn from_message(message: rpc::Status) -> Option<Self> {
        let code = Code::from_number(message.code);
        (code != Code::Ok).then_some(Self { code, message: message.message, details: message.details })
    }

    /// The trailers that end a call well.
    pub(super) fn ok_trailers() -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(STATUS, HeaderValue::from_static("0"));
        trailers
    }

    /// The trailers that end a call with this failure.
    pub(super) fn trailers(&self) -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(3);
        trailers.insert(STATUS, HeaderValue::from(self.code as u16));
        if let Ok(message) = HeaderValue::from_str(&escape(&self.message)) {
            trailers.insert(MESSAGE, message);
        }
        if !self.details.is_empty() {
            let encoded = STANDARD_NO_PAD.encode(self.to_message().encode_to_vec());
            if let Ok(details) = HeaderValue::from_str(&encoded) {
                trailers.insert(DETAILS, details);
            }
        }
        trailers
    }

    /// What headers or trailers say; nothing where they do not tell a status at all.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Result<(), Self>> {
        let number = headers.get(STATUS)?.to_str().ok()?.parse().unwrap_or(Code::Unknown as i32);
        let code = Code::from_number(number);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let text = headers.get(MESSAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let details = headers.get(DETAILS).and_then(details).unwrap_or_default();
        Some(Err(Self { code, message: unescape(text), details }))
    }
}

/// The details in a binary header; clients may pad it or not.
fn details(value: &HeaderValue) -> Option<Vec<Any>> {
    let text = value.to_str().ok()?.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
    Some(rpc::Status::decode(bytes.as_slice()).ok()?.details)
}

/// gRPC over HTTP/2, "Percent-Encoded": everything outside of visible ASCII, and `%` itself.
fn escape(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut escaped = String::with_capacity(end);
    for byte in text[..end].bytes() {
        match byte {
            b'%' => escaped.push_str("%25"),
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    escaped
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_survive_headers() {
        for message in ["", "plain", "100% of\nlines", "Größe ✓", "%4"] {
            let status = Status::new(Code::NotFound, message).with_detail("a/b", vec![0, 255]);
            assert_eq!(Status::from_headers(&status.trailers()), Some(Err(status)), "{message}");
        }
        assert_eq!(Status::from_headers(&Status::ok_trailers()), Some(Ok(())));
        assert_eq!(Status::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn unknown_codes_are_unknown() {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from_static("77"));
        assert_eq!(Status::from_headers(&headers), Some(Err(Status::unknown(""))));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let status = Status::unknown("é".repeat(MESSAGE_LIMIT));
        let Some(Err(read)) = Status::from_headers(&status.trailers()) else { panic!("no status") };
        assert_eq!(read.message, "é".repeat(MESSAGE_LIMIT / 2));
    }
}
