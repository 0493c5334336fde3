//! `= != < <= > >=`, BETWEEN, and the type in which two values are equal (AN-TIME-04, AN-TIME-05, AN-ERR-16).
//!
//! Numbers of every width compare by value, floats as IEEE 754 has it (NaN equals nothing), text bytewise, times as points in
//! time. Wherever one side is a constant it is brought to the other side's type, so that a condition on a column stays a
//! plain comparison of the column with a literal, which statistics can answer.

use std::cmp::Ordering;

use datafusion::arrow::array::types::{Decimal128Type, Float64Type};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, make_comparator};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::SortOptions;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Expr, Operator, binary_expr, cast as cast_expr, lit};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::{Type, grain, ticks_per_second};
use super::arithmetic::{illegal, widen};
use super::arrays::members;
use super::calendar::{Clock, DAY_S};
use super::convert::{self, convert};
use super::{interval, literal, logic, parse, unify};
use crate::error::Refusal;

/// Which comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equals,
    /// `!=`
    NotEquals,
    /// `<`
    Less,
    /// `<=`
    LessOrEquals,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEquals,
}

use Comparison::{Equals, Greater, GreaterOrEquals, Less, LessOrEquals, NotEquals};

impl Comparison {
    /// Its name as a function.
    pub fn name(self) -> &'static str {
        match self {
            Equals => "equals",
            NotEquals => "notEquals",
            Less => "less",
            LessOrEquals => "lessOrEquals",
            Greater => "greater",
            GreaterOrEquals => "greaterOrEquals",
        }
    }

    /// The comparison of `b` with `a` that says the same.
    fn mirrored(self) -> Comparison {
        match self {
            Less => Greater,
            LessOrEquals => GreaterOrEquals,
            Greater => Less,
            GreaterOrEquals => LessOrEquals,
            symmetric => symmetric,
        }
    }

    fn operator(self) -> Operator {
        match self {
            Equals => Operator::Eq,
            NotEquals => Operator::NotEq,
            Less => Operator::Lt,
            LessOrEquals => Operator::LtEq,
            Greater => Operator::Gt,
            GreaterOrEquals => Operator::GtEq,
        }
    }

    /// Whether it holds for this order; values that have none differ and are in no order.
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Equals => order == Some(Ordering::Equal),
            NotEquals => order != Some(Ordering::Equal),
            Less => order == Some(Ordering::Less),
            LessOrEquals => order.is_some_and(Ordering::is_le),
            Greater => order == Some(Ordering::Greater),
            GreaterOrEquals => order.is_some_and(Ordering::is_ge),
        }
    }
}

/// `a = b`.
pub fn equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(Equals, a, b)
}

/// `a != b`.
pub fn not_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(NotEquals, a, b)
}

/// `a < b`.
pub fn less(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(Less, a, b)
}

/// `a <= b`.
pub fn less_or_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(LessOrEquals, a, b)
}

/// `a > b`.
pub fn greater(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(Greater, a, b)
}

/// `a >= b`.
pub fn greater_or_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    compare(GreaterOrEquals, a, b)
}

/// `a BETWEEN low AND high`: both ends belong to it.
pub fn between(a: Typed, low: Typed, high: Typed) -> Result<Typed, Refusal> {
    logic::and(greater_or_equals(a.clone(), low)?, less_or_equals(a, high)?)
}

/// `a NOT BETWEEN low AND high`.
pub fn not_between(a: Typed, low: Typed, high: Typed) -> Result<Typed, Refusal> {
    logic::or(less(a.clone(), low)?, greater(a, high)?)
}

