//! Intervals, and times moved by them or by numbers (AN-TIME-06, AN-TIME-07).
//!
//! Dates wrap at 16 bits and DateTimes at 32, as in ClickHouse, but months never lead before 1970. Days and longer are those
//! of the value's time zone; hours and shorter are of fixed length.

use std::sync::Arc;

use datafusion::arrow::array::types::{Date32Type, Decimal128Type, Int64Type};
use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, PrimitiveArray};
use datafusion::arrow::compute::cast as arrow_cast;
use datafusion::arrow::compute::kernels::arity::binary;
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{Operator, binary_expr, cast as cast_expr};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::{Type, Unit, grain, ticks_per_second};
use super::arithmetic::illegal;
use super::calendar::{self, Clock, DAY_S};
use super::convert::{DATE_TIME_MAX, convert, of_ticks, ticks_of};
use super::literal;
use crate::error::Refusal;

/// `INTERVAL amount UNIT` and `toIntervalUnit(amount)`: a number is cut to its whole part, text is read as a whole number.
pub fn interval(amount: Typed, unit: Unit) -> Result<Typed, Refusal> {
    if *amount.ty.inner() == Type::Nothing {
        return Ok(literal::null());
    }
    convert(amount, &Type::Interval(unit))
}

/// A time moved by an interval, forwards or back. The result is of the time's type, except that a Date moved by hours or
/// less becomes a DateTime, and anything moved by less than a second a DateTime64 that shows it. A constant text is read
/// as a DateTime64(3).
pub fn shift(time: Typed, interval: Typed, back: bool) -> Result<Typed, Refusal> {
    let operator = if back { "minus" } else { "plus" };
    if *time.ty.inner() == Type::Nothing || *interval.ty.inner() == Type::Nothing {
        return Ok(literal::null());
    }
    let Type::Interval(unit) = *interval.ty.inner() else { return Err(illegal(operator, &time, &interval)) };
    let time = if time.as_text().is_some() { convert(time, &Type::DateTime64(3, None))? } else { time };
    let below_second = match unit {
        Unit::Nanosecond => 9,
        Unit::Microsecond => 6,
        Unit::Millisecond => 3,
        _ => 0,
    };
    let ty = match time.ty.inner() {
        Type::Date if below_second > 0 => return Err(illegal(operator, &time, &interval)),
        Type::Date if unit < Unit::Day => Type::DateTime(None),
        Type::Date => Type::Date,
        Type::DateTime(zone) if below_second > 0 => Type::DateTime64(below_second, *zone),
        Type::DateTime(zone) => Type::DateTime(*zone),
        Type::DateTime64(precision, zone) => Type::DateTime64(below_second.max(*precision), *zone),
        _ => return Err(illegal(operator, &time, &interval)),
    };
    let nullable = ty.clone().nullable_as(&time.ty).nullable_as(&interval.ty);
    let time = convert(time, &ty)?;
    let sign = if back { -1 } else { 1 };
    let parameters = format!("{unit:?} {sign} {ty}");
    kernel::map("shift", parameters, vec![time, interval], nullable, move |columns| {
        let amounts = columns[1].as_primitive::<Int64Type>();
        Ok(match &ty {
            Type::Date => {
                let days = columns[0].as_primitive::<Date32Type>();
                let moved: PrimitiveArray<Date32Type> = binary(days, amounts, |day, amount| {
                    move_day(i64::from(day), unit, amount.wrapping_mul(sign)) as i32
                })?;
                Arc::new(moved) as ArrayRef
            }
            Type::DateTime(zone) => {
                let clock = Clock::new(*zone);
                let moved: Int64Array = binary(&ticks_of(&columns[0])?, amounts, |second, amount| {
                    let moved = move_ticks(second, 1, unit, amount.wrapping_mul(sign), &clock);
                    if unit >= Unit::Month && moved < 0 { 0 } else { moved & DATE_TIME_MAX }
                })?;
                of_ticks(moved, columns[0].data_type())?
            }
            Type::DateTime64(precision, zone) => {
                let (clock, ticks) = (Clock::new(*zone), ticks_per_second(*precision));
                let moved: Int64Array = binary(&ticks_of(&columns[0])?, amounts, |value, amount| {
                    move_ticks(value, ticks, unit, amount.wrapping_mul(sign), &clock)
                })?;
                of_ticks(moved, columns[0].data_type())?
            }
            _ => Arc::clone(&columns[0]),
        })
    })
}

