//! The server's side of WebSocket (RFC 6455), as far as an attached client needs it: bytes in either direction, pings and
//! the close. No extensions and no subprotocols, as with dockerd.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dory_log::FrameDecoder;
use http::HeaderMap;
use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::error::ApiError;

/// Section 1.3: what is hashed together with the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Section 5.5: control frames have no more.
const CONTROL_LENGTH: u64 = 125;
/// Bytes of one read, and of one frame that is sent.
const BUFFER_SIZE: usize = 32 << 10;
/// Control frames that wait to be sent; a client that pings faster than it reads has to wait.
const CONTROL_QUEUE: usize = 4;

/// Operation codes, section 5.2.
mod operation {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// Close codes, section 7.4.1.
const NORMAL_CLOSURE: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;

/// Checks a client's opening handshake (section 4.2.1) and gives the value of `Sec-WebSocket-Accept`.
///
/// # Errors
/// 400 where it is none.
pub(crate) fn accept(headers: &HeaderMap) -> Result<String, ApiError> {
    let is = |name, value: &str| {
        headers.get(name).is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    };
    if !is(UPGRADE, "websocket") {
        return Err(ApiError::bad_request("not websocket protocol"));
    }
    if !is(SEC_WEBSOCKET_VERSION, "13") {
        return Err(ApiError::bad_request("missing or bad WebSocket Version"));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| ApiError::bad_request("missing or bad WebSocket-Key"))?;
    Ok(STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize()))
}

/// A frame's head, as far as a server reads it.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    operation: u8,
    mask: [u8; 4],
    length: u64,
}

/// The client broke the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client broke the WebSocket protocol: {0}")]
struct ProtocolError(&'static str);

impl From<ProtocolError> for io::Error {
    fn from(error: ProtocolError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl Head {
    /// Reads a head; `None` where the connection ends before it.
    async fn read<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<Self>> {
        let mut start = [0; 2];
        if reader.read(&mut start[..1]).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(&mut start[1..]).await?;
        let length = match start[1] & 0x7f {
            126 => u64::from(reader.read_u16().await?),
            127 => reader.read_u64().await?,
            length => u64::from(length),
        };
        Self::check(start, length)?;
        let mut mask = [0; 4];
        reader.read_exact(&mut mask).await?;
        Ok(Some(Self { operation: start[0] & 0xf, mask, length }))
    }

    fn check([first, second]: [u8; 2], length: u64) -> Result<(), ProtocolError> {
        let is_control = first & 0x8 != 0;
        if first & 0x70 != 0 {
            return Err(ProtocolError("an extension that nobody agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(ProtocolError("a frame without a mask"));
        }
        if is_control && (first & 0x80 == 0 || length > CONTROL_LENGTH) {
            return Err(ProtocolError("a control frame in pieces or too long"));
        }
        if length > i64::MAX as u64 {
            return Err(ProtocolError("a frame of an impossible length"));
        }
        Ok(())
    }
}

/// Writes one whole frame.
async fn send<W: AsyncWrite + Unpin>(writer: &mut W, operation: u8, payload: &[u8]) -> io::Result<()> {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(0x80 | operation);
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    writer.write_all(&frame).await
}

/// A control frame that the reading side wants sent.
#[derive(Debug)]
struct Control {
    operation: u8,
    payload: Vec<u8>,
}

impl Control {
    fn close(code: u16) -> Self {
        Self { operation: operation::CLOSE, payload: code.to_be_bytes().to_vec() }
    }
}

/// Carries bytes between `socket`, which speaks WebSocket, and `inner`, which does not, until one of them ends. With
/// `framed`, what comes from `inner` has the headers of multiplexed streams, and is sent without them.
///
/// # Errors
/// The socket's.
pub(crate) async fn carry<S>(socket: S, inner: DuplexStream, framed: bool) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(socket);
    let (inner_reader, inner_writer) = tokio::io::split(inner);
    let (controls, wanted) = mpsc::channel(CONTROL_QUEUE);
    let inward = receive(reader, inner_writer, controls);
    let outward = transmit(inner_reader, writer, wanted, framed);
    // The outward side ends either way: with the stream, or with the close that answers the client's.
    let (_, sent) = tokio::join!(inward_until_closed(inward), outward);
    sent
}

async fn inward_until_closed(inward: impl Future<Output = io::Result<()>>) {
    if let Err(error) = inward.await {
        tracing::debug!(error = %error, "A WebSocket's input ended early");
    }
}

/// Takes frames apart and passes their payloads on, piece by piece however long they are.
async fn receive<R, W>(mut reader: R, mut inner: W, controls: mpsc::Sender<Control>) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // Where the other side has ended, nobody hears of a control frame any more: then this side ends too.
    let result = loop {
        let head = match Head::read(&mut reader).await {
            Ok(Some(head)) => head,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        match head.operation {
            operation::CONTINUATION | operation::TEXT | operation::BINARY => {
                if let Err(error) = pass(&mut reader, &mut inner, &head).await {
                    break Err(error);
                }
            }
            operation::CLOSE => break Ok(()),
            operation::PING => {
                let mut payload = Vec::new();
                if let Err(error) = pass(&mut reader, &mut payload, &head).await {
                    break Err(error);
                }
                if controls.send(Control { operation: operation::PONG, payload }).await.is_err() {
                    break Ok(());
                }
            }
            operation::PONG => {
                if let Err(error) = pass(&mut reader, &mut tokio::io::sink(), &head).await {
                    break Err(error);
                }
            }
            _ => break Err(ProtocolError("an unknown operation").into()),
        }
    };
    let broken = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData);
    // Both fail only where the other side has ended.
    let _ = inner.shutdown().await;
    let _ = controls.send(Control::close(if broken { PROTOCOL_ERROR } else { NORMAL_CLOSURE })).await;
    result
}

/// Passes one frame's payload on, unmasked.
async fn pass<R, W>(reader: &mut R, inner: &mut W, head: &Head) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_SIZE.min(usize::try_from(head.length).unwrap_or(BUFFER_SIZE))];
    let mut left = head.length;
    let mut place = 0;
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(buffer.len()));
        let count = reader.read(&mut buffer[..wanted]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for byte in &mut buffer[..count] {
            *byte ^= head.mask[place % head.mask.len()];
            place += 1;
        }
        inner.write_all(&buffer[..count]).await?;
        left -= count as u64;
    }
    Ok(())
}

