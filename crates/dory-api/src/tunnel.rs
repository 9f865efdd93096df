//! Copies between a hijacked client and a process, each direction ending by itself.

use std::io;
use std::time::Duration;

use dory_engine::ClientStdin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::detach::DetachKeys;

/// Bytes that one copy moves at once: the size of a pipe, and of a large read from a unix socket.
const BUFFER_SIZE: usize = 64 << 10;

/// How long a client whose process has ended may go on sending.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What becomes of the client's input.
#[derive(Debug)]
pub(crate) enum ClientInput {
    /// It is thrown away.
    Ignored,
    /// It reaches the process, and its end is the end of the process's standard input.
    Once,
    /// It reaches the process, and its end ends the attachment and leaves the process alone.
    Shared,
    /// The same for a terminal, where keys end the attachment too.
    Terminal(DetachKeys),
}

impl ClientInput {
    /// The input as the engine takes it; only a terminal knows detach keys.
    pub(crate) fn new(stdin: ClientStdin, tty: bool, keys: DetachKeys) -> Self {
        match (stdin, tty) {
            (ClientStdin::Ignored, _) => Self::Ignored,
            (_, true) => Self::Terminal(keys),
            (ClientStdin::Once, false) => Self::Once,
            (ClientStdin::Shared, false) => Self::Shared,
        }
    }
}

/// Joins `client` and `process` until the process's output ends, the client has gone or it has detached.
///
/// The end of [`ClientInput::Once`] is passed on and the output continues: `echo x | docker run -i` needs the answer. The
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

/// Passes the client's input on. Ends only where that ends the attachment: otherwise the output decides.
async fn forward<R, W>(mut client: R, mut process: W, input: ClientInput)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let copied = match input {
        ClientInput::Ignored => copy(&mut client, &mut tokio::io::sink()).await,
        ClientInput::Once => copy(&mut client, &mut process).await,
        ClientInput::Shared => return log_early_end(copy(&mut client, &mut process).await),
        ClientInput::Terminal(keys) => {
            return log_early_end(copy_until(&mut client, &mut process, keys).await);
        }
    };
    log_early_end(copied);
    // Fails where the process has closed its side already, which is what the client wanted.
    let _ = process.shutdown().await;
    std::future::pending().await
}

fn log_early_end(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(error = %error, "Input of a stream ended early");
    }
}

/// Copies to the end; like `tokio::io::copy`, with the larger buffer that streams need.
///
/// A reader that fails has ended: a socket is reset where its other side closed it before it had read all of its own
/// input (`yes | docker run -i busybox true`), and what it sent has arrived by then.
async fn copy<R, W>(mut reader: R, writer: &mut W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let length = reader.read(&mut buffer).await.unwrap_or_else(|error| {
            tracing::debug!(error = %error, "A stream was reset");
            0
        });
        if length == 0 {
            return Ok(());
        }
        writer.write_all(&buffer[..length]).await?;
    }
}

/// Copies to the end or to the detach keys. A terminal's input is small, and so is the buffer.
async fn copy_until<R, W>(reader: &mut R, writer: &mut W, mut keys: DetachKeys) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; 4 << 10];
    let mut passed = Vec::with_capacity(4 << 10);
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        passed.clear();
        let detached = keys.filter(&buffer[..length], &mut passed);
        writer.write_all(&passed).await?;
        if detached {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use tokio::io::duplex;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn half_close_goes_through_and_output_continues() {
        let (mut client, client_side) = duplex(16);
        let (process_side, mut process) = duplex(16);
        let joined = tokio::spawn(join(client_side, process_side, ClientInput::Once, ready(())));
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
        let keys = ClientInput::Terminal(DetachKeys::default());
        let joined = tokio::spawn(join(client_side, process_side, keys, ready(())));
        client.write_all(b"ls\n\x10\x11rest").await.unwrap();
        joined.await.unwrap().unwrap();
        let mut input = Vec::new();
        process.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"ls\n");
    }

    #[tokio::test]
    async fn the_end_of_shared_input_ends_the_attachment_only() {
        for input in [ClientInput::Shared, ClientInput::Terminal(DetachKeys::default())] {
            let (mut client, client_side) = duplex(64);
            let (process_side, mut process) = duplex(64);
            let joined = tokio::spawn(join(client_side, process_side, input, ready(())));
            client.write_all(b"in").await.unwrap();
            client.shutdown().await.unwrap();
            joined.await.unwrap().unwrap();
            let mut passed = Vec::new();
            process.read_to_end(&mut passed).await.unwrap();
            assert_eq!(passed, b"in");
        }
    }

    #[tokio::test]
    async fn a_process_that_leaves_its_input_unread_ends_cleanly() {
        let (mut client, client_side) = UnixStream::pair().unwrap();
        let (process_side, mut process) = UnixStream::pair().unwrap();
        let joined = tokio::spawn(join(client_side, process_side, ClientInput::Once, ready(())));
        client.write_all(b"never read").await.unwrap();
        process.readable().await.unwrap();
        process.write_all(b"out").await.unwrap();
        drop(process);
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "out");
        drop(client);
        joined.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_end_of_output_ends_all() {
        let (mut client, client_side) = duplex(64);
        let (process_side, mut process) = duplex(64);
        let joined = tokio::spawn(join(client_side, process_side, ClientInput::Ignored, ready(())));
        client.write_all(b"ignored").await.unwrap();
        process.write_all(b"out").await.unwrap();
        drop(process);
        joined.await.unwrap().unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "out");
    }
}
