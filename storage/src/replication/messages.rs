//! The bytes between two nodes: messages, each with its length and checksum.
//!
//! ```text
//! 0  bytes that follow the checksum u32    8  kind u8
//! 4  CRC-32 of them u32                    9  body
//! ```
//!
//! A frame of the log travels with its own header and checksums. Its header's checksum goes on from a segment's header on disk,
//! and two nodes need not have the same segments; on the wire it goes on from the store's id ([`wire_seed`]), so that a frame of
//! another store is none.

use crate::error::BadRow;
use crate::log::frame::{Frame, HEADER_BYTES, Header, Seed};
use crate::log::{MAX_FRAME_BYTES, frame};
use crate::position::{Position, Term};
use crate::records::TableNo;
use crate::records::codec::{Field, Input};
use crate::replication::{NodeId, Reign};
use crate::store::RawRow;

/// Bytes before a message's kind.
const ENVELOPE_BYTES: usize = 8;
/// The most bytes a message has behind its envelope: a frame, and a little.
pub const MESSAGE_BYTES_MAX: usize = MAX_FRAME_BYTES + HEADER_BYTES + 64;
/// The most bytes of text in a message.
const TEXT_BYTES_MAX: usize = 1024;

/// A follower introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The newest protocol it speaks, and the oldest.
    pub protocol: u16,
    /// See above.
    pub oldest: u16,
    /// Whose records it has.
    pub store: [u8; 16],
    /// Which node it is.
    pub node: NodeId,
    /// As its operator calls it.
    pub name: String,
    /// Its newest position.
    pub position: Position,
    /// The terms of its log.
    pub reigns: Vec<Reign>,
}

/// Why a node is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The protocols of the two have nothing in common.
    Protocol,
    /// It has records of another store.
    OtherStore,
    /// This node is no leader.
    NotLeader,
    /// It has more than its leader in the leader's own term.
    LeaderLost,
    /// A message that cannot stand here.
    Nonsense,
    /// The nodes would follow each other in a circle, or through too many others.
    Chain,
}

/// How a node stands that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Its newest position; everything up to here was sent.
    pub position: Position,
    /// The newest position of the leader at the beginning of the chain that it knows of.
    pub leader: Position,
    /// How long ago it had all that the leader had, ms; `u64::MAX` where it never had since its start.
    pub stale_ms: u64,
    /// How long ago it last heard of the leader, ms; `u64::MAX` where it cannot be reached.
    pub silent_ms: u64,
}

impl Word {
    /// The leader's own.
    pub fn leader(position: Position) -> Word {
        Word { position, leader: position, stale_ms: 0, silent_ms: 0 }
    }
}

/// What one node says to another. Where a message is longer than it is here, a newer release has appended something that this one
/// need not know; where it is shorter, an older one did not have it yet ("Messages" in `REPLICATION.md` says which may be).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Follower: who it is.
    Hello(Hello),
    /// Follower: up to here its disk holds the log.
    Reached(Position),
    /// Leader: the stream begins after a position, and this is who leads.
    Welcome {
        /// The protocol of what follows.
        protocol: u16,
        /// Where the stream begins.
        after: Position,
        /// The leader's newest position.
        position: Position,
        /// The terms of its log.
        reigns: Vec<Reign>,
        /// The nodes that the log comes through, the leader first, whoever says this last.
        above: Vec<NodeId>,
        /// The newest term that it has heard of.
        seen: Term,
    },
    /// Leader: a group commit, as [`Received`] reads it.
    Frame(Vec<u8>),
    /// Leader: it stands here, and all up to here was sent.
    Beat(Word),
    /// Leader: the logs part after a position. What the follower has beyond it is of no account.
    Parted {
        /// That position.
        common: Position,
        /// The term that two nodes were promoted to, where that is how they came apart.
        twin: Option<Term>,
    },
    /// Leader: its log does not go back that far.
    Behind,
    /// Leader: no.
    Refused(Refusal, String),
    /// Leader: all records follow, as they were at this position.
    Begin {
        /// The protocol of what follows.
        protocol: u16,
        /// Whose records they are.
        store: [u8; 16],
        /// The secret seed of rate-limit subjects.
        seed: [u8; 16],
        /// Their position.
        position: Position,
        /// Their term.
        term: Term,
        /// How many there are.
        rows: u64,
    },
    /// Leader: rows of a table, in the order of their keys.
    Rows(TableNo, Vec<RawRow>),
    /// Leader: those were all: so many, with this checksum over all of them.
    End {
        /// Rows.
        rows: u64,
        /// CRC-32 over table numbers, lengths, keys and values, in the order they were sent.
        checksum: u32,
    },
    /// New leader, to the one before: a newer term has begun.
    Fence {
        /// Whose records are meant.
        store: [u8; 16],
        /// That term.
        term: Term,
        /// The name of the node that leads in it.
        name: String,
    },
}

