//! `+ - * / %` and the sign (AN-SEM-07, AN-SEM-08, AN-TIME-06).
//!
//! Integers widen by the widths of their types, never by their values, and wrap where even the wider type is too small.
//! `/` is always a float. With a time on either side the operation is one of [`interval`](super::interval).

use std::sync::Arc;

use datafusion::arrow::array::types::{Decimal128Type, Int64Type, UInt64Type};
use datafusion::arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, UInt64Array};
use datafusion::arrow::compute::kernels::arity::try_binary;
use datafusion::arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, binary_expr};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::convert::{bits, convert};
use super::{interval, literal};
use crate::error::Refusal;

/// `a + b`: numbers, a time and a number or an interval in either order, two intervals of one unit.
pub fn plus(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    match (a.ty.inner(), b.ty.inner()) {
        (Type::Nothing, _) | (_, Type::Nothing) => Ok(literal::null()),
        (Type::Interval(x), Type::Interval(y)) if x == y => same(Operator::Plus, a, b),
        (_, Type::Interval(_)) => interval::shift(a, b, false),
        (Type::Interval(_), _) => interval::shift(b, a, false),
        (x, y) if x.is_time() && y.is_number() => interval::shift_by_number(a, b, false),
        (x, y) if x.is_number() && y.is_time() => interval::shift_by_number(b, a, false),
        _ => numbers(Operation::Plus, a, b),
    }
}

/// `a - b`: as [`plus`], with the time on the left; or the time between two times.
pub fn minus(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    match (a.ty.inner(), b.ty.inner()) {
        (Type::Nothing, _) | (_, Type::Nothing) => Ok(literal::null()),
        (Type::Interval(x), Type::Interval(y)) if x == y => same(Operator::Minus, a, b),
        (Type::Interval(_), _) => Err(illegal("minus", &a, &b)),
        (_, Type::Interval(_)) => interval::shift(a, b, true),
        (x, y) if x.is_time() && y.is_number() => interval::shift_by_number(a, b, true),
        (x, y) if x.is_time() && y.is_time() => interval::between(a, b),
        _ => numbers(Operation::Minus, a, b),
    }
}

/// `a * b` of numbers.
pub fn multiply(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    numbers(Operation::Multiply, a, b)
}

/// `a / b` of numbers: Float64, infinite or NaN where `b` is zero; of decimals the scale of `a`.
pub fn divide(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    numbers(Operation::Divide, a, b)
}

/// `a % b` with the sign of `a`. A whole number by zero is refused when it is met; floats then give NaN. Dates and DateTimes
/// count as their days and seconds.
pub fn modulo(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let a = match a.ty.inner() {
        Type::Date => convert(a, &Type::UInt16)?,
        Type::DateTime(_) => convert(a, &Type::UInt32)?,
        _ => a,
    };
    numbers(Operation::Modulo, a, b)
}

/// `-a` of a number or an interval: unsigned types become the next wider signed one.
pub fn negate(a: Typed) -> Result<Typed, Refusal> {
    let ty = match a.ty.inner() {
        Type::Nothing => return Ok(literal::null()),
        Type::Bool | Type::UInt8 => Type::Int16,
        Type::UInt16 => Type::Int32,
        Type::UInt32 | Type::UInt64 => Type::Int64,
        ty if ty.is_signed() || ty.is_float() || matches!(ty, Type::Decimal(..) | Type::Interval(_)) => ty.clone(),
        ty => return Err(Refusal::query(format!("operator negate takes a number, not {ty}"))),
    };
    let nullable = ty.clone().nullable_as(&a.ty);
    if ty.is_float() || matches!(ty, Type::Decimal(..)) {
        return kernel::fold(Typed::new(Expr::Negative(Box::new(a.expr)), nullable));
    }
    let a = convert(a, &ty)?;
    let zero = ScalarValue::new_zero(&ty.arrow()).map_err(|error| kernel::refusal(&error))?;
    kernel::fold(Typed::new(binary_expr(Expr::Literal(zero, None), Operator::Minus, a.expr), nullable))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Plus => "plus",
            Operation::Minus => "minus",
            Operation::Multiply => "multiply",
            Operation::Divide => "divide",
            Operation::Modulo => "modulo",
        }
    }

    fn operator(self) -> Operator {
        match self {
            Operation::Plus => Operator::Plus,
            Operation::Minus => Operator::Minus,
            Operation::Multiply => Operator::Multiply,
            Operation::Divide => Operator::Divide,
            Operation::Modulo => Operator::Modulo,
        }
    }
}