/// Sends what comes from the stream and the control frames that are wanted; ends with either.
async fn transmit<R, W>(
    mut inner: R,
    mut writer: W,
    mut wanted: mpsc::Receiver<Control>,
    framed: bool,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut decoder = FrameDecoder::default();
    let last = loop {
        tokio::select! {
            control = wanted.recv() => match control {
                Some(control) if control.operation != operation::CLOSE => {
                    send(&mut writer, control.operation, &control.payload).await?;
                }
                Some(close) => break close,
                None => break Control::close(NORMAL_CLOSURE),
            },
            count = inner.read(&mut buffer) => {
                let count = count?;
                if count == 0 {
                    break Control::close(NORMAL_CLOSURE);
                }
                if !framed {
                    send(&mut writer, operation::BINARY, &buffer[..count]).await?;
                    continue;
                }
                let mut input = &buffer[..count];
                while let Some((_, piece)) = decoder.next(&mut input).map_err(io::Error::other)? {
                    send(&mut writer, operation::BINARY, piece).await?;
                }
            }
        }
    };
    send(&mut writer, last.operation, &last.payload).await?;
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use tokio::io::duplex;

    fn client_frame(operation: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x80 | operation];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..=125) => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        frame
    }

    /// The example of section 1.3.
    #[test]
    fn accepts_a_handshake() {
        let mut headers = HeaderMap::new();
        assert!(accept(&headers).is_err());
        headers.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert!(accept(&headers).is_err());
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn carries_bytes_answers_pings_and_closes() {
        let (mut client, socket) = duplex(1 << 20);
        let (inner, mut process) = duplex(1 << 20);
        let carried = tokio::spawn(carry(socket, inner, false));
        let long = vec![b'x'; 70_000];
        for (operation, payload) in [
            (operation::TEXT, &b"typed"[..]),
            (operation::PING, b"are you there"),
            (operation::BINARY, &long),
        ] {
            client.write_all(&client_frame(operation, payload)).await.unwrap();
        }
        let mut typed = vec![0; 5 + long.len()];
        process.read_exact(&mut typed).await.unwrap();
        assert!(typed.starts_with(b"typed") && typed.ends_with(&long));
        process.write_all(b"output").await.unwrap();
        let mut answers = [0; 15 + 8];
        client.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, *b"\x8a\x0dare you there\x82\x06output");
        client.write_all(&client_frame(operation::CLOSE, &[3, 232])).await.unwrap();
        let mut rest = Vec::new();
        process.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 2, 3, 232]);
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn sends_multiplexed_output_without_its_headers() {
        let (mut client, socket) = duplex(1 << 10);
        let (inner, mut process) = duplex(1 << 10);
        let carried = tokio::spawn(carry(socket, inner, true));
        process.write_all(b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x03err").await.unwrap();
        drop(process);
        let mut sent = Vec::new();
        client.read_to_end(&mut sent).await.unwrap();
        assert_eq!(sent, b"\x82\x03out\x82\x03err\x88\x02\x03\xe8");
        drop(client);
        carried.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn ends_with_a_client_that_breaks_the_protocol() {
        for broken in
            [&b"\x82\x01x"[..], b"\xc2\x81\0\0\0\0x", b"\x89\xfe\x01\0\0\0\0\0", b"\x83\x80\0\0\0\0"]
        {
            let (mut client, socket) = duplex(1 << 10);
            let (inner, process) = duplex(1 << 10);
            let carried = tokio::spawn(carry(socket, inner, false));
            client.write_all(broken).await.unwrap();
            let mut sent = Vec::new();
            client.read_to_end(&mut sent).await.unwrap();
            assert_eq!(sent, [0x88, 2, 3, 234], "{broken:x?}");
            carried.await.unwrap().unwrap();
            drop(process);
        }
    }
}
