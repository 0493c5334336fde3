//! `EXTRACT(part FROM x)`.

use std::sync::Arc;

use datafusion::arrow::array::types::{Date32Type, UInt8Type, UInt16Type, UInt32Type};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::{Type, ticks_per_second};
use super::calendar::{self, Clock, DAY_S};
use super::convert::ticks_of;
use super::literal;
use crate::error::Refusal;

/// What EXTRACT takes out of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// From 0 to 999.
    Millisecond,
    /// From 0 to 59.
    Second,
    /// From 0 to 59.
    Minute,
    /// From 0 to 23.
    Hour,
    /// From 1 to 31.
    Day,
    /// The ISO week, from 1 to 53.
    Week,
    /// From 1 to 12.
    Month,
    /// From 1 to 4.
    Quarter,
    /// The year.
    Year,
    /// From Sunday, 0, to Saturday.
    DayOfWeek,
    /// From 1 to 366.
    DayOfYear,
    /// Unix seconds.
    Epoch,
}

impl Part {
    /// The part of this name, in any case.
    pub fn find(name: &str) -> Option<Part> {
        Some(match name.to_ascii_lowercase().as_str() {
            "millisecond" => Part::Millisecond,
            "second" => Part::Second,
            "minute" => Part::Minute,
            "hour" => Part::Hour,
            "day" => Part::Day,
            "week" => Part::Week,
            "month" => Part::Month,
            "quarter" => Part::Quarter,
            "year" => Part::Year,
            "dow" => Part::DayOfWeek,
            "doy" => Part::DayOfYear,
            "epoch" => Part::Epoch,
            _ => return None,
        })
    }

    fn ty(self) -> Type {
        match self {
            Part::Year | Part::DayOfYear | Part::Millisecond => Type::UInt16,
            Part::Epoch => Type::UInt32,
            _ => Type::UInt8,
        }
    }

    /// Of a second on the local clock, the day it is on, and milliseconds below it.
    fn of(self, local_s: i64, day: i64, below_ms: i64) -> i64 {
        match self {
            Part::Millisecond => below_ms,
            Part::Second => local_s.rem_euclid(60),
            Part::Minute => local_s.rem_euclid(3_600) / 60,
            Part::Hour => local_s.rem_euclid(DAY_S) / 3_600,
            Part::Day => calendar::civil(day).2,
            Part::Week => calendar::iso_week(day).1,
            Part::Month => calendar::civil(day).1,
            Part::Quarter => (calendar::civil(day).1 - 1) / 3 + 1,
            Part::Year => calendar::civil(day).0,
            Part::DayOfWeek => (day + 4).rem_euclid(7),
            Part::DayOfYear => calendar::day_of_year(day),
            Part::Epoch => local_s,
        }
    }
}

/// `EXTRACT(part FROM x)` of a Date, DateTime or DateTime64 in its time zone; a Date has no parts below the day.
pub fn extract(part: Part, x: Typed) -> Result<Typed, Refusal> {
    let ticks = match x.ty.inner() {
        Type::Nothing => return Ok(literal::null()),
        Type::Date if matches!(part, Part::Millisecond | Part::Second | Part::Minute | Part::Hour) => {
            return Err(Refusal::query(format!("a Date has no {part:?} to extract")));
        }
        Type::Date | Type::DateTime(_) => 1,
        Type::DateTime64(precision, _) => ticks_per_second(*precision),
        other => return Err(Refusal::query(format!("EXTRACT takes a Date or DateTime, not {other}"))),
    };
    let zone = match x.ty.inner() {
        Type::DateTime(zone) | Type::DateTime64(_, zone) if part != Part::Epoch => *zone,
        _ => None,
    };
    let is_date = *x.ty.inner() == Type::Date;
    let ty = part.ty();
    let nullable = ty.clone().nullable_as(&x.ty);
    kernel::map("extract", format!("{part:?} {}", x.ty), vec![x], nullable, move |columns| {
        let clock = Clock::new(zone);
        let parts: Int64Array = if is_date {
            let days = columns[0].as_primitive::<Date32Type>();
            days.unary(|day| part.of(i64::from(day) * DAY_S, i64::from(day), 0))
        } else {
            ticks_of(&columns[0])?.unary(|value| {
                let local = clock.local(calendar::second_of(value, ticks));
                part.of(local, local.div_euclid(DAY_S), value.rem_euclid(ticks) * 1_000 / ticks)
            })
        };
        Ok(match ty {
            Type::UInt8 => Arc::new(parts.unary::<_, UInt8Type>(|part| part as u8)) as ArrayRef,
            Type::UInt16 => Arc::new(parts.unary::<_, UInt16Type>(|part| part as u16)),
            _ => Arc::new(parts.unary::<_, UInt32Type>(|part| part as u32)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn parts_of_times() {
        cases(
            r#"
            EXTRACT(YEAR FROM toDate('2026-03-18')) => UInt16 "2026"
            EXTRACT(MONTH FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "3"
            EXTRACT(DAY FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "18"
            EXTRACT(HOUR FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "10"
            EXTRACT(MINUTE FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "11"
            EXTRACT(SECOND FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "12"
            EXTRACT(QUARTER FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "1"
            EXTRACT(WEEK FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "12"
            EXTRACT(DOW FROM toDateTime('2026-03-18 10:11:12')) => UInt8 "3"
            EXTRACT(DOY FROM toDateTime('2026-03-18 10:11:12')) => UInt16 "77"
            EXTRACT(EPOCH FROM toDateTime('2026-03-18 10:11:12')) => UInt32 "1773828672"
            EXTRACT(MILLISECOND FROM toDateTime64('2026-03-18 10:11:12.345',3)) => UInt16 "345"
            EXTRACT(HOUR FROM toDate('2026-03-18')) => refused
            EXTRACT(YEAR FROM '2026-03-18') => refused
            EXTRACT(YEAR FROM 5) => refused
            EXTRACT(DAY FROM NULL) => Nullable(Nothing) NULL
            EXTRACT(HOUR FROM toDateTime('2026-03-18 10:11:12','Europe/Berlin')) => UInt8 "10"
            EXTRACT(YEAR FROM toDateTime64('1960-03-18 10:11:12',3)) => UInt16 "1960"
            "#,
        );
    }
    // TABLE END
}
