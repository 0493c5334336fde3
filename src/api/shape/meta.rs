//! `meta`: a JSON object that keyward keeps for its owner and gives back as it came.
//!
//! It is kept as text, never as numbers and maps, so that an integer beyond 2^53 or a fraction of many digits comes
//! back digit for digit (KEYS-GEN-18). Reading one is a single pass over the text with a stack of its own: no
//! recursion.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny};
use serde::{Serialize, Serializer};
use serde_json::Map;
use serde_json::value::RawValue;

use super::MAX_BYTES_KEYWORD;

/// Members a `meta` object may have at its top level (KEYS-GEN-18).
pub const META_MEMBERS_MAX: usize = 100;

/// Bytes a `meta` object may have where nothing else is said, white space between its tokens not counted (HASH-10).
pub const META_BYTES_MAX: usize = 64 * 1024;

/// How deep objects and arrays may nest, the `meta` object itself included.
pub const META_DEPTH_MAX: usize = 64;

/// A JSON object as text: white space between tokens removed, of repeated members the last kept (COM-BODY-07), lone
/// surrogates replaced by U+FFFD, and otherwise as it came.
///
/// `usize::MAX` means no bound but the body's, for operations that judge its size after the caller's permission.
#[derive(Clone)]
pub struct Meta<const BYTES_MAX: usize = META_BYTES_MAX>(Box<RawValue>);

/// Why a text is not a [`Meta`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// It is not JSON at all.
    #[error("meta is not JSON")]
    NotJson,
    /// It is JSON, and not an object.
    #[error("meta is not an object")]
    NotAnObject,
    /// More than [`META_MEMBERS_MAX`] members at the top level.
    #[error("meta has {got} members, at most {META_MEMBERS_MAX} are allowed")]
    TooManyMembers {
        /// How many it has, repeated ones counted once.
        got: usize,
    },
    /// More bytes than are allowed here.
    #[error("meta is longer than {bytes_max} bytes")]
    TooLong {
        /// How many are.
        bytes_max: usize,
    },
    /// Nested deeper than [`META_DEPTH_MAX`].
    #[error("meta nests deeper than {META_DEPTH_MAX} levels")]
    TooDeep,
}

impl<const BYTES_MAX: usize> Meta<BYTES_MAX> {
    /// Reads a `meta` object from JSON text, as clients send it or as it was stored.
    pub fn from_json(text: &str) -> Result<Self, MetaError> {
        // Skips through the text with serde_json's own bounded scanner, so that what follows may rely on the grammar.
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| MetaError::NotJson)?;
        Self::from_valid_json(text)
    }

    /// As [`Meta::from_json`], for text that is known to be one JSON value.
    fn from_valid_json(text: &str) -> Result<Self, MetaError> {
        RawValue::from_string(compact(text, BYTES_MAX)?).map(Meta).map_err(|_| MetaError::NotJson)
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Whether it is `{}`, which responses leave out (KEYS-GEN-21).
    pub fn is_empty(&self) -> bool {
        self.as_str() == "{}"
    }
}

/// An object or array that has been opened and not yet closed.
enum Frame {
    Array,
    Object {
        /// Where each member begins in the output, and where its name stands there, quotes included.
        members: Vec<(usize, Range<usize>)>,
        /// Whether the next string is a member's name.
        name_due: bool,
    },
}

/// Removes white space and repeated members from a valid JSON object, in one pass and a sort per object.
pub(in crate::api) fn compact(text: &str, bytes_max: usize) -> Result<String, MetaError> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(MetaError::NotAnObject);
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut frames: Vec<Frame> = Vec::new();
    // Members that a later one of the same name replaces. Each ends where its successor begins, so that its comma goes
    // too; the last of a name has no successor to lose to.
    let mut replaced: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'"' => {
                let end = string_end(bytes, at);
                if end - at > bytes_max - out.len() {
                    return Err(MetaError::TooLong { bytes_max });
                }
                let start = out.len();
                push_string(&text[at..end], &mut out);
                if let Some(Frame::Object { members, name_due }) = frames.last_mut()
                    && std::mem::take(name_due)
                {
                    members.push((start, start..out.len()));
                }
                at = end;
            }
            b'{' | b'[' => {
                if frames.len() == META_DEPTH_MAX {
                    return Err(MetaError::TooDeep);
                }
                frames.push(if byte == b'{' {
                    Frame::Object { members: Vec::new(), name_due: true }
                } else {
                    Frame::Array
                });
                out.push(char::from(byte));
                at += 1;
            }
            b'}' | b']' => {
                if let Some(Frame::Object { members, .. }) = frames.pop() {
                    let distinct = settle(&members, &out, &mut replaced);
                    if frames.is_empty() && distinct > META_MEMBERS_MAX {
                        return Err(MetaError::TooManyMembers { got: distinct });
                    }
                }
                out.push(char::from(byte));
                at += 1;
            }
            _ => {
                // A colon, a comma, or a byte of a number or a literal: all ASCII.
                if let (b',', Some(Frame::Object { name_due, .. })) = (byte, frames.last_mut()) {
                    *name_due = true;
                }
                out.push(char::from(byte));
                at += 1;
            }
        }
        if out.len() > bytes_max {
            return Err(MetaError::TooLong { bytes_max });
        }
    }
    Ok(without(out, replaced))
}

