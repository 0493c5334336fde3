//! A key WITH FILL: its grid.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};
use datafusion::common::{Result, ScalarValue};

use crate::error::Refusal;
use crate::sql::operators::calendar::add_months;
use crate::sql::typed::Typed;
use crate::sql::types::{Type, Unit, time_unit};

const SECONDS_PER_DAY: i128 = 86_400;

/// A value of a key: a whole number of its grains (days, seconds, 10^-p seconds), or a float.
#[derive(Debug, Clone, Copy)]
pub enum Point {
    /// Grains.
    Whole(i128),
    /// Of a Float column.
    Float(f64),
}

/// How a grid goes on.
#[derive(Debug, Clone, Copy)]
enum Step {
    Grains(i128),
    Float(f64),
    Months(i64),
}

/// A key WITH FILL.
#[derive(Debug, Clone)]
pub struct Filled {
    /// Its column.
    pub column: String,
    ty: Type,
    descending: bool,
    /// FROM.
    pub from: Option<Point>,
    /// TO.
    pub to: Option<Point>,
    step: Step,
}

impl Filled {
    /// Checks the bounds and the step, which are constants, against the key's type.
    pub fn new(
        column: &str,
        ty: &Type,
        descending: bool,
        from: Option<Typed>,
        to: Option<Typed>,
        step: Option<Typed>,
    ) -> std::result::Result<Filled, Refusal> {
        let ty = ty.inner().clone();
        if !(ty.is_integer() || ty.is_float() || ty.is_time()) {
            return Err(Refusal::query(format!("WITH FILL cannot fill a {ty}.")));
        }
        let bound = |bound: Option<Typed>| bound.map(|bound| point(&bound, &ty)).transpose();
        let (from, to) = (bound(from)?, bound(to)?);
        let step = match step {
            None if ty.is_float() => Step::Float(if descending { -1.0 } else { 1.0 }),
            None => Step::Grains(grains_per_number(&ty) * if descending { -1 } else { 1 }),
            Some(step) => read_step(&step, &ty)?,
        };
        let sign = match step {
            Step::Grains(grains) => grains.cmp(&0),
            Step::Float(float) => float.partial_cmp(&0.0).unwrap_or(Ordering::Equal),
            Step::Months(months) => months.cmp(&0),
        };
        let wanted = if descending { Ordering::Less } else { Ordering::Greater };
        if sign != wanted {
            let direction = if descending { "negative in descending" } else { "positive in ascending" };
            return Err(Refusal::query(format!("The STEP of WITH FILL must be {direction} order.")));
        }
        let filled = Filled { column: column.to_owned(), ty, descending, from, to, step };
        if let (Some(from), Some(to)) = (from, to)
            && filled.is_before(to, from)
        {
            return Err(Refusal::query("WITH FILL goes FROM a value behind its TO."));
        }
        Ok(filled)
    }

    /// Whether a point comes before another in the key's order.
    pub fn is_before(&self, a: Point, b: Point) -> bool {
        let order = match (a, b) {
            (Point::Whole(a), Point::Whole(b)) => a.cmp(&b),
            (Point::Float(a), Point::Float(b)) => a.total_cmp(&b),
            (Point::Whole(a), Point::Float(b)) => (a as f64).total_cmp(&b),
            (Point::Float(a), Point::Whole(b)) => a.total_cmp(&(b as f64)),
        };
        order == if self.descending { Ordering::Greater } else { Ordering::Less }
    }

    /// The next point of the grid; `None` where the type has none.
    pub fn after(&self, point: Point) -> Option<Point> {
        let next = match (point, self.step) {
            (Point::Whole(whole), Step::Grains(grains)) => whole.checked_add(grains)?,
            (Point::Whole(whole), Step::Months(months)) => {
                let day = match self.ty {
                    Type::Date => 1,
                    _ => SECONDS_PER_DAY * grains_per_number(&self.ty),
                };
                let days = i64::try_from(whole.div_euclid(day)).ok()?;
                i128::from(add_months(days, months)) * day + whole.rem_euclid(day)
            }
            (Point::Float(float), Step::Float(step)) => {
                let next = float + step;
                // A step too small to be seen beside the value would never end.
                return (next != float).then_some(Point::Float(next));
            }
            (Point::Whole(_), Step::Float(_)) | (Point::Float(_), Step::Grains(_) | Step::Months(_)) => return None,
        };
        let (least, most) = limits(&self.ty);
        (least..=most).contains(&next).then_some(Point::Whole(next))
    }

