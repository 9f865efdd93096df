//! A container's or an exec's standard streams on the user's own.

use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use dory_log::{FrameDecoder, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::{Client, Hijacked, Path};
use crate::failure::{Exit, code};
use crate::terminal::{self, RawMode};

/// Bytes per read; a pipe holds 64 KiB.
const BLOCK: usize = 64 * 1024;
/// Docker's default way out of an attached terminal.
const DEFAULT_DETACH_KEYS: &str = "ctrl-p,ctrl-q";

/// Which streams are joined, and how.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// The stream is a terminal's: one direction each, no frames.
    pub(crate) tty: bool,
    /// Forward standard input.
    pub(crate) stdin: bool,
    /// Print standard output (and everything of a terminal).
    pub(crate) stdout: bool,
    /// Print standard error.
    pub(crate) stderr: bool,
    /// Keys that end the session and leave the container running.
    pub(crate) detach_keys: Vec<u8>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The other side closed the stream.
    Closed,
    /// The user pressed the detach keys.
    Detached,
}

/// Refuses `-t` where there is no terminal to read from, as Docker does before it creates anything.
///
/// # Errors
/// An exit with Docker's text.
pub(crate) fn check_tty(stdin: bool, tty: bool) -> Result<()> {
    if stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Exit { text: "the input device is not a TTY".to_owned(), code: 1 }.into());
    }
    Ok(())
}

/// Joins the streams until the other side closes or the user detaches.
pub(crate) async fn join(connection: Hijacked, streams: &Streams) -> Result<SessionEnd> {
    let raw_terminal = streams.tty && streams.stdin && terminal::stdin_is_terminal();
    let _raw = raw_terminal.then(RawMode::enter).transpose()?;
    let (reader, writer) = tokio::io::split(connection);
    let input =
        async { if streams.stdin { forward_input(writer, streams).await } else { Ok(InputEnd::Eof) } };
    let output = print_output(reader, streams);
    tokio::pin!(input, output);
    let mut input_open = true;
    loop {
        tokio::select! {
            result = &mut output => {
                result?;
                return Ok(SessionEnd::Closed);
            }
            // When standard input ends, output may still come.
            result = &mut input, if input_open => match result? {
                InputEnd::Eof => input_open = false,
                InputEnd::Detach => return Ok(SessionEnd::Detached),
            }
        }
    }
}

/// Why standard input is not forwarded any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputEnd {
    Eof,
    Detach,
}

async fn forward_input(mut writer: WriteHalf<Hijacked>, streams: &Streams) -> Result<InputEnd> {
    let mut input = read_stdin();
    // Without a terminal the bytes are data, in which the detach keys may well occur.
    let mut keys = streams.tty.then(|| DetachKeys::new(&streams.detach_keys));
    while let Some(bytes) = input.recv().await {
        let Some(keys) = &mut keys else {
            if writer.write_all(&bytes).await.is_err() {
                return Ok(InputEnd::Eof);
            }
            continue;
        };
        let (forward, detached) = keys.filter(&bytes);
        let written = writer.write_all(&forward).await;
        if detached {
            return Ok(InputEnd::Detach);
        }
        if written.is_err() {
            return Ok(InputEnd::Eof);
        }
    }
    // The half-close tells the container that its input is complete. It fails where the container has gone already,
    // and then the output's end says so.
    let _ = writer.shutdown().await;
    Ok(InputEnd::Eof)
}

/// Reads standard input on a thread of its own: terminals, pipes and files alike, without changing a mode that they
/// share with other processes. The thread ends with the process.
fn read_stdin() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut block = vec![0; BLOCK];
        loop {
            match stdin.read(&mut block) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(Bytes::copy_from_slice(&block[..length])).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // As for Docker, an input that cannot be read is one that has ended.
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn print_output(mut reader: ReadHalf<Hijacked>, streams: &Streams) -> Result<()> {
    let mut output = OutputPrinter::new(streams.tty, streams.stdout, streams.stderr);
    let mut block = vec![0; BLOCK];
    loop {
        // A reset instead of a close happens when the engine ends the session with input unread.
        let length = reader.read(&mut block).await.unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        output.print(&block[..length]).await?;
    }
}

/// Writes a container's output to the process's own streams.
#[derive(Debug)]
pub(crate) struct OutputPrinter {
    tty: bool,
    stdout: Option<tokio::io::Stdout>,
    stderr: Option<tokio::io::Stderr>,
    decoder: FrameDecoder,
}

impl OutputPrinter {
    /// A printer for a raw stream (`tty`) or one of frames, of which the wanted streams are printed.
    pub(crate) fn new(tty: bool, stdout: bool, stderr: bool) -> Self {
        Self {
            tty,
            stdout: stdout.then(tokio::io::stdout),
            stderr: stderr.then(tokio::io::stderr),
            decoder: FrameDecoder::new(),
        }
    }

    /// Prints what is in `bytes`, the next piece of the stream.
    pub(crate) async fn print(&mut self, mut bytes: &[u8]) -> Result<()> {
        if self.tty {
            return self.write(Stream::Stdout, bytes).await;
        }
        while let Some((stream, piece)) = self.decoder.next(&mut bytes)? {
            self.write(stream, piece).await?;
        }
        Ok(())
    }

    async fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        match (stream, &mut self.stdout, &mut self.stderr) {
            (Stream::Stdin | Stream::Stdout, Some(stdout), _) => {
                stdout.write_all(bytes).await.context("cannot write to standard output")?;
                stdout.flush().await.context("cannot write to standard output")
            }
            (Stream::Stderr, _, Some(stderr)) => {
                stderr.write_all(bytes).await.context("cannot write to standard error")?;
                stderr.flush().await.context("cannot write to standard error")
            }
            _ => Ok(()),
        }
    }
}