/// What came is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than any.
    #[error("a message of {0} bytes is longer than any can be")]
    TooLong(u64),
    /// The checksum does not fit.
    #[error("a message's checksum does not fit its bytes")]
    Checksum,
    /// A kind that this program does not know.
    #[error("there is no message of kind {0}")]
    Kind(u8),
    /// The body is none of its kind.
    #[error("a message cannot be read: {0}")]
    Body(#[from] BadRow),
    /// A frame in it is not whole.
    #[error("a frame of the log is damaged: {0:?}")]
    Frame(frame::Defect),
}

/// What the checksums of frames go on from between two nodes of a store.
pub fn wire_seed(store: [u8; 16]) -> Seed {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(b"keyward replication");
    hasher.update(&store);
    Seed(hasher.finalize())
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Reached(_) => 2,
            Message::Welcome { .. } => 16,
            Message::Frame(_) => 17,
            Message::Beat(_) => 18,
            Message::Parted { .. } => 19,
            Message::Behind => 20,
            Message::Refused(..) => 21,
            Message::Begin { .. } => 32,
            Message::Rows(..) => 33,
            Message::End { .. } => 34,
            Message::Fence { .. } => 48,
        }
    }

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; ENVELOPE_BYTES];
        out.push(self.kind());
        let out = &mut out;
        match self {
            Message::Hello(hello) => {
                hello.protocol.put(out);
                hello.oldest.put(out);
                hello.store.put(out);
                hello.node.put(out);
                hello.name.put(out);
                hello.position.0.put(out);
                hello.reigns.put(out);
            }
            Message::Reached(position) => position.0.put(out),
            Message::Beat(Word { position, leader, stale_ms, silent_ms }) => {
                position.0.put(out);
                leader.0.put(out);
                stale_ms.put(out);
                silent_ms.put(out);
            }
            Message::Parted { common, twin } => {
                common.0.put(out);
                twin.map_or(0, |twin| twin.0).put(out);
            }
            Message::Welcome { protocol, after, position, reigns, above, seen } => {
                protocol.put(out);
                after.0.put(out);
                position.0.put(out);
                reigns.put(out);
                above.put(out);
                seen.0.put(out);
            }
            Message::Frame(bytes) => out.extend_from_slice(bytes),
            Message::Behind => {}
            Message::Refused(why, text) => {
                out.push(match why {
                    Refusal::Protocol => 1,
                    Refusal::OtherStore => 2,
                    Refusal::NotLeader => 3,
                    Refusal::LeaderLost => 4,
                    Refusal::Nonsense => 5,
                    Refusal::Chain => 6,
                });
                text.put(out);
            }
            Message::Begin { protocol, store, seed, position, term, rows } => {
                protocol.put(out);
                store.put(out);
                seed.put(out);
                position.0.put(out);
                term.0.put(out);
                rows.put(out);
            }
            Message::Rows(table, rows) => {
                table.put(out);
                length(rows).put(out);
                for (key, value) in rows {
                    length(key).put(out);
                    out.extend_from_slice(key);
                    length(value).put(out);
                    out.extend_from_slice(value);
                }
            }
            Message::End { rows, checksum } => {
                rows.put(out);
                checksum.put(out);
            }
            Message::Fence { store, term, name } => {
                store.put(out);
                term.0.put(out);
                name.put(out);
            }
        }
        let size = u32::try_from(out.len() - ENVELOPE_BYTES).expect("a message is bounded far below 4 GiB");
        let checksum = crc32fast::hash(&out[ENVELOPE_BYTES..]);
        out[..4].copy_from_slice(&size.to_le_bytes());
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        std::mem::take(out)
    }

    fn decode(bytes: &[u8]) -> Result<Message, WireError> {
        let mut input = Input::new(bytes);
        let input = &mut input;
        let kind = u8::get(input)?;
        let position = |input: &mut Input<'_>| u64::get(input).map(Position);
        let message = match kind {
            1 => Message::Hello(Hello {
                protocol: u16::get(input)?,
                oldest: u16::get(input)?,
                store: Field::get(input)?,
                node: Field::get(input)?,
                name: text(input)?,
                position: position(input)?,
                reigns: Vec::get(input)?,
            }),
            2 => Message::Reached(position(input)?),
            16 => Message::Welcome {
                protocol: u16::get(input)?,
                after: position(input)?,
                position: position(input)?,
                reigns: Vec::get(input)?,
                above: appended(input)?.unwrap_or_default(),
                seen: Term(appended(input)?.unwrap_or_default()),
            },
            17 => Message::Frame(input.take(input.remaining())?.to_vec()),
            18 => {
                let position = position(input)?;
                let leader = appended(input)?.map_or(position, Position);
                let stale_ms = appended(input)?.unwrap_or(0);
                Message::Beat(Word { position, leader, stale_ms, silent_ms: appended(input)?.unwrap_or(0) })
            }
            19 => {
                let common = position(input)?;
                let twin = appended(input)?.filter(|term| *term > 0);
                Message::Parted { common, twin: twin.map(Term) }
            }
            20 => Message::Behind,
            21 => {
                let why = match u8::get(input)? {
                    1 => Refusal::Protocol,
                    2 => Refusal::OtherStore,
                    3 => Refusal::NotLeader,
                    4 => Refusal::LeaderLost,
                    6 => Refusal::Chain,
                    _ => Refusal::Nonsense,
                };
                Message::Refused(why, text(input)?)
            }
            32 => Message::Begin {
                protocol: u16::get(input)?,
                store: Field::get(input)?,
                seed: Field::get(input)?,
                position: position(input)?,
                term: Term(u64::get(input)?),
                rows: u64::get(input)?,
            },
            33 => {
                let table = u16::get(input)?;
                let count = u32::get(input)? as usize;
                // The shortest row has its two lengths: a larger count is damage, found before memory is taken for it.
                if count > input.remaining() / 8 {
                    return Err(BadRow::Truncated.into());
                }
                let mut rows = Vec::with_capacity(count);
                for _ in 0..count {
                    let size = u32::get(input)? as usize;
                    let key = input.take(size)?.to_vec();
                    let size = u32::get(input)? as usize;
                    rows.push((key, input.take(size)?.to_vec()));
                }
                Message::Rows(table, rows)
            }
            34 => Message::End { rows: u64::get(input)?, checksum: u32::get(input)? },
            48 => Message::Fence { store: Field::get(input)?, term: Term(u64::get(input)?), name: text(input)? },
            other => return Err(WireError::Kind(other)),
        };
        if input.remaining() > 0 && !message.may_be_longer() {
            return Err(BadRow::TrailingBytes.into());
        }
        Ok(message)
    }

    /// Whether a newer release may append to it what an older one leaves out.
    fn may_be_longer(&self) -> bool {
        matches!(self, Message::Hello(_) | Message::Welcome { .. } | Message::Beat(_) | Message::Parted { .. })
    }
}

