//! Where a page of audit events begins. It belongs to its query: with another one it would skip events, and is refused.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Bytes of the query's digest in a cursor.
const DIGEST_BYTES: usize = 8;
/// Digits of a cursor: version, digest, time, sequence number.
const DIGITS: usize = 2 * (1 + DIGEST_BYTES + 8 + 8);
const VERSION: u8 = 1;

/// A query, as far as it says which events there are and in which order.
pub struct Query([u8; DIGEST_BYTES]);

impl Query {
    /// Of the parts that make the query; `None` and an empty text are different parts.
    pub fn new<'p>(parts: impl IntoIterator<Item = Option<&'p str>>) -> Query {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hasher.update(part.unwrap_or_default());
        }
        let digest: [u8; 32] = hasher.finalize().into();
        Query(digest[..DIGEST_BYTES].try_into().expect("the first of 32 bytes"))
    }

    /// The cursor of an event, by its time (unix ms) and sequence number.
    pub fn cursor(&self, (time, sequence): (u64, u64)) -> String {
        let mut text = String::with_capacity(DIGITS);
        let bytes = [&[VERSION][..], &self.0, &time.to_be_bytes(), &sequence.to_be_bytes()].concat();
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The time and sequence number in a cursor; `None` where it is not this query's.
    pub fn read(&self, cursor: &str) -> Option<(u64, u64)> {
        if cursor.len() != DIGITS || !cursor.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; DIGITS / 2];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&cursor[2 * at..2 * at + 2], 16).ok()?;
        }
        let (head, place) = bytes.split_at(1 + DIGEST_BYTES);
        let (time, sequence) = place.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        (head[0] == VERSION && head[1..] == self.0).then_some((number(time)?, number(sequence)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXT-15, COM-PAG-02: a cursor is read back by its own query only, and no text makes reading it fail otherwise.
    #[test]
    fn a_cursor_belongs_to_its_query() {
        let query = Query::new([Some("a"), None]);
        let cursor = query.cursor((1_795_256_643_000, 7));
        assert_eq!(query.read(&cursor), Some((1_795_256_643_000, 7)));
        for other in [Query::new([Some("a"), Some("")]), Query::new([None, Some("a")]), Query::new([Some("a")])] {
            assert_eq!(other.read(&cursor), None);
        }
        for text in ["", "zzz", &cursor[1..], &format!("{cursor}0"), &cursor.replace('0', "é"), &"f".repeat(DIGITS)] {
            assert_eq!(query.read(text), None, "{text}");
        }
    }
}
