//! One type into another: `CAST(x AS T)`, `x::T`, `toInt32(x)` and its like (AN-SEM-10, AN-TIME-03).
//!
//! Whole numbers wrap, floats are truncated, text must be read whole. Where Arrow's cast means the same it stays a plain
//! cast, which the optimizer understands.

use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, ListArray, PrimitiveArray, StringViewArray, StructArray,
    new_null_array,
};
use datafusion::arrow::compute::{CastOptions, cast as arrow_cast, cast_with_options};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Field};
use datafusion::common::{Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::cast as cast_expr;

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::{Type, grain, ticks_per_second};
use super::calendar::{Clock, DAY_S, second_of};
use super::parse::{self, Zone};
use super::render;
use crate::error::Refusal;

/// The last second of a DateTime, 2106-02-07 06:28:15.
pub const DATE_TIME_MAX: i64 = u32::MAX as i64;

/// The last second of a DateTime64 that a number may become, 9999-12-31 23:59:59.
const DATE_TIME64_MAX_S: i64 = 253_402_300_799;

/// The first second of a DateTime64 that a number may become, 1900-01-01 00:00:00.
const DATE_TIME64_MIN_S: i64 = -2_208_988_800;

/// A column into one of another type.
type Run = Arc<dyn Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync>;

/// How values of one type become values of another.
#[derive(Clone)]
enum Step {
    /// They are the same in Arrow.
    Same,
    /// As Arrow casts.
    Cast,
    /// By a computation of our own.
    Run(Run),
}

/// `CAST(x AS T)`: NULL is refused where `T` does not take it, and text that cannot be read as a Nullable type is NULL.
pub fn cast(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    if x.ty == Type::Nothing {
        return if target.is_nullable() {
            typed_null(target)
        } else {
            Err(Refusal::query(format!("NULL cannot be converted to {target}")))
        };
    }
    let lenient = target.is_nullable();
    let strict = x.ty.is_nullable() && !target.is_nullable();
    let target_name = target.to_string();
    let converted = change(x, target.inner(), lenient)?;
    if strict {
        return kernel::map("assumeNotNull", String::new(), vec![converted], target.clone(), move |columns| {
            if columns[0].null_count() > 0 {
                return Err(kernel::refused(format!("NULL cannot be converted to {target_name}")));
            }
            Ok(Arc::clone(&columns[0]))
        });
    }
    Ok(Typed { ty: target.clone(), ..converted })
}

/// As `toInt32(x)` converts: NULL stays NULL, and the result may be NULL where `x` may be.
pub fn convert(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    if x.ty == Type::Nothing {
        return Ok(x);
    }
    change(x, target.inner(), false)
}

/// A NULL of a type that has one.
pub(super) fn typed_null(target: &Type) -> Result<Typed, Refusal> {
    let value = ScalarValue::try_new_null(&target.arrow()).map_err(|error| kernel::refusal(&error))?;
    Ok(Typed::literal(value, target.clone()))
}

fn change(x: Typed, target: &Type, lenient: bool) -> Result<Typed, Refusal> {
    let from = x.ty.inner().clone();
    let refusal = || Refusal::query(format!("a value of type {} cannot be converted to {target}", x.ty));
    let step = step(&from, target, lenient).ok_or_else(refusal)?;
    let ty = target.clone().nullable_as(&x.ty);
    match step {
        Step::Same => Ok(Typed { ty, ..x }),
        Step::Cast => kernel::fold(Typed::new(cast_expr(x.expr, target.arrow()), ty)),
        Step::Run(run) => {
            let parameters = format!("{from} as {target}{}", if lenient { " or NULL" } else { "" });
            let ty = if lenient { ty.nullable() } else { ty };
            kernel::map("cast", parameters, vec![x], ty, move |columns| run(&columns[0]))
        }
    }
}

/// How `from` becomes `to`, both without Nullable at the top; `lenient` text that cannot be read is NULL.
fn step(from: &Type, to: &Type, lenient: bool) -> Option<Step> {
    if from == to {
        return Some(Step::Same);
    }
    let target = to.arrow();
    Some(match (from, to) {
        (Type::Nothing, _) => run(move |column| Ok(new_null_array(&target, column.len()))),
        (Type::Interval(_), Type::Interval(_)) => return None,
        (Type::Interval(_), _) if !matches!(to, Type::String) => return step(&Type::Int64, to, lenient),
        (_, Type::Interval(_)) => return step(from, &Type::Int64, lenient),
        (_, Type::String) => {
            let from = from.clone();
            run(move |column| render::text(column, &from))
        }
        (Type::String, _) => return from_text(to, lenient),
        (_, Type::Bool) if from.is_number() => {
            let zero = ScalarValue::new_zero(&from.arrow()).ok()?;
            run(move |column| Ok(Arc::new(datafusion::arrow::compute::kernels::cmp::neq(column, &zero.to_scalar()?)?)))
        }
        (Type::Bool, _) if to.is_integer() || to.is_float() => Step::Cast,
        (Type::Bool, _) => return after(Step::Cast, Type::UInt8, to, lenient),
        (Type::Float32, Type::Float64) | (Type::Float64, Type::Float32) => Step::Cast,
        (Type::Float32, _) if !to.is_float() => return after(Step::Cast, Type::Float64, to, lenient),
        (_, _) if from.is_integer() && to.is_integer() => {
            if holds(to, from) {
                Step::Cast
            } else {
                let to = to.clone();
                run(move |column| Ok(narrow(&wrap_to_i64(column)?, &to)))
            }
        }
        (_, _) if from.is_integer() && to.is_float() => Step::Cast,
        (Type::Float64, _) if to.is_integer() => {
            let to = to.clone();
            run(move |column| truncate(column.as_primitive(), &to))
        }
        (Type::Decimal(_, scale), _) if to.is_integer() => {
            let (to, unit) = (to.clone(), 10i128.checked_pow(u32::try_from(*scale).ok()?)?);
            run(move |column| {
                let whole: PrimitiveArray<Int64Type> =
                    column.as_primitive::<Decimal128Type>().unary(|value| (value / unit) as i64);
                Ok(narrow(&whole, &to))
            })
        }
        (Type::Decimal(..), _) if to.is_float() => Step::Cast,
        (_, Type::Decimal(..)) if from.is_integer() => Step::Cast,
        (Type::Float64, Type::Decimal(precision, scale)) => {
            let unit = 10f64.powi(i32::from(*scale));
            decimals(*precision, *scale, move |column| {
                column.as_primitive::<Float64Type>().try_unary(|value| {
                    let scaled = (value * unit).trunc();
                    if scaled.abs() < 1e38 { Ok(scaled as i128) } else { Err(too_large(value)) }
                })
            })
        }
        (Type::Decimal(_, had), Type::Decimal(precision, scale)) => {
            let up = 10i128.checked_pow(u32::try_from(scale.saturating_sub(*had).max(0)).ok()?)?;
            let down = 10i128.checked_pow(u32::try_from(had.saturating_sub(*scale).max(0)).ok()?)?;
            decimals(*precision, *scale, move |column| {
                column
                    .as_primitive::<Decimal128Type>()
                    .try_unary(|value| (value / down).checked_mul(up).ok_or_else(|| too_large(value)))
            })
        }
        (Type::Date, _) if to.is_integer() || to.is_float() => return after(Step::Cast, Type::Int32, to, lenient),
        (Type::DateTime(_), _) if to.is_integer() || to.is_float() => {
            return after(Step::Cast, Type::Int64, to, lenient);
        }
        (Type::DateTime64(precision, _), _) if to.is_integer() => {
            let (to, ticks) = (to.clone(), ticks_per_second(*precision));
            run(move |column| Ok(narrow(&ticks_of(column)?.unary(|value| value / ticks), &to)))
        }
        (Type::DateTime64(precision, _), _) if to.is_float() => {
            let ticks = ticks_per_second(*precision) as f64;
            run(move |column| {
                let seconds: PrimitiveArray<Float64Type> = ticks_of(column)?.unary(|value| value as f64 / ticks);
                Ok(arrow_cast(&seconds, &target)?)
            })
        }
        (_, Type::Date) if from.is_integer() => run(move |column| {
            Ok(Arc::new(saturated(column)?.unary::<_, Date32Type>(|value| days_of_number(value) as i32)))
        }),
        (_, Type::DateTime(_)) if from.is_integer() => {
            run(move |column| of_ticks(saturated(column)?.unary(|value| value.clamp(0, DATE_TIME_MAX)), &target))
        }
        (_, Type::DateTime64(precision, _)) if from.is_integer() => {
            let (ticks, grain) = (ticks_per_second(*precision), grain(*precision));
            run(move |column| {
                let last = DATE_TIME64_MAX_S.saturating_mul(ticks).saturating_add(ticks - grain);
                let moved =
                    saturated(column)?.unary(|value| value.max(DATE_TIME64_MIN_S).saturating_mul(ticks).min(last));
                of_ticks(moved, &target)
            })
        }
        (Type::Float64, Type::Date | Type::DateTime(_)) => {
            let onward = step(&Type::Int64, to, lenient)?;
            run(move |column| {
                let whole: PrimitiveArray<Int64Type> =
                    column.as_primitive::<Float64Type>().try_unary(|value| finite(value).map(|value| value as i64))?;
                apply(&onward, &(Arc::new(whole) as ArrayRef), &target)
            })
        }
        (Type::Float64, Type::DateTime64(precision, _)) => {
            let (ticks, grain) = (ticks_per_second(*precision), grain(*precision));
            run(move |column| {
                let moved = column.as_primitive::<Float64Type>().try_unary(|value| {
                    let value = finite(value)?.clamp(DATE_TIME64_MIN_S as f64, DATE_TIME64_MAX_S as f64 + 0.999);
                    Ok::<_, DataFusionError>((value * (ticks / grain) as f64) as i64 * grain)
                })?;
                of_ticks(moved, &target)
            })
        }
        (Type::Date, Type::DateTime(zone)) if Clock::new(*zone).is_utc() => Step::Cast,
        (Type::Date, Type::DateTime64(_, zone)) if Clock::new(*zone).is_utc() => Step::Cast,
        (Type::Date, Type::DateTime(zone)) => midnights(*zone, 1, target),
        (Type::Date, Type::DateTime64(precision, zone)) => midnights(*zone, ticks_per_second(*precision), target),
        (Type::DateTime(zone), Type::Date) if Clock::new(*zone).is_utc() => Step::Cast,
        (Type::DateTime(zone), Type::Date) => local_days(*zone, 1),
        (Type::DateTime64(precision, zone), Type::Date) => local_days(*zone, ticks_per_second(*precision)),
        (Type::DateTime(_), Type::DateTime(_)) => Step::Same,
        (Type::DateTime(_), Type::DateTime64(..)) => Step::Cast,
        (Type::DateTime64(precision, _), Type::DateTime(_)) => {
            let ticks = ticks_per_second(*precision);
            run(move |column| {
                of_ticks(ticks_of(column)?.unary(|value| second_of(value, ticks) & DATE_TIME_MAX), &target)
            })
        }
        (Type::DateTime64(had, _), Type::DateTime64(precision, _)) if had == precision => Step::Same,
        (Type::DateTime64(had, _), Type::DateTime64(precision, _)) => {
            let (had, ticks, grain) = (ticks_per_second(*had), ticks_per_second(*precision), grain(*precision));
            run(move |column| {
                let (up, down) = ((ticks / had).max(1), (had / ticks).max(1));
                let moved = ticks_of(column)?.unary(|value| (value / down).wrapping_mul(up) / grain * grain);
                of_ticks(moved, &target)
            })
        }
        (Type::Array(from), Type::Array(to)) => {
            let inner = step(from.inner(), to.inner(), lenient)?;
            let field = Arc::new(to.field("item"));
            run(move |column| {
                let lists = column.as_list::<i32>();
                let values = apply(&inner, lists.values(), field.data_type())?;
                let nulls = lists.nulls().cloned();
                Ok(Arc::new(ListArray::try_new(Arc::clone(&field), lists.offsets().clone(), values, nulls)?))
            })
        }
        (Type::Tuple(from), Type::Tuple(to)) if from.len() == to.len() => {
            let steps = from
                .iter()
                .zip(to)
                .map(|(from, to)| step(from.inner(), to.inner(), lenient))
                .collect::<Option<Vec<_>>>()?;
            let DataType::Struct(fields) = target else { return None };
            run(move |column| {
                let structs = column.as_struct();
                let columns = steps
                    .iter()
                    .zip(structs.columns())
                    .zip(&fields)
                    .map(|((step, column), field)| apply(step, column, field.data_type()))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), columns, structs.nulls().cloned())?))
            })
        }
        _ => return None,
    })
}

