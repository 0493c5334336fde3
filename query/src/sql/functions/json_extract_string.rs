//! `JSONExtractString(json, path..)` (AN-SEM-14).
//!
//! ClickHouse: each step of the path is a key, or a position counted from one or backwards from minus one, in an array as
//! well as in an object. A text is given as it is, `null` and what is missing as `''`, anything else as compact JSON with
//! numbers in their shortest form. Text that is not JSON as a whole gives `''`.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::types::Int64Type;
use datafusion::arrow::array::{Array, AsArray, StringViewBuilder};
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::kernel;
use super::super::operators::{self, convert, render};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const JSON_EXTRACT_STRING: Function = Function { name: "JSONExtractString", case_sensitive: true, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    if given.is_empty() {
        return Err(Refusal::query("function JSONExtractString takes at least 1 argument, not 0"));
    }
    if arguments::any_null(&given) {
        return Ok(operators::null());
    }
    if *given[0].ty.inner() != Type::String {
        return Err(arguments::illegal("JSONExtractString", "JSON text", &given[0]));
    }
    let mut ty = Type::String;
    let mut converted = Vec::with_capacity(given.len());
    for (at, argument) in given.into_iter().enumerate() {
        ty = ty.nullable_as(&argument.ty);
        converted.push(match argument.ty.inner() {
            Type::String => argument,
            inner if at > 0 && inner.is_integer() => convert(argument, &Type::Int64)?,
            _ => return Err(arguments::illegal("JSONExtractString", "keys and positions", &argument)),
        });
    }
    kernel::map("JSONExtractString", String::new(), converted, ty, |columns| {
        let texts = columns[0].as_string_view();
        let mut built = StringViewBuilder::with_capacity(texts.len());
        let mut found = String::new();
        for row in 0..texts.len() {
            if columns.iter().any(|column| column.is_null(row)) {
                built.append_null();
                continue;
            }
            let path = columns[1..].iter().map(|column| match column.as_string_view_opt() {
                Some(keys) => Step::Key(keys.value(row)),
                None => Step::Position(column.as_primitive::<Int64Type>().value(row)),
            });
            found.clear();
            extract(texts.value(row), path, &mut found);
            built.append_value(&found);
        }
        Ok(Arc::new(built.finish()))
    })
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Position(i64),
}

/// Appends what the path leads to.
fn extract<'a>(text: &str, path: impl Iterator<Item = Step<'a>>, found: &mut String) {
    let Ok(mut value) = serde_json::from_str::<&RawValue>(text) else { return };
    for step in path {
        match child(value, step) {
            Some(next) => value = next,
            None => return,
        }
    }
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => found.push_str(&serde_json::from_str::<String>(text).unwrap_or_default()),
        Some(b'n') => {}
        _ => compact(text, found),
    }
}

/// What stands at a step below a value; nothing below a text or a number.
fn child<'a>(value: &'a RawValue, step: Step<'_>) -> Option<&'a RawValue> {
    let look = |step, back| value_deserializer(value).deserialize_any(Look { step, back }).ok().flatten();
    match step {
        Step::Position(0) => None,
        Step::Position(position) if position < 0 => {
            // Positions from the end need the number of members first.
            let count = value_deserializer(value).deserialize_any(Count).ok()?;
            let back = usize::try_from(position.unsigned_abs()).ok().filter(|&back| back <= count)?;
            look(step, Some(count - back))
        }
        _ => look(step, None),
    }
}

fn value_deserializer(value: &RawValue) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(value.get())
}

/// Takes the member at a step out of an object or an array.
struct Look<'s> {
    step: Step<'s>,
    /// The place from the front, where the step counts from the end.
    back: Option<usize>,
}

impl Look<'_> {
    fn is(&self, place: usize, key: Option<&str>) -> bool {
        match (self.step, self.back) {
            (Step::Key(wanted), _) => key == Some(wanted),
            (Step::Position(_), Some(wanted)) => place == wanted,
            (Step::Position(wanted), None) => i64::try_from(place + 1).is_ok_and(|place| place == wanted),
        }
    }
}

impl<'de> Visitor<'de> for Look<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut place = 0;
        while let Some(key) = map.next_key::<String>()? {
            if found.is_none() && self.is(place, Some(&key)) {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            place += 1;
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut place = 0;
        while let Some(member) = seq.next_element::<&RawValue>()? {
            if found.is_none() && self.is(place, None) {
                found = Some(member);
            }
            place += 1;
        }
        Ok(found)
    }
}

