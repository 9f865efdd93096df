//! Records on their way to a process that may wait for the disk.
//!
//! dockerd's ring of `mode=non-blocking` (moby `daemon/logger/ring.go`): what is queued has a limit, and a record that finds
//! no room is lost as a whole; the limit counts texts, and one record may be there however long it is.

use std::collections::VecDeque;
use std::io;

/// Bytes before each record: its length, little endian.
const HEAD: usize = 4;

/// Records in the order of their coming, each with its length before it.
#[derive(Debug)]
pub struct RecordQueue {
    limit: u64,
    bytes: VecDeque<u8>,
    records: VecDeque<Queued>,
    /// The length of the queued texts.
    texts: u64,
    /// How much of the first record is gone from `bytes`.
    sent: usize,
}

#[derive(Debug)]
struct Queued {
    /// What of `bytes` is its.
    length: usize,
    text: u64,
}

impl RecordQueue {
    /// An empty queue for `limit` bytes of text.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, bytes: VecDeque::new(), records: VecDeque::new(), texts: 0, sent: 0 }
    }

    /// Adds the record that `encode` makes of `text` bytes of output, where there is room for it.
    pub(super) fn add(&mut self, text: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let text = text as u64;
        if !self.records.is_empty() && self.texts + text > self.limit {
            return;
        }
        let mut record = vec![0; HEAD];
        encode(&mut record);
        let length = (record.len() - HEAD) as u32;
        record[..HEAD].copy_from_slice(&length.to_le_bytes());
        self.bytes.extend(&record);
        self.records.push_back(Queued { length: record.len(), text });
        self.texts += text;
    }

    /// True where everything was sent.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Has `write` take bytes for as long as it takes any.
    ///
    /// # Errors
    /// Those of `write`; what it took before is sent.
    pub fn send(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.bytes.is_empty() {
            let count = write(self.bytes.as_slices().0)?;
            if count == 0 {
                break;
            }
            self.bytes.drain(..count);
            self.sent += count;
            self.forget_sent();
        }
        Ok(())
    }

    /// Drops a record of which a reader that is gone got a part; another reader begins with a whole one.
    pub fn begin_anew(&mut self) {
        if self.sent > 0
            && let Some(first) = self.records.pop_front()
        {
            self.bytes.drain(..first.length - self.sent);
            self.texts -= first.text;
            self.sent = 0;
        }
    }

    fn forget_sent(&mut self) {
        while let Some(first) = self.records.front()
            && self.sent >= first.length
        {
            self.sent -= first.length;
            self.texts -= first.text;
            self.records.pop_front();
        }
    }

    /// The first record of what a queue sent, where it is there as a whole.
    pub(super) fn first_record(framed: &[u8]) -> Option<&[u8]> {
        let (head, rest) = framed.split_first_chunk::<HEAD>()?;
        rest.get(..u32::from_le_bytes(*head) as usize)
    }

    /// The length of `record` with what stands before it.
    pub(super) fn framed_length(record: &[u8]) -> usize {
        HEAD + record.len()
    }
}
