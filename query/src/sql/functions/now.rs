//! `now([tz])`, `now64([precision[, tz]])`, `today()`: the query's clock, which stands still (AN-TIME-01).
//!
//! ClickHouse: `now` is a DateTime of whole seconds, `now64` a DateTime64 with three digits unless told otherwise (0 to 9),
//! `today` the current date of the server's zone, here UTC. All are constants. The clock has milliseconds: digits beyond the
//! third are zero.

use datafusion::common::ScalarValue;

use super::super::kernel;
use super::super::operators::calendar::DAY_S;
use super::super::typed::Typed;
use super::super::types::{Type, grain, ticks_per_second};
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const NOW: Function = Function { name: "now", case_sensitive: false, call: now };
pub(super) const NOW64: Function = Function { name: "now64", case_sensitive: false, call: now64 };
pub(super) const TODAY: Function = Function { name: "today", case_sensitive: false, call: today };

fn now(context: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("now", &given, 0, 1)?;
    let zone = arguments::zone("now", given.first())?;
    let second = context.now_ms.div_euclid(1_000);
    Ok(Typed::literal(ScalarValue::TimestampSecond(Some(second), None), Type::DateTime(zone)))
}

fn now64(context: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("now64", &given, 0, 2)?;
    let precision = match given.first() {
        Some(precision) => arguments::precision("now64", precision)?,
        None => 3,
    };
    let zone = arguments::zone("now64", given.get(1))?;
    let ty = Type::DateTime64(precision, zone);
    let ticks = i128::from(context.now_ms) * i128::from(ticks_per_second(precision)) / 1_000;
    let ticks = i64::try_from(ticks).unwrap_or(i64::MAX) / grain(precision) * grain(precision);
    let value = ScalarValue::Int64(Some(ticks)).cast_to(&ty.arrow()).map_err(|error| kernel::refusal(&error))?;
    Ok(Typed::literal(value, ty))
}

fn today(context: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::exactly::<0>("today", given)?;
    let day = i32::try_from(context.now_ms.div_euclid(1_000 * DAY_S)).unwrap_or(i32::MAX);
    Ok(Typed::literal(ScalarValue::Date32(Some(day)), Type::Date))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    #[test]
    fn the_clock_stands_still() {
        cases(
            r#"
            now() => DateTime "2026-11-30 10:17:32"
            now('Europe/Berlin') => DateTime('Europe/Berlin') "2026-11-30 11:17:32"
            now64() => DateTime64(3) "2026-11-30 10:17:32.870"
            now64(6) => DateTime64(6) "2026-11-30 10:17:32.870000"
            now64(1) => DateTime64(1) "2026-11-30 10:17:32.8"
            now64(0) => DateTime64(0) "2026-11-30 10:17:32"
            now64(3, 'Europe/Berlin') => DateTime64(3, 'Europe/Berlin') "2026-11-30 11:17:32.870"
            today() => Date "2026-11-30"
            now64(10) => refused
            now(1) => refused
            now('Nowhere/Here') => refused
            today('Europe/Berlin') => refused
            "#,
        );
    }
}