/// `a` against `b`: a flag, NULL where a side is NULL.
pub fn compare(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    match (a.ty.inner().clone(), b.ty.inner().clone()) {
        (Type::Nothing, _) | (_, Type::Nothing) => Ok(literal::null()),
        (Type::String, Type::String) | (Type::Bool, Type::Bool) | (Type::Date, Type::Date) => plain(comparison, a, b),
        (Type::DateTime(_), Type::DateTime(_)) => plain(comparison, a, b),
        (Type::Interval(x), Type::Interval(y)) if x == y => plain(comparison, a, b),
        (x, y) if x.is_number() && y.is_number() => numbers(comparison, a, b),
        (x, y) if x.is_time() && y.is_time() => times(comparison, a, b),
        (Type::DateTime(_) | Type::DateTime64(..), y) if y.is_number() => time_and_number(comparison, a, b),
        (x, Type::DateTime(_) | Type::DateTime64(..)) if x.is_number() => time_and_number(comparison.mirrored(), b, a),
        (x, Type::String) if x.is_time() || x == Type::Bool => {
            let read = read_constant(comparison, &a, &b)?;
            compare(comparison, a, read)
        }
        (Type::String, y) if y.is_time() || y == Type::Bool => {
            let read = read_constant(comparison, &b, &a)?;
            compare(comparison, read, b)
        }
        (Type::Array(_), Type::Array(_)) => arrays(comparison, a, b),
        (Type::Tuple(x), Type::Tuple(y)) if x.len() == y.len() => tuples(comparison, &a, &b),
        _ => Err(illegal(comparison.name(), &a, &b)),
    }
}

/// Both sides in one type in which equal values are equal: for the keys of joins and for IN with a subquery.
pub fn comparable(a: Typed, b: Typed) -> Result<(Typed, Typed), Refusal> {
    let refusal = || illegal("equals", &a, &b);
    let shared = match (a.ty.inner(), b.ty.inner()) {
        (Type::Bool, y) if y.is_number() && *y != Type::Bool => {
            return comparable(convert(a, &Type::UInt8)?, b);
        }
        (x, Type::Bool) if x.is_number() && *x != Type::Bool => {
            return comparable(a, convert(b, &Type::UInt8)?);
        }
        (x, y) if (*x == Type::UInt64 && y.is_signed()) || (x.is_signed() && *y == Type::UInt64) => {
            Type::Decimal(38, 0)
        }
        (Type::DateTime(_), y) if y.is_integer() => return comparable(convert(a, &Type::Int64)?, b),
        (x, Type::DateTime(_)) if x.is_integer() => return comparable(a, convert(b, &Type::Int64)?),
        (x, y) => unify::super_type(&[x.clone(), y.clone()]).map_err(|_| refusal())?,
    };
    let bring = |x: Typed| {
        let target = shared.clone().nullable_as(&x.ty);
        unify::coerce(x, &target)
    };
    Ok((bring(a)?, bring(b)?))
}

/// Two values of one Arrow type whose order Arrow knows.
fn plain(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let nullable = a.ty.is_nullable() || b.ty.is_nullable();
    kernel::fold(Typed::flag(binary_expr(a.expr, comparison.operator(), b.expr), nullable))
}

/// A comparison that comes out the same for every value of `a`: NULL only where `a` is.
fn always(outcome: bool, a: Typed) -> Result<Typed, Refusal> {
    if !a.ty.is_nullable() {
        return Ok(Typed::literal(ScalarValue::UInt8(Some(u8::from(outcome))), Type::UInt8));
    }
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    let condition = if outcome {
        binary_expr(a.expr.is_not_null(), Operator::Or, null)
    } else {
        binary_expr(a.expr.is_null(), Operator::And, null)
    };
    kernel::fold(Typed::flag(condition, true))
}

/// A whole number, or a number of units of 10^-scale.
fn whole(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::Boolean(Some(value)) => i128::from(*value),
        ScalarValue::UInt8(Some(value)) => i128::from(*value),
        ScalarValue::UInt16(Some(value)) => i128::from(*value),
        ScalarValue::UInt32(Some(value)) => i128::from(*value),
        ScalarValue::UInt64(Some(value)) => i128::from(*value),
        ScalarValue::Int8(Some(value)) => i128::from(*value),
        ScalarValue::Int16(Some(value)) => i128::from(*value),
        ScalarValue::Int32(Some(value)) => i128::from(*value),
        ScalarValue::Int64(Some(value)) => i128::from(*value),
        _ => return None,
    })
}