/// Where the string that begins at `start` ends, its closing quote included. The text is valid JSON.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Copies a string with its quotes, lone surrogates replaced.
fn push_string(string: &str, out: &mut String) {
    let mut rest = string;
    while let Some(at) = rest.find('\\') {
        // The escape is complete: the text is valid JSON.
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let length = match surrogate(escape) {
            None => 2,
            Some(0xD800..=0xDBFF) if matches!(escape.get(6..).and_then(surrogate), Some(0xDC00..=0xDFFF)) => 12,
            Some(0xD800..=0xDFFF) => {
                out.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            Some(_) => 6,
        };
        out.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    out.push_str(rest);
}

/// The code unit of a `\uXXXX` at the beginning of the text.
fn surrogate(text: &str) -> Option<u16> {
    u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

/// Finds the members of one object that a later one replaces. Returns how many remain.
fn settle(members: &[(usize, Range<usize>)], out: &str, replaced: &mut Vec<Range<usize>>) -> usize {
    // Sorting makes equal names neighbours whatever a stranger sends; the order of members breaks ties.
    let mut names: Vec<(Cow<'_, str>, usize)> =
        members.iter().enumerate().map(|(index, (_, name))| (decoded(&out[name.clone()]), index)).collect();
    names.sort_unstable();
    let mut distinct = names.len();
    for pair in names.windows(2) {
        if pair[0].0 == pair[1].0 {
            let index = pair[0].1;
            replaced.push(members[index].0..members[index + 1].0);
            distinct -= 1;
        }
    }
    distinct
}

/// The name that a quoted string stands for.
fn decoded(quoted: &str) -> Cow<'_, str> {
    if quoted.contains('\\') {
        // Lone surrogates, the only strings that do not decode, are gone.
        serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned)
    } else {
        Cow::Borrowed(&quoted[1..quoted.len() - 1])
    }
}

/// The text without the given ranges, which may lie within each other.
fn without(text: String, mut ranges: Vec<Range<usize>>) -> String {
    if ranges.is_empty() {
        return text;
    }
    ranges.sort_unstable_by_key(|range| range.start);
    let mut rest = String::with_capacity(text.len());
    let mut at = 0;
    for range in ranges {
        if range.start >= at {
            rest.push_str(&text[at..range.start]);
        }
        at = at.max(range.end);
    }
    rest.push_str(&text[at..]);
    rest
}

impl<'de, const BYTES_MAX: usize> Deserialize<'de> for Meta<BYTES_MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Self::from_valid_json(raw.get()).map_err(D::Error::custom)
    }
}

impl<const BYTES_MAX: usize> Serialize for Meta<BYTES_MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<const BYTES_MAX: usize> fmt::Debug for Meta<BYTES_MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<const BYTES_MAX: usize> PartialEq for Meta<BYTES_MAX> {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<const BYTES_MAX: usize> Eq for Meta<BYTES_MAX> {}

impl<const BYTES_MAX: usize> JsonSchema for Meta<BYTES_MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Meta".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = any_object();
        if generator.contract().is_deserialize() {
            schema.insert("maxProperties".into(), META_MEMBERS_MAX.into());
            if BYTES_MAX < usize::MAX {
                schema.insert(MAX_BYTES_KEYWORD.into(), BYTES_MAX.into());
            }
        }
        schema.into()
    }
}

fn any_object() -> Map<String, serde_json::Value> {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("additionalProperties".into(), true.into());
    schema
}

/// Metadata as replies show it: not at all when it is empty (KEYS-GEN-21).
pub fn shown_meta(meta: Option<&str>) -> Option<&str> {
    meta.filter(|meta| *meta != "{}")
}

/// A JSON object of a response that is text already, such as a stored `meta`: sent as it stands.
///
/// Serializing fails for text that is not one JSON value, so that a broken row cannot break the envelope around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbatim<S>(pub S);

