//! Literals other than text: the smallest type that holds them.

use datafusion::common::ScalarValue;

use super::super::typed::Typed;
use super::super::types::Type;
use crate::error::Refusal;

/// A bare NULL.
pub fn null() -> Typed {
    Typed::literal(ScalarValue::Null, Type::Nothing)
}

/// `true` or `false`.
pub fn boolean(value: bool) -> Typed {
    Typed::literal(ScalarValue::Boolean(Some(value)), Type::Bool)
}

/// A number as written, with its sign where one stands directly before it (`-1` is an Int8, while the negation of the
/// constant 1 is an Int16): the smallest unsigned type, or signed where it is negative, and Float64 for what has a point or
/// an exponent or is beyond 64 bits. Underscores between digits, `0x` and `0b` are understood.
pub fn number(text: &str) -> Result<Typed, Refusal> {
    let digits: String = text.chars().filter(|&c| c != '_').collect();
    let (negative, magnitude) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let radix = |prefix: [&str; 2], radix| {
        let rest = magnitude.strip_prefix(prefix[0]).or_else(|| magnitude.strip_prefix(prefix[1]))?;
        Some(u64::from_str_radix(rest, radix).ok())
    };
    let whole = match radix(["0x", "0X"], 16).or_else(|| radix(["0b", "0B"], 2)) {
        Some(Some(value)) => Some(value),
        Some(None) => return Err(Refusal::query(format!("{text} is no number"))),
        None if magnitude.bytes().all(|byte| byte.is_ascii_digit()) => magnitude.parse::<u64>().ok(),
        None => None,
    };
    if let Some(whole) = whole
        && let Some(typed) = if negative { signed(whole) } else { Some(unsigned(whole)) }
    {
        return Ok(typed);
    }
    match digits.parse::<f64>() {
        Ok(value) => Ok(Typed::literal(ScalarValue::Float64(Some(value)), Type::Float64)),
        Err(_) => Err(Refusal::query(format!("{text} is no number"))),
    }
}

fn unsigned(value: u64) -> Typed {
    if let Ok(value) = u8::try_from(value) {
        Typed::literal(ScalarValue::UInt8(Some(value)), Type::UInt8)
    } else if let Ok(value) = u16::try_from(value) {
        Typed::literal(ScalarValue::UInt16(Some(value)), Type::UInt16)
    } else if let Ok(value) = u32::try_from(value) {
        Typed::literal(ScalarValue::UInt32(Some(value)), Type::UInt32)
    } else {
        Typed::literal(ScalarValue::UInt64(Some(value)), Type::UInt64)
    }
}

/// `None` below the least Int64.
fn signed(magnitude: u64) -> Option<Typed> {
    if magnitude == 0 {
        return Some(unsigned(0));
    }
    let value = i64::try_from(-i128::from(magnitude)).ok()?;
    Some(if let Ok(value) = i8::try_from(value) {
        Typed::literal(ScalarValue::Int8(Some(value)), Type::Int8)
    } else if let Ok(value) = i16::try_from(value) {
        Typed::literal(ScalarValue::Int16(Some(value)), Type::Int16)
    } else if let Ok(value) = i32::try_from(value) {
        Typed::literal(ScalarValue::Int32(Some(value)), Type::Int32)
    } else {
        Typed::literal(ScalarValue::Int64(Some(value)), Type::Int64)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;
    use super::*;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn literals_have_the_least_type() {
        cases(
            r#"
            1 => UInt8 "1"
            255 => UInt8 "255"
            256 => UInt16 "256"
            65536 => UInt32 "65536"
            4294967296 => UInt64 "4294967296"
            18446744073709551615 => UInt64 "18446744073709551615"
            18446744073709551616 => Float64 "18446744073709552000"
            -1 => Int8 "-1"
            -128 => Int8 "-128"
            -129 => Int16 "-129"
            -32769 => Int32 "-32769"
            -2147483649 => Int64 "-2147483649"
            -9223372036854775808 => Int64 "-9223372036854775808"
            -9223372036854775809 => Float64 "-9223372036854776000"
            1.5 => Float64 "1.5"
            1e3 => Float64 "1000"
            1. => Float64 "1"
            .5 => Float64 "0.5"
            -0 => UInt8 "0"
            -0.0 => Float64 "-0"
            true => Bool "true"
            NULL => Nullable(Nothing) NULL
            "#,
        );
    }
    // TABLE END

    /// Types as ClickHouse names them.
    #[test]
    fn a_number_has_the_smallest_type_that_holds_it() {
        for (text, ty) in [
            ("1", Type::UInt8),
            ("255", Type::UInt8),
            ("256", Type::UInt16),
            ("65536", Type::UInt32),
            ("4294967296", Type::UInt64),
            ("18446744073709551615", Type::UInt64),
            ("18446744073709551616", Type::Float64),
            ("-1", Type::Int8),
            ("-128", Type::Int8),
            ("-129", Type::Int16),
            ("-32769", Type::Int32),
            ("-2147483649", Type::Int64),
            ("-9223372036854775808", Type::Int64),
            ("-9223372036854775809", Type::Float64),
            ("1.5", Type::Float64),
            ("1e3", Type::Float64),
            ("1.", Type::Float64),
            (".5", Type::Float64),
            ("0x1F", Type::UInt8),
            ("0b101", Type::UInt8),
            ("1_000", Type::UInt16),
            ("-0", Type::UInt8),
            ("-0.0", Type::Float64),
        ] {
            assert_eq!(number(text).map(|typed| typed.ty), Ok(ty), "{text}");
        }
        assert!(number("0x").is_err());
        assert!(number("1a").is_err());
    }
}
