//! `docker load`.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dory_store::{LoadProgress, LoadedImage};
use dory_types::ImageReference;

use super::platform::PlatformChoice;
use super::store_error;
use crate::distribution::{ProgressMessage, ProgressSender, ProgressStream};
use crate::engine::{Engine, blocking};
use crate::{EngineError, Result};

/// How often a client is told how far a layer is.
const TICK: Duration = Duration::from_millis(100);
/// How long a layer's short id is.
const SHORT: usize = 12;

/// `POST /images/load`.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `platform`: images for another one are refused; empty for any.
    pub platform: String,
    /// `quiet`: nothing is told of layers.
    pub quiet: bool,
}

impl Engine {
    /// Reads a `docker save` or OCI layout archive, of any compression, to its end, on a thread of its own. A broken
    /// archive is told at the stream's end; nothing of it is kept then.
    ///
    /// # Errors
    /// `Invalid` for a platform that is none.
    pub fn load_images(
        &self,
        archive: impl Read + Send + 'static,
        options: &LoadOptions,
    ) -> Result<ProgressStream> {
        let inner = Arc::clone(&self.inner);
        let platform = PlatformChoice::parse(&options.platform)?;
        let quiet = options.quiet;
        Ok(ProgressStream::run(|sender| async move {
            let bars = sender.clone();
            let images = blocking(move || {
                let mut bars = Bars { sender: bars, quiet, told: Instant::now() };
                let accept = |name: &str, config: &dory_store::ImageConfig| {
                    platform.check(name, config).map_err(|error| error.message().to_owned())
                };
                let loaded =
                    inner.store.load_accepted(archive, &accept, &mut |progress| bars.tell(&progress));
                let images = loaded.map_err(store_error)?;
                for image in &images {
                    inner.publish_image("load", &image.id, &format!("sha256:{}", image.id));
                }
                Ok::<_, EngineError>(images)
            })
            .await?;
            for line in images.iter().flat_map(lines) {
                sender.send(ProgressMessage::line(line)).await;
            }
            Ok(())
        }))
    }
}

/// What dockerd says of an image that came.
fn lines(image: &LoadedImage) -> Vec<String> {
    let displaced = image.displaced.iter().map(|(name, old)| {
        format!(
            "The image {} already exists, renaming the old one with ID sha256:{old} to empty string",
            name.familiar()
        )
    });
    let named = |name: &ImageReference| format!("Loaded image: {}", name.familiar());
    let nameless = image.references.is_empty().then(|| format!("Loaded image ID: sha256:{}", image.id));
    nameless.into_iter().chain(displaced).chain(image.references.iter().map(named)).collect()
}

/// Tells a client how far the layers are.
struct Bars {
    sender: ProgressSender,
    quiet: bool,
    told: Instant,
}

impl Bars {
    fn tell(&mut self, progress: &LoadProgress<'_>) {
        let &LoadProgress { member, current, total } = progress;
        if self.quiet || (self.told.elapsed() < TICK && current < total) {
            return;
        }
        self.told = Instant::now();
        self.sender.offer(ProgressMessage::advance(short_id(member), "Loading layer", current, total));
    }
}

/// The digest in a member's name, as far as people read it: `<hex>/layer.tar` and `blobs/sha256/<hex>`.
fn short_id(member: &str) -> &str {
    let is_digest = |part: &&str| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digest = member.split(['/', '.']).find(is_digest);
    digest.map_or(member, |digest| &digest[..SHORT])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_called_by_their_digest() {
        let hex = "0123456789abcdef".repeat(4);
        for (member, id) in [
            (format!("{hex}/layer.tar"), "0123456789ab"),
            (format!("blobs/sha256/{hex}"), "0123456789ab"),
            (format!("{hex}.tar"), "0123456789ab"),
            ("3/layer.tar".to_owned(), "3/layer.tar"),
        ] {
            assert_eq!(short_id(&member), id);
        }
    }
}
