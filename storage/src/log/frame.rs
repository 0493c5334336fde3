//! One frame: the bytes of one group commit, and how they are told from garbage.
//!
//! ```text
//!  0  magic "KWFR"            24  term u64
//!  4  layout u16 = 1          32  synced through, position u64
//!  6  header bytes u16 = 56   40  written at, unix ms u64
//!  8  payload bytes u32       48  payload CRC-32 u32
//! 12  records u32             52  header CRC-32 u32
//! 16  first position u64      56  payload: per record, length u32 and the bytes
//! ```
//!
//! All numbers are little-endian. Checksums are CRC-32 (ISO-HDLC, as in zlib). The header's goes on from the checksum of
//! its segment's header, so a frame is valid in one segment of one store only: bytes that look like a frame inside a
//! record (a client chooses those), or that were copied from elsewhere, do not pass.
//!
//! A shipped layout never changes; it gets a successor, in segments of a newer format.

use crc32fast::Hasher;

use crate::position::{Position, Term};

/// What every frame begins with.
pub const MAGIC: [u8; 4] = *b"KWFR";
/// The layout this program writes, and the only one it reads.
pub const LAYOUT: u16 = 1;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 56;
/// Bytes before each record in the payload.
pub const RECORD_HEADER_BYTES: usize = 4;
/// The most bytes one frame's payload has.
pub const MAX_FRAME_BYTES: usize = 64 << 20;
/// The most bytes one record has: it fills a frame by itself.
pub const MAX_RECORD_BYTES: usize = MAX_FRAME_BYTES - RECORD_HEADER_BYTES;
/// The most records in one frame.
pub const MAX_RECORDS_PER_FRAME: usize = 1 << 16;
/// No position is above this one, so that arithmetic on positions cannot overflow; at a million records per second it is
/// reached after 290,000 years.
pub const MAX_POSITION: Position = Position(i64::MAX as u64);

const CHECKED_BYTES: usize = HEADER_BYTES - 4;

const _: () = assert!(MAX_FRAME_BYTES <= u32::MAX as usize);
const _: () = assert!(MAX_RECORDS_PER_FRAME * RECORD_HEADER_BYTES <= MAX_FRAME_BYTES);

/// What header checksums in one segment go on from: the CRC-32 of that segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u32);

