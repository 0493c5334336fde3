//! Protocol Buffers on the wire, as far as OTLP's messages need them
//! (<https://protobuf.dev/programming-guides/encoding/>): a message is written field by field, and of an answer single fields
//! are read.

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// A message in the making.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Message(Vec<u8>);

impl Message {
    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u32, wire: u64) {
        self.raw_varint(u64::from(field) << 3 | wire);
    }

    /// A number as `uint64`, `int64` (from zero up), `bool` or an enumeration.
    pub fn varint(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.raw_varint(value);
    }

    /// A `fixed32`.
    pub fn fixed32(&mut self, field: u32, value: u32) {
        self.tag(field, FIXED32);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A `fixed64`, or an `sfixed64` from zero up.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A `double`.
    pub fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    /// `bytes`.
    pub fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, LENGTH);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A `string`.
    pub fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// A message within this one.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Numbers of eight bytes, packed (`repeated fixed64`, and by their bits `repeated double`).
    pub fn packed_fixed64(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.tag(field, LENGTH);
        self.raw_varint(values.len() as u64 * 8);
        values.for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }
}

/// A field of a message that was received.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// A number.
    Number(u64),
    /// Text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The first field of this number; `None` where it is not there, also for bytes that are no message.
pub fn find(mut bytes: &[u8], wanted: u32) -> Option<Field<'_>> {
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let field = match tag & 7 {
            VARINT => Field::Number(take_varint(&mut bytes)?),
            FIXED64 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            FIXED32 => Field::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?))),
            LENGTH => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            _ => return None,
        };
        if tag >> 3 == u64::from(wanted) {
            return Some(field);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (front, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(front)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        let part = u64::from(byte & 0x7f);
        // The tenth byte has one bit of room.
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of the format's own page, and what is written can be read.
    #[test]
    fn fields_are_laid_out_as_the_format_says() {
        let mut message = Message::default();
        message.varint(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.varint(1, 150));
        let bytes = message.into_bytes();
        assert_eq!(bytes, b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01");
        assert_eq!(find(&bytes, 1), Some(Field::Number(150)));
        assert_eq!(find(&bytes, 3), Some(Field::Bytes(b"\x08\x96\x01")));
        assert_eq!(find(&bytes, 4), None);
        let mut message = Message::default();
        message.fixed32(16, 1);
        message.double(5, 1.0);
        message.packed_fixed64(6, [1, 2].into_iter());
        assert_eq!(
            message.into_bytes(),
            b"\x85\x01\x01\0\0\0\x29\0\0\0\0\0\0\xf0\x3f\x32\x10\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0"
        );
        let mut largest = Message::default();
        largest.varint(1, u64::MAX);
        assert_eq!(find(&largest.into_bytes(), 1), Some(Field::Number(u64::MAX)));
    }

    proptest! {
        /// Whatever a collector answers is read without a panic.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..64), field in 0_u32..20) {
            let _ = find(&bytes, field);
        }
    }
}