/// A whole number as a constant of an integer type, where it is one of its values.
pub(super) fn fit(value: i128, ty: &Type) -> Option<ScalarValue> {
    Some(match ty {
        Type::UInt8 => ScalarValue::UInt8(Some(u8::try_from(value).ok()?)),
        Type::UInt16 => ScalarValue::UInt16(Some(u16::try_from(value).ok()?)),
        Type::UInt32 => ScalarValue::UInt32(Some(u32::try_from(value).ok()?)),
        Type::UInt64 => ScalarValue::UInt64(Some(u64::try_from(value).ok()?)),
        Type::Int8 => ScalarValue::Int8(Some(i8::try_from(value).ok()?)),
        Type::Int16 => ScalarValue::Int16(Some(i16::try_from(value).ok()?)),
        Type::Int32 => ScalarValue::Int32(Some(i32::try_from(value).ok()?)),
        Type::Int64 => ScalarValue::Int64(Some(i64::try_from(value).ok()?)),
        _ => return None,
    })
}

/// A constant number, exactly: its whole part (rounded down) and whether anything is above it. `None` beyond 10^38, and for
/// NaN.
pub(super) fn exact(value: &ScalarValue) -> Option<(i128, bool)> {
    match value {
        ScalarValue::Float64(Some(value)) => {
            let floor = value.floor();
            (floor.abs() < 1e38).then_some((floor as i128, floor < *value))
        }
        ScalarValue::Float32(Some(value)) => exact(&ScalarValue::Float64(Some(f64::from(*value)))),
        ScalarValue::Decimal128(Some(value), _, scale) => {
            let unit = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            Some((value.div_euclid(unit), value.rem_euclid(unit) != 0))
        }
        other => whole(other).map(|value| (value, false)),
    }
}

/// Values of a type that counts in whole steps, against a constant that lies at a step or between two: `floor` is the step at
/// or below it. `at` makes a constant of a step, `None` where it is no value of the type.
fn steps(
    comparison: Comparison,
    a: Typed,
    (floor, above): (i128, bool),
    at: impl Fn(i128) -> Option<ScalarValue>,
) -> Result<Typed, Refusal> {
    let comparison = match (comparison, above) {
        (Equals, true) => return always(false, a),
        (NotEquals, true) => return always(true, a),
        (GreaterOrEquals, true) => Greater,
        (Less, true) => LessOrEquals,
        (other, _) => other,
    };
    match at(floor) {
        Some(value) => {
            let ty = a.ty.inner().clone();
            plain(comparison, a, Typed::literal(value, ty))
        }
        None => {
            let beyond = if floor < 0 { Ordering::Greater } else { Ordering::Less };
            always(comparison.holds(Some(beyond)), a)
        }
    }
}

fn numbers(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    if a.as_literal().is_some() && b.as_literal().is_none() {
        return numbers(comparison.mirrored(), b, a);
    }
    let (x, y) = (a.ty.inner().clone(), b.ty.inner().clone());
    if x == Type::Bool {
        if let (Some((value @ (0 | 1), false)), Equals | NotEquals) = (b.as_literal().and_then(exact), comparison) {
            return plain(comparison, a, literal::boolean(value == 1));
        }
        return numbers(comparison, convert(a, &Type::UInt8)?, b);
    }
    if y == Type::Bool {
        return numbers(comparison, a, convert(b, &Type::UInt8)?);
    }
    if a.as_literal().is_none()
        && x.is_integer()
        && let Some(value) = b.as_literal().and_then(exact)
    {
        return steps(comparison, a, value, |value| fit(value, &x));
    }
    if x.is_integer() && y.is_integer() {
        let wide = if convert::holds(&x, &y) {
            x
        } else if convert::holds(&y, &x) {
            y
        } else if x == Type::UInt64 || y == Type::UInt64 {
            return wholes(comparison, widen(a)?, widen(b)?);
        } else {
            Type::Int64
        };
        return plain(comparison, convert(a, &wide)?, convert(b, &wide)?);
    }
    match (&x, &y) {
        (Type::Decimal(..), Type::Decimal(..)) | (Type::Decimal(..), _) | (_, Type::Decimal(..))
            if !x.is_float() && !y.is_float() =>
        {
            let scale = |ty: &Type| if let Type::Decimal(_, scale) = ty { *scale } else { 0 };
            let shared = Type::Decimal(38, scale(&x).max(scale(&y)));
            wholes(comparison, convert(a, &shared)?, convert(b, &shared)?)
        }
        (Type::Decimal(..), _) | (_, Type::Decimal(..)) => {
            floats(comparison, convert(a, &Type::Float64)?, convert(b, &Type::Float64)?)
        }
        _ if x.is_float() && y.is_float() => {
            floats(comparison, convert(a, &Type::Float64)?, convert(b, &Type::Float64)?)
        }
        // A constant that a float holds exactly compares as that float.
        _ if x.is_float() && b.as_literal().and_then(whole).is_some_and(|value| value.abs() <= 1 << 53) => {
            floats(comparison, convert(a, &Type::Float64)?, convert(b, &Type::Float64)?)
        }
        _ if x.is_float() => mixed(comparison.mirrored(), widen(b)?, convert(a, &Type::Float64)?),
        _ => mixed(comparison, widen(a)?, convert(b, &Type::Float64)?),
    }
}