    /// What a key has in a row that is added, where nothing says more.
    pub fn origin(&self) -> Point {
        self.from.unwrap_or(if self.ty.is_float() { Point::Float(0.0) } else { Point::Whole(0) })
    }

    /// The values of a column; `None` for NULL and NaN.
    pub fn points(&self, column: &ArrayRef) -> Result<Vec<Option<Point>>> {
        if self.ty.is_float() {
            let floats = cast(column, &DataType::Float64)?;
            let points = floats.as_primitive::<Float64Type>().iter();
            return Ok(points.map(|float| float.filter(|float| !float.is_nan()).map(Point::Float)).collect());
        }
        if self.ty == Type::UInt64 {
            let points = column.as_primitive::<UInt64Type>().iter();
            return Ok(points.map(|whole| whole.map(|whole| Point::Whole(whole.into()))).collect());
        }
        let wholes = match column.data_type() {
            DataType::Date32 => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
            _ => cast(column, &DataType::Int64)?,
        };
        let points = wholes.as_primitive::<Int64Type>().iter();
        Ok(points.map(|whole| whole.map(|whole| Point::Whole(whole.into()))).collect())
    }

    /// A column of these values.
    pub fn column_of(&self, points: &[Point]) -> Result<ArrayRef> {
        let arrow = self.ty.arrow();
        if self.ty.is_float() {
            let floats = points.iter().map(|point| match point {
                Point::Whole(whole) => *whole as f64,
                Point::Float(float) => *float,
            });
            let floats: ArrayRef = Arc::new(Float64Array::from_iter_values(floats));
            return Ok(cast(&floats, &arrow)?);
        }
        let whole = |point: &Point| match point {
            Point::Whole(whole) => *whole,
            Point::Float(float) => *float as i128,
        };
        if self.ty == Type::UInt64 {
            let wholes = points.iter().map(|point| u64::try_from(whole(point)).unwrap_or(0));
            return Ok(Arc::new(UInt64Array::from_iter_values(wholes)));
        }
        let wholes = points.iter().map(|point| i64::try_from(whole(point)).unwrap_or(0));
        let wholes: ArrayRef = Arc::new(Int64Array::from_iter_values(wholes));
        match arrow {
            DataType::Date32 => Ok(cast(&cast(&wholes, &DataType::Int32)?, &arrow)?),
            _ => Ok(cast(&wholes, &arrow)?),
        }
    }
}

/// How many grains of a type a plain number in STEP stands for.
fn grains_per_number(ty: &Type) -> i128 {
    match ty {
        Type::DateTime64(precision, _) => grains_per_second(*precision),
        _ => 1,
    }
}

/// Of the Arrow unit that holds a DateTime64.
fn grains_per_second(precision: u8) -> i128 {
    match time_unit(precision) {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The values that a type can hold.
fn limits(ty: &Type) -> (i128, i128) {
    match ty {
        Type::UInt8 => (0, u8::MAX.into()),
        Type::UInt16 => (0, u16::MAX.into()),
        Type::UInt32 => (0, u32::MAX.into()),
        Type::UInt64 => (0, u64::MAX.into()),
        Type::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Type::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Type::Int32 => (i32::MIN.into(), i32::MAX.into()),
        // As ClickHouse: two bytes of days, four bytes of seconds.
        Type::Date => (0, u16::MAX.into()),
        Type::DateTime(_) => (0, u32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    }
}

/// A whole number, as far as a constant is one.
fn whole(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::UInt64(Some(whole)) => Some((*whole).into()),
        other => match other.cast_to(&DataType::Int64).ok()? {
            ScalarValue::Int64(Some(whole)) => Some(whole.into()),
            _ => None,
        },
    }
}

/// Seconds times 10^9 of a constant time.
fn nanoseconds(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Date32(Some(days)) => i128::from(*days) * SECONDS_PER_DAY * 1_000_000_000,
        ScalarValue::TimestampSecond(Some(ticks), _) => i128::from(*ticks) * 1_000_000_000,
        ScalarValue::TimestampMillisecond(Some(ticks), _) => i128::from(*ticks) * 1_000_000,
        ScalarValue::TimestampMicrosecond(Some(ticks), _) => i128::from(*ticks) * 1_000,
        ScalarValue::TimestampNanosecond(Some(ticks), _) => (*ticks).into(),
        _ => return None,
    })
}