fn run(run: impl Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync + 'static) -> Step {
    Step::Run(Arc::new(run))
}

/// `first`, which gives `between`, and then on to `to`.
fn after(first: Step, between: Type, to: &Type, lenient: bool) -> Option<Step> {
    let second = step(&between, to, lenient)?;
    if matches!((&first, &second), (Step::Cast, Step::Same)) {
        return Some(Step::Cast);
    }
    let (middle, target) = (between.arrow(), to.arrow());
    Some(run(move |column| apply(&second, &apply(&first, column, &middle)?, &target)))
}

fn apply(step: &Step, column: &ArrayRef, target: &DataType) -> Result<ArrayRef> {
    match step {
        Step::Same => Ok(Arc::clone(column)),
        Step::Cast => Ok(cast_with_options(column, target, &CastOptions { safe: false, ..CastOptions::default() })?),
        Step::Run(run) => run(column),
    }
}

/// Whether every value of an integer type is one of another.
pub(super) fn holds(wide: &Type, narrow: &Type) -> bool {
    match (wide.is_signed(), narrow.is_signed()) {
        (true, true) | (false, false) => bits(wide) >= bits(narrow),
        (true, false) => bits(wide) > bits(narrow),
        (false, true) => false,
    }
}

/// The width of an integer type; of any other, zero.
pub(super) fn bits(ty: &Type) -> u8 {
    match ty {
        Type::UInt8 | Type::Int8 => 8,
        Type::UInt16 | Type::Int16 => 16,
        Type::UInt32 | Type::Int32 => 32,
        Type::UInt64 | Type::Int64 => 64,
        _ => 0,
    }
}

