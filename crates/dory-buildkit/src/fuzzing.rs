//! The readers of foreign bytes, opened to the fuzzers of `fuzz/`.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use prost::Message;

use crate::attributes::Attributes;
use crate::filesync::{Script, receive};
use crate::solve::Wishes;

/// Receives packets into `root`; `bytes` are messages, each behind two bytes of its length.
pub fn receive_packets(root: BorrowedFd<'_>, mut bytes: &[u8]) {
    let mut packets = VecDeque::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (packet, rest) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        packets.extend(Packet::decode(packet));
        bytes = rest;
    }
    // Failing is right; anything outside of the root is not.
    let _ = receive(root, &mut Script(packets), &mut |_| {});
}

/// Reads a request to solve: as a message, and its attributes and exporters.
pub fn solve_request(bytes: &[u8]) {
    let Ok(request) = SolveRequest::decode(bytes) else { return };
    let _ = Attributes::read(&request.frontend_attrs);
    let exporters: Vec<_> =
        request.exporters.iter().map(|entry| (entry.r#type.as_str(), &entry.attrs)).collect();
    let _ = Wishes::default().read_exporters(exporters);
}

/// Reads attributes, one `name=value` a line.
pub fn attributes(text: &str) {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let attributes: HashMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let _ = Attributes::read(&attributes);
}
