//! A sender for tests and fuzzers.

use std::collections::VecDeque;
use std::io;

use bollard_buildkit_proto::fsutil::types::Packet;

use super::packet::Conversation;

/// Says what it was told to say, and hears nothing.
#[derive(Debug)]
pub struct Script(pub VecDeque<Packet>);

impl Conversation for Script {
    fn next(&mut self) -> io::Result<Option<Packet>> {
        Ok(self.0.pop_front())
    }

    fn send(&mut self, _packet: Packet) -> io::Result<()> {
        Ok(())
    }
}