/// A bound in terms of the key.
fn point(bound: &Typed, key: &Type) -> std::result::Result<Point, Refusal> {
    let incompatible = || Refusal::query(format!("WITH FILL cannot bound a {key} by a {}.", bound.ty));
    let value = bound.as_literal().ok_or_else(|| Refusal::query("The bounds of WITH FILL must be constants."))?;
    if value.is_null() {
        return Err(incompatible());
    }
    let of = bound.ty.inner();
    let found = match key {
        _ if key.is_float() && (of.is_float() || of.is_integer()) => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(float))) => Some(Point::Float(float)),
            _ => None,
        },
        _ if of.is_integer() => whole(value).map(|whole| Point::Whole(whole * grains_per_number(key))),
        Type::Date if of.is_time() => {
            nanoseconds(value).map(|ns| Point::Whole(ns.div_euclid(SECONDS_PER_DAY * 1_000_000_000)))
        }
        Type::DateTime(_) if of.is_time() => nanoseconds(value).map(|ns| Point::Whole(ns.div_euclid(1_000_000_000))),
        Type::DateTime64(precision, _) if of.is_time() => {
            let grain_ns = 1_000_000_000 / grains_per_second(*precision);
            nanoseconds(value).map(|ns| Point::Whole(ns.div_euclid(grain_ns)))
        }
        _ => None,
    };
    match found {
        Some(Point::Whole(whole)) if whole < 0 && key.is_unsigned() => {
            Err(Refusal::query(format!("WITH FILL cannot bound a {key} by a negative number.")))
        }
        Some(point) => Ok(point),
        None => Err(incompatible()),
    }
}

fn read_step(step: &Typed, key: &Type) -> std::result::Result<Step, Refusal> {
    let incompatible = || Refusal::query(format!("WITH FILL cannot step a {key} by a {}.", step.ty));
    let value = step.as_literal().ok_or_else(|| Refusal::query("The STEP of WITH FILL must be a constant."))?;
    if key.is_float() && (step.ty.is_float() || step.ty.is_integer()) {
        return match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(Some(float))) => Ok(Step::Float(float)),
            _ => Err(incompatible()),
        };
    }
    if step.ty.is_integer() {
        let number = whole(value).ok_or_else(incompatible)?;
        return Ok(Step::Grains(number * grains_per_number(key)));
    }
    let (Type::Interval(unit), true) = (&step.ty, key.is_time()) else { return Err(incompatible()) };
    let amount = whole(value).ok_or_else(incompatible)?;
    let months = match unit {
        Unit::Month => Some(1),
        Unit::Quarter => Some(3),
        Unit::Year => Some(12),
        _ => None,
    };
    if let Some(months) = months {
        let months = i64::try_from(amount * months).map_err(|_| incompatible())?;
        // Beyond the years that a date can have, a step is no use and only overflows.
        return if months.abs() <= 12 * 10_000 { Ok(Step::Months(months)) } else { Err(incompatible()) };
    }
    let unit_ns: i128 = match unit {
        Unit::Nanosecond => 1,
        Unit::Microsecond => 1_000,
        Unit::Millisecond => 1_000_000,
        Unit::Second => 1_000_000_000,
        Unit::Minute => 60_000_000_000,
        Unit::Hour => 3_600_000_000_000,
        Unit::Day => SECONDS_PER_DAY * 1_000_000_000,
        _ => 7 * SECONDS_PER_DAY * 1_000_000_000,
    };
    let grain_ns = match key {
        Type::Date => SECONDS_PER_DAY * 1_000_000_000,
        Type::DateTime(_) => 1_000_000_000,
        Type::DateTime64(precision, _) => 1_000_000_000 / grains_per_second(*precision),
        _ => return Err(incompatible()),
    };
    if unit_ns < grain_ns {
        return Err(Refusal::query(format!("The STEP of WITH FILL is too fine for a {key}.")));
    }
    Ok(Step::Grains(amount * (unit_ns / grain_ns)))
}

impl PartialEq for Filled {
    fn eq(&self, other: &Filled) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Filled {}

impl Hash for Filled {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

type Bits<'a> = (&'a str, &'a Type, bool, Option<(bool, i128)>, Option<(bool, i128)>, (u8, i128));

impl Filled {
    /// Everything there is to it, in a form that can be compared and hashed.
    fn bits(&self) -> Bits<'_> {
        let Filled { column, ty, descending, from, to, step } = self;
        let point = |point: &Point| match point {
            Point::Whole(whole) => (false, *whole),
            Point::Float(float) => (true, float.to_bits().into()),
        };
        let step = match step {
            Step::Grains(grains) => (0, *grains),
            Step::Float(float) => (1, float.to_bits().into()),
            Step::Months(months) => (2, (*months).into()),
        };
        (column, ty, *descending, from.as_ref().map(point), to.as_ref().map(point), step)
    }
}
