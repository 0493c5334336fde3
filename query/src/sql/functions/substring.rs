//! `substring(s, from[, length])` (AN-SEM-12).
//!
//! ClickHouse: bytes, counted from one, or backwards from minus one; zero gives `''`. A negative length counts from the end
//! of the text. What lies outside the text is not there: `substring('hello', -10, 7)` is `'he'`.
//!
//! Text here is always UTF-8. Where a cut splits a character, each byte of a piece becomes U+FFFD, which is what the byte is
//! in an answer (AN-JSON-05), and `length(substring(..))` counts bytes that were cut ([`length`]). But two pieces are equal
//! here that are not in ClickHouse, they sort behind other text, and put together again they are no character.

use std::sync::Arc;

use datafusion::arrow::array::types::Int64Type;
use datafusion::arrow::array::{Array, AsArray, StringViewBuilder, UInt64Array};
use datafusion::logical_expr::Expr;

use super::super::kernel;
use super::super::operators::{self, convert};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

/// Its name, and that of its kernel.
const NAME: &str = "substring";

pub(super) const SUBSTRING: Function = Function { name: NAME, case_sensitive: false, call };

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
    kernel::map(NAME, String::new(), converted, ty, |columns| {
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
                None => built.append_value(replaced(&text.as_bytes()[from..to])),
            }
        }
        Ok(Arc::new(built.finish()))
    })
}

/// `length` of a call of substring: the bytes that it cuts, whether or not they are whole characters. `None` for any other
/// expression.
pub(super) fn length(x: &Typed) -> Option<Result<Typed, Refusal>> {
    let Expr::ScalarFunction(call) = &x.expr else { return None };
    if call.func.name() != NAME {
        return None;
    }
    let types = [Type::String, Type::Int64, Type::Int64];
    let arguments =
        call.args.iter().zip(types).map(|(expr, ty)| Typed::new(expr.clone(), ty.nullable_as(&x.ty))).collect();
    Some(kernel::map("substringLength", String::new(), arguments, Type::UInt64.nullable_as(&x.ty), |columns| {
        let texts = columns[0].as_string_view();
        let froms = columns[1].as_primitive::<Int64Type>();
        let lengths = columns.get(2).map(|column| column.as_primitive::<Int64Type>());
        let length = |row: usize| {
            if columns.iter().any(|column| column.is_null(row)) {
                return None;
            }
            let length = lengths.map(|lengths| lengths.value(row));
            let (from, to) = range(texts.value(row).len(), froms.value(row), length);
            u64::try_from(to - from).ok()
        };
        Ok(Arc::new((0..texts.len()).map(length).collect::<UInt64Array>()))
    }))
}

/// Bytes as text, with U+FFFD for each that belongs to no whole character.
fn replaced(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
    }
    text
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
        cases(
            "
            substring('h\u{e9}llo', 2, 1) => String \"\u{fffd}\"
            substring('\u{20ac}x', 2) => String \"\u{fffd}\u{fffd}x\"
            length(substring(materialize('h\u{e9}llo'), 2, 1)) => UInt64 \"1\"
            length(substring(materialize('\u{20ac}x'), 2)) => UInt64 \"3\"
            ",
        );
    }
}
