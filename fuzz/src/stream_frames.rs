use dory_log::{FrameDecoder, HEADER_LENGTH, header};

/// A multiplexed stream, in pieces of any length: the first byte says how long the pieces are.
///
/// The payload is the same however the bytes arrive, and framing it again gives the same payload.
pub fn stream_frames(input: &[u8]) {
    let Some((&piece_length, wire)) = input.split_first() else { return };
    let whole = decode(wire, wire.len().max(1));
    let pieces = decode(wire, usize::from(piece_length) + 1);
    assert_eq!(whole, pieces, "the payload depends on how the bytes arrive");
    if let Ok(payload) = whole {
        let framed: Vec<u8> =
            payload.iter().flat_map(|(stream, byte)| header(*stream, 1).into_iter().chain([*byte])).collect();
        assert_eq!(framed.len(), payload.len() * (HEADER_LENGTH + 1));
        assert_eq!(decode(&framed, framed.len().max(1)), Ok(payload));
    }
}

type Payload = Vec<(dory_log::Stream, u8)>;

fn decode(wire: &[u8], piece_length: usize) -> Result<Payload, u8> {
    let mut decoder = FrameDecoder::new();
    let mut payload = Payload::new();
    for mut piece in wire.chunks(piece_length) {
        while let Some((stream, bytes)) = decoder.next(&mut piece).map_err(|error| error.0)? {
            payload.extend(bytes.iter().map(|byte| (stream, *byte)));
        }
        assert!(piece.is_empty(), "the decoder wants more while it has some");
    }
    Ok(payload)
}