/// A frame's header. Decoding it has checked its checksum and all bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow the header.
    pub payload_bytes: u32,
    /// Records in the payload, 1 at least.
    pub records: u32,
    /// The first record's position.
    pub first: Position,
    /// The reign it was written in.
    pub term: Term,
    /// Up to here its writer had synced when it wrote this.
    pub synced_through: Position,
    /// The writer's clock, unix milliseconds.
    pub written_at_ms: u64,
    /// CRC-32 of the payload.
    pub payload_crc: u32,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// The bytes end within the header.
    HeaderCut {
        /// Bytes that are there.
        found: u64,
    },
    /// They do not begin as a frame does.
    Magic {
        /// What is there.
        found: [u8; 4],
    },
    /// The header's checksum does not fit its bytes.
    HeaderChecksum {
        /// By the bytes.
        computed: u32,
        /// As stored.
        stored: u32,
    },
    /// The bytes end within the payload.
    PayloadCut {
        /// By the header.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The payload's checksum does not fit its bytes.
    PayloadChecksum {
        /// By the bytes.
        computed: u32,
        /// As stored.
        stored: u32,
    },
    /// The header is whole, and of a layout this program does not know.
    Layout {
        /// Its layout number.
        found: u16,
    },
    /// The header is whole, and no writer may have written it.
    Bounds {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// The payload is whole, and its records do not fill it exactly.
    Records,
    /// A whole header, with another position than the one that is next.
    Position {
        /// The next one.
        expected: Position,
        /// By the header.
        found: Position,
    },
    /// A whole header, of an earlier reign than the frame before it.
    Term {
        /// Of the frame before.
        newest: Term,
        /// By the header.
        found: Term,
    },
}

impl Defect {
    /// Whether a write that did not finish can leave this. What has whole checksums and is wrong is never a torn write.
    pub fn may_be_torn(&self) -> bool {
        match self {
            Defect::HeaderCut { .. }
            | Defect::Magic { .. }
            | Defect::HeaderChecksum { .. }
            | Defect::PayloadCut { .. }
            | Defect::PayloadChecksum { .. } => true,
            Defect::Layout { .. }
            | Defect::Bounds { .. }
            | Defect::Records
            | Defect::Position { .. }
            | Defect::Term { .. } => false,
        }
    }

    /// What should be there, and what is, in words.
    pub fn expected_and_found(&self) -> (String, String) {
        match self {
            Defect::HeaderCut { found } => {
                (format!("a frame header of {HEADER_BYTES} bytes"), format!("{found} bytes"))
            }
            Defect::Magic { found } => {
                (format!("a frame, beginning with {}", MAGIC.escape_ascii()), found.escape_ascii().to_string())
            }
            Defect::HeaderChecksum { computed, stored } => {
                (format!("a frame header with checksum {computed:08x}"), format!("{stored:08x}"))
            }
            Defect::PayloadCut { expected, found } => {
                (format!("a frame payload of {expected} bytes"), format!("{found} bytes"))
            }
            Defect::PayloadChecksum { computed, stored } => {
                (format!("a frame payload with checksum {computed:08x}"), format!("{stored:08x}"))
            }
            Defect::Layout { found } => (format!("frame layout {LAYOUT}"), format!("{found}")),
            Defect::Bounds { field, found } => (format!("a {field} within its bounds"), format!("{found}")),
            Defect::Records => ("records that fill the payload".into(), "records that do not".into()),
            Defect::Position { expected, found } => (format!("position {expected}"), format!("position {found}")),
            Defect::Term { newest, found } => {
                (format!("term {} or a later one", newest.0), format!("term {}", found.0))
            }
        }
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn checksum(seed: Seed, header: &[u8; HEADER_BYTES]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed.0);
    hasher.update(&header[..CHECKED_BYTES]);
    hasher.finalize()
}

impl Header {
    /// The last record's position.
    pub fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.records) - 1)
    }

    /// Bytes of the whole frame.
    pub fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The header's bytes.
    pub fn encode(&self, seed: Seed) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&LAYOUT.to_le_bytes());
        bytes[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.records.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.term.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced_through.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.written_at_ms.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = checksum(seed, &bytes);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. Nothing in it is believed before its checksum, nor after that beyond its bounds.
    pub fn decode(bytes: &[u8; HEADER_BYTES], seed: Seed) -> Result<Header, Defect> {
        if bytes[..4] != MAGIC {
            return Err(Defect::Magic { found: [bytes[0], bytes[1], bytes[2], bytes[3]] });
        }
        let (computed, stored) = (checksum(seed, bytes), u32_at(bytes, CHECKED_BYTES));
        if computed != stored {
            return Err(Defect::HeaderChecksum { computed, stored });
        }
        let layout = u16_at(bytes, 4);
        if layout != LAYOUT {
            return Err(Defect::Layout { found: layout });
        }
        let header = Header {
            payload_bytes: u32_at(bytes, 8),
            records: u32_at(bytes, 12),
            first: Position(u64_at(bytes, 16)),
            term: Term(u64_at(bytes, 24)),
            synced_through: Position(u64_at(bytes, 32)),
            written_at_ms: u64_at(bytes, 40),
            payload_crc: u32_at(bytes, 48),
        };
        let payload_min = u64::from(header.records) * RECORD_HEADER_BYTES as u64;
        let bounds = [
            ("header length", u64::from(u16_at(bytes, 6)), HEADER_BYTES as u64, HEADER_BYTES as u64),
            ("record count", u64::from(header.records), 1, MAX_RECORDS_PER_FRAME as u64),
            ("payload length", u64::from(header.payload_bytes), payload_min, MAX_FRAME_BYTES as u64),
            ("first position", header.first.0, 1, MAX_POSITION.0 - MAX_RECORDS_PER_FRAME as u64),
            ("synced-through position", header.synced_through.0, 0, header.first.0.saturating_sub(1)),
        ];
        for (field, found, least, most) in bounds {
            if found < least || found > most {
                return Err(Defect::Bounds { field, found });
            }
        }
        Ok(header)
    }

    /// Checks a payload of the length the header gives: its checksum, then that its records fill it.
    pub fn check(&self, payload: &[u8]) -> Result<(), Defect> {
        let (computed, stored) = (crc32fast::hash(payload), self.payload_crc);
        if computed != stored {
            return Err(Defect::PayloadChecksum { computed, stored });
        }
        let mut rest = payload;
        for _ in 0..self.records {
            let Some((length, after)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else {
                return Err(Defect::Records);
            };
            match after.get(u32::from_le_bytes(*length) as usize..) {
                Some(next) => rest = next,
                None => return Err(Defect::Records),
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Defect::Records) }
    }
}

/// A whole, checked frame.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame whose payload has passed [`Header::check`].
    pub(crate) fn checked(header: Header, payload: &'a [u8]) -> Frame<'a> {
        Frame { header, payload }
    }

    /// Its payload, as the header's checksum covers it.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Reads the frame that `bytes` begin with; whatever follows it is not looked at.
    pub fn decode(bytes: &'a [u8], seed: Seed) -> Result<Frame<'a>, Defect> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Defect::HeaderCut { found: bytes.len() as u64 });
        };
        let header = Header::decode(head, seed)?;
        let Some(payload) = rest.get(..header.payload_bytes as usize) else {
            return Err(Defect::PayloadCut { expected: header.payload_bytes.into(), found: rest.len() as u64 });
        };
        header.check(payload)?;
        Ok(Frame { header, payload })
    }

    /// Its records, in order, each with its position.
    pub fn records(&self) -> impl Iterator<Item = (Position, &'a [u8])> + use<'a> {
        let mut rest = self.payload;
        (self.header.first.0..).map(Position).map_while(move |position| {
            let (length, after) = rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
            let (record, next) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = next;
            Some((position, record))
        })
    }
}

