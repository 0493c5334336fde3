//! `date_trunc(unit, t[, tz])` (AN-TIME-02).
//!
//! ClickHouse: the unit is a constant in any case, weeks begin on Monday; week and longer give a Date, day and shorter a
//! DateTime (of a Date only from the day on), and units below the second, which only a DateTime64 has, a DateTime64 that shows
//! them. ClickHouse's type for a DateTime64 rounded to seconds, minutes or hours is a DateTime64(0), which looks the same.

use super::super::operators::convert;
use super::super::typed::Typed;
use super::super::types::Type;
use super::to_start_of::{Start, truncate};
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const DATE_TRUNC: Function = Function { name: "date_trunc", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("date_trunc", &given, 2, 3)?;
    let unit = arguments::text("date_trunc", "unit", &given[0])?.to_ascii_lowercase();
    let zone = arguments::zone("date_trunc", given.get(2))?;
    let x = given[1].clone();
    let digits = match unit.as_str() {
        "millisecond" => Some(3),
        "microsecond" => Some(6),
        "nanosecond" => Some(9),
        _ => None,
    };
    if let Some(digits) = digits {
        return match x.ty.inner() {
            Type::Nothing => Ok(x),
            Type::DateTime64(_, own) => {
                let ty = Type::DateTime64(digits, zone.or(*own));
                convert(x, &ty)
            }
            _ => Err(arguments::illegal("date_trunc", "a DateTime64 beside a unit below the second", &x)),
        };
    }
    let start = match unit.as_str() {
        "second" => Start::Second,
        "minute" => Start::Minute,
        "hour" => Start::Hour,
        "day" => Start::Day,
        "week" => Start::Monday,
        "month" => Start::Month,
        "quarter" => Start::Quarter,
        "year" => Start::Year,
        _ => return Err(Refusal::query(format!("function date_trunc knows no unit '{unit}'"))),
    };
    truncate("date_trunc", start, x, zone)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn units_and_zones() {
        cases(
            r#"
            date_trunc('month', toDateTime('2026-05-18 10:11:12')) => Date "2026-05-01"
            date_trunc('MONTH', toDate('2026-05-18')) => Date "2026-05-01"
            date_trunc('week', toDate('2026-03-15')) => Date "2026-03-09"
            date_trunc('quarter', toDateTime('2026-05-18 10:11:12')) => Date "2026-04-01"
            date_trunc('year', toDateTime('2026-05-18 10:11:12')) => Date "2026-01-01"
            date_trunc('day', toDateTime('2026-05-18 10:11:12')) => DateTime "2026-05-18 00:00:00"
            date_trunc('day', toDate('2026-05-18')) => DateTime "2026-05-18 00:00:00"
            date_trunc('hour', toDateTime('2026-05-18 10:11:12')) => DateTime "2026-05-18 10:00:00"
            date_trunc('hour', toDate('2026-05-18')) => refused
            date_trunc('minute', toDateTime('2026-05-18 10:11:12')) => DateTime "2026-05-18 10:11:00"
            date_trunc('second', toDateTime('2026-05-18 10:11:12')) => DateTime "2026-05-18 10:11:12"
            date_trunc('second', toDateTime64('2026-05-18 10:11:12.567',3)) => DateTime "2026-05-18 10:11:12"
            date_trunc('millisecond', toDateTime64('2026-05-18 10:11:12.567',3)) => DateTime64(3) "2026-05-18 10:11:12.567"
            date_trunc('millisecond', toDateTime('2026-05-18 10:11:12')) => refused
            date_trunc('microsecond', toDateTime64('2026-05-18 10:11:12.567',3)) => DateTime64(6) "2026-05-18 10:11:12.567000"
            date_trunc('hour', toDateTime64('2026-05-18 10:11:12.567',3)) => DateTime "2026-05-18 10:00:00"
            date_trunc('month', toDateTime64('2026-05-18 10:11:12.567',3)) => Date "2026-05-01"
            date_trunc('day', toDateTime('2026-05-18 02:11:12'), 'America/New_York') => DateTime('America/New_York') "2026-05-17 00:00:00"
            date_trunc('month', toDateTime('2026-05-01 02:11:12'), 'America/New_York') => Date "2026-04-01"
            date_trunc('week', toDateTime('2026-05-18 02:11:12'), 'America/New_York') => Date "2026-05-11"
            date_trunc('fortnight', toDate('2026-05-18')) => refused
            date_trunc('day', '2026-05-18') => refused
            date_trunc('day', 5) => refused
            date_trunc('day') => refused
            date_trunc('days', toDate('2026-05-18')) => refused
            date_trunc('week', toDateTime('2026-03-18 10:11:12')) => Date "2026-03-16"
            date_trunc('day', toDateTime('2026-05-18 02:11:12','America/New_York')) => DateTime('America/New_York') "2026-05-18 00:00:00"
            date_trunc('day', NULL) => Nullable(Nothing) NULL
            "#,
        );
    }
    // TABLE END
}
