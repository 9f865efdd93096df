//! What the fuzzers of `fuzz/` call: the readers of requests, without a server around them.

use dory_engine::config::{ExecConfig, ExecStartConfig, UpdateConfig, json};
use dory_engine::{CreateContainer, NetworkCreate, VolumeCreate};

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::query::Query;
use crate::routes::container::{commit, create};
use crate::routes::network::{NetworkConnectRequest, NetworkDisconnectRequest};
use crate::websocket;

/// Reads the body of a create as API version 1.`minor` does; `None` where it is refused.
pub fn create_body(body: &[u8], minor: u8) -> Option<CreateContainer> {
    let (version, _) = crate::version::negotiate(&format!("/v1.{minor}/x")).ok()?;
    create::read(serde_json::from_slice(body).ok()?, version).ok()
}

/// Reads the body of each of the other requests that have one in JSON; those that can be written again are read again as
/// the same.
///
/// # Panics
/// They are not.
pub fn other_bodies(body: &[u8]) {
    same_again::<ExecConfig>(body);
    same_again::<ExecStartConfig>(body);
    same_again::<UpdateConfig>(body);
    let _ = json::from_slice::<VolumeCreate>(body).is_ok();
    let _ = json::from_slice::<NetworkCreate>(body).is_ok();
    let _ = json::from_slice::<NetworkConnectRequest>(body).is_ok();
    let _ = json::from_slice::<NetworkDisconnectRequest>(body).is_ok();
    if let Ok(body) = json::from_slice(body) {
        let _ = commit::config(Some(body)).is_ok();
    }
}

fn same_again<T>(body: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(read) = json::from_slice::<T>(body) else { return };
    let written = serde_json::to_vec(&read).expect("a configuration can be written");
    assert_eq!(json::from_slice::<T>(&written).as_ref(), Ok(&read));
}

/// Reads what a WebSocket's client sends, and gives what of it is for the process.
///
/// # Panics
/// The connection does not end with its client, or not with a close.
pub fn websocket(input: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        // Pongs are no longer than their pings, but for the head.
        let room = 2 * input.len() + 64;
        let (mut client, socket) = duplex(room);
        let (inner, mut process) = duplex(room);
        client.write_all(input).await.expect("there is room");
        client.shutdown().await.expect("it can be ended");
        let mut typed = Vec::new();
        let (_, read) = tokio::join!(websocket::carry(socket, inner, false), process.read_to_end(&mut typed));
        read.expect("what was typed can be read");
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).await.expect("answers can be read");
        assert!(answers.windows(2).any(|head| head == [0x88, 2]), "no close");
        typed
    })
}

/// Reads every kind of parameter out of a query.
pub fn query(text: &str) {
    let Ok(uri) = format!("/x?{text}").parse() else { return };
    let query = Query::parse(&uri);
    let _ = (query.filters().is_ok(), query.time("since").is_ok(), query.time("until").is_ok());
    let _ = (query.console_size().is_ok(), query.integer("limit").is_ok(), query.boolean("size"));
    let _ = query.all("t").count();
}