/// A field that older releases did not have.
fn appended<T: Field>(input: &mut Input<'_>) -> Result<Option<T>, BadRow> {
    if input.remaining() == 0 { Ok(None) } else { T::get(input).map(Some) }
}

fn length<T>(what: &[T]) -> u32 {
    u32::try_from(what.len()).expect("a message is bounded far below 4 GiB")
}

/// A text that people may be shown.
fn text(input: &mut Input<'_>) -> Result<String, BadRow> {
    let text = String::get(input)?;
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(BadRow::BadValue("a text that is too long, or has control characters"));
    }
    Ok(text)
}

/// What has arrived of a stream of messages.
#[derive(Debug, Default)]
pub struct Wire {
    buffer: Vec<u8>,
    /// Of the buffer, what was read already.
    read: usize,
}

impl Wire {
    /// Takes what came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read * 2 >= self.buffer.len() {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message that is whole; `None` where none is yet.
    ///
    /// # Errors
    /// What came is no message. Nothing after it can be read.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let rest = &self.buffer[self.read..];
        let Some((head, body)) = rest.split_first_chunk::<ENVELOPE_BYTES>() else { return Ok(None) };
        let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if size > MESSAGE_BYTES_MAX {
            return Err(WireError::TooLong(size as u64));
        }
        let Some(body) = body.get(..size) else { return Ok(None) };
        if crc32fast::hash(body) != u32::from_le_bytes([head[4], head[5], head[6], head[7]]) {
            return Err(WireError::Checksum);
        }
        let message = Message::decode(body)?;
        self.read += ENVELOPE_BYTES + size;
        Ok(Some(message))
    }
}

