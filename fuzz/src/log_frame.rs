//! A log segment: its header, then frames, whose records are lists of effects.
//!
//! Checksums keep mutations out of everything behind them, so each input is read twice: as it is, and with its checksums
//! made right. The second reading is what a writer with a bug, or a follower's leader, could send.

use keyward_storage::log::frame::{Defect, Frame, HEADER_BYTES, MAGIC, Seed};
use keyward_storage::log::segment;
use keyward_storage::records::{decode_record, encode_record};

use crate::Verdict;

/// See [`crate::Target`].
pub const DICTIONARY: &[&[u8]] =
    &[&MAGIC, &segment::MAGIC, &[1, 0, HEADER_BYTES as u8, 0], &[1; 8], &[0xff; 8], &[0; 16]];

/// Reads a segment file. Accepted: a whole header and at least one whole frame.
///
/// # Panics
///
/// When a frame that was accepted has other bytes than its parts encode to, when its records do not carry the positions
/// that follow each other, when a frame that was cut short is not recognised as torn, or when a record does not survive
/// being read and written.
pub fn run(data: &[u8]) -> Verdict {
    let Some((head, frames)) = data.split_first_chunk::<{ segment::HEADER_BYTES }>() else { return Verdict::Refused };
    let (known, seed) = match segment::Header::decode(head) {
        Ok((header, seed)) => {
            assert_eq!(header.encode(), (*head, seed), "a header that was read is the header that was written");
            (true, seed)
        }
        Err(defect) => {
            let _ = defect.expected_and_found();
            (false, Seed(0))
        }
    };
    let (whole, _) = walk(frames, seed);
    let (_, defect) = walk(&repaired(frames, seed), seed);
    assert!(
        !matches!(defect, Defect::Magic { .. } | Defect::HeaderChecksum { .. } | Defect::PayloadChecksum { .. }),
        "repaired, and yet: {defect:?}"
    );
    if known && whole > 0 { Verdict::Accepted } else { Verdict::Refused }
}

/// How many whole frames there are, and what ends them.
fn walk(mut bytes: &[u8], seed: Seed) -> (usize, Defect) {
    let mut whole = 0;
    loop {
        let frame = match Frame::decode(bytes, seed) {
            Ok(frame) => frame,
            Err(defect) => {
                let _ = (defect.may_be_torn(), defect.expected_and_found());
                return (whole, defect);
            }
        };
        check(&frame, bytes, seed);
        let length = usize::try_from(frame.header.frame_bytes()).expect("it was just read from memory");
        // A write that did not finish: some cut, chosen by the bytes.
        let cut = crc32fast::hash(bytes) as usize % length;
        let torn = Frame::decode(&bytes[..cut], seed).expect_err("a frame without its end is no frame");
        assert!(torn.may_be_torn(), "a frame cut at {cut} of {length} is not seen as torn: {torn:?}");
        whole += 1;
        bytes = &bytes[length..];
    }
}

fn check(frame: &Frame<'_>, bytes: &[u8], seed: Seed) {
    assert_eq!(frame.header.encode(seed), bytes[..HEADER_BYTES], "a header that was read is the one that was written");
    let mut expected = frame.header.first;
    let mut count = 0;
    for (position, record) in frame.records() {
        assert_eq!(position, expected, "positions follow each other");
        expected = position.next();
        count += 1;
        if let Ok(effects) = decode_record(record) {
            assert_eq!(encode_record(&effects), record, "one record, one form");
        }
    }
    assert_eq!(count, frame.header.records, "as many records as the header says");
}

/// The same frames with magics and checksums made right, and lengths kept within what is there.
fn repaired(bytes: &[u8], seed: Seed) -> Vec<u8> {
    let mut fixed = bytes.to_vec();
    let mut rest = &mut fixed[..];
    while let Some((head, after)) = rest.split_first_chunk_mut::<HEADER_BYTES>() {
        let claimed = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let length = claimed.min(after.len());
        head[..4].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&u32::try_from(length).expect("inputs are short").to_le_bytes());
        let (payload, next) = after.split_at_mut(length);
        head[48..52].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new_with_initial(seed.0);
        hasher.update(&head[..HEADER_BYTES - 4]);
        let checksum = hasher.finalize();
        head[HEADER_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        rest = next;
    }
    fixed
}