impl<T: AsRef<str>> Serialize for Verbatim<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.0.as_ref()).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<T> JsonSchema for Verbatim<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        any_object().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, MetaError> {
        <Meta>::from_json(text).map(|meta| meta.as_str().to_owned())
    }

    /// KEYS-GEN-18: digits, order and escapes come back as they were sent; white space between tokens goes.
    #[test]
    fn what_is_kept_is_what_was_sent() {
        for (sent, kept) in [
            ("{}", "{}"),
            (" {\n} ", "{}"),
            (
                r#"{ "b" : 9007199254740993, "a":[ 1.10, 1e5, -0 , null ] }"#,
                r#"{"b":9007199254740993,"a":[1.10,1e5,-0,null]}"#,
            ),
            (r#"{"a b":" x\n\"} ,","é":"\u00e9"}"#, r#"{"a b":" x\n\"} ,","é":"\u00e9"}"#),
            (r#"{"":{"":[]}}"#, r#"{"":{"":[]}}"#),
            (r#"{"a":"\ud83d\udd11","b":"\\ud800"}"#, r#"{"a":"\ud83d\udd11","b":"\\ud800"}"#),
            (r#"{"a":"\ud800x","\udc00":"\ud83d"}"#, r#"{"a":"\ufffdx","\ufffd":"\ufffd"}"#),
            (r#"{"a":"\ud800\ud83d\udd11"}"#, r#"{"a":"\ufffd\ud83d\udd11"}"#),
        ] {
            assert_eq!(read(sent).as_deref(), Ok(kept), "{sent}");
        }
    }

    /// COM-BODY-07: the last of repeated members wins, at every depth, however its name is written.
    #[test]
    fn the_last_of_repeated_members_wins() {
        for (sent, kept) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":1,"b":2,"a":3,"c":4,"a":5}"#, r#"{"b":2,"c":4,"a":5}"#),
            (r#"{"a":{"x":1,"x":2},"b":[{"y":1,"y":{"y":2,"y":3}}]}"#, r#"{"a":{"x":2},"b":[{"y":{"y":3}}]}"#),
            (r#"{"a":{"x":1,"x":2},"\u0061":[]}"#, r#"{"\u0061":[]}"#),
            (r#"{"a":"a","b":"a"}"#, r#"{"a":"a","b":"a"}"#),
        ] {
            assert_eq!(read(sent).as_deref(), Ok(kept), "{sent}");
        }
    }

    /// KEYS-GEN-18, HASH-10, COM-BODY-10: members, bytes and depth are bounded, and the bounds themselves are allowed.
    #[test]
    fn meta_is_bounded() {
        let members = |count: usize| {
            let members: Vec<String> = (0..count).map(|index| format!("\"m{index}\":{index}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(read(&members(100)).is_ok());
        assert_eq!(read(&members(101)), Err(MetaError::TooManyMembers { got: 101 }));
        assert!(read(&format!("{{{}}}", vec!["\"a\":1"; 500].join(","))).is_ok(), "repeated members count once");
        assert!(read(&format!("{{\"a\":{}}}", members(101))).is_ok(), "only the top level is counted");

        let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - r#"{"a":""}"#.len()));
        assert!(read(&long(META_BYTES_MAX)).is_ok());
        assert_eq!(read(&long(META_BYTES_MAX + 1)), Err(MetaError::TooLong { bytes_max: META_BYTES_MAX }));
        assert!(read(&format!("{{{}}}", " ".repeat(2 * META_BYTES_MAX))).is_ok(), "white space does not count");
        let numbers = format!("{{\"a\":[{}1]}}", "1,".repeat(META_BYTES_MAX));
        assert_eq!(read(&numbers), Err(MetaError::TooLong { bytes_max: META_BYTES_MAX }));
        let unbounded = Meta::<{ usize::MAX }>::from_json(&numbers).expect("no bound of its own");
        assert_eq!(unbounded.as_str(), numbers);

        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(read(&deep(META_DEPTH_MAX)).is_ok());
        assert_eq!(read(&deep(META_DEPTH_MAX + 1)), Err(MetaError::TooDeep));
        assert_eq!(read(&"[".repeat(1_000_000)), Err(MetaError::NotJson));
    }

    /// What is no object is refused, and what is no JSON too.
    #[test]
    fn only_objects_are_taken() {
        for text in ["[]", "1", "\"a\"", "null", "true", "[{}]"] {
            assert_eq!(read(text), Err(MetaError::NotAnObject), "{text}");
        }
        for text in ["", "{", "{}{}", "{'a':1}", "{\"a\":01}"] {
            assert_eq!(read(text), Err(MetaError::NotJson), "{text}");
        }
    }

    /// A JSON value as text, with repeated names, escapes and odd white space.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
            "(true|false|null)",
            "\"([ -!#-\\[\\]-~é\u{1f511}]|\\\\[nt\"\\\\/]|\\\\u00[0-7][0-9a-f]){0,6}\"",
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let space = "[ \n\t]{0,2}";
            let name = "\"(a|b|\\\\u0061|\\\\u0062|c|)\"";
            prop_oneof![
                proptest::collection::vec((space, inner.clone()), 0..5).prop_map(|items| {
                    format!("[{}]", items.iter().map(|(s, v)| format!("{s}{v}{s}")).collect::<Vec<_>>().join(","))
                }),
                proptest::collection::vec((space, name, inner), 0..6).prop_map(|members| {
                    let members = members.iter().map(|(s, n, v)| format!("{s}{n}{s}:{v}{s}"));
                    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        /// Read back by serde_json (last member wins there too), the compact text is the value that was sent, and
        /// reading it again changes nothing.
        #[test]
        fn compacting_keeps_the_value(value in json()) {
            let sent = format!("{{\"x\": {value} }}");
            let kept = read(&sent).expect("small enough");
            let before: serde_json::Value = serde_json::from_str(&sent).expect("the generator makes JSON");
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&kept).expect("JSON comes out"), before);
            prop_assert_eq!(read(&kept).expect("it was read before"), kept);
        }
    }
}