/// Operands that an operator does not take.
pub(super) fn illegal(operator: &str, a: &Typed, b: &Typed) -> Refusal {
    Refusal::query(format!("operator {operator} does not take values of the types {} and {}", a.ty, b.ty))
}

/// Two operands of one type, which is also the result's.
fn same(operator: Operator, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let ty = a.ty.clone().nullable_as(&b.ty);
    kernel::fold(Typed::new(binary_expr(a.expr, operator, b.expr), ty))
}

fn numbers(operation: Operation, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let (x, y) = (count_bool(a.ty.inner()), count_bool(b.ty.inner()));
    if x == Type::Nothing || y == Type::Nothing {
        return Ok(literal::null());
    }
    if !x.is_number() || !y.is_number() {
        return Err(illegal(operation.name(), &a, &b));
    }
    let nullable = a.ty.is_nullable() || b.ty.is_nullable();
    let ty = match (&x, &y) {
        _ if x.is_float() || y.is_float() => Type::Float64,
        (Type::Decimal(..), _) | (_, Type::Decimal(..)) => return decimals(operation, a, b),
        _ if operation == Operation::Divide => Type::Float64,
        _ if operation == Operation::Modulo => return remainder(a, b),
        _ => {
            let signed = operation == Operation::Minus || x.is_signed() || y.is_signed();
            integer(bits(&x).max(bits(&y)).saturating_mul(2), signed)
        }
    };
    let (a, b) = (convert(a, &ty)?, convert(b, &ty)?);
    let ty = if nullable { ty.nullable() } else { ty };
    kernel::fold(Typed::new(binary_expr(a.expr, operation.operator(), b.expr), ty))
}

fn count_bool(ty: &Type) -> Type {
    if *ty == Type::Bool { Type::UInt8 } else { ty.clone() }
}

/// The integer type of so many bits, 64 at most.
fn integer(bits: u8, signed: bool) -> Type {
    match (bits, signed) {
        (..=8, false) => Type::UInt8,
        (..=16, false) => Type::UInt16,
        (..=32, false) => Type::UInt32,
        (_, false) => Type::UInt64,
        (..=8, true) => Type::Int8,
        (..=16, true) => Type::Int16,
        (..=32, true) => Type::Int32,
        (_, true) => Type::Int64,
    }
}

