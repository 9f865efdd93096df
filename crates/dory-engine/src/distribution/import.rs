//! `docker import URL`: the engine fetches the archive, and unpacks it while it comes.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dory_registry::Download;
use tokio::sync::mpsc;

use super::progress::{ProgressMessage, ProgressSender, ProgressStream};
use super::{download, registry_error};
use crate::engine::Engine;
use crate::image::ImportOptions;
use crate::{EngineError, Result};

/// How often a client is told how far it is.
const TICK: Duration = Duration::from_millis(100);

impl Engine {
    /// Makes an image of the archive at `address`, which is http's where it names no scheme. The stream ends with the
    /// image's id.
    ///
    /// # Errors
    /// `Invalid` for what is no address or no name, `Internal` where the server does not send a file; what goes wrong
    /// later is told in the stream, and nothing is kept then.
    pub async fn import_image_from(
        &self,
        address: &str,
        mut options: ImportOptions,
    ) -> Result<ProgressStream> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        options.validate()?;
        if options.message.is_empty() {
            options.message = format!("Imported from {address}");
        }
        let mut file = self.inner.registries.download(&url).await.map_err(registry_error)?;
        let engine = self.clone();
        Ok(ProgressStream::run(|sender| async move {
            sender.send(ProgressMessage::status(format!("Downloading from {url}"))).await;
            let (pieces, source) = download::pieces();
            let (imported, fed) =
                tokio::join!(engine.import_image(source, options), feed(&mut file, pieces, &sender));
            // The unpacking's own failure is the reason why nothing more was taken.
            fed?;
            sender.send(ProgressMessage::status(imported?)).await;
            Ok(())
        }))
    }
}

/// Hands the file on until it ends or nobody takes it any more.
async fn feed(
    file: &mut Download,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    sender: &ProgressSender,
) -> Result<()> {
    let (mut current, total) = (0, file.length().unwrap_or(0));
    let mut told = Instant::now();
    loop {
        let piece = match file.next().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                // The thread must not take the break for the archive's end.
                let _ = pieces.send(Err(io::ErrorKind::ConnectionAborted.into())).await;
                return Err::<(), EngineError>(registry_error(error));
            }
        };
        current += piece.len() as u64;
        if pieces.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
        if told.elapsed() >= TICK {
            told = Instant::now();
            sender.offer(ProgressMessage::advance("", "Importing", current, total));
        }
    }
    sender.offer(ProgressMessage::advance("", "Importing", current, total));
    Ok(())
}
