//! Small helpers of the tests beside the code.

use crate::ids::IdText;

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An id of one repeated character.
pub fn id(char: char) -> IdText {
    IdText::from_bytes([u8::try_from(char).expect("ASCII"); 16]).expect("alphanumeric")
}