/// Decimals of one scale.
fn wholes(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    kernel::test(comparison.name(), "decimals", vec![a, b], move |columns| {
        let (a, b) = (columns[0].as_primitive::<Decimal128Type>(), columns[1].as_primitive::<Decimal128Type>());
        let (x, y) = (a.values(), b.values());
        Ok(rows(columns, |row| comparison.holds(Some(x[row].cmp(&y[row])))))
    })
}

/// Floats, as IEEE 754 compares them; Arrow's own order has NaN equal to itself and -0 below 0. A column against a constant is
/// said in Arrow's comparisons all the same.
fn floats(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    if let Some(ScalarValue::Float64(Some(value))) = b.as_literal()
        && is_column(&a.expr)
        && !value.is_nan()
    {
        let value = *value;
        let nullable = a.ty.is_nullable() || b.ty.is_nullable();
        let zeros = if value == 0.0 { (-0.0, 0.0) } else { (value, value) };
        let column = || Box::new(a.expr.clone());
        let than = |operator, value: f64| binary_expr(*column(), operator, lit(value));
        let both = |left, operator, right| binary_expr(left, operator, right);
        let condition = match comparison {
            Equals if value == 0.0 => both(than(Operator::GtEq, zeros.0), Operator::And, than(Operator::LtEq, zeros.1)),
            NotEquals if value == 0.0 => both(than(Operator::Lt, zeros.0), Operator::Or, than(Operator::Gt, zeros.1)),
            Equals => than(Operator::Eq, value),
            NotEquals => than(Operator::NotEq, value),
            Less => both(than(Operator::Lt, zeros.0), Operator::And, than(Operator::GtEq, f64::NEG_INFINITY)),
            LessOrEquals => both(than(Operator::LtEq, zeros.1), Operator::And, than(Operator::GtEq, f64::NEG_INFINITY)),
            Greater => both(than(Operator::Gt, zeros.1), Operator::And, than(Operator::LtEq, f64::INFINITY)),
            GreaterOrEquals => both(than(Operator::GtEq, zeros.0), Operator::And, than(Operator::LtEq, f64::INFINITY)),
        };
        return Ok(Typed::flag(condition, nullable));
    }
    kernel::test(comparison.name(), "floats", vec![a, b], move |columns| {
        let (a, b) = (columns[0].as_primitive::<Float64Type>(), columns[1].as_primitive::<Float64Type>());
        let (x, y) = (a.values(), b.values());
        Ok(match comparison {
            Equals => rows(columns, |row| x[row] == y[row]),
            NotEquals => rows(columns, |row| x[row] != y[row]),
            Less => rows(columns, |row| x[row] < y[row]),
            LessOrEquals => rows(columns, |row| x[row] <= y[row]),
            Greater => rows(columns, |row| x[row] > y[row]),
            GreaterOrEquals => rows(columns, |row| x[row] >= y[row]),
        })
    })
}