/// Finds the detach keys in what is typed.
#[derive(Debug)]
struct DetachKeys<'k> {
    keys: &'k [u8],
    matched: usize,
}

impl<'k> DetachKeys<'k> {
    fn new(keys: &'k [u8]) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of `input` goes on to the container, and whether the keys are complete.
    ///
    /// A key that may begin the sequence is held back until the next one shows whether it did.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut forward = Vec::with_capacity(input.len());
        for &byte in input {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (forward, true);
                }
                continue;
            }
            forward.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if self.keys.first() == Some(&byte) {
                self.matched = 1;
            } else {
                forward.push(byte);
            }
        }
        (forward, false)
    }
}

/// Reads `--detach-keys`: letters and `ctrl-x`, separated by commas; the default where `text` is empty.
///
/// # Errors
/// A text that names the key that does not exist.
pub(crate) fn parse_detach_keys(text: &str) -> Result<Vec<u8>> {
    let text = if text.is_empty() { DEFAULT_DETACH_KEYS } else { text };
    text.split(',')
        .map(|key| parse_key(key).with_context(|| format!("invalid detach keys (`{text}`)")))
        .collect()
}

fn parse_key(key: &str) -> Result<u8> {
    match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([letter], _) => Ok(*letter),
        (_, Some([letter @ b'a'..=b'z'])) => Ok(letter - b'a' + 1),
        (_, Some(b"@")) => Ok(0),
        (_, Some([letter @ (b'[' | b'\\' | b']' | b'^' | b'_')])) => Ok(letter - b'@'),
        _ => bail!("unknown key `{key}`"),
    }
}

/// The size of the user's window, kept up to date on the other side.
pub(crate) struct Resizer<'c, 's> {
    client: &'c Client<'s>,
    path: Path,
}

impl<'c, 's> Resizer<'c, 's> {
    /// Keeps the terminal at `path` (`/containers/x/resize`, `/exec/x/resize`) as large as the user's.
    pub(crate) fn new(client: &'c Client<'s>, path: Path) -> Self {
        Self { client, path }
    }

    /// Tells the size once, and again after every change; never returns.
    pub(crate) async fn run(&self) -> Result<std::convert::Infallible> {
        let mut changes = signal(SignalKind::window_change()).context("cannot watch the window's size")?;
        loop {
            if let Some(size) = terminal::window_size() {
                let path = self.path.clone().query("h", size.rows).query("w", size.columns);
                // A process that has just ended has no window; that it ended is said elsewhere.
                let _ = self.client.post(path.as_str()).await;
            }
            changes.recv().await;
        }
    }
}

/// HUP, INT, QUIT and TERM.
const ENDING_SIGNALS: [u8; 4] = [1, 2, 3, 15];
/// Time for the engine to pass a signal on.
const DELIVERY_LIMIT: Duration = Duration::from_secs(5);
/// Time for the exit of a container that could not be signalled to become known.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Signals that go to the container instead of ending the command line.
const FORWARDED_SIGNALS: [(u8, &str); 9] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
];

/// Passes signals on to a container.
pub(crate) struct SignalProxy {
    received: mpsc::Receiver<(u8, &'static str)>,
}

impl SignalProxy {
    /// Takes the signals over from now on, so that none gets lost between the container's start and the proxy's.
    pub(crate) fn new() -> Result<Self> {
        let (sender, received) = mpsc::channel(16);
        for (number, name) in FORWARDED_SIGNALS {
            let source = signal(SignalKind::from_raw(number.into()))
                .with_context(|| format!("cannot catch SIG{name}"))?;
            tokio::spawn(relay(source, (number, name), sender.clone()));
        }
        Ok(Self { received })
    }

    /// Sends each signal to the container `id`.
    ///
    /// # Errors
    /// An exit with 128 and the signal's number, where a signal that means "end" cannot be delivered and the container
    /// does not turn out to have ended anyway: otherwise nothing but SIGKILL would end a command whose engine hangs.
    pub(crate) async fn run(&mut self, client: &Client<'_>, id: &str) -> Result<std::convert::Infallible> {
        loop {
            let Some((number, name)) = self.received.recv().await else { std::future::pending().await };
            let path = Path::new(&["containers", id, "kill"]).query("signal", name);
            let delivery = tokio::time::timeout(DELIVERY_LIMIT, client.post(path.as_str())).await;
            if !matches!(delivery, Ok(Ok(()))) && ENDING_SIGNALS.contains(&number) {
                tokio::time::sleep(EXIT_GRACE).await;
                return Err(Exit { text: String::new(), code: code::SIGNALLED + number }.into());
            }
        }
    }
}

async fn relay(mut source: Signal, caught: (u8, &'static str), sender: mpsc::Sender<(u8, &'static str)>) {
    while source.recv().await.is_some() && sender.send(caught).await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_detach_keys_across_reads() {
        let mut keys = DetachKeys::new(&[16, 17]);
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c\x10\x10"), (b"\x10c\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (Vec::new(), true));
        assert_eq!(DetachKeys::new(&[16, 17]).filter(b"x\x10\x11y"), (b"x".to_vec(), true));
    }

    #[test]
    fn reads_detach_keys() {
        assert_eq!(parse_detach_keys("").unwrap(), [16, 17]);
        assert_eq!(parse_detach_keys("a,ctrl-@,ctrl-[,ctrl-_").unwrap(), [b'a', 0, 27, 31]);
        for wrong in ["ctrl-", "ctrl-A", "ab", "a,,b"] {
            assert!(parse_detach_keys(wrong).is_err(), "{wrong}");
        }
    }
}
