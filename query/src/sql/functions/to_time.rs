//! `toDate(x[, tz])`, `toDateTime(x[, tz])`, `toDateTime64(x, precision[, tz])` (AN-TIME-03).
//!
//! ClickHouse: a number is Unix seconds (toDate: below 65,536 days), a float its whole part; numbers out of range stop at the
//! end of the type, so that milliseconds taken for seconds become 2106. Text is read in the zone; a Date is the midnight at
//! its start. A time keeps its instant and takes on the zone that is given, or keeps its own. A day that no calendar has is
//! refused here, where ClickHouse makes up another for toDate.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::array::types::{Date32Type, Int64Type};

use super::super::kernel;
use super::super::operators;
use super::super::operators::calendar::Clock;
use super::super::operators::convert::{self, convert};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const TO_DATE: Function = Function { name: "toDate", case_sensitive: true, call: to_date };
pub(super) const TO_DATE_TIME: Function = Function { name: "toDateTime", case_sensitive: true, call: to_date_time };
pub(super) const TO_DATE_TIME64: Function =
    Function { name: "toDateTime64", case_sensitive: true, call: to_date_time64 };

fn to_date(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("toDate", &given, 1, 2)?;
    let zone = arguments::zone("toDate", given.get(1))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    let x = match (x.ty.inner(), zone) {
        (Type::DateTime(_), Some(zone)) => convert(x, &Type::DateTime(Some(zone)))?,
        (Type::DateTime64(precision, _), Some(zone)) => {
            let ty = Type::DateTime64(*precision, Some(zone));
            convert(x, &ty)?
        }
        (ty, Some(zone)) if ty.is_number() && !Clock::new(Some(zone)).is_utc() => {
            let ty = Type::Date.nullable_as(&x.ty);
            let seconds = convert(x, &Type::Int64)?;
            return kernel::map("toDate", zone.to_string(), vec![seconds], ty, move |columns| {
                let clock = Clock::new(Some(zone));
                let days = columns[0].as_primitive::<Int64Type>().unary::<_, Date32Type>(|value| {
                    if value <= i64::from(u16::MAX) {
                        value.max(0) as i32
                    } else {
                        clock.day(value.min(convert::DATE_TIME_MAX)) as i32
                    }
                });
                Ok(Arc::new(days))
            });
        }
        // Another expression than the Date in it: WITH FILL fills a key, and not what the key is made of.
        (Type::Date, _) if x.as_literal().is_none() => {
            let name = format!("toDate({})", x.expr);
            return Ok(Typed { expr: x.expr.alias(name), ..x });
        }
        _ => x,
    };
    convert(x, &Type::Date)
}

/// The zone that a time already has.
fn own_zone(x: &Typed) -> Option<chrono_tz::Tz> {
    match x.ty.inner() {
        Type::DateTime(zone) | Type::DateTime64(_, zone) => *zone,
        _ => None,
    }
}

fn to_date_time(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("toDateTime", &given, 1, 2)?;
    let zone = arguments::zone("toDateTime", given.get(1))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    let zone = zone.or(own_zone(&x));
    convert(x, &Type::DateTime(zone))
}