fn is_column(expr: &Expr) -> bool {
    match expr {
        Expr::Column(_) => true,
        Expr::Cast(cast) => is_column(&cast.expr),
        _ => false,
    }
}

/// Integers against floats, without rounding either.
fn mixed(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    kernel::test(comparison.name(), "integers and floats", vec![a, b], move |columns| {
        let (a, b) = (columns[0].as_primitive::<Decimal128Type>(), columns[1].as_primitive::<Float64Type>());
        let (x, y) = (a.values(), b.values());
        Ok(rows(columns, |row| comparison.holds(order(x[row], y[row]))))
    })
}

fn order(whole: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() > 1e38 {
        return Some(if float > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = float.floor();
    Some(whole.cmp(&(floor as i128)).then(if floor < float { Ordering::Less } else { Ordering::Equal }))
}

/// A truth value for every row that is NULL in no column.
fn rows(columns: &[ArrayRef], holds: impl FnMut(usize) -> bool) -> BooleanArray {
    let length = columns.first().map_or(0, |column| column.len());
    let nulls = columns.iter().fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.nulls()));
    BooleanArray::new(BooleanBuffer::collect_bool(length, holds), nulls)
}

/// Ticks of a constant time, and how many there are to the second.
fn constant_ticks(x: &Typed) -> Option<(i128, i128)> {
    let value = match x.as_literal()? {
        ScalarValue::TimestampSecond(Some(value), _) => *value,
        ScalarValue::TimestampMillisecond(Some(value), _) => *value,
        ScalarValue::TimestampMicrosecond(Some(value), _) => *value,
        ScalarValue::TimestampNanosecond(Some(value), _) => *value,
        _ => return None,
    };
    let ticks = if let Type::DateTime64(precision, _) = x.ty.inner() { ticks_per_second(*precision) } else { 1 };
    Some((i128::from(value), i128::from(ticks)))
}

/// Two kinds of time, or DateTime64s of two precisions. A Date is the midnight at its start, in the other side's zone.
fn times(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    if a.as_literal().is_some() && b.as_literal().is_none() {
        return times(comparison.mirrored(), b, a);
    }
    let (x, y) = (a.ty.inner().clone(), b.ty.inner().clone());
    if a.as_literal().is_none()
        && let Some((value, ticks)) = constant_ticks(&b)
    {
        let zone = match y {
            Type::DateTime(zone) | Type::DateTime64(_, zone) => zone,
            _ => None,
        };
        match x {
            Type::Date => {
                let (clock, second) = (Clock::new(zone), value.div_euclid(ticks) as i64);
                let day = clock.day(second);
                let midnight = i128::from(clock.unix(day * DAY_S)) * ticks;
                let at = |day: i128| Some(ScalarValue::Date32(Some(i32::try_from(day).ok()?)));
                return steps(comparison, a, (i128::from(day), value > midnight), at);
            }
            Type::DateTime(_) => {
                let at = |second: i128| Some(ScalarValue::TimestampSecond(Some(i64::try_from(second).ok()?), None));
                return steps(comparison, a, (value.div_euclid(ticks), value.rem_euclid(ticks) != 0), at);
            }
            _ => {}
        }
    }
    let shared = unify::super_type(&[x, y])?;
    let (a, b) = (convert(a, &shared)?, convert(b, &shared)?);
    plain(comparison, a, b)
}

/// A time is its Unix seconds (AN-TIME-05).
fn time_and_number(comparison: Comparison, time: Typed, number: Typed) -> Result<Typed, Refusal> {
    if let Some((value, ticks)) = constant_ticks(&time)
        && number.ty.inner().is_integer()
        && number.as_literal().is_none()
    {
        let ty = number.ty.inner().clone();
        let value = (value.div_euclid(ticks), value.rem_euclid(ticks) != 0);
        return steps(comparison.mirrored(), number, value, |value| fit(value, &ty));
    }
    if time.as_literal().is_none()
        && *time.ty.inner() == Type::DateTime(None)
        && let Some(value) = number.as_literal().and_then(exact)
    {
        let at = |second: i128| Some(ScalarValue::TimestampSecond(Some(i64::try_from(second).ok()?), None));
        return steps(comparison, time, value, at);
    }
    let seconds = match *time.ty.inner() {
        Type::DateTime64(precision, _) => interval::decimal_seconds(time, precision)?,
        _ => {
            let ty = Type::Int64.nullable_as(&time.ty);
            Typed::new(cast_expr(time.expr, ty.arrow()), ty)
        }
    };
    numbers(comparison, kernel::fold(seconds)?, number)
}

