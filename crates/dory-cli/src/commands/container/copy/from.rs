//! From a container to here.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes};
use dory_store::{IdMap, Ownership, Tree, UnpackOptions};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{ContainerStat, archive_path, local, report};
use crate::client::ConnectionLost;
use crate::command::Invocation;
use crate::commands::image::write_body;

/// Copies `path` in `container` to `target`, or writes its archive to standard output.
pub(super) async fn copy(
    invocation: &Invocation<'_>,
    container: &str,
    path: &str,
    target: &str,
) -> Result<()> {
    let client = &invocation.client;
    let mut path = path.to_owned();
    let mut rebased = None;
    if invocation.arguments.on("follow-link")
        && let Ok(stat) = ContainerStat::ask(client, container, &path).await
        && stat.is_link()
    {
        let resolved = local::preserve_ending(stat.link_target, &path);
        rebased = local::rebased_name(&path, &resolved);
        path = resolved;
    }
    let target = if target == "-" { target.to_owned() } else { checked_target(target)? };
    let response = client.get_stream(archive_path(container, &path).as_str()).await?;
    if target == "-" {
        return write_body(response.into_body(), None).await;
    }
    let stat = ContainerStat::read(response.headers())?;
    let destination = local::destination(&target)?;
    let plan = destination.plan(stat.is_directory())?;
    let (_, own) = local::split(&path);
    // The root's entries begin with the slash behind an empty name.
    let own = if own == "/" { String::new() } else { own };
    let rename = plan.name.or(rebased).map(|name| (own.into_bytes(), name.into_bytes()));
    let (sender, receiver) = mpsc::channel(4);
    let directory = plan.directory;
    let unpacking = tokio::task::spawn_blocking(move || unpack(&directory, receiver, rename));
    feed(response.into_body(), sender).await;
    let copied = unpacking.await.context("the unpacking ended early")??;
    report(invocation, copied, &target);
    Ok(())
}

/// The absolute form of a target whose directory is there.
fn checked_target(target: &str) -> Result<String> {
    let target = local::absolute(target)?;
    let (directory, _) = local::split(&target);
    if !Path::new(&directory).is_dir() {
        bail!("invalid output path: directory \"{directory}\" does not exist");
    }
    Ok(target)
}

/// Unpacks what comes beneath `directory` and nowhere else, whatever the container has for links; the bytes that came.
fn unpack(
    directory: &str,
    receiver: mpsc::Receiver<Result<Bytes>>,
    rename: Option<(Vec<u8>, Vec<u8>)>,
) -> Result<u64> {
    let root = File::open(directory).with_context(|| format!("open {directory}"))?;
    let mut archive = Archive { receiver, piece: Bytes::new(), read: 0 };
    // As with docker, the files belong to whoever copies.
    let options = UnpackOptions { keep_kinds: true, owner: Ownership::Unpacker, rename };
    Tree::new(root.into(), IdMap::default()).unpack("/", &mut archive, options)?;
    Ok(archive.read)
}

/// The answer's body for a reader on another thread.
struct Archive {
    receiver: mpsc::Receiver<Result<Bytes>>,
    piece: Bytes,
    read: u64,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        self.read += length as u64;
        Ok(length)
    }
}

async fn feed(mut body: Incoming, sender: mpsc::Sender<Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame.context(ConnectionLost) {
            Ok(frame) => match frame.into_data() {
                Ok(piece) => Ok(piece),
                Err(_) => continue,
            },
            Err(error) => Err(error),
        };
        // Whoever unpacks has given up, and says why.
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}