/// The bytes a payload of these records has; `None` where they are more than one frame takes.
pub(super) fn payload_bytes(records: &[impl AsRef<[u8]>]) -> Option<u32> {
    if records.len() > MAX_RECORDS_PER_FRAME {
        return None;
    }
    let mut bytes = 0usize;
    for record in records {
        bytes = bytes.checked_add(RECORD_HEADER_BYTES)?.checked_add(record.as_ref().len())?;
    }
    if bytes > MAX_FRAME_BYTES { None } else { u32::try_from(bytes).ok() }
}

/// Replaces what `buffer` holds with one frame. `header` says all but the payload's checksum.
pub(super) fn encode(buffer: &mut Vec<u8>, mut header: Header, seed: Seed, records: &[impl AsRef<[u8]>]) {
    buffer.clear();
    buffer.reserve(HEADER_BYTES + header.payload_bytes as usize);
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    for record in records {
        let record = record.as_ref();
        buffer.extend_from_slice(&(record.len() as u32).to_le_bytes());
        buffer.extend_from_slice(record);
    }
    header.payload_crc = crc32fast::hash(&buffer[HEADER_BYTES..]);
    let head = header.encode(seed);
    buffer[..HEADER_BYTES].copy_from_slice(&head);
}

/// Replaces what `buffer` holds with what is left of a frame of which only these last records are wanted.
pub(crate) fn cut(buffer: &mut Vec<u8>, header: &Header, seed: Seed, records: &[&[u8]]) {
    let payload_bytes = payload_bytes(records).expect("they were in one frame");
    let first = Position(header.last().0 + 1 - records.len() as u64);
    encode(buffer, Header { payload_bytes, records: records.len() as u32, first, ..*header }, seed, records);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Seed = Seed(0x1234_5678);

    fn frame(records: &[&[u8]]) -> Vec<u8> {
        let header = Header {
            payload_bytes: payload_bytes(records).expect("it fits"),
            records: records.len() as u32,
            first: Position(7),
            term: Term(3),
            synced_through: Position(6),
            written_at_ms: 1_700_000_000_000,
            payload_crc: 0,
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, header, SEED, records);
        bytes
    }

    /// A frame reads back as what was written, and in no other segment, cut or altered in any single bit.
    #[test]
    fn a_frame_is_whole_or_nothing() {
        let bytes = frame(&[b"one", b"", b"three"]);
        let back = Frame::decode(&bytes, SEED).expect("whole");
        let records: Vec<_> = back.records().collect();
        assert_eq!(records, [(Position(7), &b"one"[..]), (Position(8), b""), (Position(9), b"three")]);
        assert_eq!((back.header.last(), back.header.frame_bytes()), (Position(9), bytes.len() as u64));

        assert!(Frame::decode(&bytes, Seed(0x1234_5679)).is_err_and(|defect| defect.may_be_torn()));
        for length in 0..bytes.len() {
            assert!(Frame::decode(&bytes[..length], SEED).is_err_and(|defect| defect.may_be_torn()), "cut at {length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&altered, SEED).is_err(), "bit {bit}");
        }
    }

    /// Right checksums over wrong values are not a torn write: nobody may cut them off.
    #[test]
    fn what_no_writer_wrote_is_refused_and_never_called_torn() {
        let good = frame(&[b"abc"]);
        let alter = |at: usize, value: &[u8], fix_payload: bool| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            if fix_payload {
                let crc = crc32fast::hash(&bytes[HEADER_BYTES..]);
                bytes[48..52].copy_from_slice(&crc.to_le_bytes());
            }
            let crc = checksum(SEED, bytes.first_chunk().expect("a header"));
            bytes[CHECKED_BYTES..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            Frame::decode(&bytes, SEED).expect_err("refused")
        };
        let bounds = |field, found| Defect::Bounds { field, found };
        assert_eq!(alter(4, &2u16.to_le_bytes(), false), Defect::Layout { found: 2 });
        assert_eq!(alter(6, &57u16.to_le_bytes(), false), bounds("header length", 57));
        assert_eq!(alter(8, &u32::MAX.to_le_bytes(), false), bounds("payload length", u32::MAX.into()));
        assert_eq!(alter(12, &0u32.to_le_bytes(), false), bounds("record count", 0));
        assert_eq!(alter(12, &2u32.to_le_bytes(), false), bounds("payload length", 7));
        assert_eq!(alter(16, &u64::MAX.to_le_bytes(), false), bounds("first position", u64::MAX));
        assert_eq!(alter(32, &7u64.to_le_bytes(), false), bounds("synced-through position", 7));
        assert_eq!(alter(HEADER_BYTES, &2u32.to_le_bytes(), true), Defect::Records);
        assert_eq!(alter(HEADER_BYTES, &u32::MAX.to_le_bytes(), true), Defect::Records);
    }

    /// A batch that is too large is known before a byte of it is written.
    #[test]
    fn the_size_of_a_batch_is_bounded() {
        assert_eq!(payload_bytes(&[vec![0; MAX_RECORD_BYTES]]), Some(MAX_FRAME_BYTES as u32));
        assert_eq!(payload_bytes(&[vec![0; MAX_RECORD_BYTES], vec![]]), None);
        assert_eq!(payload_bytes(&[[0; 0]; MAX_RECORDS_PER_FRAME + 1]), None);
    }
}
