//! What fuzzers reach of the server: any message of a container, up to its answer.

use std::net::IpAddr;

use dory_types::NetworkId;

use super::client::{Decision, DnsClient, DnsNetwork};
use super::directory::{DnsDirectory, DnsMember};
use super::message::{self, Code, Question};

/// Answers `message` as for a container with one neighbour, `web`.
///
/// # Panics
/// Where an answer does not belong to its question, or is longer than the client takes.
pub fn answer(message: &[u8]) {
    let network = NetworkId::from_bytes([1; 32]);
    let directory = DnsDirectory::default();
    let member = DnsMember {
        name: "web".to_owned(),
        names: vec!["web".to_owned()],
        addresses: (0..100).map(|last| IpAddr::from([172, 18, 0, last])).collect(),
    };
    directory.join(&network, "web", member);
    let networks = vec![DnsNetwork { id: network, name: "net".to_owned(), links: Vec::new() }];
    let client = DnsClient { networks, ..DnsClient::default() };
    if let Some(failure) = message::failure(message) {
        assert_eq!(failure[..2], message[..2], "another question's answer");
        assert!(failure.len() <= message.len(), "an answer that grows without an answer in it");
    }
    let Some(question) = Question::parse(message) else { return };
    if let Decision::Answer(data) = client.decide(&directory, &question) {
        let answer = question.answer(message, Code::NoError, &data, question.datagram_max);
        assert!(message::is_answer(message, &answer), "no answer to the question");
        assert!(answer.len() <= question.datagram_max.max(message.len()), "an answer that is too long");
    }
}