fn months(unit: Unit) -> i64 {
    match unit {
        Unit::Quarter => 3,
        Unit::Year => 12,
        _ => 1,
    }
}

fn move_day(day: i64, unit: Unit, amount: i64) -> i64 {
    match unit {
        Unit::Month | Unit::Quarter | Unit::Year => {
            calendar::add_months(day, amount.saturating_mul(months(unit))).max(0) & 0xFFFF
        }
        Unit::Week => day.wrapping_add(amount.wrapping_mul(7)) & 0xFFFF,
        _ => day.wrapping_add(amount) & 0xFFFF,
    }
}

/// A time in ticks, so many to the second, moved by an amount of a unit.
pub fn move_ticks(value: i64, ticks: i64, unit: Unit, amount: i64, clock: &Clock) -> i64 {
    let seconds = |length: i64| value.wrapping_add(amount.wrapping_mul(length).wrapping_mul(ticks));
    let parts = |per_second: i64| value.wrapping_add(amount.wrapping_mul((ticks / per_second).max(1)));
    let by_day = |move_day: &dyn Fn(i64) -> i64| {
        let second = calendar::second_of(value, ticks);
        let below = value.wrapping_sub(second.wrapping_mul(ticks));
        let local = clock.local(second);
        let moved = move_day(local.div_euclid(DAY_S)).wrapping_mul(DAY_S).wrapping_add(local.rem_euclid(DAY_S));
        clock.unix(moved).wrapping_mul(ticks).wrapping_add(below)
    };
    match unit {
        Unit::Nanosecond => parts(1_000_000_000),
        Unit::Microsecond => parts(1_000_000),
        Unit::Millisecond => parts(1_000),
        Unit::Second => seconds(1),
        Unit::Minute => seconds(60),
        Unit::Hour => seconds(3_600),
        Unit::Day if clock.is_utc() => seconds(DAY_S),
        Unit::Week if clock.is_utc() => seconds(7 * DAY_S),
        Unit::Day => by_day(&|day| day.wrapping_add(amount)),
        Unit::Week => by_day(&|day| day.wrapping_add(amount.wrapping_mul(7))),
        Unit::Month | Unit::Quarter | Unit::Year => {
            by_day(&|day| calendar::add_months(day, amount.saturating_mul(months(unit))))
        }
    }
}

/// A Date moved by whole days, a DateTime or DateTime64 by whole seconds; fractions are cut off.
pub(super) fn shift_by_number(time: Typed, number: Typed, back: bool) -> Result<Typed, Refusal> {
    let unit = if *time.ty.inner() == Type::Date { Unit::Day } else { Unit::Second };
    if matches!(number.ty.inner(), Type::Decimal(..)) {
        return Err(illegal(if back { "minus" } else { "plus" }, &time, &number));
    }
    let number = convert(number, &Type::Interval(unit))?;
    shift(time, number, back)
}

/// The time from `b` to `a`: days between Dates and seconds between DateTimes as an Int32, and a decimal number of seconds
/// where a DateTime64 takes part. A Date beside another kind of time is refused.
pub(super) fn between(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    match (a.ty.inner().clone(), b.ty.inner().clone()) {
        (Type::Date, Type::Date) => {
            let ty = Type::Int32.nullable_as(&a.ty).nullable_as(&b.ty);
            let days = |x: Typed| cast_expr(x.expr, DataType::Int32);
            kernel::fold(Typed::new(binary_expr(days(a), Operator::Minus, days(b)), ty))
        }
        (Type::DateTime(_), Type::DateTime(_)) => {
            let ty = Type::Int64.nullable_as(&a.ty).nullable_as(&b.ty);
            let seconds = |x: Typed| cast_expr(x.expr, DataType::Int64);
            let long = kernel::fold(Typed::new(binary_expr(seconds(a), Operator::Minus, seconds(b)), ty))?;
            convert(long, &Type::Int32)
        }
        (Type::DateTime64(p, _), Type::DateTime64(q, _)) => decimal_between(a, b, p.max(q)),
        (Type::DateTime64(p, _), Type::DateTime(_)) | (Type::DateTime(_), Type::DateTime64(p, _)) => {
            decimal_between(a, b, p)
        }
        _ => Err(illegal("minus", &a, &b)),
    }
}

