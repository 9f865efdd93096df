//! Docker's JSON stream of messages about long work: API 1.51, `CreateImageInfo` and `PushImageInfo`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use dory_types::ByteSize;
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{EngineError, Result};

/// How many messages wait for a client that is slow to read; progress is skipped meanwhile, nothing else is.
const QUEUE: usize = 64;
/// How wide the bar in `progress` is; old clients print it as it comes.
const BAR_WIDTH: usize = 50;

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProgressMessage {
    /// What happens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// A line for people, with its end; what `load` says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// How far it is; an empty object where that makes no sense, as dockerd has it.
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// The same as a bar and two sizes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// Of what: a layer's short digest, or a tag.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The failure that ends the stream, with its text once more in `error`.
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// The failure's text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Facts for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

/// How far something is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProgressDetail {
    /// What is done.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorDetail {
    /// The text.
    pub message: String,
}

impl ProgressMessage {
    /// A message about the work as a whole.
    pub(crate) fn status(status: impl Into<String>) -> Self {
        Self { status: status.into(), ..Self::default() }
    }

    /// A line for people.
    pub(crate) fn line(text: impl std::fmt::Display) -> Self {
        Self { stream: format!("{text}\n"), ..Self::default() }
    }

    /// A message about one part of it.
    pub(crate) fn of(id: &str, status: impl Into<String>) -> Self {
        let (status, id) = (status.into(), id.to_owned());
        Self { status, id, progress_detail: Some(ProgressDetail::default()), ..Self::default() }
    }

    /// How far one part is, in bytes.
    pub(crate) fn advance(id: &str, status: &str, current: u64, total: u64) -> Self {
        Self {
            progress_detail: Some(ProgressDetail { current, total }),
            progress: bar(current, total),
            ..Self::of(id, status)
        }
    }

    /// The failure that ends the stream.
    pub(crate) fn failure(error: &EngineError) -> Self {
        let message = error.message().to_owned();
        Self { error: message.clone(), error_detail: Some(ErrorDetail { message }), ..Self::default() }
    }
}

/// `[=====>    ]   1.2MB/3.4MB`, as dockerd's clients know it: whole percents halved, and the arrow there to the end.
fn bar(current: u64, total: u64) -> String {
    let current_size = ByteSize(current).decimal();
    if total == 0 || current > total {
        return format!("{current_size:>8}");
    }
    let done = (u128::from(current) * 100 / u128::from(total) / 2) as usize;
    let spaces = " ".repeat(BAR_WIDTH - done);
    format!("[{}>{spaces}] {current_size:>8}/{}", "=".repeat(done), ByteSize(total).decimal())
}

/// Where a client's messages go.
#[derive(Debug, Clone)]
pub(crate) struct ProgressSender(mpsc::Sender<ProgressMessage>);

impl ProgressSender {
    /// Tells something that the client has to know.
    pub(crate) async fn send(&self, message: ProgressMessage) {
        // A client that has gone ends the work, which drops this very call.
        let _ = self.0.send(message).await;
    }

    /// Tells how far something is, where the client has read what it was told before.
    pub(crate) fn offer(&self, message: ProgressMessage) {
        let _ = self.0.try_send(message);
    }
}

/// The messages of one client; dropping it ends the client's part in the work.
#[derive(Debug)]
pub struct ProgressStream {
    messages: mpsc::Receiver<ProgressMessage>,
    work: JoinHandle<()>,
}

impl ProgressStream {
    /// Does `work` and tells of its failure, if there is one, at the end.
    pub(crate) fn run<F: Future<Output = Result<()>> + Send + 'static>(
        work: impl FnOnce(ProgressSender) -> F,
    ) -> Self {
        let (sender, messages) = mpsc::channel(QUEUE);
        let sender = ProgressSender(sender);
        let future = work(sender.clone());
        let work = tokio::spawn(async move {
            if let Err(error) = future.await {
                tracing::debug!(%error, "Transfer failed");
                sender.send(ProgressMessage::failure(&error)).await;
            }
        });
        Self { messages, work }
    }

    /// The next message; `None` after the last one.
    pub async fn next(&mut self) -> Option<ProgressMessage> {
        self.messages.recv().await
    }
}

impl Stream for ProgressStream {
    type Item = ProgressMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ProgressMessage>> {
        self.messages.poll_recv(context)
    }
}

impl Drop for ProgressStream {
    fn drop(&mut self) {
        self.work.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_as_dockerd_writes_them() {
        for (message, json) in [
            (
                ProgressMessage::of("5cc84ad355aa", "Pulling fs layer"),
                r#"{"status":"Pulling fs layer","progressDetail":{},"id":"5cc84ad355aa"}"#,
            ),
            (ProgressMessage::status("Digest: sha256:00"), r#"{"status":"Digest: sha256:00"}"#),
            (
                ProgressMessage::advance("5cc84ad355aa", "Downloading", 32300, 760000),
                "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":32300,\"total\":760000},\
                 \"progress\":\"[==>                                                ]   32.3kB/760kB\",\
                 \"id\":\"5cc84ad355aa\"}",
            ),
            (
                ProgressMessage::failure(&EngineError::not_found("gone")),
                r#"{"errorDetail":{"message":"gone"},"error":"gone"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&message).unwrap(), json);
        }
        assert_eq!(bar(7, 7), format!("[{}>]       7B/7B", "=".repeat(50)));
        assert_eq!(bar(8, 7), "      8B");
    }
}
