//! Messages in a body: five bytes of header (compressed or not, length) and the message, again and again.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use prost::Message;
use tokio::sync::mpsc;

use super::status::{Code, Status};

/// Bytes before each message.
const HEADER: usize = 5;
/// Most bytes of a message that comes in: what BuildKit's own services accept.
const MESSAGE_LIMIT: usize = 16 << 20;
/// Messages that may wait to be sent.
const WAITING: usize = 32;

/// A message with its header.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEADER + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("no message of ours reaches 4 GiB"));
    message.encode(&mut bytes).expect("the buffer has the room that the message asked for");
    bytes.freeze()
}

/// Sends messages into a body, one after the other.
///
/// The body ends well when the last sender is dropped.
#[derive(Debug, Clone)]
pub struct Sender {
    frames: mpsc::Sender<Result<Bytes, Status>>,
}

impl Sender {
    /// Sends `message`; waits while the other side is slow.
    ///
    /// # Errors
    /// [`Code::Canceled`] where the other side has gone.
    pub async fn send(&self, message: &impl Message) -> Result<(), Status> {
        self.frames.send(Ok(frame(message))).await.map_err(|_| gone())
    }

    /// Ends the body with a failure.
    pub async fn fail(&self, status: Status) {
        // Whoever has gone does not want to know.
        let _ = self.frames.send(Err(status)).await;
    }

    /// Completes when the other side has gone.
    pub async fn closed(&self) {
        self.frames.closed().await;
    }
}

fn gone() -> Status {
    Status::new(Code::Canceled, "the other side of the call has gone")
}

/// Which side a body goes to: only answers end with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// A body that is sent: frames, then a status where it is an answer.
#[derive(Debug)]
pub struct Outgoing {
    frames: mpsc::Receiver<Result<Bytes, Status>>,
    direction: Direction,
    ended: bool,
}

impl Outgoing {
    /// The body of a request.
    pub(super) fn request() -> (Sender, Self) {
        Self::new(Direction::Request)
    }

    /// The body of an answer.
    pub(super) fn answer() -> (Sender, Self) {
        Self::new(Direction::Answer)
    }

    fn new(direction: Direction) -> (Sender, Self) {
        let (sender, frames) = mpsc::channel(WAITING);
        (Sender { frames: sender }, Self { frames, direction, ended: false })
    }

    /// The body of an answer or a request of one message.
    fn once(direction: Direction, frame: Result<Bytes, Status>) -> Self {
        let (sender, frames) = mpsc::channel(1);
        sender.try_send(frame).expect("the channel is new and has room for one");
        Self { frames, direction, ended: false }
    }

    /// A request of one message.
    pub(super) fn request_of(message: &impl Message) -> Self {
        Self::once(Direction::Request, Ok(frame(message)))
    }

    /// An answer of one message.
    pub(super) fn answer_of(message: &impl Message) -> Self {
        Self::once(Direction::Answer, Ok(frame(message)))
    }

    /// An answer that is a failure.
    pub(super) fn failure(status: Status) -> Self {
        Self::once(Direction::Answer, Err(status))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = self.get_mut();
        if body.ended {
            return Poll::Ready(None);
        }
        let next = ready!(body.frames.poll_recv(context));
        if let Some(Ok(bytes)) = next {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        body.ended = true;
        Poll::Ready(match (next, body.direction) {
            (Some(Err(status)), Direction::Request) => Some(Err(status)),
            (Some(Err(status)), Direction::Answer) => Some(Ok(Frame::trailers(status.trailers()))),
            (_, Direction::Answer) => Some(Ok(Frame::trailers(Status::ok_trailers()))),
            (_, Direction::Request) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Messages of a body that comes in.
#[derive(Debug)]
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Messages {
    /// The messages in `body`.
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), trailers: None }
    }

    /// The next message; nothing at the end.
    ///
    /// # Errors
    /// A broken connection, a message that is too long, compressed or no such message.
    pub async fn next<T: Message + Default>(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(message) = split(&mut self.buffer)? {
                let decoded = T::decode(message);
                return decoded.map(Some).map_err(|error| Status::new(Code::Internal, error.to_string()));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::new(Code::Internal, "the stream ended within a message")),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// What came behind the messages, at their end.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }
}

/// A connection that failed in the middle.
pub(super) fn broken(error: &hyper::Error) -> Status {
    Status::new(Code::Unavailable, format!("the connection broke: {error}"))
}

/// Takes the first whole message off `buffer`.
fn split(buffer: &mut BytesMut) -> Result<Option<Bytes>, Status> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let [compressed, length @ ..] = *header;
    if compressed != 0 {
        return Err(Status::not_supported("a compressed gRPC message"));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_LIMIT {
        let text = format!("a message of {length} bytes exceeds the limit of {MESSAGE_LIMIT}");
        return Err(Status::new(Code::ResourceExhausted, text));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;

    #[test]
    fn messages_are_split_where_they_end() {
        let first = frame(&BytesMessage { data: b"one".to_vec() });
        let second = frame(&BytesMessage { data: Vec::new() });
        let mut buffer = BytesMut::new();
        for byte in first.iter().chain(second.iter()).copied() {
            assert_eq!(split(&mut buffer), Ok(None));
            buffer.put_u8(byte);
            if let Some(message) = split(&mut buffer).unwrap() {
                let read = BytesMessage::decode(message).unwrap();
                assert!(read.data == b"one" || read.data.is_empty());
            }
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn long_and_compressed_messages_are_refused() {
        let mut long = BytesMut::from(&[0, 0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(split(&mut long).unwrap_err().code(), Code::ResourceExhausted);
        let mut compressed = BytesMut::from(&[1, 0, 0, 0, 0][..]);
        assert_eq!(split(&mut compressed).unwrap_err().code(), Code::Unimplemented);
    }
}
