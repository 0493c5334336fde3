//! `toInt32(x)`, `toInt64(x)`, `toFloat64(x)` (AN-SEM-10).
//!
//! ClickHouse: floats are truncated and integers wrap; text is read as a whole (`toFloat64` also `inf`, `nan` and exponents)
//! or refused; of a DateTime the Unix seconds, of a Date its days. NULL stays NULL.

use super::super::operators::convert;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Function, arguments};
use crate::error::Refusal;

pub(super) const TO_INT32: Function =
    Function { name: "toInt32", case_sensitive: true, call: |_, given| call("toInt32", &Type::Int32, given) };
pub(super) const TO_INT64: Function =
    Function { name: "toInt64", case_sensitive: true, call: |_, given| call("toInt64", &Type::Int64, given) };
pub(super) const TO_FLOAT64: Function =
    Function { name: "toFloat64", case_sensitive: true, call: |_, given| call("toFloat64", &Type::Float64, given) };

fn call(name: &str, ty: &Type, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [x] = arguments::exactly(name, given)?;
    convert(x, ty)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn numbers_and_text() {
        cases(
            r#"
            toInt32('abc') => refused
            toInt32(3.9) => Int32 "3"
            toInt32(toDateTime('2026-03-18 00:00:00')) => Int32 "1773792000"
            toInt32(toInt64(5000000000)) => Int32 "705032704"
            toInt64(toDate('2026-03-18')) => Int64 "20530"
            toInt64(toDateTime64('2026-03-18 00:00:00.9',3)) => Int64 "1773792000"
            toInt64(true) => Int64 "1"
            toInt64(NULL) => Nullable(Nothing) NULL
            toInt64([1]) => refused
            toInt64('5', 1) => refused
            toInt32(toNullable('5')) => Nullable(Int32) "5"
            toFloat64('1.5') => Float64 "1.5"
            toFloat64(true) => Float64 "1"
            toFloat64(toDate('2026-03-18')) => Float64 "20530"
            toFloat64('abc') => refused
            toInt64(toUInt64(18446744073709551615)) => Int64 "-1"
            toInt32(toIntervalDay(3)) => Int32 "3"
            "#,
        );
    }
    // TABLE END
}