/// Any integers as Int64, the upper half of UInt64 wrapping to negative.
fn wrap_to_i64(column: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    if *column.data_type() == DataType::UInt64 {
        return Ok(column.as_primitive::<UInt64Type>().unary(|value| value as i64));
    }
    Ok(arrow_cast(column, &DataType::Int64)?.as_primitive().clone())
}

/// Any integers as Int64, the upper half of UInt64 becoming the greatest Int64.
fn saturated(column: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    if *column.data_type() == DataType::UInt64 {
        return Ok(column.as_primitive::<UInt64Type>().unary(|value| i64::try_from(value).unwrap_or(i64::MAX)));
    }
    wrap_to_i64(column)
}

/// The lowest bits of each value.
fn narrow(values: &PrimitiveArray<Int64Type>, to: &Type) -> ArrayRef {
    match to {
        Type::UInt8 => Arc::new(values.unary::<_, UInt8Type>(|value| value as u8)),
        Type::UInt16 => Arc::new(values.unary::<_, UInt16Type>(|value| value as u16)),
        Type::UInt32 => Arc::new(values.unary::<_, UInt32Type>(|value| value as u32)),
        Type::UInt64 => Arc::new(values.unary::<_, UInt64Type>(|value| value as u64)),
        Type::Int8 => Arc::new(values.unary::<_, Int8Type>(|value| value as i8)),
        Type::Int16 => Arc::new(values.unary::<_, Int16Type>(|value| value as i16)),
        Type::Int32 => Arc::new(values.unary::<_, Int32Type>(|value| value as i32)),
        _ => Arc::new(values.clone()),
    }
}