/// A frame as it travels: the same header and payload, sealed for the wire. Of one that begins at or before `after` (a follower may
/// have had another leader, whose group commits were others) the records behind that.
pub fn seal(frame: &Frame<'_>, after: Position, store: [u8; 16]) -> Message {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + frame.payload().len());
    if frame.header.first <= after {
        let records: Vec<&[u8]> =
            frame.records().skip_while(|(position, _)| *position <= after).map(|(_, record)| record).collect();
        frame::cut(&mut bytes, &frame.header, wire_seed(store), &records);
        return Message::Frame(bytes);
    }
    bytes.extend_from_slice(&frame.header.encode(wire_seed(store)));
    bytes.extend_from_slice(frame.payload());
    Message::Frame(bytes)
}

/// A frame that came from another node, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    header: Header,
    bytes: Vec<u8>,
}

impl Received {
    /// Reads the bytes of a [`Message::Frame`].
    ///
    /// # Errors
    /// They are no whole frame of this store.
    pub fn read(bytes: Vec<u8>, store: [u8; 16]) -> Result<Received, WireError> {
        let frame = Frame::decode(&bytes, wire_seed(store)).map_err(WireError::Frame)?;
        if frame.header.frame_bytes() != bytes.len() as u64 {
            return Err(BadRow::TrailingBytes.into());
        }
        Ok(Received { header: frame.header, bytes })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of its payload.
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// Its records.
    pub fn records(&self) -> impl Iterator<Item = (Position, &[u8])> {
        Frame::checked(self.header, &self.bytes[HEADER_BYTES..]).records()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    fn every_kind() -> Vec<Message> {
        let reigns = vec![Reign { term: 1, first: 1, id: [0; 16] }, Reign { term: 2, first: 9, id: [7; 16] }];
        let (store, seed) = ([1; 16], [2; 16]);
        vec![
            Message::Hello(Hello {
                protocol: 1,
                oldest: 1,
                store,
                node: [3; 16],
                name: "b".to_owned(),
                position: Position(9),
                reigns: reigns.clone(),
            }),
            Message::Reached(Position(9)),
            Message::Welcome {
                protocol: 1,
                after: Position(4),
                position: Position(9),
                reigns,
                above: vec![[4; 16], [5; 16]],
                seen: Term(3),
            },
            Message::Frame(vec![1, 2, 3]),
            Message::Beat(Word { position: Position(9), leader: Position(10), stale_ms: 11, silent_ms: u64::MAX }),
            Message::Parted { common: Position(4), twin: Some(Term(2)) },
            Message::Behind,
            Message::Refused(Refusal::OtherStore, "no".to_owned()),
            Message::Begin { protocol: 1, store, seed, position: Position(4), term: Term(2), rows: 5 },
            Message::Rows(11, vec![(vec![1], vec![2, 3]), (vec![4], vec![])]),
            Message::End { rows: 5, checksum: 6 },
            Message::Fence { store, term: Term(3), name: "c".to_owned() },
        ]
    }

    /// Frozen: nodes of this release and the next talk to each other with these.
    #[test]
    fn message_bytes_are_frozen() {
        let bytes: Vec<String> = every_kind().iter().map(|message| hex(&message.encode()[8..])).collect();
        let (one, two, three) = ("01".repeat(16), "02".repeat(16), "03".repeat(16));
        let reigns = [
            "02000000",
            "01000000000000000100000000000000",
            &"00".repeat(16),
            "02000000000000000900000000000000",
            &"07".repeat(16),
        ]
        .concat();
        let expected = [
            ["0101000100", &one, &three, "0100000062", "0900000000000000", &reigns].concat(),
            "020900000000000000".to_owned(),
            [
                "10010004000000000000000900000000000000",
                &reigns,
                "02000000",
                &"04".repeat(16),
                &"05".repeat(16),
                "0300000000000000",
            ]
            .concat(),
            "11010203".to_owned(),
            "1209000000000000000a000000000000000b00000000000000ffffffffffffffff".to_owned(),
            "1304000000000000000200000000000000".to_owned(),
            "14".to_owned(),
            "1502020000006e6f".to_owned(),
            ["200100", &one, &two, "040000000000000002000000000000000500000000000000"].concat(),
            "210b00020000000100000001020000000203010000000400000000".to_owned(),
            "22050000000000000006000000".to_owned(),
            ["30", &one, "0300000000000000", "0100000063"].concat(),
        ];
        assert_eq!(bytes, expected);
        assert_eq!(
            hex(&Message::Behind.encode()),
            "0100000044ebdf7e14".replace("44ebdf7e", &hex(&crc32fast::hash(&[0x14]).to_le_bytes()))
        );
    }

    /// A node of a release before or after this one is understood: what it does not say yet has a meaning, what it says more is
    /// left out, and everything else is no message.
    #[test]
    fn messages_may_be_shorter_and_longer() {
        let read = |body: Vec<u8>| {
            let mut whole = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
            whole.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
            whole.extend_from_slice(&body);
            let mut wire = Wire::default();
            wire.push(&whole);
            wire.next_message()
        };
        for message in every_kind() {
            let body = message.encode()[8..].to_vec();
            let longer = read([&body[..], &[7, 7, 7]].concat());
            let is_open = matches!(message.kind(), 1 | 16 | 18 | 19);
            match message {
                // Their ends say by themselves what they are.
                Message::Frame(_) => {}
                message if is_open => assert_eq!(longer, Ok(Some(message))),
                message => assert!(longer.is_err(), "{message:?}"),
            }
            // As the first builds that followed each other had it.
            let first = match body[0] {
                16 => &body[..body.len() - 44],
                18 => &body[..9],
                19 => &body[..9],
                _ => continue,
            };
            match read(first.to_vec()).expect("it is read").expect("whole") {
                Message::Welcome { above, seen, position, .. } => {
                    assert_eq!((above, seen, position), (vec![], Term(0), Position(9)));
                }
                Message::Beat(word) => assert_eq!(word, Word::leader(Position(9))),
                Message::Parted { common, twin } => assert_eq!((common, twin), (Position(4), None)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read(vec![99, 1, 2]), Err(WireError::Kind(99)), "a kind that the protocol does not have");
    }

    /// However a stream is cut into pieces, the messages that come out are those that went in; a single altered bit is noticed,
    /// and nothing that comes makes it panic.
    #[test]
    fn a_stream_is_whole_or_refused() {
        let sent = every_kind();
        let stream: Vec<u8> = sent.iter().flat_map(Message::encode).collect();
        for piece in [1, 2, 7, 64, stream.len()] {
            let (mut wire, mut got) = (Wire::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                wire.push(bytes);
                while let Some(message) = wire.next_message().expect("whole") {
                    got.push(message);
                }
            }
            assert_eq!(got, sent);
        }
        for message in &sent {
            let whole = message.encode();
            for bit in 0..whole.len() * 8 {
                let mut altered = whole.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                let mut wire = Wire::default();
                wire.push(&altered);
                assert!(!matches!(wire.next_message(), Ok(Some(_))), "{message:?}, bit {bit}");
            }
        }
    }
}
