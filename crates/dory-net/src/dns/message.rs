//! Messages of DNS (RFC 1035, section 4), as far as the server reads and writes them itself: one question in, answers of
//! a few types out. Everything else goes upstream and back byte for byte, and is never taken apart.

use std::net::IpAddr;

/// Length of a message's header.
pub(super) const HEADER: usize = 12;
/// The longest message that a client takes by UDP unless it says more (RFC 1035, section 4.2.1).
const DATAGRAM_MIN: usize = 512;
/// The longest label, and the longest name as it is written in a message (RFC 1035, section 2.3.4).
const LABEL_MAX: usize = 63;
const NAME_MAX: usize = 255;
/// A pointer to the question's name, which always stands right after the header.
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];
/// How long an answer may be kept, in seconds: dockerd's value.
const TIME_TO_LIVE: u32 = 600;
/// The class Internet.
const CLASS_INTERNET: u16 = 1;
/// The pseudo-record by which a client says how much it takes (RFC 6891).
const TYPE_OPT: u16 = 41;

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Mail exchangers: containers have none, but what a container is called is nobody else's name.
    Mx,
    /// Any other type; only an outer resolver knows.
    Other,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    /// All well, even where there is nothing of the wanted type.
    NoError = 0,
    /// Nobody could be asked, or nobody answered.
    ServerFailure = 2,
}

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    /// An address; of the family that was asked for.
    Address(IpAddr),
    /// A name, without the dot at its end.
    Name(String),
}

/// A message with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    /// The name in lower case, without the dot at its end; empty for the root. A name with bytes that no name of ours
    /// has (a dot within a label, no ASCII) is none.
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    /// Where the section of questions ends.
    end: usize,
    /// The longest answer by UDP that the client takes, in bytes.
    pub(super) datagram_max: usize,
}

impl Question {
    /// Reads a question; none for an answer, for another operation than a standard query, for several questions, and
    /// for what is cut off.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        if !is_question(message) || message[2] & 0x78 != 0 || number(message, 4)? != 1 {
            return None;
        }
        let (name, end) = read_name(message)?;
        let (kind, class) = (number(message, end)?, number(message, end + 2)?);
        let kind = match (class, kind) {
            (CLASS_INTERNET, 1) => Kind::A,
            (CLASS_INTERNET, 28) => Kind::Aaaa,
            (CLASS_INTERNET, 12) => Kind::Ptr,
            (CLASS_INTERNET, 15) => Kind::Mx,
            _ => Kind::Other,
        };
        let end = end + 4;
        Some(Self { name, kind, end, datagram_max: datagram_max(message, end).unwrap_or(DATAGRAM_MIN) })
    }

    /// The answer to this question, which was read from `message`, in at most `limit` bytes: answers that find no room
    /// are left out, and the answer says so.
    pub(super) fn answer(&self, message: &[u8], code: Code, data: &[Data], limit: usize) -> Vec<u8> {
        let mut answer = begin_answer(message, self.end, code);
        let mut count = 0_u16;
        for data in data {
            let before = answer.len();
            write_record(&mut answer, data);
            if answer.len() > limit {
                answer.truncate(before);
                answer[2] |= TRUNCATED;
                break;
            }
            count += 1;
        }
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer
    }
}

/// The bit of an answer that has not room for everything.
const TRUNCATED: u8 = 0x02;

/// True for a message whose header says that it asks.
pub(super) fn is_question(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 == 0
}

/// True for a message that answers `question`: the same id, and marked as an answer.
pub(super) fn is_answer(question: &[u8], message: &[u8]) -> bool {
    message.len() >= HEADER && message[..2] == question[..2] && message[2] & 0x80 != 0
}

/// True for an answer after which another resolver may know better: it failed, does not do this, or refused.
pub(super) fn is_failure(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & 0x0f, 2 | 4 | 5))
}

/// The answer that nobody could be asked: the question's header and its first section. None for a message that is cut
/// off.
pub(super) fn failure(question: &[u8]) -> Option<Vec<u8>> {
    if question.len() < HEADER {
        return None;
    }
    Some(begin_answer(question, questions_end(question)?, Code::ServerFailure))
}

/// The beginning of an answer to `question`, up to the end of the section of questions.
fn begin_answer(question: &[u8], end: usize, code: Code) -> Vec<u8> {
    const RECURSION_AVAILABLE: u8 = 0x80;
    let mut answer = question[..end].to_vec();
    // An answer, with the operation and the wish for recursion of the question.
    answer[2] = 0x80 | question[2] & 0x79;
    answer[3] = RECURSION_AVAILABLE | code as u8;
    // No answers, authorities or additions so far.
    answer[6..HEADER].fill(0);
    answer
}

/// Appends one record about the question's name.
fn write_record(answer: &mut Vec<u8>, data: &Data) {
    let (kind, bytes): (u16, Vec<u8>) = match data {
        Data::Address(IpAddr::V4(address)) => (1, address.octets().into()),
        Data::Address(IpAddr::V6(address)) => (28, address.octets().into()),
        Data::Name(name) => (12, write_name(name)),
    };
    answer.extend(QUESTION_NAME);
    answer.extend(kind.to_be_bytes());
    answer.extend(CLASS_INTERNET.to_be_bytes());
    answer.extend(TIME_TO_LIVE.to_be_bytes());
    answer.extend((bytes.len() as u16).to_be_bytes());
    answer.extend(bytes);
}

/// A name as a message has it. Names of containers and networks are longer than a label may be only where somebody tries;
/// such a label is cut.
fn write_name(name: &str) -> Vec<u8> {
    let mut written = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(LABEL_MAX)];
        if written.len() + label.len() + 2 > NAME_MAX {
            break;
        }
        written.push(label.len() as u8);
        written.extend(label);
    }
    written.push(0);
    written
}