/// The whole part. What is out of range becomes what a processor of the x86 family makes of it, as in ClickHouse: narrow
/// types keep the lowest bits of the 32-bit value, which is the least one when it does not fit.
fn truncate(values: &PrimitiveArray<Float64Type>, to: &Type) -> Result<ArrayRef> {
    fn least_if_beyond(value: f64, bits: u8) -> i64 {
        let bound = 2f64.powi(i32::from(bits) - 1);
        let least = if bits == 32 { i64::from(i32::MIN) } else { i64::MIN };
        if value.abs() < bound || value == -bound { value as i64 } else { least }
    }
    if *to == Type::UInt64 {
        const HALF: f64 = 9_223_372_036_854_775_808.0;
        let whole: PrimitiveArray<UInt64Type> = values.try_unary(|value| {
            let value = finite(value)?;
            Ok::<_, DataFusionError>(if (HALF..2.0 * HALF).contains(&value) {
                (value - HALF) as u64 | 1 << 63
            } else {
                least_if_beyond(value, 64) as u64
            })
        })?;
        return Ok(Arc::new(whole));
    }
    let bits = if bits(to) == 64 || *to == Type::UInt32 { 64 } else { 32 };
    let whole = values.try_unary(|value| finite(value).map(|value| least_if_beyond(value, bits)))?;
    Ok(narrow(&whole, to))
}

fn finite(value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(kernel::refused(format!("{} is no whole number", render::float_text(value))))
    }
}

fn too_large(value: impl std::fmt::Display) -> DataFusionError {
    kernel::refused(format!("{value} does not fit into the decimal type it is converted to"))
}

