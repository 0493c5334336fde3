//! `toString(x[, tz])` (AN-SEM-11).
//!
//! ClickHouse: floats in the fewest digits that read back the same (`0.1`, `2`, `1e21`), times as `YYYY-MM-DD hh:mm:ss[.fff]`
//! in their zone or the one given, arrays as `['a','b']`, a comparison's result as `1` or `0`, a Bool as `true` or `false`.

use super::super::operators::{self, convert};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const TO_STRING: Function = Function { name: "toString", case_sensitive: true, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("toString", &given, 1, 2)?;
    let zone = arguments::zone("toString", given.get(1))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    let x = match (x.ty.inner(), zone) {
        (_, None) => x,
        (Type::DateTime(_), zone) => convert(x, &Type::DateTime(zone))?,
        (Type::DateTime64(precision, _), zone) => {
            let ty = Type::DateTime64(*precision, zone);
            convert(x, &ty)?
        }
        _ => return Err(arguments::illegal("toString", "a time zone only beside a DateTime", &x)),
    };
    convert(x, &Type::String)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn text_of_every_type() {
        cases(
            r#"
            toString(0.1) => String "0.1"
            toString(1e21) => String "1e21"
            toString(1e20) => String "100000000000000000000"
            toString(123456789012345680000.0) => String "123456789012345680000"
            toString(1e22) => String "1e22"
            toString(0.00001) => String "0.00001"
            toString(1e-6) => String "0.000001"
            toString(1e-7) => String "1e-7"
            toString(1.0) => String "1"
            toString(-0.0) => String "-0"
            toString(1.7976931348623157e308) => String "1.7976931348623157e308"
            toString(5e-324) => String "5e-324"
            toString(0.30000000000000004) => String "0.30000000000000004"
            toString(100000.5) => String "100000.5"
            toString(12345678.9) => String "12345678.9"
            toString(1e15) => String "1000000000000000"
            toString(1234567890123456.7) => String "1234567890123456.8"
            toString(inf) => String "inf"
            toString(-inf) => String "-inf"
            toString(nan) => String "nan"
            toString(toFloat32(0.1)) => String "0.1"
            toString(toFloat32(1e10)) => String "10000000000"
            toString(toFloat32(16777216)) => String "16777216"
            toString(toFloat32(3.4e38)) => String "3.4e38"
            toString(toDateTime64('2026-03-18 10:00:00.120',3)) => String "2026-03-18 10:00:00.120"
            toString(toDateTime64('2026-03-18 10:00:00',0)) => String "2026-03-18 10:00:00"
            toString(toDateTime64('1969-12-31 23:59:59.5',3)) => String "1969-12-31 23:59:59.500"
            toString(toDateTime('2026-03-18 10:00:00'), 'Europe/Berlin') => String "2026-03-18 11:00:00"
            toString(toDateTime('2026-03-18 10:00:00', 'Europe/Berlin')) => String "2026-03-18 10:00:00"
            toString(['a','b\'c','d\\e','f\ng']) => String "['a','b\\'c','d\\\\e','f\\ng']"
            toString([1,NULL]) => String "[1,NULL]"
            toString([1.5,2]) => String "[1.5,2]"
            toString([toDate('2020-01-01')]) => String "['2020-01-01']"
            toString([toDateTime('2020-01-01 00:00:00')]) => String "['2020-01-01 00:00:00']"
            toString([[1],[2]]) => String "[[1],[2]]"
            toString([true]) => String "[true]"
            toString(NULL) => Nullable(Nothing) NULL
            toString(toNullable(1)) => Nullable(String) "1"
            toString(1=1) => String "1"
            toString(true) => String "true"
            toString(CAST(1.50 AS Decimal(10,2))) => String "1.5"
            toString('a', 'UTC') => refused
            toString(1,'UTC') => refused
            toString() => refused
            toString(toDate('2026-03-18'), 'UTC') => refused
            toString(toIntervalDay(3)) => String "3"
            toString([toFloat64(nan), inf]) => String "[nan,inf]"
            toString(['\t\r\b\f\0']) => String "['\\t\\r\\b\\f\\0']"
            toString(['é']) => String "['é']"
            "#,
        );
    }
    // TABLE END
}