/// A constant text in the type of the other side. Text that is no constant has no type in common with a time.
fn read_constant(comparison: Comparison, other: &Typed, text: &Typed) -> Result<Typed, Refusal> {
    let ty = other.ty.inner();
    let Some(written) = text.as_text() else { return Err(illegal(comparison.name(), other, text)) };
    read(written, ty)
        .map(|value| Typed::literal(value, ty.clone()))
        .ok_or_else(|| Refusal::query(format!("the text '{written}' cannot be read as {ty}")))
}

/// Text as a constant of a time type or Bool.
pub(super) fn read(text: &str, ty: &Type) -> Option<ScalarValue> {
    Some(match ty {
        Type::Bool => ScalarValue::Boolean(Some(parse::boolean(text)?)),
        Type::Date => ScalarValue::Date32(Some(i32::try_from(parse::date(text)?).ok()?)),
        Type::DateTime(zone) => ScalarValue::TimestampSecond(Some(convert::date_time(text, &Clock::new(*zone))?), None),
        Type::DateTime64(precision, zone) => {
            let ticks = convert::date_time64(text, *precision, &Clock::new(*zone))?;
            debug_assert_eq!(ticks % grain(*precision), 0);
            ScalarValue::Int64(Some(ticks)).cast_to(&ty.arrow()).ok()?
        }
        _ => return None,
    })
}

/// Element by element, the shorter first where it begins the longer; NULLs are equal.
fn arrays(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let shared = unify::super_type(&[a.ty.clone(), b.ty.clone()]).map_err(|_| illegal(comparison.name(), &a, &b))?;
    let (a, b) = (unify::coerce(a, &shared)?, unify::coerce(b, &shared)?);
    kernel::test(comparison.name(), "arrays", vec![a, b], move |columns| {
        let compare = make_comparator(&columns[0], &columns[1], SortOptions::default())?;
        Ok(rows(columns, |row| comparison.holds(Some(compare(row, row)))))
    })
}