/// Counts the members of an object or an array.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// Appends valid JSON without white space, its texts and numbers in their shortest form.
fn compact(text: &str, found: &mut String) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(bytes.len());
                let plain = serde_json::from_str::<String>(&text[from..at]).unwrap_or_default();
                found.push_str(&serde_json::to_string(&plain).unwrap_or_default());
            }
            b'-' | b'0'..=b'9' => {
                while at < bytes.len() && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') {
                    at += 1;
                }
                number(&text[from..at], found);
            }
            byte => {
                if !byte.is_ascii_whitespace() {
                    found.push(char::from(byte));
                }
                at += 1;
            }
        }
    }
}

fn number(text: &str, found: &mut String) {
    match text.parse::<f64>() {
        Ok(value) if text.contains(['.', 'e', 'E']) => found.push_str(&render::float_text(value)),
        _ if text == "-0" => found.push('0'),
        _ => found.push_str(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn paths_into_json() {
        cases(
            r#"
            JSONExtractString('{"a":"x"}','a') => String "x"
            JSONExtractString('{"a":1}','a') => String "1"
            JSONExtractString('{"a":1.50}','a') => String "1.5"
            JSONExtractString('{"a":true}','a') => String "true"
            JSONExtractString('{"a":null}','a') => String ""
            JSONExtractString('{"a":{"b": [1, 2]}}','a') => String "{\"b\":[1,2]}"
            JSONExtractString('{"a":{"b":"y"}}','a','b') => String "y"
            JSONExtractString('{"a":["x","y"]}','a',1) => String "x"
            JSONExtractString('{"a":["x","y"]}','a',-1) => String "y"
            JSONExtractString('{"a":["x","y"]}','a',0) => String ""
            JSONExtractString('{"a":["x","y"]}','a',3) => String ""
            JSONExtractString('{"a":"x","b":"y"}',2) => String "y"
            JSONExtractString('{"a":"x","b":"y"}',-1) => String "y"
            JSONExtractString('["x"]',1) => String "x"
            JSONExtractString('"x"') => String "x"
            JSONExtractString('5') => String "5"
            JSONExtractString('invalid','a') => String ""
            JSONExtractString('{"a":"x"','a') => String ""
            JSONExtractString('{"a":"\\u00e9\\n\\"q"}','a') => String "é\n\"q"
            JSONExtractString('{"a":"\\ud83d\\ude00"}','a') => String "😀"
            JSONExtractString('{"a":"x"}','b') => String ""
            JSONExtractString('{"a":"x"}') => String "{\"a\":\"x\"}"
            JSONExtractString('{"a" : [1 , 2.0, "z\\n"]}') => String "{\"a\":[1,2,\"z\\n\"]}"
            JSONExtractString('{"a":1e5}','a') => String "100000"
            JSONExtractString('{"a":12345678901234567890}','a') => String "12345678901234567890"
            JSONExtractString('{"a":123456789012345678901234567890}','a') => String "123456789012345678901234567890"
            JSONExtractString('{"a":-0}','a') => String "0"
            JSONExtractString('{"a":1.0}','a') => String "1"
            JSONExtractString('{"a":"x"}',1.5) => refused
            JSONExtractString(5,'a') => refused
            JSONExtractString(NULL,'a') => Nullable(Nothing) NULL
            JSONExtractString('{"a":"x"}',NULL) => Nullable(Nothing) NULL
            JSONExtractString('{"a":"x","a":"y"}','a') => String "x"
            JSONExtractString(materialize('{"a":"x","b":"y"}'),materialize('b')) => String "y"
            JSONExtractString('{"A":"x"}','a') => String ""
            JSONExtractString(' {"a":"x"} ','a') => String "x"
            JSONExtractString('{"a":"x"} z','a') => String ""
            JSONExtractString('','a') => String ""
            JSONExtractString('{"a":"x"}','a','b') => String ""
            JSONExtractString('{"a":"x"}','a',1) => String ""
            JSONExtractString('{"é":"x/y"}') => String "{\"é\":\"x/y\"}"
            JSONExtractString('{"a":0.1}','a') => String "0.1"
            JSONExtractString('{"a":{"é":"\\/x"}}','a') => String "{\"é\":\"/x\"}"
            "#,
        );
    }
    // TABLE END
}