fn to_date_time64(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("toDateTime64", &given, 2, 3)?;
    let precision = arguments::precision("toDateTime64", &given[1])?;
    let zone = arguments::zone("toDateTime64", given.get(2))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    let zone = zone.or(own_zone(&x));
    convert(x, &Type::DateTime64(precision, zone))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn numbers_texts_and_times_become_times() {
        cases(
            r#"
            toDate('2026-03-18','UTC') => Date "2026-03-18"
            toDate(toDateTime('2026-03-18 23:30:00'),'Europe/Berlin') => Date "2026-03-19"
            toDate(toDateTime('2026-03-18 23:30:00','Europe/Berlin')) => Date "2026-03-18"
            toDate(toDateTime('2026-03-18 23:30:00','America/New_York')) => Date "2026-03-18"
            toDate(1773792000,'Asia/Tokyo') => Date "2026-03-18"
            toDate(toDate('2026-03-18')) => Date "2026-03-18"
            toDate(true) => Date "1970-01-02"
            toDate([1]) => refused
            toDate() => refused
            toDate('2026-03-18','Foo/Bar') => refused
            toDate('2026-03-18', 5) => refused
            toDate(NULL) => Nullable(Nothing) NULL
            toDate('2026-3-8') => Date "2026-03-08"
            toDate('20260318') => Date "2026-03-18"
            toDate('2026-03-18T10:00:00Z') => refused
            toDate('2026-03-18abc') => refused
            toDate('2026-03-18 abc') => refused
            toDate('2026-02-30') => refused
            toDate('2026-13-01') => refused
            toDate('1969-12-31') => Date "1970-01-01"
            toDate('1900-01-01') => Date "1970-01-01"
            toDate('2150-01-01') => Date "2149-06-06"
            toDate('2026/03/18') => Date "2026-03-18"
            toDate('18-03-2026') => refused
            toDate('26-03-18') => refused
            toDate('2026-03') => refused
            toDate('') => refused
            toDate(' 2026-03-18') => refused
            toDate('2026-03-18 ') => refused
            toDate('1773792000') => refused
            toDateTime('2026-03-18 10:00:00','Europe/Berlin') => DateTime('Europe/Berlin') "2026-03-18 10:00:00"
            toDateTime('2026-03-18') => DateTime "2026-03-18 00:00:00"
            toDateTime('2026-03-18 10') => DateTime "2026-03-18 10:00:00"
            toDateTime('2026-03-18 10:00') => DateTime "2026-03-18 10:00:00"
            toDateTime('2026-03-18 10:00:00.999') => DateTime "2026-03-18 10:00:00"
            toDateTime('2026-03-18T10:00:00') => DateTime "2026-03-18 10:00:00"
            toDateTime('2026-03-18T10:00:00Z') => DateTime "2026-03-18 10:00:00"
            toDateTime('2026-03-18T10:00:00+01:00') => DateTime "2026-03-18 09:00:00"
            toDateTime('2026-03-18 10:00:00 abc') => refused
            toDateTime('2026-03-18 25:00:00') => DateTime "2026-03-19 01:00:00"
            toDateTime('2026-03-18 10:61:00') => DateTime "2026-03-18 11:01:00"
            toDateTime('2026-03-18 1:2:3') => DateTime "2026-03-18 01:02:03"
            toDateTime('2026-02-30 10:00:00') => refused
            toDateTime('1773792000') => DateTime "2026-03-18 00:00:00"
            toDateTime('0') => refused
            toDateTime('') => refused
            toDateTime('abc') => refused
            toDateTime('20260318') => DateTime "2026-03-18 00:00:00"
            toDateTime('20260318100000') => DateTime "2026-03-18 10:00:00"
            toDateTime('1960-01-01 00:00:00') => DateTime "1970-01-01 00:00:00"
            toDateTime('2200-01-01 00:00:00') => DateTime "2106-02-07 06:28:15"
            toDateTime('1773792000.5') => refused
            toDateTime(1773792000,'Europe/Berlin') => DateTime('Europe/Berlin') "2026-03-18 01:00:00"
            toDateTime(toDate('2026-03-18'),'Europe/Berlin') => DateTime('Europe/Berlin') "2026-03-18 00:00:00"
            toDateTime(toDateTime('2026-03-18 10:00:00'),'Europe/Berlin') => DateTime('Europe/Berlin') "2026-03-18 11:00:00"
            toDateTime(1773792000.9) => DateTime "2026-03-18 00:00:00"
            toDateTime(true) => DateTime "1970-01-01 00:00:01"
            toDateTime(toInt64(-5)) => DateTime "1970-01-01 00:00:00"
            toDateTime(5000000000) => DateTime "2106-02-07 06:28:15"
            toDateTime(toInt64(1773792000123)) => DateTime "2106-02-07 06:28:15"
            toDateTime(1,2) => refused
            toDateTime([1]) => refused
            toDateTime64('2026-03-18 10:00:00.5',3) => DateTime64(3) "2026-03-18 10:00:00.500"
            toDateTime64('2026-03-18 10:00:00.5',3,'Europe/Berlin') => DateTime64(3, 'Europe/Berlin') "2026-03-18 10:00:00.500"
            toDateTime64('2026-03-18',3) => DateTime64(3) "2026-03-18 00:00:00.000"
            toDateTime64('2026-03-18T10:00:00.123Z',3) => DateTime64(3) "2026-03-18 10:00:00.123"
            toDateTime64('2026-03-18 10:00:00.123456789',3) => DateTime64(3) "2026-03-18 10:00:00.123"
            toDateTime64('2026-03-18 10:00:00',10) => refused
            toDateTime64('2026-03-18 10:00:00') => refused
            toDateTime64('1960-01-01 00:00:00',3) => DateTime64(3) "1960-01-01 00:00:00.000"
            toDateTime64('1773792000.5',3) => DateTime64(3) "2026-03-18 00:00:00.500"
            toDateTime64('1773792000',3) => DateTime64(3) "2026-03-18 00:00:00.000"
            toDateTime64('2300-01-01 00:00:00',3) => DateTime64(3) "2300-01-01 00:00:00.000"
            toDateTime64(1773792000,3) => DateTime64(3) "2026-03-18 00:00:00.000"
            toDateTime64(1773792000.123,3) => DateTime64(3) "2026-03-18 00:00:00.123"
            toDateTime64(-1.5,3) => DateTime64(3) "1969-12-31 23:59:58.500"
            toDateTime64(toDate('2026-03-18'),3) => DateTime64(3) "2026-03-18 00:00:00.000"
            toDateTime64(toDateTime('2026-03-18 10:00:00'),6) => DateTime64(6) "2026-03-18 10:00:00.000000"
            toDateTime64(toDateTime64('2026-03-18 10:00:00.987',3),1) => DateTime64(1) "2026-03-18 10:00:00.9"
            toDateTime64(toDateTime64('2026-03-18 10:00:00.987',3),6,'Europe/Berlin') => DateTime64(6, 'Europe/Berlin') "2026-03-18 11:00:00.987000"
            toDateTime64('abc',3) => refused
            toDateTime('2026-05-18 10:11:12') - toIntervalDay(materialize(3)) => DateTime "2026-05-15 10:11:12"
            "#,
        );
    }
    // TABLE END
}