fn decimal_between(a: Typed, b: Typed, precision: u8) -> Result<Typed, Refusal> {
    let ty = Type::Decimal(18, precision as i8).nullable_as(&a.ty).nullable_as(&b.ty);
    let arrow = ty.arrow();
    let (a, b) = (convert(a, &Type::DateTime64(precision, None))?, convert(b, &Type::DateTime64(precision, None))?);
    kernel::map("minus", format!("DateTime64({precision})"), vec![a, b], ty, move |columns| {
        let (a, b) = (ticks_of(&columns[0])?, ticks_of(&columns[1])?);
        let digits: PrimitiveArray<Decimal128Type> =
            binary(&a, &b, |a, b| (i128::from(a) - i128::from(b)) / i128::from(grain(precision)))?;
        Ok(Arc::new(digits.with_data_type(arrow.clone())))
    })
}

/// A DateTime64 as a decimal number of Unix seconds.
pub(super) fn decimal_seconds(x: Typed, precision: u8) -> Result<Typed, Refusal> {
    let ty = Type::Decimal(38, precision as i8).nullable_as(&x.ty);
    let arrow = ty.arrow();
    kernel::map("decimalSeconds", precision.to_string(), vec![x], ty, move |columns| {
        let ticks = arrow_cast(&columns[0], &DataType::Int64)?;
        let digits: PrimitiveArray<Decimal128Type> =
            ticks.as_primitive::<Int64Type>().unary(|value| i128::from(value / grain(precision)));
        Ok(Arc::new(digits.with_data_type(arrow.clone())))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn times_move() {
        cases(
            r#"
            toDateTime('2026-03-31 10:00:00') - INTERVAL 1 MONTH => DateTime "2026-02-28 10:00:00"
            toDate('2026-03-31') - INTERVAL 1 MONTH => Date "2026-02-28"
            toDate('2026-03-31') + INTERVAL 1 HOUR => DateTime "2026-03-31 01:00:00"
            toDate('2026-03-31') - INTERVAL 30 MINUTE => DateTime "2026-03-30 23:30:00"
            toDate('2026-03-31') + INTERVAL 1 SECOND => DateTime "2026-03-31 00:00:01"
            toDate('2026-03-31') + INTERVAL 1 MILLISECOND => refused
            toDate('2026-03-31') + INTERVAL 1 MICROSECOND => refused
            toDate('2026-03-31') + INTERVAL 1 NANOSECOND => refused
            toDate('2026-03-31') + INTERVAL 1 DAY => Date "2026-04-01"
            toDate('2026-03-31') + INTERVAL 1 WEEK => Date "2026-04-07"
            toDate('2026-03-31') + INTERVAL 1 QUARTER => Date "2026-06-30"
            toDate('2024-02-29') + INTERVAL 1 YEAR => Date "2025-02-28"
            toDate('2024-02-29') + INTERVAL -1 YEAR => Date "2023-02-28"
            toDateTime('2026-03-31 10:00:00') + INTERVAL 1 MILLISECOND => DateTime64(3) "2026-03-31 10:00:00.001"
            toDateTime('2026-03-31 10:00:00') + INTERVAL 1 MICROSECOND => DateTime64(6) "2026-03-31 10:00:00.000001"
            toDateTime('2026-03-31 10:00:00') + INTERVAL 1 NANOSECOND => DateTime64(9) "2026-03-31 10:00:00.000000001"
            toDateTime64('2026-03-31 10:00:00.5',1) + INTERVAL 1 MILLISECOND => DateTime64(3) "2026-03-31 10:00:00.501"
            toDateTime64('2026-03-31 10:00:00.5',3) + INTERVAL 1 MILLISECOND => DateTime64(3) "2026-03-31 10:00:00.501"
            toDateTime64('2026-03-31 10:00:00.5',3) + INTERVAL 1 MICROSECOND => DateTime64(6) "2026-03-31 10:00:00.500001"
            toDateTime64('2026-03-31 10:00:00.5',9) + INTERVAL 1 MICROSECOND => DateTime64(9) "2026-03-31 10:00:00.500001000"
            toDateTime64('2026-03-31 10:00:00.5',4) + INTERVAL 1 MILLISECOND => DateTime64(4) "2026-03-31 10:00:00.5010"
            toDateTime64('2026-03-31 10:00:00.5',3) + INTERVAL 1 MONTH => DateTime64(3) "2026-04-30 10:00:00.500"
            toDateTime64('2026-03-31 10:00:00.5',3) + INTERVAL 1 DAY => DateTime64(3) "2026-04-01 10:00:00.500"
            toDateTime64('2026-03-31 10:00:00.5',3) - INTERVAL 1 QUARTER => DateTime64(3) "2025-12-31 10:00:00.500"
            toDateTime('2026-03-28 10:00:00','Europe/Berlin') + INTERVAL 1 DAY => DateTime('Europe/Berlin') "2026-03-29 10:00:00"
            toDateTime('2026-03-28 10:00:00','Europe/Berlin') + INTERVAL 24 HOUR => DateTime('Europe/Berlin') "2026-03-29 11:00:00"
            toDateTime('2026-03-28 02:30:00','Europe/Berlin') + INTERVAL 1 DAY => DateTime('Europe/Berlin') "2026-03-29 01:30:00"
            toDateTime('2026-10-24 02:30:00','Europe/Berlin') + INTERVAL 1 DAY => DateTime('Europe/Berlin') "2026-10-25 02:30:00"
            INTERVAL 1 DAY + toDate('2026-03-31') => Date "2026-04-01"
            INTERVAL 1 DAY - toDate('2026-03-31') => refused
            INTERVAL 1 DAY + INTERVAL 2 DAY => IntervalDay "3"
            INTERVAL 1 DAY + INTERVAL 2 HOUR => refused
            INTERVAL 3 DAY - INTERVAL 1 DAY => IntervalDay "2"
            INTERVAL 3 DAY * 2 => refused
            2 * INTERVAL 3 DAY => refused
            INTERVAL 3 DAY / 2 => refused
            INTERVAL 3 DAY + 1 => refused
            -INTERVAL 3 DAY => IntervalDay "-3"
            INTERVAL '3' DAY => IntervalDay "3"
            INTERVAL 1.5 DAY => IntervalDay "1"
            INTERVAL 3 DAY = INTERVAL 3 DAY => UInt8 "1"
            INTERVAL 3 DAY < INTERVAL 4 DAY => UInt8 "1"
            INTERVAL 1 DAY = INTERVAL 24 HOUR => refused
            INTERVAL 3 DAY = 3 => refused
            INTERVAL NULL DAY => Nullable(Nothing) NULL
            toDate('2026-03-31') + INTERVAL NULL DAY => Nullable(Nothing) NULL
            '2026-03-31' + INTERVAL 1 DAY => DateTime64(3) "2026-04-01 00:00:00.000"
            '2026-03-31 10:00:00' - INTERVAL 1 DAY => DateTime64(3) "2026-03-30 10:00:00.000"
            'abc' - INTERVAL 1 DAY => refused
            5 + INTERVAL 1 DAY => refused
            toDateTime('2026-03-31 10:00:00') + (INTERVAL 1 DAY, INTERVAL 1 HOUR) => refused
            toDate('1970-01-01') - INTERVAL 1 DAY => Date "2149-06-06"
            toDateTime('1970-01-01 00:00:00') - INTERVAL 1 DAY => DateTime "2106-02-06 06:28:16"
            toDateTime('1970-01-01 00:00:00') - INTERVAL 1 SECOND => DateTime "2106-02-07 06:28:15"
            toDateTime('2026-03-31 10:00:00') - INTERVAL 100 YEAR => DateTime "1970-01-01 00:00:00"
            toDate('2026-03-31') - INTERVAL 100 YEAR => Date "1970-01-01"
            toDateTime64('2026-03-31 10:00:00',3) - INTERVAL 100 YEAR => DateTime64(3) "1926-03-31 10:00:00.000"
            toDateTime64('2026-03-31 10:00:00',3) + INTERVAL 1000 YEAR => DateTime64(3) "3026-03-31 10:00:00.000"
            toDate('2026-03-31') + INTERVAL 200 YEAR => Date "2046-10-24"
            toDateTime('2026-03-31 10:00:00') + INTERVAL 100 YEAR => DateTime "1990-02-22 03:31:44"
            toDateTime('2026-03-31 10:00:00') + INTERVAL 365000 DAY => DateTime "2072-11-12 12:42:08"
            toDate('2026-03-31') + INTERVAL 365000 DAY => Date "2128-06-04"
            "#,
        );
    }
    // TABLE END
}
