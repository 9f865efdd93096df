//! `load`, `import` and `save`: images as archives.

use std::fs::{self, File};
use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::progress::{self, Progress};
use super::split_reference;
use crate::client::{Body, ConnectionLost, Path, empty};
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, list, long_value, switch, value};
use crate::terminal;

/// Bytes per read of an archive.
const BLOCK: usize = 256 * 1024;

/// `dory load`.
pub(crate) const LOAD: Command = Command {
    usage: "[OPTIONS]",
    about: "Load images from an archive or standard input",
    flags: &[&[
        value("input", 'i', "string", "Read this file instead of standard input"),
        long_value("platform", "string", "Load only this platform"),
        switch("quiet", 'q', "Do not show progress"),
    ]],
    arity: Arity::None,
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(load(invocation)),
};

/// `dory import`.
pub(crate) const IMPORT: Command = Command {
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Make an image of the files in an archive",
    flags: &[&[
        list("change", 'c', "Apply a Dockerfile instruction to the image"),
        value("message", 'm', "string", "Message of the image's history"),
        long_value("platform", "string", "Platform of the image"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(import(invocation)),
};

/// `dory save`.
pub(crate) const SAVE: Command = Command {
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Write images to an archive or standard output",
    flags: &[&[
        value("output", 'o', "string", "Write to this file instead of standard output"),
        long_value("platform", "string", "Save only this platform"),
    ]],
    arity: Arity::AtLeast(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(save(invocation)),
};

async fn load(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let input = match arguments.value("input") {
        Some(path) => Input::open(path)?,
        None if terminal::stdin_is_terminal() => bail!("requested load from stdin, but stdin is empty"),
        None => Input::stdin(),
    };
    // Progress is drawn for people only.
    let quiet = arguments.on("quiet") || !terminal::stdout_is_terminal();
    let path = Path::new(&["images", "load"])
        .query("quiet", i32::from(quiet))
        .optional("platform", arguments.text("platform"));
    let response = invocation.client.post_stream(path.as_str(), input.into_body()).await?;
    progress::show(response, Progress::Stdout).await?;
    Ok(ExitStatus::Success)
}

async fn import(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let source = &arguments.positional()[0];
    let (repository, tag) = split_reference(arguments.positional().get(1).map_or("", String::as_str));
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    let mut path = Path::new(&["images", "create"])
        .query("fromSrc", if is_url { source } else { "-" })
        .optional("repo", repository)
        .optional("tag", tag)
        .optional("message", arguments.text("message"))
        .optional("platform", arguments.text("platform"));
    for change in arguments.list("change") {
        path = path.query("changes", change);
    }
    let body = match source.as_str() {
        _ if is_url => empty(),
        "-" => Input::stdin().into_body(),
        file => Input::open(file)?.into_body(),
    };
    let response = invocation.client.post_stream(path.as_str(), body).await?;
    progress::show(response, Progress::Stdout).await?;
    Ok(ExitStatus::Success)
}

async fn save(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let arguments = &invocation.arguments;
    let output = arguments.value("output");
    if output.is_none() && terminal::stdout_is_terminal() {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let mut path = Path::new(&["images", "get"]).optional("platform", arguments.text("platform"));
    for name in arguments.positional() {
        path = path.query("names", name);
    }
    let response = invocation.client.get_stream(path.as_str()).await?;
    write_body(response.into_body(), output).await?;
    Ok(ExitStatus::Success)
}

/// Writes an answer's body to standard output or to the file `output`, which gets its name only when it is complete.
pub(in crate::commands) async fn write_body(
    mut body: hyper::body::Incoming,
    output: Option<&str>,
) -> Result<()> {
    let partial = output.map(|path| format!("{path}.part"));
    let describe = || format!("cannot write to `{}`", output.unwrap_or("standard output"));
    let mut target: Box<dyn Write> = match &partial {
        Some(path) => Box::new(File::create(path).with_context(describe)?),
        None => Box::new(io::stdout().lock()),
    };
    let mut copy = async || {
        while let Some(frame) = body.frame().await {
            if let Ok(bytes) = frame.context(ConnectionLost)?.into_data() {
                target.write_all(&bytes).with_context(describe)?;
            }
        }
        target.flush().with_context(describe)
    };
    let mut outcome = copy().await;
    if let (Some(partial), Some(output)) = (&partial, output) {
        outcome = outcome.and_then(|()| fs::rename(partial, output).with_context(describe));
        if outcome.is_err() {
            // The failure that led here is the one worth reporting.
            let _ = fs::remove_file(partial);
        }
    }
    outcome
}

/// Something to send.
pub(in crate::commands) struct Input {
    reader: Box<dyn Read + Send>,
}

impl Input {
    /// What `reader` has.
    pub(in crate::commands) fn new(reader: impl Read + Send + 'static) -> Self {
        Self { reader: Box::new(reader) }
    }

    fn open(path: &str) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        Ok(Self { reader: Box::new(file) })
    }

    /// Standard input.
    pub(in crate::commands) fn stdin() -> Self {
        Self { reader: Box::new(io::stdin()) }
    }

    /// The content as a request's body, read on a thread of its own, a few blocks ahead.
    pub(in crate::commands) fn into_body(mut self) -> Body {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Frame<Bytes>>>(4);
        std::thread::spawn(move || {
            loop {
                let mut block = vec![0; BLOCK];
                let frame = match self.reader.read(&mut block) {
                    Ok(0) => return,
                    Ok(length) => {
                        block.truncate(length);
                        Ok(Frame::data(Bytes::from(block)))
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = frame.is_err();
                if sender.blocking_send(frame).is_err() || failed {
                    return;
                }
            }
        });
        StreamBody::new(futures_util::stream::poll_fn(move |context| receiver.poll_recv(context)))
            .boxed_unsync()
    }
}
