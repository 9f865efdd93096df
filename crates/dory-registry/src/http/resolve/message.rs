//! Questions and answers of the domain name system: RFC 1035, section 4, no more than a stub resolver needs.

use std::net::IpAddr;

/// Length of a message's header.
const HEADER: usize = 12;
/// The class of the Internet.
const CLASS_IN: u16 = 1;
/// The longest name as it is sent, and the longest label of one.
const NAME_LENGTH_MAX: usize = 255;
const LABEL_LENGTH_MAX: usize = 63;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordType {
    A = 1,
    /// RFC 3596.
    Aaaa = 28,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name's addresses: there may be none of this type.
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// The rest is to be had by TCP.
    Truncated,
    ServerFailure,
}

/// A question as it is sent.
#[derive(Debug)]
pub(super) struct Question {
    bytes: Vec<u8>,
    record_type: RecordType,
}

impl Question {
    /// The question for `name`; `None` where it cannot be asked for.
    pub(super) fn new(name: &str, record_type: RecordType, id: u16) -> Option<Self> {
        // Recursion desired, one question.
        let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        for label in name.split('.') {
            let length = u8::try_from(label.len())
                .ok()
                .filter(|length| (1..=LABEL_LENGTH_MAX as u8).contains(length))?;
            bytes.push(length);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        if bytes.len() - HEADER > NAME_LENGTH_MAX {
            return None;
        }
        bytes.extend((record_type as u16).to_be_bytes());
        bytes.extend(CLASS_IN.to_be_bytes());
        Some(Self { bytes, record_type })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What `message` answers; `None` where it is no answer to this question.
    ///
    /// Records of the type that was asked for count whatever name they have: a recursive server sends nothing but the
    /// chain of aliases from the name to them.
    pub(super) fn answer(&self, message: &[u8]) -> Option<Answer> {
        let flags = u16_at(message, 2)?;
        let asked = &self.bytes[HEADER..];
        let is_answer = flags & 0x8000 != 0;
        let same = message.get(..2)? == &self.bytes[..2]
            && u16_at(message, 4)? == 1
            && message.get(HEADER..HEADER + asked.len())?.eq_ignore_ascii_case(asked);
        if !is_answer || !same {
            return None;
        }
        if flags & 0x0200 != 0 {
            return Some(Answer::Truncated);
        }
        match flags & 0x000f {
            0 => self.addresses(message).map(Answer::Addresses),
            3 => Some(Answer::NoSuchName),
            _ => Some(Answer::ServerFailure),
        }
    }

    fn addresses(&self, message: &[u8]) -> Option<Vec<IpAddr>> {
        let mut position = self.bytes.len();
        let mut addresses = Vec::new();
        for _ in 0..u16_at(message, 6)? {
            position = after_name(message, position)?;
            let (record_type, class) = (u16_at(message, position)?, u16_at(message, position + 2)?);
            let length = usize::from(u16_at(message, position + 8)?);
            let data = message.get(position + 10..position + 10 + length)?;
            position += 10 + length;
            if class != CLASS_IN || record_type != self.record_type as u16 {
                continue;
            }
            addresses.push(match self.record_type {
                RecordType::A => IpAddr::from(<[u8; 4]>::try_from(data).ok()?),
                RecordType::Aaaa => IpAddr::from(<[u8; 16]>::try_from(data).ok()?),
            });
        }
        Some(addresses)
    }
}

fn u16_at(message: &[u8], position: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(position)?, *message.get(position + 1)?]))
}

/// Where the name at `position` ends: behind its last label, or behind its first pointer.
fn after_name(message: &[u8], mut position: usize) -> Option<usize> {
    loop {
        match *message.get(position)? {
            0 => return Some(position + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(position + 2),
            length if length & 0xc0 == 0 => position += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(flags: u16, count: u8, records: &[u8]) -> Option<Answer> {
        let question = Question::new("r.example", RecordType::A, 0x1234).unwrap();
        let mut message = question.bytes().to_vec();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[7] = count;
        message.extend(records);
        question.answer(&message)
    }

    #[test]
    fn reads_answers() {
        let alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 14];
        let address = [1, b'x', 0xc0, 14, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1];
        let both = [&alias[..], &address].concat();
        assert_eq!(answered(0x8180, 2, &both), Some(Answer::Addresses(vec![[192, 0, 2, 1].into()])));
        assert_eq!(answered(0x8180, 0, &[]), Some(Answer::Addresses(Vec::new())));
        assert_eq!(answered(0x8183, 0, &[]), Some(Answer::NoSuchName));
        assert_eq!(answered(0x8182, 0, &[]), Some(Answer::ServerFailure));
        assert_eq!(answered(0x8380, 0, &[]), Some(Answer::Truncated));
        assert_eq!(answered(0x0180, 0, &[]), None);
    }

    #[test]
    fn refuses_what_breaks_off() {
        let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1];
        for length in 0..address.len() {
            assert_eq!(answered(0x8180, 1, &address[..length]), None, "{length}");
        }
        assert_eq!(answered(0x8180, 1, &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]), None);
        for wrong in ["", "a..b", ".", &"a".repeat(64), &["a".repeat(60).as_str(); 5].join(".")] {
            assert!(Question::new(wrong, RecordType::A, 1).is_none(), "{wrong}");
        }
    }
}