fn decimals(
    precision: u8,
    scale: i8,
    scaled: impl Fn(&ArrayRef) -> Result<Decimal128Array> + Send + Sync + 'static,
) -> Step {
    run(move |column| {
        let values = scaled(column)?.with_precision_and_scale(precision, scale)?;
        if values.validate_decimal_precision(precision).is_err() {
            return Err(kernel::refused(format!("a number does not fit into Decimal({precision}, {scale})")));
        }
        Ok(Arc::new(values))
    })
}

/// A number as a date: below 65,536 days, else Unix seconds (AN-TIME-03).
fn days_of_number(value: i64) -> i64 {
    if value <= i64::from(u16::MAX) { value.max(0) } else { value.min(DATE_TIME_MAX) / DAY_S }
}

/// The ticks of a timestamp column.
pub(super) fn ticks_of(column: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    Ok(arrow_cast(column, &DataType::Int64)?.as_primitive().clone())
}

/// A timestamp column of these ticks.
pub(super) fn of_ticks(ticks: PrimitiveArray<Int64Type>, target: &DataType) -> Result<ArrayRef> {
    Ok(arrow_cast(&ticks, target)?)
}

/// Dates as the start of their day in a zone.
fn midnights(zone: Option<Tz>, ticks: i64, target: DataType) -> Step {
    run(move |column| {
        let clock = Clock::new(zone);
        let starts =
            column.as_primitive::<Date32Type>().unary(|day| clock.unix(i64::from(day) * DAY_S).saturating_mul(ticks));
        of_ticks(starts, &target)
    })
}

/// Times as the day that it then was in a zone, which wraps as ClickHouse's 16-bit dates do.
fn local_days(zone: Option<Tz>, ticks: i64) -> Step {
    run(move |column| {
        let clock = Clock::new(zone);
        let days =
            ticks_of(column)?.unary::<_, Date32Type>(|value| (clock.day(second_of(value, ticks)) & 0xFFFF) as i32);
        Ok(Arc::new(days))
    })
}

fn from_text(to: &Type, lenient: bool) -> Option<Step> {
    let name = to.to_string();
    let target = to.arrow();
    let signed = to.is_signed();
    Some(match to {
        Type::Bool => run(move |column| {
            let texts = column.as_string_view();
            let read = read_all(texts, &name, lenient, parse::boolean)?;
            Ok(Arc::new(BooleanArray::from(read)))
        }),
        _ if to.is_integer() => {
            let to = to.clone();
            run(move |column| {
                let read = primitives::<Int64Type>(column.as_string_view(), &name, lenient, |text| {
                    let (value, negative) = parse::integer(text)?;
                    (signed || !negative).then_some(value as i64)
                })?;
                Ok(narrow(&read, &to))
            })
        }
        Type::Float64 => run(move |column| {
            Ok(Arc::new(primitives::<Float64Type>(column.as_string_view(), &name, lenient, parse::float)?))
        }),
        Type::Float32 => run(move |column| {
            let read = |text: &str| text.parse().ok();
            Ok(Arc::new(primitives::<Float32Type>(column.as_string_view(), &name, lenient, read)?))
        }),
        Type::Decimal(precision, scale) => {
            let (precision, scale) = (*precision, *scale);
            let digits = u32::try_from(scale).ok()?;
            decimals(precision, scale, move |column| {
                primitives(column.as_string_view(), &name, lenient, |text| parse::decimal(text, digits))
            })
        }
        Type::Date => run(move |column| {
            let read = |text: &str| parse::date_of_any(text).map(|day| day as i32);
            Ok(Arc::new(primitives::<Date32Type>(column.as_string_view(), &name, lenient, read)?))
        }),
        Type::DateTime(zone) => {
            let zone = *zone;
            run(move |column| {
                let clock = Clock::new(zone);
                let read = primitives(column.as_string_view(), &name, lenient, |text| date_time(text, &clock))?;
                of_ticks(read, &target)
            })
        }
        Type::DateTime64(precision, zone) => {
            let (precision, zone) = (*precision, *zone);
            run(move |column| {
                let clock = Clock::new(zone);
                let read =
                    primitives(column.as_string_view(), &name, lenient, |text| date_time64(text, precision, &clock))?;
                of_ticks(read, &target)
            })
        }
        _ => return None,
    })
}

/// Text as Unix seconds, clamped to what a DateTime holds.
pub(super) fn date_time(text: &str, clock: &Clock) -> Option<i64> {
    let instant = parse::instant(text)?;
    if instant.zone == Zone::Unix && text.len() != 10 {
        return None;
    }
    let seconds = if instant.zone == Zone::Local { clock.unix(instant.seconds) } else { instant.seconds };
    Some(seconds.clamp(0, DATE_TIME_MAX))
}

