//! `toStartOfMinute`, `..Hour`, `..Day`, `..Week`, `..Month`, `..Quarter`, `..Year` of a time, with an optional zone
//! (AN-TIME-02).
//!
//! ClickHouse: up to the day the result is a DateTime, from the week on a Date, also of a DateTime64. Minutes and hours of a
//! Date are refused, and so is a zone beside one from the month on. `toStartOfWeek(t[, mode[, tz]])` begins weeks on
//! Sunday; with an odd mode on Monday. What begins before 1970 is 1970-01-01.

use std::cell::Cell;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::array::types::{Date32Type, Int64Type};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit};

use super::super::kernel;
use super::super::operators::calendar::{self, Clock, DAY_S};
use super::super::operators::{self, convert};
use super::super::typed::Typed;
use super::super::types::{Type, ticks_per_second};
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const MINUTE: Function =
    Function { name: "toStartOfMinute", case_sensitive: true, call: |_, given| call(Start::Minute, given) };
pub(super) const HOUR: Function =
    Function { name: "toStartOfHour", case_sensitive: true, call: |_, given| call(Start::Hour, given) };
pub(super) const DAY: Function =
    Function { name: "toStartOfDay", case_sensitive: true, call: |_, given| call(Start::Day, given) };
pub(super) const WEEK: Function = Function { name: "toStartOfWeek", case_sensitive: true, call: week };
pub(super) const MONTH: Function =
    Function { name: "toStartOfMonth", case_sensitive: true, call: |_, given| call(Start::Month, given) };
pub(super) const QUARTER: Function =
    Function { name: "toStartOfQuarter", case_sensitive: true, call: |_, given| call(Start::Quarter, given) };
pub(super) const YEAR: Function =
    Function { name: "toStartOfYear", case_sensitive: true, call: |_, given| call(Start::Year, given) };

/// What a time is rounded down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Second,
    Minute,
    Hour,
    Day,
    Monday,
    Sunday,
    Month,
    Quarter,
    Year,
}

impl Start {
    fn function(self) -> &'static str {
        match self {
            Start::Second => "toStartOfSecond",
            Start::Minute => "toStartOfMinute",
            Start::Hour => "toStartOfHour",
            Start::Day => "toStartOfDay",
            Start::Monday | Start::Sunday => "toStartOfWeek",
            Start::Month => "toStartOfMonth",
            Start::Quarter => "toStartOfQuarter",
            Start::Year => "toStartOfYear",
        }
    }

    /// Its length in seconds, where it is fixed.
    fn length(self) -> Option<i64> {
        match self {
            Start::Second => Some(1),
            Start::Minute => Some(60),
            Start::Hour => Some(3_600),
            Start::Day => Some(DAY_S),
            _ => None,
        }
    }

    fn of_day(self, day: i64) -> i64 {
        let start = match self {
            Start::Monday => calendar::monday(day),
            Start::Sunday => calendar::sunday(day),
            Start::Month => calendar::start_of_month(day),
            Start::Quarter => calendar::start_of_quarter(day),
            Start::Year => calendar::start_of_year(day),
            Start::Second | Start::Minute | Start::Hour | Start::Day => day,
        };
        start.max(0)
    }
}

fn call(start: Start, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between(start.function(), &given, 1, 2)?;
    let zone = arguments::zone(start.function(), given.get(1))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    if zone.is_some() && *x.ty.inner() == Type::Date && start != Start::Day {
        return Err(Refusal::query(format!("function {} takes no time zone beside a Date", start.function())));
    }
    truncate(start.function(), start, x, zone)
}

fn week(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("toStartOfWeek", &given, 1, 3)?;
    let mode = given.get(1).map(|mode| arguments::whole("toStartOfWeek", "mode", mode)).transpose()?.unwrap_or(0);
    let zone = arguments::zone("toStartOfWeek", given.get(2))?;
    let Some(x) = given.into_iter().next() else { return Ok(operators::null()) };
    truncate("toStartOfWeek", if mode % 2 == 0 { Start::Sunday } else { Start::Monday }, x, zone)
}

