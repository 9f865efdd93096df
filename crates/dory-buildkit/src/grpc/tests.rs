//! Both sides against each other, over a pipe.

use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use tokio::io::duplex;

use super::*;

/// Echoes messages, and fails when it is told to.
struct Echo;

impl Service for Echo {
    fn call(self: Arc<Self>, mut call: Call) -> Answer {
        Box::pin(async move {
            match call.method() {
                "/echo/Once" => Ok(Reply::of(&call.message::<BytesMessage>().await?)),
                "/echo/Stream" => Ok(Reply::stream(|sender| async move {
                    while let Some(message) = call.messages().next::<BytesMessage>().await? {
                        if message.data == b"fail" {
                            return Err(Status::new(Code::NotFound, "as told"));
                        }
                        sender.send(&message).await?;
                    }
                    Ok(())
                })),
                "/echo/Metadata" => {
                    let data = call.metadata("name").unwrap_or_default().as_bytes().to_vec();
                    Ok(Reply::stream(|sender| async move { sender.send(&BytesMessage { data }).await }))
                }
                other => Err(Status::not_supported(other)),
            }
        })
    }
}

async fn channel() -> Channel {
    let (server, client) = duplex(64 << 10);
    tokio::spawn(serve(server, Arc::new(Echo)));
    let (channel, connection) = Channel::open(client).await.unwrap();
    tokio::spawn(connection);
    channel
}

fn bytes(data: &[u8]) -> BytesMessage {
    BytesMessage { data: data.to_vec() }
}

#[tokio::test]
async fn one_message_each_way() {
    let channel = channel().await;
    let large = vec![7; 3 << 20];
    let echoed: BytesMessage = channel.unary("/echo/Once", &bytes(&large)).await.unwrap();
    assert_eq!(echoed.data, large);
    let error = channel.unary::<_, BytesMessage>("/echo/Nothing", &bytes(b"")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Unimplemented, "/echo/Nothing is not supported by dory yet")
    );
}

#[tokio::test]
async fn streams_go_both_ways_and_end() {
    let channel = channel().await;
    let (sender, mut answers) = channel.stream("/echo/Stream", &[]).unwrap();
    for text in [b"one".as_slice(), b"two"] {
        sender.send(&bytes(text)).await.unwrap();
        assert_eq!(answers.next::<BytesMessage>().await.unwrap().unwrap().data, text);
    }
    drop(sender);
    assert_eq!(answers.next::<BytesMessage>().await, Ok(None));
    assert_eq!(answers.next::<BytesMessage>().await, Ok(None));
}

#[tokio::test]
async fn a_stream_is_under_way_before_anybody_waits_for_its_answers() {
    let channel = channel().await;
    let (sender, mut answers) = channel.stream("/echo/Stream", &[]).unwrap();
    for _ in 0..40 {
        sender.send(&bytes(b"x")).await.unwrap();
    }
    assert_eq!(answers.next::<BytesMessage>().await.unwrap().unwrap().data, b"x");
}

#[tokio::test]
async fn a_stream_ends_with_its_status() {
    let channel = channel().await;
    let (sender, mut answers) = channel.stream("/echo/Stream", &[]).unwrap();
    sender.send(&bytes(b"fail")).await.unwrap();
    let error = answers.next::<BytesMessage>().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::NotFound, "as told"));
}

#[tokio::test]
async fn metadata_goes_along() {
    let channel = channel().await;
    let (_sender, mut answers) = channel.stream("/echo/Metadata", &[("name", "value")]).unwrap();
    assert_eq!(answers.next::<BytesMessage>().await.unwrap().unwrap().data, b"value");
    assert!(channel.stream("/echo/Metadata", &[("name", "a\nb")]).is_err());
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error() {
    let (server, client) = duplex(64 << 10);
    let served = tokio::spawn(serve(server, Arc::new(Echo)));
    let (channel, connection) = Channel::open(client).await.unwrap();
    tokio::spawn(connection);
    let (sender, mut answers) = channel.stream("/echo/Stream", &[]).unwrap();
    sender.send(&bytes(b"x")).await.unwrap();
    answers.next::<BytesMessage>().await.unwrap();
    served.abort();
    let error = answers.next::<BytesMessage>().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}
