//! `substring(s, from[, length])` (AN-SEM-12).
//!
//! ClickHouse: bytes, counted from one, or backwards from minus one; zero gives `''`. A negative length counts from the end
//! of the text. What lies outside the text is not there: `substring('hello', -10, 7)` is `'he'`. Where a cut splits a
//! character, its pieces become U+FFFD, since text here is always UTF-8.

use std::sync::Arc;

use datafusion::arrow::array::types::Int64Type;
use datafusion::arrow::array::{Array, AsArray, StringViewBuilder};

use super::super::kernel;
use super::super::operators::{self, convert};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const SUBSTRING: Function = Function { name: "substring", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("substring", &given, 2, 3)?;
    if arguments::any_null(&given) {
        return Ok(operators::null());
    }
    if *given[0].ty.inner() != Type::String {
        return Err(arguments::illegal("substring", "text", &given[0]));
    }
    let mut ty = Type::String;
    let mut converted = Vec::with_capacity(given.len());
    for (at, argument) in given.into_iter().enumerate() {
        ty = ty.nullable_as(&argument.ty);
        if at == 0 {
            converted.push(argument);
        } else if argument.ty.inner().is_integer() || argument.ty.inner().is_float() {
            converted.push(convert(argument, &Type::Int64)?);
        } else {
            return Err(arguments::illegal("substring", "whole numbers as offset and length", &argument));
        }
    }
    kernel::map("substring", String::new(), converted, ty, |columns| {
        let texts = columns[0].as_string_view();
        let froms = columns[1].as_primitive::<Int64Type>();
        let lengths = columns.get(2).map(|column| column.as_primitive::<Int64Type>());
        let mut built = StringViewBuilder::with_capacity(texts.len());
        for row in 0..texts.len() {
            if columns.iter().any(|column| column.is_null(row)) {
                built.append_null();
                continue;
            }
            let text = texts.value(row);
            let (from, to) = range(text.len(), froms.value(row), lengths.map(|lengths| lengths.value(row)));
            match text.get(from..to) {
                Some(piece) => built.append_value(piece),
                None => built.append_value(String::from_utf8_lossy(&text.as_bytes()[from..to])),
            }
        }
        Ok(Arc::new(built.finish()))
    })
}

/// The bytes that are meant, of a text of so many.
fn range(size: usize, from: i64, length: Option<i64>) -> (usize, usize) {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let start = match from {
        0 => return (0, 0),
        1.. => from - 1,
        _ => size.saturating_add(from),
    };
    let end = match length {
        None => size,
        Some(length) if length < 0 => size.saturating_add(length),
        Some(length) => start.saturating_add(length),
    };
    let (start, end) = (start.clamp(0, size), end.clamp(0, size));
    // Both lie within a text's length.
    (start as usize, end.max(start) as usize)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn offsets_and_lengths_of_bytes() {
        cases(
            r#"
            substring('hello',2) => String "ello"
            substring('hello',2,2) => String "el"
            substring('hello',0) => String ""
            substring('hello',0,2) => String ""
            substring('hello',-3) => String "llo"
            substring('hello',-3,2) => String "ll"
            substring('hello',-10) => String "hello"
            substring('hello',-10,7) => String "he"
            substring('hello',6) => String ""
            substring('hello',10) => String ""
            substring('hello',2,-1) => String "ell"
            substring('hello',2,-3) => String "e"
            substring('hello',2,-4) => String ""
            substring('hello',2,-10) => String ""
            substring('hello',1,0) => String ""
            substring('hello',2,100) => String "ello"
            substring('héllo',2,2) => String "é"
            substring('hello',1.5) => String "hello"
            substring('hello','a') => refused
            substring(5,1) => refused
            substring([1],1) => refused
            substring('hello',materialize(2)) => String "ello"
            substring('hello',toInt64(2)) => String "ello"
            substring('hello') => refused
            substring('hello',NULL) => Nullable(Nothing) NULL
            substring(materialize('hello'),-3,materialize(-1)) => String "ll"
            substring('hello',-3,-1) => String "ll"
            substring('hello',0,-1) => String ""
            "#,
        );
    }
    // TABLE END

    /// A cut through a character.
    #[test]
    fn pieces_of_a_character_are_replaced() {
        cases("substring('h\u{e9}llo', 2, 1) => String \"\u{fffd}\"");
    }
}