/// Text as ticks of a DateTime64, digits beyond its precision cut off.
pub(super) fn date_time64(text: &str, precision: u8, clock: &Clock) -> Option<i64> {
    let instant = parse::instant(text)?;
    let seconds = if instant.zone == Zone::Local { clock.unix(instant.seconds) } else { instant.seconds };
    let (ticks, grain) = (ticks_per_second(precision), grain(precision));
    let below = instant.nanos / (1_000_000_000 / ticks) / grain * grain;
    seconds.checked_mul(ticks)?.checked_add(below)
}

fn primitives<T: ArrowPrimitiveType>(
    texts: &StringViewArray,
    target: &str,
    lenient: bool,
    read: impl Fn(&str) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    Ok(read_all(texts, target, lenient, read)?.into_iter().collect())
}

fn read_all<V>(
    texts: &StringViewArray,
    target: &str,
    lenient: bool,
    read: impl Fn(&str) -> Option<V>,
) -> Result<Vec<Option<V>>> {
    texts
        .iter()
        .map(|text| match text {
            None => Ok(None),
            Some(text) => match read(text) {
                Some(value) => Ok(Some(value)),
                None if lenient => Ok(None),
                None => Err(unreadable(text, target)),
            },
        })
        .collect()
}

/// Text in a message is cut to this many characters.
const SHOWN_CHARS: usize = 60;

fn unreadable(text: &str, target: &str) -> DataFusionError {
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    kernel::refused(format!("the text '{shown}' cannot be read as {target}"))
}

