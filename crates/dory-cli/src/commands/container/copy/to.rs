//! From here to a container.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use dory_store::{IdMap, Tree};

use super::{ContainerStat, Destination, archive_path, local, report};
use crate::client::Body;
use crate::command::Invocation;
use crate::commands::image::Input;

/// Bytes that are written to the archive at once.
const BUFFER: usize = 256 << 10;

/// Copies `source`, or the archive from standard input, to `path` in `container`.
pub(super) async fn copy(
    invocation: &Invocation<'_>,
    container: &str,
    source: &str,
    path: &str,
) -> Result<()> {
    let client = &invocation.client;
    let mut destination = Destination { path: path.to_owned(), is_directory: None };
    // What cannot be looked at is left to the engine to refuse.
    let mut stat = ContainerStat::ask(client, container, path).await;
    if let Ok(link) = &stat
        && link.is_link()
    {
        destination.path.clone_from(&link.link_target);
        stat = ContainerStat::ask(client, container, &destination.path).await;
    }
    if let Ok(stat) = &stat {
        if stat.is_special() {
            bail!("destination \"{container}:{path}\" must be a directory or a regular file");
        }
        destination.is_directory = Some(stat.is_directory());
    }
    let copied = Arc::new(AtomicU64::new(0));
    let (directory, body) = if source == "-" {
        if destination.is_directory != Some(true) {
            bail!("destination \"{container}:{path}\" must be a directory");
        }
        (destination.path.clone(), Input::stdin().into_body())
    } else {
        let follow = invocation.arguments.on("follow-link");
        send(source, follow, &destination, Arc::clone(&copied))?
    };
    let request = archive_path(container, &directory)
        .query("noOverwriteDirNonDir", true)
        .flag("copyUIDGID", invocation.arguments.on("archive"));
    client.put_stream(request.as_str(), body).await?;
    report(invocation, copied.load(Ordering::Relaxed), &format!("{container}:{}", destination.path));
    Ok(())
}

/// Where in the container the archive goes, and the archive, made on a thread of its own while it is sent.
fn send(
    source: &str,
    follow: bool,
    destination: &Destination,
    copied: Arc<AtomicU64>,
) -> Result<(String, Body)> {
    let path = local::absolute(source)?;
    let (path, rebased) = local::source(&path, follow)?;
    let metadata = fs::symlink_metadata(&path).with_context(|| format!("lstat {path}"))?;
    let plan = destination.plan(metadata.is_dir())?;
    let name = plan.name.or(rebased);
    let root: OwnedFd = fs::File::open("/").context("open /")?.into();
    let (reader, writer) = io::pipe().context("cannot make a pipe")?;
    let (done, packed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let tree = Tree::new(root, IdMap::default());
        let mut sink = BufWriter::with_capacity(BUFFER, Counter { writer, copied });
        let result = tree.find(&path).and_then(|found| match &name {
            Some(name) => found.pack_as(name.as_bytes(), &mut sink),
            None => found.pack(&mut sink),
        });
        // Before the pipe closes: its reader asks why there is no more.
        let _ = done.send(result.map_err(io::Error::other));
    });
    Ok((plan.directory, Input::new(Packed { reader, packed }).into_body()))
}

/// The archive; it ends well only where the packing did.
struct Packed {
    reader: io::PipeReader,
    packed: std::sync::mpsc::Receiver<io::Result<()>>,
}

impl io::Read for Packed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        if length == 0 {
            // A thread that is gone without a word has said it before.
            self.packed.try_recv().unwrap_or(Ok(()))?;
        }
        Ok(length)
    }
}

/// Counts what goes through.
struct Counter {
    writer: io::PipeWriter,
    copied: Arc<AtomicU64>,
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.writer.write(bytes)?;
        self.copied.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