/// The remainder of integers: as wide as the divisor, and the next wider signed type where the dividend is signed.
fn remainder(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let (x, y) = (count_bool(a.ty.inner()), count_bool(b.ty.inner()));
    let ty = if x.is_signed() { integer(bits(&y).saturating_mul(2), true) } else { integer(bits(&y), false) };
    let nullable = a.ty.is_nullable() || b.ty.is_nullable();
    let with_null = |ty: &Type| if nullable { ty.clone().nullable() } else { ty.clone() };
    let wide = match (x == Type::UInt64, y == Type::UInt64) {
        (false, false) => {
            let operands = vec![convert(a, &Type::Int64)?, convert(b, &Type::Int64)?];
            kernel::map("modulo", "Int64", operands, with_null(&Type::Int64), |columns| {
                let (a, b) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_primitive::<Int64Type>());
                let rest: Int64Array = try_binary(a, b, |a, b| a.checked_rem(b).ok_or_else(|| no_remainder(b == 0)))?;
                Ok(Arc::new(rest))
            })?
        }
        _ if x.is_unsigned() && y.is_unsigned() => {
            let operands = vec![convert(a, &Type::UInt64)?, convert(b, &Type::UInt64)?];
            kernel::map("modulo", "UInt64", operands, with_null(&Type::UInt64), |columns| {
                let (a, b) = (columns[0].as_primitive::<UInt64Type>(), columns[1].as_primitive::<UInt64Type>());
                let rest: UInt64Array = try_binary(a, b, |a, b| a.checked_rem(b).ok_or_else(|| no_remainder(true)))?;
                Ok(Arc::new(rest))
            })?
        }
        _ => {
            let operands = vec![widen(a)?, widen(b)?];
            kernel::map("modulo", "wide", operands, with_null(&Type::Int64), |columns| {
                let (a, b) = (columns[0].as_primitive::<Decimal128Type>(), columns[1].as_primitive::<Decimal128Type>());
                let rest: Int64Array = try_binary(a, b, |a, b| {
                    a.checked_rem(b).map(|rest| rest as i64).ok_or_else(|| no_remainder(true))
                })?;
                Ok(Arc::new(rest))
            })?
        }
    };
    convert(wide, &ty)
}

fn no_remainder(zero: bool) -> ArrowError {
    let text = if zero { "division by zero" } else { "division of the least integer by minus one" };
    ArrowError::ExternalError(Box::new(Refusal::query(text)))
}

/// An integer as a decimal that holds every 64-bit one.
pub(super) fn widen(x: Typed) -> Result<Typed, Refusal> {
    convert(x, &Type::Decimal(38, 0))
}