/// Where the section of questions ends.
fn questions_end(message: &[u8]) -> Option<usize> {
    let mut position = HEADER;
    for _ in 0..number(message, 4)? {
        position = name_end(message, position)? + 4;
    }
    (position <= message.len()).then_some(position)
}

/// Where the name at `position` ends. A question has nothing before it that a pointer could refer to.
fn name_end(message: &[u8], mut position: usize) -> Option<usize> {
    loop {
        let length = usize::from(*message.get(position)?);
        if length > LABEL_MAX {
            return None;
        }
        position += 1 + length;
        if length == 0 {
            return Some(position);
        }
    }
}

/// The first question's name, and where it ends.
fn read_name(message: &[u8]) -> Option<(Option<String>, usize)> {
    let end = name_end(message, HEADER)?;
    if end - HEADER > NAME_MAX {
        return None;
    }
    let mut name = Some(String::new());
    let mut position = HEADER;
    while position + 1 < end {
        let label = &message[position + 1..][..usize::from(message[position])];
        position += 1 + label.len();
        if let Some(text) = &mut name {
            if !label.is_ascii() || label.contains(&b'.') {
                name = None;
                continue;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        }
    }
    Some((name, end))
}

/// What the client's OPT record says, if it has one; it stands first among the additional records of every client known,
/// and a question has no other sections.
fn datagram_max(message: &[u8], end: usize) -> Option<usize> {
    let (answers, authorities, additions) = (number(message, 6)?, number(message, 8)?, number(message, 10)?);
    if (answers, authorities) != (0, 0) || additions == 0 || *message.get(end)? != 0 {
        return None;
    }
    (number(message, end + 1)? == TYPE_OPT)
        .then(|| number(message, end + 3))
        .flatten()
        .map(|size| usize::from(size).max(DATAGRAM_MIN))
}

fn number(message: &[u8], position: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(position..position + 2)?.try_into().ok()?))
}

/// A question for `name`, for tests here and next door.
#[cfg(test)]
pub(super) fn question(name: &str, kind: u16, datagram_max: Option<u16>) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(datagram_max.is_some())];
    message.extend(write_name(name));
    message.extend([kind.to_be_bytes(), [0, 1]].concat());
    if let Some(size) = datagram_max {
        message.push(0);
        message.extend(TYPE_OPT.to_be_bytes());
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_questions() {
        for (name, kind, size, expected) in [
            ("web", 1, None, (Some("web"), Kind::A, 512)),
            ("Web.Net", 28, Some(4096), (Some("web.net"), Kind::Aaaa, 4096)),
            ("2.0.18.172.in-addr.arpa", 12, Some(100), (Some("2.0.18.172.in-addr.arpa"), Kind::Ptr, 512)),
            ("", 2, None, (Some(""), Kind::Other, 512)),
            ("grün", 1, None, (None, Kind::A, 512)),
        ] {
            let read = Question::parse(&question(name, kind, size)).unwrap();
            assert_eq!((read.name.as_deref(), read.kind, read.datagram_max), expected, "{name}");
        }
        let mut chaos = question("web", 1, None);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(Question::parse(&chaos).unwrap().kind, Kind::Other, "another class");
    }

    #[test]
    fn what_is_no_single_question_is_left_to_others() {
        let whole = question("a.bc", 1, Some(1232));
        for length in 0..22 {
            assert_eq!(Question::parse(&whole[..length]), None, "{length}");
            assert_eq!(failure(&whole[..length]), None, "{length}");
        }
        let changed = |position: usize, value: u8| {
            let mut message = whole.clone();
            message[position] = value;
            Question::parse(&message)
        };
        assert_eq!(changed(12, 0xc0), None, "a pointer");
        assert_eq!(changed(2, 0x81), None, "an answer");
        assert_eq!(changed(2, 0x29), None, "an update");
        assert_eq!(changed(5, 2), None, "two questions");
        assert_eq!(changed(5, 0), None, "no question");
    }

    #[test]
    fn answers_repeat_the_question_and_fit() {
        let message = question("web", 1, None);
        let question = Question::parse(&message).unwrap();
        let addresses: Vec<_> =
            (0..100).map(|last| Data::Address(IpAddr::from([172, 18, 0, last]))).collect();
        let answer = question.answer(&message, Code::NoError, &addresses[..2], 512);
        assert!(is_answer(&message, &answer));
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
        assert_eq!(answer[12..21], message[12..21]);
        assert_eq!(answer[21..37], [0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 0]);
        assert_eq!(answer.len(), 21 + 2 * 16);
        let cut = question.answer(&message, Code::NoError, &addresses, 512);
        assert!(cut.len() <= 512 && cut.len() > 512 - 16);
        assert_eq!((cut[2] & TRUNCATED, cut[7]), (TRUNCATED, 30));
        let name = question.answer(&message, Code::NoError, &[Data::Name("web.one".into())], 512);
        assert_eq!(
            name[21..],
            [&[0xc0, 12, 0, 12, 0, 1, 0, 0, 2, 88, 0, 9][..], b"\x03web\x03one\0"].concat()
        );
    }

    #[test]
    fn failures_repeat_the_question_alone() {
        let message = question("a.bc", 1, Some(1232));
        let answer = failure(&message).unwrap();
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer[12..], message[12..22]);
        assert!(is_failure(&answer) && is_answer(&message, &answer) && !is_question(&answer));
    }

    #[test]
    fn names_stay_within_their_bounds() {
        let long = "x".repeat(100);
        assert_eq!(write_name(&long)[..2], [63, b'x']);
        let many = [long.as_str(); 10].join(".");
        assert!(write_name(&many).len() <= NAME_MAX);
    }
}