/// The field of an array's elements.
pub(super) fn item(element: &Type) -> Arc<Field> {
    Arc::new(element.field("item"))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn conversions() {
        cases(
            r#"
            CAST(1.9 AS Int32) => Int32 "1"
            CAST(-1.9 AS Int32) => Int32 "-1"
            CAST(300 AS UInt8) => UInt8 "44"
            CAST(-1 AS UInt8) => UInt8 "255"
            CAST(1e20 AS Int64) => Int64 "-9223372036854775808"
            CAST(nan AS Int64) => refused
            CAST(inf AS Int32) => refused
            CAST(-1e20 AS Int64) => Int64 "-9223372036854775808"
            CAST(1e20 AS UInt64) => UInt64 "9223372036854775808"
            CAST(1e10 AS Int32) => Int32 "-2147483648"
            CAST(-1.5 AS UInt8) => UInt8 "255"
            CAST(300.7 AS UInt8) => UInt8 "44"
            CAST('12' AS Int32) => Int32 "12"
            CAST(' 12' AS Int32) => refused
            CAST('12 ' AS Int32) => refused
            CAST('+12' AS Int32) => Int32 "12"
            CAST('-12' AS Int32) => Int32 "-12"
            CAST('1.5' AS Int32) => refused
            CAST('' AS Int32) => refused
            CAST('-12' AS UInt8) => refused
            CAST('300' AS UInt8) => UInt8 "44"
            CAST('99999999999' AS Int32) => Int32 "1215752191"
            CAST('9999999999999999999999' AS Int64) => Int64 "1864712049423024127"
            CAST('007' AS Int32) => Int32 "7"
            CAST('1e3' AS Int32) => refused
            CAST('0x10' AS Int32) => refused
            CAST('-' AS Int32) => refused
            CAST('--1' AS Int32) => refused
            CAST('1.5' AS Float64) => Float64 "1.5"
            CAST('1e3' AS Float64) => Float64 "1000"
            CAST('inf' AS Float64) => Float64 "inf"
            CAST('Infinity' AS Float64) => Float64 "inf"
            CAST('-inf' AS Float64) => Float64 "-inf"
            CAST('+inf' AS Float64) => Float64 "inf"
            CAST('nan' AS Float64) => Float64 "nan"
            CAST('NaN' AS Float64) => Float64 "nan"
            CAST('NAN' AS Float64) => Float64 "nan"
            CAST('1.' AS Float64) => Float64 "1"
            CAST('.5' AS Float64) => Float64 "0.5"
            CAST('1.5a' AS Float64) => refused
            CAST('' AS Float64) => refused
            CAST(' 1' AS Float64) => refused
            CAST('+1' AS Float64) => Float64 "1"
            CAST('1e400' AS Float64) => Float64 "inf"
            CAST('0x10' AS Float64) => refused
            CAST('.' AS Float64) => refused
            CAST('1e' AS Float64) => refused
            CAST('-' AS Float64) => refused
            CAST(1 AS Bool) => Bool "true"
            CAST(2 AS Bool) => Bool "true"
            CAST(0.5 AS Bool) => Bool "true"
            CAST('true' AS Bool) => Bool "true"
            CAST('TRUE' AS Bool) => Bool "true"
            CAST('t' AS Bool) => Bool "true"
            CAST('1' AS Bool) => Bool "true"
            CAST('yes' AS Bool) => Bool "true"
            CAST('on' AS Bool) => Bool "true"
            CAST('Y' AS Bool) => Bool "true"
            CAST('abc' AS Bool) => refused
            CAST(true AS String) => String "true"
            CAST(true AS UInt8) => UInt8 "1"
            CAST(true AS Int64) => Int64 "1"
            CAST(1.5 AS String) => String "1.5"
            CAST(1 AS String) => String "1"
            CAST(toDate('2020-01-01') AS String) => String "2020-01-01"
            CAST(NULL AS Int32) => refused
            CAST(NULL AS Nullable(Int32)) => Nullable(Int32) NULL
            CAST('5' AS Nullable(Int32)) => Nullable(Int32) "5"
            CAST('abc' AS Nullable(Int32)) => Nullable(Int32) NULL
            CAST(toNullable(5) AS Int32) => Int32 "5"
            CAST(toNullable(5) AS String) => String "5"
            CAST('2026-03-18' AS Date) => Date "2026-03-18"
            CAST('2026-03-18 10:00:00' AS Date) => Date "2026-03-18"
            CAST('2026-03-18 10:00:00' AS DateTime) => DateTime "2026-03-18 10:00:00"
            CAST('2026-03-18' AS DateTime) => DateTime "2026-03-18 00:00:00"
            CAST('2026-03-18 10:00:00.5' AS DateTime) => DateTime "2026-03-18 10:00:00"
            CAST('2026-03-18 10:00:00.5' AS DateTime64(3)) => DateTime64(3) "2026-03-18 10:00:00.500"
            CAST('2026-03-18 10:00:00.123' AS DateTime64(3,'Europe/Berlin')) => DateTime64(3, 'Europe/Berlin') "2026-03-18 10:00:00.123"
            CAST('2026-03-18 10:00:00.123456789123' AS DateTime64(9)) => DateTime64(9) "2026-03-18 10:00:00.123456789"
            CAST(1 AS Date) => Date "1970-01-02"
            CAST(100000 AS Date) => Date "1970-01-02"
            CAST(65535 AS Date) => Date "2149-06-06"
            CAST(65536 AS Date) => Date "1970-01-01"
            CAST(-1 AS Date) => Date "1970-01-01"
            CAST(1773792000 AS Date) => Date "2026-03-18"
            CAST(1773792000.7 AS Date) => Date "2026-03-18"
            CAST(5.7 AS Date) => Date "1970-01-06"
            CAST(1e30 AS Date) => Date "2106-02-07"
            CAST(1773792000123 AS Date) => Date "2106-02-07"
            CAST(1773792000 AS DateTime) => DateTime "2026-03-18 00:00:00"
            CAST(-1 AS DateTime) => DateTime "1970-01-01 00:00:00"
            CAST(5000000000 AS DateTime) => DateTime "2106-02-07 06:28:15"
            CAST(1773792000.7 AS DateTime) => DateTime "2026-03-18 00:00:00"
            CAST(-1.5 AS DateTime) => DateTime "1970-01-01 00:00:00"
            CAST(nan AS DateTime) => refused
            CAST(1773792000123 AS DateTime) => DateTime "2106-02-07 06:28:15"
            CAST(1773792000 AS DateTime64(3)) => DateTime64(3) "2026-03-18 00:00:00.000"
            CAST(1773792000.7 AS DateTime64(3)) => DateTime64(3) "2026-03-18 00:00:00.700"
            CAST(-1 AS DateTime64(3)) => DateTime64(3) "1969-12-31 23:59:59.000"
            CAST(1773792000123 AS DateTime64(3)) => DateTime64(3) "9999-12-31 23:59:59.999"
            CAST(1e20 AS DateTime64(3)) => DateTime64(3) "9999-12-31 23:59:59.999"
            CAST(toDate('2026-03-18') AS DateTime) => DateTime "2026-03-18 00:00:00"
            CAST(toDate('2026-03-18') AS DateTime64(3)) => DateTime64(3) "2026-03-18 00:00:00.000"
            CAST(toDateTime('2026-03-18 10:00:00') AS Date) => Date "2026-03-18"
            CAST(toDateTime('2026-03-18 23:30:00') AS DateTime64(6)) => DateTime64(6) "2026-03-18 23:30:00.000000"
            CAST(toDateTime64('2026-03-18 23:30:00.9',1) AS DateTime) => DateTime "2026-03-18 23:30:00"
            CAST(toDateTime64('1969-12-31 23:59:59.9',1) AS DateTime) => DateTime "2106-02-07 06:28:15"
            CAST(toDateTime64('1960-12-31 23:59:59.9',1) AS Date) => Date "2140-06-06"
            CAST(toDateTime64('2026-03-18 23:30:00.987654',6) AS DateTime64(2)) => DateTime64(2) "2026-03-18 23:30:00.98"
            CAST(toDateTime64('1969-12-31 23:59:59.987654',6) AS DateTime64(2)) => DateTime64(2) "1969-12-31 23:59:59.99"
            CAST(toDate('2026-03-18') AS Int32) => Int32 "20530"
            CAST(toDate('2026-03-18') AS UInt8) => UInt8 "50"
            CAST(toDateTime('2026-03-18 10:00:00') AS Int64) => Int64 "1773828000"
            CAST(toDateTime('2026-03-18 10:00:00') AS Float64) => Float64 "1773828000"
            CAST(toDateTime64('2026-03-18 10:00:00.5',3) AS Int64) => Int64 "1773828000"
            CAST(toDateTime64('2026-03-18 10:00:00.5',3) AS Float64) => Float64 "1773828000.5"
            CAST(toDateTime64('1969-12-31 23:59:59.5',3) AS Int64) => Int64 "0"
            CAST(1.456 AS Decimal(10,2)) => Decimal(10, 2) "1.45"
            CAST(-1.456 AS Decimal(10,2)) => Decimal(10, 2) "-1.45"
            CAST(1.455 AS Decimal(10,2)) => Decimal(10, 2) "1.45"
            CAST('1.456' AS Decimal(10,2)) => Decimal(10, 2) "1.45"
            CAST('1.4' AS Decimal(10,2)) => Decimal(10, 2) "1.4"
            CAST(5 AS Decimal(10,2)) => Decimal(10, 2) "5"
            CAST(CAST(1.456 AS Decimal(10,2)) AS Float64) => Float64 "1.45"
            CAST(CAST(1.956 AS Decimal(10,2)) AS Int64) => Int64 "1"
            CAST(CAST(1.456 AS Decimal(10,2)) AS String) => String "1.45"
            CAST(123456789 AS Decimal(5,2)) => refused
            CAST(1.5 AS Decimal(10,2)) + 1 => Decimal(38, 2) "2.5"
            CAST(1.5 AS Decimal(10,2)) + 1.5 => Float64 "3"
            CAST(1.5 AS Decimal(10,2)) * CAST(1.5 AS Decimal(10,3)) => Decimal(38, 5) "2.25"
            CAST(1.5 AS Decimal(10,2)) / 2 => Decimal(38, 2) "0.75"
            CAST(1.5 AS Decimal(10,2)) - CAST(1.5 AS Decimal(20,3)) => Decimal(38, 3) "0"
            CAST([1,2] AS Array(String)) => Array(String) "['1','2']"
            CAST(['1','2'] AS Array(Int32)) => Array(Int32) "[1,2]"
            CAST('[1,2]' AS Array(Int32)) => refused
            CAST([] AS Array(Int32)) => Array(Int32) "[]"
            CAST([1,2] AS String) => String "[1,2]"
            CAST([1] AS Int32) => refused
            CAST(1 AS Float32) => Float32 "1"
            CAST(0.1 AS Float32) => Float32 "0.1"
            CAST(toIntervalDay(5) AS Int64) => Int64 "5"
            CAST(toIntervalDay(5) AS String) => String "5"
            1::String => String "1"
            '1'::Int8 => Int8 "1"
            toDateTime('2026-03-29 02:30:00','Europe/Berlin')::Int64 => Int64 "1774744200"
            toDateTime('2026-10-25 02:30:00','Europe/Berlin')::Int64 => Int64 "1792888200"
            toDateTime('2026-10-25 01:30:00','Europe/Berlin')::Int64 => Int64 "1792884600"
            "#,
        );
    }
    // TABLE END
}
