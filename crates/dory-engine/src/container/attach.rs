//! `attach` and `resize`.

use dory_runtime::spec::ConsoleSize;
use tokio::sync::oneshot;

use super::object::PendingAttachment;
use super::request::{AttachOptions, LogOptions};
use super::streams::{Attachment, ClientStdin, PendingStream};
use crate::engine::{Engine, blocking};
use crate::{EngineError, Result};

impl Engine {
    /// Joins a container's streams, now or when it starts: a client that attaches before the start misses no byte.
    ///
    /// # Errors
    /// `Conflict` for a paused container, `Internal` where the shim refuses.
    pub async fn attach_container(&self, reference: &str, options: AttachOptions) -> Result<Attachment> {
        let container = self.inner.registry.find(reference)?;
        let record = container.record();
        if record.state.paused {
            return Err(EngineError::conflict(format!(
                "container {reference} is paused, unpause the container before attach"
            )));
        }
        if record.state.restarting {
            return Err(EngineError::conflict(format!(
                "container {reference} is restarting, wait until the container is running"
            )));
        }
        let stdin = options.stdin && record.config.open_stdin;
        let stream = match options.stream {
            true => Some(self.join_streams(&container, stdin, options.stdout, options.stderr).await?),
            false => None,
        };
        let logs = match options.logs {
            true => {
                let options =
                    LogOptions { stdout: options.stdout, stderr: options.stderr, ..LogOptions::default() };
                Some(self.container_logs(container.id.as_str(), options).await?.stream)
            }
            false => None,
        };
        self.publish(&container, "attach");
        let stdin = match (stdin, record.config.stdin_once && !record.config.tty) {
            (false, _) => ClientStdin::Ignored,
            (true, true) => ClientStdin::Once,
            (true, false) => ClientStdin::Shared,
        };
        Ok(Attachment { container: container.id.clone(), tty: record.config.tty, stdin, logs, stream })
    }

    async fn join_streams(
        &self,
        container: &std::sync::Arc<super::object::Container>,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<PendingStream> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut live = container.live();
            if live.removed {
                return Err(EngineError::not_found(format!("No such container: {}", container.id)));
            }
            if !live.attachable {
                live.pending.push(PendingAttachment { stdin, stdout, stderr, sender });
                return Ok(PendingStream { receiver });
            }
        }
        let shim = container.shim();
        let stream = blocking(move || {
            shim.attach(stdin, stdout, stderr)
                .map_err(|error| EngineError::failed("cannot attach to the container", error))
        })
        .await?;
        // The receiver is at hand: it cannot be gone.
        drop(sender.send(stream));
        Ok(PendingStream { receiver })
    }

    /// Resizes a container's terminal.
    ///
    /// # Errors
    /// `Conflict` where it does not run.
    pub async fn resize_container(&self, reference: &str, height: u16, width: u16) -> Result<()> {
        let container = self.inner.registry.find(reference)?;
        if !container.record().runs() {
            return Err(EngineError::conflict(format!("Container {} is not running", container.id)));
        }
        let shim = container.shim();
        blocking(move || {
            shim.resize(None, ConsoleSize { height, width })
                .map_err(|error| EngineError::failed("cannot resize the terminal", error))
        })
        .await?;
        let mut attributes = container.record().event_attributes();
        attributes.insert("height".to_owned(), height.to_string());
        attributes.insert("width".to_owned(), width.to_string());
        self.inner.events.publish("container", "resize", container.id.as_str(), attributes);
        Ok(())
    }
}
