//! Copies between a hijacked client and a process, each direction ending by itself.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::detach::DetachKeys;

/// Bytes that one copy moves at once: the size of a pipe, and of a large read from a unix socket.
const BUFFER_SIZE: usize = 64 << 10;

/// How long a client whose process has ended may go on sending.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What the client may send to the process.
#[derive(Debug)]
pub(crate) enum ClientInput {
    /// Nothing: what it sends is thrown away.
    None,
    /// All of it, up to its half-close, which closes the process's standard input.
    All,
    /// All of it up to the keys that end the attachment and leave the process alone.
    UntilDetached(DetachKeys),
}

/// Joins `client` and `process` until the process's output ends, the client has gone or it has detached.
///
/// The end of the client's input is passed on and the output continues: `echo x | docker run -i` needs the answer. The
/// end of the output ends everything, whatever the client still wants to send; `ended` runs before the client sees it.
///
/// # Errors
/// A failed write to the client. A process that takes no more input is no error.
pub(crate) async fn join<C, P, E>(client: C, process: P, input: ClientInput, ended: E) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    P: AsyncRead + AsyncWrite,
    E: Future<Output = ()>,
{
    let (mut client_reader, mut client_writer) = tokio::io::split(client);
    let (process_reader, process_writer) = tokio::io::split(process);
    let output = async {
        copy(process_reader, &mut client_writer).await?;
        ended.await;
        client_writer.shutdown().await
    };
    tokio::select! {
        result = output => result?,
        () = forward(&mut client_reader, process_writer, input) => return Ok(()),
    }
    // Closing with unread input would reset the connection, and the client might lose the end of the output.
    let _ = tokio::time::timeout(DRAIN_TIME, copy(&mut client_reader, &mut tokio::io::sink())).await;
    Ok(())
}

/// Passes the client's input on. Ends only where the client detached: otherwise the output decides.
async fn forward<R, W>(mut client: R, mut process: W, input: ClientInput)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let detached = match input {
        ClientInput::None => copy(&mut client, &mut tokio::io::sink()).await.map(|()| false),
        ClientInput::All => copy(&mut client, &mut process).await.map(|()| false),
        ClientInput::UntilDetached(keys) => copy_until(&mut client, &mut process, keys).await,
    };
    match detached {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => tracing::debug!(error = %error, "Input of a stream ended early"),
    }
    // Fails where the process has closed its side already, which is what the client wanted.
    let _ = process.shutdown().await;
    std::future::pending().await
}

/// Copies to the end; like `tokio::io::copy`, with the larger buffer that streams need.
async fn copy<R, W>(mut reader: R, writer: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..length]).await?;
    }
}

/// Copies to the end or to the detach keys; true for the latter. A terminal's input is small, and so is the buffer.
async fn copy_until<R, W>(reader: &mut R, writer: &mut W, mut keys: DetachKeys) -> io::Result<bool>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 4 << 10];
    let mut passed = Vec::with_capacity(4 << 10);
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok(false);
        }
        passed.clear();
        let detached = keys.filter(&buffer[..length], &mut passed);
        writer.write_all(&passed).await?;
        if detached {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use tokio::io::duplex;

    #[tokio::test]
    async fn half_close_goes_through_and_output_continues() {
        let (mut client, client_side) = duplex(16);
        let (process_side, mut process) = duplex(16);
        let joined = tokio::spawn(join(client_side, process_side, ClientInput::All, ready(())));
        let process = tokio::spawn(async move {
            let mut input = Vec::new();
            process.read_to_end(&mut input).await.unwrap();
            process.write_all(&input).await.unwrap();
            process.write_all(b" and more than sixteen bytes").await.unwrap();
        });
        client.write_all(b"in").await.unwrap();
        client.shutdown().await.unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "in and more than sixteen bytes");
        process.await.unwrap();
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn detach_keys_end_the_stream_and_not_the_process() {
        let (mut client, client_side) = duplex(64);
        let (process_side, mut process) = duplex(64);
        let keys = ClientInput::UntilDetached(DetachKeys::default());
        let joined = tokio::spawn(join(client_side, process_side, keys, ready(())));
        client.write_all(b"ls\n\x10\x11rest").await.unwrap();
        joined.await.unwrap().unwrap();
        let mut input = Vec::new();
        process.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"ls\n");
    }

    #[tokio::test]
    async fn the_end_of_output_ends_all() {
        let (mut client, client_side) = duplex(64);
        let (process_side, mut process) = duplex(64);
        let joined = tokio::spawn(join(client_side, process_side, ClientInput::None, ready(())));
        client.write_all(b"ignored").await.unwrap();
        process.write_all(b"out").await.unwrap();
        drop(process);
        joined.await.unwrap().unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "out");
    }
}