/// A time rounded down, in the zone that is given or its own.
pub(super) fn truncate(function: &'static str, start: Start, x: Typed, zone: Option<Tz>) -> Result<Typed, Refusal> {
    let from = x.ty.inner().clone();
    let (ticks, zone) = match &from {
        Type::Nothing => return Ok(x),
        Type::Date if matches!(start, Start::Second | Start::Minute | Start::Hour) => {
            return Err(arguments::illegal(function, "a DateTime or DateTime64", &x));
        }
        Type::Date => (1, zone),
        Type::DateTime(own) => (1, zone.or(*own)),
        Type::DateTime64(precision, own) => (ticks_per_second(*precision), zone.or(*own)),
        _ => return Err(arguments::illegal(function, "a Date, DateTime or DateTime64", &x)),
    };
    if from == Type::Date && start == Start::Day {
        return convert(x, &Type::DateTime(zone));
    }
    let to = if start.length().is_some() { Type::DateTime(zone) } else { Type::Date };
    let parameters = format!("{start:?} of {from} in {to} {}", zone.map_or("UTC", Tz::name));
    let ty = to.nullable_as(&x.ty);
    kernel::map(function, parameters, vec![x], ty, move |columns| {
        let clock = Clock::new(zone);
        let column = &columns[0];
        if from == Type::Date {
            return Ok(days(column.as_primitive::<Date32Type>(), i64::from, start));
        }
        let values = cast(column, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        match start.length() {
            Some(length) => {
                let starts: PrimitiveArray<Int64Type> = values.unary(|value| {
                    let second = calendar::second_of(value, ticks);
                    if clock.is_utc() {
                        (second - past(second, length)).max(0)
                    } else {
                        let local = clock.local(second);
                        clock.unix(local - past(local, length)).max(0)
                    }
                });
                Ok(cast(&starts, &DataType::Timestamp(TimeUnit::Second, None))?)
            }
            None => Ok(days(values, |value| clock.day(calendar::second_of(value, ticks)), start)),
        }
    })
}

/// Seconds past the start of a period of this length, the usual ones being divisions by a constant.
fn past(second: i64, length: i64) -> i64 {
    match length {
        1 => 0,
        60 => second.rem_euclid(60),
        3_600 => second.rem_euclid(3_600),
        DAY_S => second.rem_euclid(DAY_S),
        other => second.rem_euclid(other),
    }
}

/// The first day of each value's period. Neighbouring rows are mostly of one day, which is looked up once.
fn days<T: ArrowPrimitiveType>(values: &PrimitiveArray<T>, day: impl Fn(T::Native) -> i64, start: Start) -> ArrayRef {
    let last = Cell::new((0, start.of_day(0)));
    Arc::new(values.unary::<_, Date32Type>(|value| {
        let day = day(value);
        if last.get().0 != day {
            last.set((day, start.of_day(day)));
        }
        last.get().1 as i32
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn starts_of_periods() {
        cases(
            r#"
            toStartOfMinute(toDateTime('2026-03-18 10:11:12')) => DateTime "2026-03-18 10:11:00"
            toStartOfMinute(toDateTime64('2026-03-18 10:11:12.5',3)) => DateTime "2026-03-18 10:11:00"
            toStartOfMinute(toDate('2026-03-18')) => refused
            toStartOfHour(toDateTime('2026-03-18 10:11:12')) => DateTime "2026-03-18 10:00:00"
            toStartOfHour(toDateTime('2026-03-18 10:11:12'),'Asia/Kolkata') => DateTime('Asia/Kolkata') "2026-03-18 15:00:00"
            toStartOfHour(toDateTime64('2026-03-18 10:11:12.5',3)) => DateTime "2026-03-18 10:00:00"
            toStartOfHour(toDateTime64('1969-03-18 10:11:12.5',3)) => DateTime "1970-01-01 00:00:00"
            toStartOfHour(toDate('2026-03-18')) => refused
            toStartOfHour(5) => refused
            toStartOfHour('2026-03-18 10:11:12') => refused
            toStartOfDay(toDateTime('2026-03-18 10:11:12')) => DateTime "2026-03-18 00:00:00"
            toStartOfDay(toDate('2026-03-18')) => DateTime "2026-03-18 00:00:00"
            toStartOfDay(toDateTime64('2026-03-18 10:11:12.5',3)) => DateTime "2026-03-18 00:00:00"
            toStartOfDay(toDateTime('2026-03-18 02:11:12'),'America/New_York') => DateTime('America/New_York') "2026-03-17 00:00:00"
            toStartOfDay(toDate('2026-03-18'),'America/New_York') => DateTime('America/New_York') "2026-03-18 00:00:00"
            toStartOfDay('2026-03-18') => refused
            toStartOfDay(5) => refused
            toStartOfWeek(toDateTime('2026-03-18 10:11:12')) => Date "2026-03-15"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),1) => Date "2026-03-16"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),0) => Date "2026-03-15"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),2) => Date "2026-03-15"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),3) => Date "2026-03-16"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),8) => Date "2026-03-15"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),9) => Date "2026-03-16"
            toStartOfWeek(toDateTime('2026-03-18 10:11:12'),1,'America/New_York') => Date "2026-03-16"
            toStartOfWeek(toDateTime('2026-03-16 02:11:12'),1,'America/New_York') => Date "2026-03-09"
            toStartOfWeek(toDate('2026-03-15')) => Date "2026-03-15"
            toStartOfWeek(toDate('2026-03-15'),1) => Date "2026-03-09"
            toStartOfWeek(toDateTime64('2026-03-18 10:11:12.5',3)) => Date "2026-03-15"
            toStartOfWeek(toDate('1970-01-01')) => Date "1970-01-01"
            toStartOfWeek(toDate('1970-01-03'),1) => Date "1970-01-01"
            toStartOfWeek(toDate('1970-01-01'),1) => Date "1970-01-01"
            toStartOfWeek('2026-03-18') => refused
            toStartOfWeek(5) => refused
            toStartOfWeek(toDate('2026-03-15'),'a') => refused
            toStartOfWeek(toDate('2026-03-15'),1.5) => refused
            toStartOfMonth(toDateTime('2026-03-18 10:11:12')) => Date "2026-03-01"
            toStartOfMonth(toDateTime64('2026-03-18 10:11:12.5',3)) => Date "2026-03-01"
            toStartOfMonth(toDate('2026-03-18')) => Date "2026-03-01"
            toStartOfMonth(toDate('2026-03-18'),'Asia/Tokyo') => refused
            toStartOfMonth(toDateTime('2026-03-31 23:11:12'),'Asia/Tokyo') => Date "2026-04-01"
            toStartOfMonth('2026-03-18') => refused
            toStartOfQuarter(toDateTime('2026-05-18 10:11:12')) => Date "2026-04-01"
            toStartOfQuarter(toDate('2026-05-18')) => Date "2026-04-01"
            toStartOfYear(toDateTime('2026-05-18 10:11:12')) => Date "2026-01-01"
            toStartOfYear(toDateTime64('2026-05-18 10:11:12.5',3)) => Date "2026-01-01"
            toStartOfYear(5) => refused
            toStartOfMonth(NULL) => Nullable(Nothing) NULL
            toStartOfMonth() => refused
            toStartOfMonth(toDate('2026-05-18'),1) => refused
            toStartOfHour(toDateTime('2026-03-18 10:11:12'),1) => refused
            toStartOfMonth(toDateTime64('1960-05-18 10:11:12.5',3)) => Date "1970-01-01"
            toStartOfYear(toDateTime64('1960-05-18 10:11:12.5',3)) => Date "1970-01-01"
            toStartOfWeek(toDateTime64('1960-05-18 10:11:12.5',3)) => Date "1970-01-01"
            toStartOfDay(toDateTime64('1960-05-18 10:11:12.5',3)) => DateTime "1970-01-01 00:00:00"
            toStartOfMinute(toDateTime64('1960-05-18 10:11:12.5',3)) => DateTime "1970-01-01 00:00:00"
            "#,
        );
    }
    // TABLE END
}