/// Arithmetic with a decimal on at least one side and no float: exact, refused where the result does not fit.
fn decimals(operation: Operation, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let scale = |ty: &Type| match ty {
        Type::Decimal(_, scale) => u32::try_from(*scale).unwrap_or(0),
        _ => 0,
    };
    let (p, q) = (scale(a.ty.inner()), scale(b.ty.inner()));
    let result = match operation {
        Operation::Plus | Operation::Minus => p.max(q),
        Operation::Multiply => p + q,
        Operation::Divide => p,
        Operation::Modulo => return Err(illegal("modulo", &a, &b)),
    };
    let ty = Type::Decimal(38, i8::try_from(result).map_err(|_| illegal(operation.name(), &a, &b))?);
    let ty = ty.nullable_as(&a.ty).nullable_as(&b.ty);
    let exact = |x: Typed, scale: u32| convert(x, &Type::Decimal(38, scale as i8));
    let (a, b) = (exact(a, p)?, exact(b, q)?);
    let (up_a, up_b) = match operation {
        Operation::Plus | Operation::Minus => (result - p, result - q),
        Operation::Divide => (q, 0),
        _ => (0, 0),
    };
    let (up_a, up_b) = (10i128.pow(up_a.min(38)), 10i128.pow(up_b.min(38)));
    let arrow = ty.arrow();
    kernel::map(operation.name(), format!("decimals {p} {q}"), vec![a, b], ty, move |columns| {
        let (a, b) = (columns[0].as_primitive::<Decimal128Type>(), columns[1].as_primitive::<Decimal128Type>());
        let values: Decimal128Array = try_binary(a, b, |a, b| {
            let too_large = || ArrowError::ExternalError(Box::new(Refusal::query("a decimal number grows too large")));
            let (a, b) = (a.checked_mul(up_a).ok_or_else(too_large)?, b.checked_mul(up_b).ok_or_else(too_large)?);
            match operation {
                Operation::Plus => a.checked_add(b),
                Operation::Minus => a.checked_sub(b),
                Operation::Multiply => a.checked_mul(b),
                Operation::Divide | Operation::Modulo if b == 0 => return Err(no_remainder(true)),
                Operation::Divide | Operation::Modulo => a.checked_div(b),
            }
            .ok_or_else(too_large)
        })?;
        Ok(Arc::new(values.with_data_type(arrow.clone())) as ArrayRef)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn types_widen_and_values_wrap() {
        cases(
            r#"
            1+1 => UInt16 "2"
            255+1 => UInt16 "256"
            toUInt8(1)+toInt8(1) => Int16 "2"
            toUInt16(1)+toInt32(1) => Int64 "2"
            toUInt32(1)+toInt8(1) => Int64 "2"
            toUInt64(1)+toInt64(1) => Int64 "2"
            toUInt64(1)+toUInt8(1) => UInt64 "2"
            toInt64(1)+1.5 => Float64 "2.5"
            toFloat32(1)+1 => Float64 "2"
            toFloat32(1)+toInt64(1) => Float64 "2"
            toFloat32(1)+toFloat64(1) => Float64 "2"
            true+true => UInt16 "2"
            true+1 => UInt16 "2"
            toUInt8(1)-toUInt8(2) => Int16 "-1"
            toUInt64(1)-toUInt64(2) => Int64 "-1"
            toUInt32(1)-toUInt32(2) => Int64 "-1"
            toUInt64(1)-toInt8(2) => Int64 "-1"
            toInt8(1)-toUInt8(2) => Int16 "-1"
            toUInt8(3)*toUInt8(4) => UInt16 "12"
            toInt8(3)*toUInt8(4) => Int16 "12"
            toUInt64(3)*toInt64(-4) => Int64 "-12"
            toInt64(9223372036854775807)+1 => Int64 "-9223372036854775808"
            toUInt64(18446744073709551615)+1 => UInt64 "0"
            5/2 => Float64 "2.5"
            toFloat32(5)/toFloat32(2) => Float64 "2.5"
            5/0 => Float64 "inf"
            0/0 => Float64 "nan"
            -5/0 => Float64 "-inf"
            true/2 => Float64 "0.5"
            5%3 => UInt8 "2"
            -5%3 => Int16 "-2"
            5%-3 => UInt8 "2"
            toUInt8(5)%toUInt16(3) => UInt16 "2"
            toUInt16(5)%toUInt8(3) => UInt8 "2"
            toInt64(5)%toInt8(3) => Int16 "2"
            toInt8(5)%toInt64(3) => Int64 "2"
            toUInt64(5)%toInt8(3) => UInt8 "2"
            toInt8(-5)%toUInt64(3) => Int64 "-2"
            toUInt64(5)%toInt64(-3) => UInt64 "2"
            toInt64(-5)%toUInt8(3) => Int16 "-2"
            5%0 => refused
            5.5%2 => Float64 "1.5"
            5.5%0 => Float64 "nan"
            5%2.5 => Float64 "0"
            toInt64(-9223372036854775808)%toInt64(-1) => refused
            -toUInt8(1) => Int16 "-1"
            -toUInt64(1) => Int64 "-1"
            -toUInt16(1) => Int32 "-1"
            -toUInt32(1) => Int64 "-1"
            -toInt8(-128) => Int8 "-128"
            -toInt64(1) => Int64 "-1"
            -1.5 => Float64 "-1.5"
            -true => Int16 "-1"
            -'a' => refused
            -toDate('2020-01-01') => refused
            -toDateTime('2020-01-01') => refused
            1+'a' => refused
            'a'+'b' => refused
            'a'/1 => refused
            NULL+1 => Nullable(Nothing) NULL
            1%NULL => Nullable(Nothing) NULL
            NULL+NULL => Nullable(Nothing) NULL
            NULL/NULL => Nullable(Nothing) NULL
            -NULL => Nullable(Nothing) NULL
            [1]+[2] => refused
            [1,2]*2 => refused
            (1,2)+(3,4) => refused
            -(1,2) => refused
            (1,2)*2 => refused
            toDate('2026-03-18')+1 => Date "2026-03-19"
            1+toDate('2026-03-18') => Date "2026-03-19"
            toDate('2026-03-18')+toInt64(1) => Date "2026-03-19"
            toDate('2026-03-18')+1.5 => Date "2026-03-19"
            toDate('2026-03-18')-1 => Date "2026-03-17"
            1-toDate('2026-03-18') => refused
            toDate('2026-03-18')*2 => refused
            toDateTime('2026-03-18 01:02:03')+1 => DateTime "2026-03-18 01:02:04"
            toDateTime('2026-03-18 01:02:03')-1 => DateTime "2026-03-18 01:02:02"
            toDateTime('2026-03-18 01:02:03')+1.5 => DateTime "2026-03-18 01:02:04"
            toDateTime64('2026-03-18 01:02:03.456',3)+1 => DateTime64(3) "2026-03-18 01:02:04.456"
            toDateTime64('2026-03-18 01:02:03.456',3)-1 => DateTime64(3) "2026-03-18 01:02:02.456"
            toDateTime64('2026-03-18 01:02:03.456',3)+1.5 => DateTime64(3) "2026-03-18 01:02:04.456"
            toDate('2026-03-18')-toDate('2026-03-10') => Int32 "8"
            toDate('2026-03-10')-toDate('2026-03-18') => Int32 "-8"
            toDateTime('2026-03-18 01:02:03')-toDateTime('2026-03-18 01:02:00') => Int32 "3"
            toDateTime('2026-03-18 01:02:00')-toDateTime('2026-03-18 01:02:03') => Int32 "-3"
            toDateTime64('2026-03-18 01:02:03.456',3)-toDateTime64('2026-03-18 01:02:00',3) => Decimal(18, 3) "3.456"
            toDateTime64('2026-03-18 01:02:03.456',3)-toDateTime64('2026-03-18 01:02:00',6) => Decimal(18, 6) "3.456"
            toDateTime64('2026-03-18 01:02:03.456',3)-toDateTime('2026-03-18 01:02:00') => Decimal(18, 3) "3.456"
            toDateTime('2026-03-18 01:02:00')-toDateTime64('2026-03-18 01:02:03.456',3) => Decimal(18, 3) "-3.456"
            toDateTime('2026-03-18 01:02:03')-toDate('2026-03-18') => refused
            toDate('2026-03-18')-toDateTime('2026-03-18 01:02:03') => refused
            toDate('2026-03-18')-toDateTime64('2026-03-18 01:02:03.4',3) => refused
            toDateTime64('2026-03-18 01:02:03.4',3)-toDate('2026-03-18') => refused
            toDate('2026-03-18')+toDate('2026-03-10') => refused
            toDate('2026-03-18')+true => Date "2026-03-19"
            toDate('2026-03-18') % 7 => UInt8 "6"
            toDate('2026-03-18') / 2 => refused
            toDateTime('2026-03-18 01:02:00') % 60 => UInt8 "0"
            toDateTime('2026-03-18 01:02:00') / 60 => refused
            toDateTime('2026-03-18 01:02:00') * 2 => refused
            toDateTime64('2026-03-18 01:02:00',3) * 2 => refused
            toDateTime64('2026-03-18 01:02:00',3) / 2 => refused
            toDateTime64('2026-03-18 01:02:00',3) % 2 => refused
            toDateTime('1970-01-01 00:00:00')-1 => DateTime "2106-02-07 06:28:15"
            toDate('1970-01-01')-1 => Date "2149-06-06"
            toDate('2149-06-06')+1 => Date "1970-01-01"
            toDateTime('2106-02-07 06:28:15')+1 => DateTime "1970-01-01 00:00:00"
            toDateTime64('2026-03-18 01:02:03.456',3)-NULL => Nullable(Nothing) NULL
            toDateTime('2026-03-18 01:02:03','Europe/Berlin')-toDateTime('2026-03-18 01:02:03','UTC') => Int32 "-3600"
            toDateTime('2026-03-18 01:02:03','Europe/Berlin')+1 => DateTime('Europe/Berlin') "2026-03-18 01:02:04"
            "#,
        );
    }
    // TABLE END
}
