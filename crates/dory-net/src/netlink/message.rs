//! Messages as bytes: a header, a fixed part, then attributes (type, length, value), which nest.

/// Header flags of requests and answers (`include/uapi/linux/netlink.h`).
pub(crate) mod flags {
    /// `NLM_F_REQUEST`.
    pub(crate) const REQUEST: u16 = 0x1;
    /// `NLM_F_ACK`: answer even when all is well.
    pub(crate) const ACK: u16 = 0x4;
    /// `NLM_F_DUMP`.
    pub(crate) const DUMP: u16 = 0x300;
    /// `NLM_F_REPLACE`.
    pub(crate) const REPLACE: u16 = 0x100;
    /// `NLM_F_EXCL`.
    pub(crate) const EXCL: u16 = 0x200;
    /// `NLM_F_CREATE`.
    pub(crate) const CREATE: u16 = 0x400;
    /// `NLM_F_APPEND`.
    pub(crate) const APPEND: u16 = 0x800;
    /// `NLM_F_CAPPED` of an acknowledgement: only the refused request's header is repeated.
    pub(crate) const CAPPED: u16 = 0x100;
    /// `NLM_F_ACK_TLVS` of an acknowledgement: attributes follow.
    pub(crate) const ACK_TLVS: u16 = 0x200;
}

/// `NLA_F_NESTED`: the attribute's value is attributes.
const NLA_F_NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `length` rounded up to netlink's alignment of four bytes.
pub(crate) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request under construction.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    kind: u16,
    flags: u16,
    operation: String,
    body: Vec<u8>,
}

impl Message {
    /// A request of type `kind` whose refusal reads "cannot `operation`". `fixed` is the header of its family.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8], operation: impl Into<String>) -> Self {
        let mut body = fixed.to_vec();
        body.resize(aligned(body.len()), 0);
        Self { kind, flags: flags | flags::REQUEST, operation: operation.into(), body }
    }

    /// What is asked for.
    pub(crate) fn operation(&self) -> &str {
        &self.operation
    }

    /// Adds an attribute with the bytes of `value`.
    ///
    /// # Panics
    /// When `value` is longer than an attribute can be (65,531 bytes): callers split before.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(4 + value.len()).expect("attributes are split before they reach 64 KiB");
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(aligned(self.body.len()), 0);
        self
    }

    /// Adds a number of one byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// Adds a 32-bit number in the machine's byte order, as rtnetlink has them.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Adds a 32-bit number in network byte order, as nf_tables has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a string with its closing NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds bytes that are no attribute: the fixed header that some nested attributes begin with.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.body.extend(bytes);
        self.body.resize(aligned(self.body.len()), 0);
        self
    }

    /// Adds an attribute whose value is what `fill` adds.
    ///
    /// # Panics
    /// As [`Self::bytes`].
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.body.len();
        self.body.extend([0; 4]);
        fill(self);
        let length =
            u16::try_from(self.body.len() - start).expect("attributes are split before they reach 64 KiB");
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.body[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }

    /// Appends the finished message to `datagram`.
    pub(super) fn append_to(&self, datagram: &mut Vec<u8>, sequence: u32) {
        let length = u32::try_from(16 + self.body.len()).expect("a message is far below 4 GiB");
        datagram.extend(length.to_ne_bytes());
        datagram.extend(self.kind.to_ne_bytes());
        datagram.extend(self.flags.to_ne_bytes());
        datagram.extend(sequence.to_ne_bytes());
        datagram.extend(0u32.to_ne_bytes());
        datagram.extend(&self.body);
    }
}

/// The attributes of an answer; what does not fit ends the iteration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads `bytes` as attributes.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Reads what follows the first `fixed` bytes of `payload`.
    pub(crate) fn after(payload: &'a [u8], fixed: usize) -> Self {
        Self::new(payload.get(fixed..).unwrap_or_default())
    }

    /// The value of the first attribute of type `kind`.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The 32-bit number of type `kind`, in the machine's byte order.
    pub(crate) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The 32-bit number of type `kind`, in network byte order.
    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// The string of type `kind`, without its closing NUL.
    pub(crate) fn text(self, kind: u16) -> Option<&'a str> {
        std::str::from_utf8(self.find(kind)?).ok().map(|text| text.trim_end_matches('\0'))
    }

    /// The attributes within the first attribute of type `kind`.
    pub(crate) fn nested(self, kind: u16) -> Self {
        Self::new(self.find(kind).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = self.rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_can_be_read() {
        let mut message = Message::new(16, flags::ACK, &[9; 6], "test");
        message.text(3, "eth0").u32(4, 1500).nest(18, |inner| {
            inner.text(1, "veth").be32(2, 7);
        });
        let mut datagram = Vec::new();
        message.append_to(&mut datagram, 5);
        assert_eq!(datagram.len(), u32::from_ne_bytes(datagram[..4].try_into().unwrap()) as usize);
        let attributes = Attributes::after(&datagram, 16 + 8);
        assert_eq!(attributes.text(3), Some("eth0"));
        assert_eq!(attributes.u32(4), Some(1500));
        assert_eq!(attributes.nested(18).text(1), Some("veth"));
        assert_eq!(attributes.nested(18).be32(2), Some(7));
        assert_eq!(attributes.find(99), None);
    }

    #[test]
    fn a_length_that_does_not_fit_ends_the_reading() {
        for length in [0u16, 3, 9, u16::MAX] {
            let mut bytes = vec![0; 8];
            bytes[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes::new(&bytes).count(), 0, "{length}");
        }
    }
}