/// Member by member: the first that differs decides.
fn tuples(comparison: Comparison, a: &Typed, b: &Typed) -> Result<Typed, Refusal> {
    let (Some(x), Some(y)) = (members(a), members(b)) else { return Err(illegal(comparison.name(), a, b)) };
    let strict = match comparison {
        Less | LessOrEquals => Less,
        other => other,
    };
    let strict = if strict == GreaterOrEquals { Greater } else { strict };
    let mut outcome: Option<Typed> = None;
    for (x, y) in x.into_iter().zip(y).rev() {
        outcome = Some(match (comparison, outcome) {
            (_, None) => compare(comparison, x, y)?,
            (Equals, Some(rest)) => logic::and(equals(x, y)?, rest)?,
            (NotEquals, Some(rest)) => logic::or(not_equals(x, y)?, rest)?,
            (_, Some(rest)) => {
                let decided = compare(strict, x.clone(), y.clone())?;
                logic::or(decided, logic::and(equals(x, y)?, rest)?)?
            }
        });
    }
    outcome.ok_or_else(|| illegal(comparison.name(), a, b))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;
    use super::super::number;
    use super::*;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn values_of_unlike_types_compare() {
        cases(
            r#"
            toUInt64(18446744073709551615) = toInt64(-1) => UInt8 "0"
            toUInt64(18446744073709551615) > toInt64(-1) => UInt8 "1"
            toInt64(-1) < toUInt64(0) => UInt8 "1"
            9007199254740993 = 9007199254740992.0 => UInt8 "0"
            toInt64(9007199254740993) > toFloat64(9007199254740992) => UInt8 "1"
            toUInt64(18446744073709551615) = 18446744073709551615.0 => UInt8 "0"
            0.1 = toFloat32(0.1) => UInt8 "0"
            1 = true => UInt8 "1"
            2 = true => UInt8 "0"
            true = 'true' => UInt8 "1"
            true = 't' => UInt8 "1"
            true = '1' => UInt8 "1"
            true = 'yes' => UInt8 "1"
            true > false => UInt8 "1"
            1 = '1' => refused
            1 = 'a' => refused
            materialize(1) = '1' => refused
            toInt64(1) = '1' => refused
            toFloat64(1) = '1' => refused
            1 = materialize('1') => refused
            'a' < 'b' => UInt8 "1"
            'a' < 'B' => UInt8 "0"
            toDate('2026-03-18') = '2026-03-18' => UInt8 "1"
            toDate('2026-03-18') >= '2026-3-8' => UInt8 "1"
            toDate('2026-03-18') >= '2026-03-18 00:00:00' => refused
            toDate('2026-03-18') >= '2026-03-18 10:00:00' => refused
            toDate('2026-03-18') = 'abc' => refused
            toDate('2026-03-18') = '' => refused
            toDate('2026-03-18') = '20260318' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18 00:00:00' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18T00:00:00' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18T00:00:00Z' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18T00:00:00.000Z' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18 00:00:00.5' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '2026-03-18 00:00' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '1773792000' => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') = '12345' => refused
            toDateTime('2026-03-18 00:00:00') = 'abc' => refused
            toDateTime('2026-03-18 00:00:00') = '' => refused
            toDateTime('2026-03-18 00:00:00','Europe/Berlin') = '2026-03-18 00:00:00' => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00',3) = '2026-03-18 00:00:00.000' => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00',3) = '2026-03-18 00:00:00' => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00',3) = '2026-03-18' => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00',3) < '2026-03-18 00:00:00.0005' => UInt8 "0"
            toDateTime64('2026-03-18 00:00:00',3) < '2026-03-18T00:00:00.123Z' => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00',3) = 'abc' => refused
            '2026-03-18' = toDate('2026-03-18') => UInt8 "1"
            toDate('2026-03-18') = materialize('2026-03-18') => refused
            materialize(toDate('2026-03-18')) = materialize('2026-03-18') => refused
            materialize(toDate('2026-03-18')) = concat('2026-03-','18') => UInt8 "1"
            toDate('2026-03-18') = toDateTime('2026-03-18 00:00:00') => UInt8 "1"
            toDate('2026-03-18') < toDateTime('2026-03-18 00:00:01') => UInt8 "1"
            toDate('2026-03-18') < toDateTime64('2026-03-18 00:00:00.001',3) => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') < toDateTime64('2026-03-18 00:00:00.001',3) => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00.001',3) = toDateTime64('2026-03-18 00:00:00.001',6) => UInt8 "1"
            toDate('2026-03-18') = toDateTime('2026-03-18 00:00:00','Europe/Berlin') => UInt8 "1"
            toDate('2026-03-18') = 20530 => refused
            toDate('2026-03-18') > 1 => refused
            toDate('2026-03-18') > 1.5 => refused
            toDateTime('2026-03-18 00:00:00') = 1773792000 => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') > 1773792000.5 => UInt8 "0"
            toDateTime('2026-03-18 00:00:00') > toInt64(-1) => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00.5',3) > 1773792000 => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00.5',3) > 1773792000.4 => UInt8 "1"
            toDateTime64('2026-03-18 00:00:00.5',3) = toInt64(1773792000) => UInt8 "0"
            toInt64(1773792000000) >= now64() => UInt8 "1"
            toInt64(1773792000000) >= toDate('2026-03-18') => refused
            toInt64(1773792000000) >= today() => refused
            toDateTime('2026-03-18 00:00:00') > true => UInt8 "1"
            [1,2] = [1,2] => UInt8 "1"
            [1,2] < [1,3] => UInt8 "1"
            [1,2] < [1,2,0] => UInt8 "1"
            [1,2] = [1.0,2.0] => UInt8 "1"
            [] = [1] => UInt8 "0"
            ['a'] = ['b'] => UInt8 "0"
            [1] = ['a'] => refused
            [1] = 1 => refused
            '[1]' = [1] => refused
            [NULL] = [NULL] => UInt8 "1"
            [1,NULL] = [1,NULL] => UInt8 "1"
            (1,'a') = (1,'a') => UInt8 "1"
            (1,2) < (1,3) => UInt8 "1"
            (1,NULL) = (1,NULL) => Nullable(UInt8) NULL
            (1,2) = (1,2,3) => refused
            (1,2) != (1,3) => UInt8 "1"
            NULL = NULL => Nullable(Nothing) NULL
            NULL = 1 => Nullable(Nothing) NULL
            1 < NULL => Nullable(Nothing) NULL
            NULL = 'a' => Nullable(Nothing) NULL
            0/0 = 0/0 => UInt8 "0"
            0/0 != 0/0 => UInt8 "1"
            0/0 < 1 => UInt8 "0"
            "#,
        );
    }
    // TABLE END

    /// What statistics can answer: a column against a literal of its type, whatever was written.
    #[test]
    fn conditions_on_columns_stay_plain() {
        use datafusion::logical_expr::ident;

        use super::super::super::functions::{self, Context};
        use super::super::super::types::Unit;

        let column = |name: &str, ty: Type| Typed::new(ident(name), ty);
        let call = |name: &str, arguments: Vec<Typed>| {
            let function = functions::find(name).expect("a function");
            (function.call)(&Context { now_ms: 1_773_828_000_500 }, arguments).expect("a call")
        };
        let number = |text: &str| number(text).expect("a number");
        let days = |amount: &str| interval::interval(number(amount), Unit::Day).expect("an interval");
        let week_ago = || super::super::minus(call("now", vec![]), days("7")).expect("a time");
        let shown = |condition: Typed| condition.condition().expect("a condition").to_string();
        let time = || column("time", Type::Int64);
        let bucket = || column("bucket", Type::DateTime(None));
        let day = || column("day", Type::Date);
        for (condition, expected) in [
            (greater_or_equals(bucket(), week_ago()), "bucket >= TimestampSecond(1773223200, None)"),
            (greater_or_equals(day(), week_ago()), "day > Date32(\"2026-03-11\")"),
            (less(day(), week_ago()), "day <= Date32(\"2026-03-11\")"),
            (greater_or_equals(day(), Typed::text("2026-03-01")), "day >= Date32(\"2026-03-01\")"),
            (greater_or_equals(bucket(), Typed::text("2026-03-01")), "bucket >= TimestampSecond(1772323200, None)"),
            (less(bucket(), call("today", vec![])), "bucket < TimestampSecond(1773792000, None)"),
            // AN-TIME-05: milliseconds against seconds.
            (greater_or_equals(time(), week_ago()), "time >= Int64(1773223200)"),
            (greater_or_equals(time(), call("now64", vec![])), "time > Int64(1773828000)"),
            (
                greater_or_equals(time(), call("toUnixTimestamp64Milli", vec![call("now64", vec![])])),
                "time >= Int64(1773828000500)",
            ),
            (greater(time(), number("1.5")), "time > Int64(1)"),
            (equals(number("5"), time()), "time = Int64(5)"),
            (less(bucket(), number("1773223200")), "bucket < TimestampSecond(1773223200, None)"),
            (equals(column("outcome", Type::String), Typed::text("VALID")), "outcome = Utf8View(\"VALID\")"),
            (equals(column("passed", Type::Bool), number("1")), "passed = Boolean(true)"),
            (equals(column("latency", Type::Float64), number("5")), "latency = Float64(5)"),
            (
                greater(column("latency", Type::Float64), number("5")),
                "latency > Float64(5) AND latency <= Float64(inf)",
            ),
        ] {
            assert_eq!(shown(condition.expect("a comparison")), expected);
        }
        assert_eq!(
            equals(column("small", Type::UInt8), number("300")).map(shown),
            Ok("UInt8(0) != UInt8(0)".to_owned())
        );
    }
}
