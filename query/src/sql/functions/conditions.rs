//! `if(condition, then, otherwise)` and `coalesce(a, b, ..)` (AN-SEM-06, AN-SEM-08).
//!
//! ClickHouse: `if` wants a comparison's result, a Bool or a UInt8, NULL counting as not met, and gives the type that both
//! branches share; `coalesce` gives the first value that is not NULL, and is not NULL-able itself as soon as one of its
//! arguments is not. Branches of 64-bit integers and floats share Float64 here, and text shares nothing with numbers, where
//! ClickHouse gives a variant of both.

use super::super::operators;
use super::super::typed::Typed;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const IF: Function = Function { name: "if", case_sensitive: false, call: choose };
pub(super) const COALESCE: Function =
    Function { name: "coalesce", case_sensitive: false, call: |_, given| operators::coalesce(given) };

fn choose(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [condition, then, otherwise] = arguments::exactly("if", given)?;
    operators::if_else(condition, then, otherwise)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn branches_and_first_values() {
        cases(
            r#"
            if(1, true, 0) => Bool "true"
            if(1, 0, true) => UInt8 "0"
            if(1, true, 2) => Bool "true"
            if(0, true, 2) => Bool "true"
            if(1, 2, true) => UInt8 "2"
            if(1, true, toInt64(2)) => Int64 "1"
            if(1, 1, NULL) => Nullable(UInt8) "1"
            if(0, 1, NULL) => Nullable(UInt8) NULL
            if(NULL, 1, 2) => UInt8 "2"
            if(materialize(toNullable(1)), 1, 2) => UInt8 "1"
            if(1, NULL, NULL) => Nullable(Nothing) NULL
            if(materialize(1), NULL, 'a') => Nullable(String) NULL
            if(1, [1], [NULL]) => Array(UInt8) "[1]"
            if(1, [], [1]) => Array(UInt8) "[]"
            if(1, toDate('2020-01-01'), toDateTime('2020-01-02 00:00:00')) => DateTime "2020-01-01 00:00:00"
            if(1, toDateTime('2020-01-01 00:00:00'), toDateTime64('2020-01-02 00:00:00',3)) => DateTime64(3) "2020-01-01 00:00:00.000"
            if(1, toDateTime('2020-01-01 00:00:00','Europe/Berlin'), toDateTime('2020-01-02 00:00:00','UTC')) => DateTime('Europe/Berlin') "2020-01-01 00:00:00"
            if(2, 1, 2) => UInt8 "1"
            if(256, 1, 2) => refused
            if(materialize(toInt64(1)), 1, 2) => refused
            if(toInt64(1), 1, 2) => refused
            if(materialize(toUInt8(2)), 1, 2) => UInt8 "1"
            if(true, 1, 2) => UInt8 "1"
            if('a', 1, 2) => refused
            if(1.5, 1, 2) => refused
            if(1,2) => refused
            if(1,2,3,4) => refused
            if(materialize(0), toInt32(materialize('abc')), 5) => Int32 "5"
            coalesce(NULL, 1) => UInt8 "1"
            coalesce(1, NULL) => UInt8 "1"
            coalesce(NULL, NULL) => Nullable(Nothing) NULL
            coalesce(materialize(toNullable(1)), 2) => UInt8 "1"
            coalesce(materialize(toNullable(1)), materialize(toNullable(2))) => Nullable(UInt8) "1"
            coalesce() => Nullable(Nothing) NULL
            coalesce(1) => UInt8 "1"
            coalesce(NULL) => Nullable(Nothing) NULL
            coalesce(NULL, 'a', 1) => String "a"
            coalesce(1, 'a') => UInt8 "1"
            "#,
        );
    }
    // TABLE END
}
