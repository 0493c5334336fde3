//! `fromUnixTimestamp64Milli(ms[, tz])` and `toUnixTimestamp64Milli(t)` (AN-TIME-03).
//!
//! ClickHouse: from any integer to a DateTime64(3), shown in the zone; back only from a DateTime64 of any precision, cut
//! towards zero to whole milliseconds. Both are plain casts here, so a condition on `fromUnixTimestamp64Milli(time)` is
//! one on `time`.

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{Operator, binary_expr, cast, lit};

use super::super::kernel;
use super::super::operators::{self, convert};
use super::super::typed::Typed;
use super::super::types::{Type, ticks_per_second};
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const FROM: Function = Function { name: "fromUnixTimestamp64Milli", case_sensitive: true, call: from };
pub(super) const TO: Function = Function { name: "toUnixTimestamp64Milli", case_sensitive: true, call: to };

fn from(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("fromUnixTimestamp64Milli", &given, 1, 2)?;
    let zone = arguments::zone("fromUnixTimestamp64Milli", given.get(1))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    if x.ty == Type::Nothing {
        return Ok(x);
    }
    if !x.ty.inner().is_integer() && *x.ty.inner() != Type::Bool {
        return Err(arguments::illegal("fromUnixTimestamp64Milli", "a whole number of milliseconds", &x));
    }
    let ty = Type::DateTime64(3, zone).nullable_as(&x.ty);
    let ms = convert(x, &Type::Int64)?;
    kernel::fold(Typed::new(cast(ms.expr, ty.arrow()), ty))
}

fn to(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [x] = arguments::exactly("toUnixTimestamp64Milli", given)?;
    let precision = match x.ty.inner() {
        Type::Nothing => return Ok(x),
        Type::DateTime64(precision, _) => *precision,
        _ => return Err(arguments::illegal("toUnixTimestamp64Milli", "a DateTime64", &x)),
    };
    let ty = Type::Int64.nullable_as(&x.ty);
    let ticks = cast(x.expr, DataType::Int64);
    let ms = match ticks_per_second(precision) {
        1 => binary_expr(ticks, Operator::Multiply, lit(1_000i64)),
        1_000 => ticks,
        finer => binary_expr(ticks, Operator::Divide, lit(finer / 1_000)),
    };
    kernel::fold(Typed::new(ms, ty))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn milliseconds_go_both_ways() {
        cases(
            r#"
            fromUnixTimestamp64Milli(1773792000123) => DateTime64(3) "2026-03-18 00:00:00.123"
            fromUnixTimestamp64Milli(toInt64(1773792000123)) => DateTime64(3) "2026-03-18 00:00:00.123"
            fromUnixTimestamp64Milli(toInt64(-1)) => DateTime64(3) "1969-12-31 23:59:59.999"
            fromUnixTimestamp64Milli(toInt64(1773792000123),'Europe/Berlin') => DateTime64(3, 'Europe/Berlin') "2026-03-18 01:00:00.123"
            fromUnixTimestamp64Milli(toUInt8(5)) => DateTime64(3) "1970-01-01 00:00:00.005"
            fromUnixTimestamp64Milli(1.5) => refused
            fromUnixTimestamp64Milli('a') => refused
            fromUnixTimestamp64Milli(toDateTime(5)) => refused
            fromUnixTimestamp64Milli(true) => DateTime64(3) "1970-01-01 00:00:00.001"
            fromUnixTimestamp64Milli(NULL) => Nullable(Nothing) NULL
            toUnixTimestamp64Milli(toDateTime64('2026-03-18 10:00:00.987',3)) => Int64 "1773828000987"
            toUnixTimestamp64Milli(toDateTime64('2026-03-18 10:00:00.987654',6)) => Int64 "1773828000987"
            toUnixTimestamp64Milli(toDateTime64('1969-12-31 23:59:59.987654',6)) => Int64 "-12"
            toUnixTimestamp64Milli(toDateTime64('2026-03-18 10:00:00.9',1)) => Int64 "1773828000900"
            toUnixTimestamp64Milli(toDateTime('2026-03-18 10:00:00')) => refused
            toUnixTimestamp64Milli(5) => refused
            toUnixTimestamp64Milli(toDate('2026-03-18')) => refused
            toUnixTimestamp64Milli('2026-03-18 10:00:00') => refused
            toUnixTimestamp64Milli(NULL) => Nullable(Nothing) NULL
            "#,
        );
    }
    // TABLE END
}
