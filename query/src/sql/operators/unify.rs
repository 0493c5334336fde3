//! The one type that branches, elements of an array and columns of a UNION share.

use datafusion::arrow::array::{Array, ArrayRef, ListArray, StructArray, new_empty_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::common::ScalarValue;
use std::sync::Arc;

use super::super::typed::Typed;
use super::super::types::Type;
use super::convert::{self, bits};
use crate::error::Refusal;

/// The least type that holds the values of all of these; Nothing where there is none of them.
///
/// ClickHouse has no such type for a 64-bit integer beside a float, nor for UInt64 beside a signed integer, and answers
/// with a variant of both. Here the first is Float64 and the second Int64, as for `+`; a value that does not fit is refused
/// when it is met, never bent. What shares nothing (text and numbers) is refused.
pub fn super_type(types: &[Type]) -> Result<Type, Refusal> {
    let mut shared: Option<Type> = None;
    for ty in types {
        shared = Some(match shared {
            None => ty.clone(),
            Some(so_far) => pair(&so_far, ty).ok_or_else(|| {
                Refusal::query(format!("values of the types {so_far} and {ty} cannot stand in one place"))
            })?,
        });
    }
    Ok(shared.unwrap_or(Type::Nothing))
}

fn pair(a: &Type, b: &Type) -> Option<Type> {
    match (a, b) {
        (Type::Nothing, other) | (other, Type::Nothing) => return Some(other.clone().nullable()),
        _ if a.is_nullable() || b.is_nullable() => return pair(a.inner(), b.inner()).map(Type::nullable),
        _ if a == b => return Some(a.clone()),
        _ => {}
    }
    Some(match (a, b) {
        // The empty array is one of Nothing, and takes any other's element type as it is.
        (Type::Array(a), Type::Array(b)) => Type::Array(Box::new(match (a.as_ref(), b.as_ref()) {
            (Type::Nothing, other) | (other, Type::Nothing) => other.clone(),
            (a, b) => pair(a, b)?,
        })),
        (Type::Tuple(a), Type::Tuple(b)) if a.len() == b.len() => {
            Type::Tuple(a.iter().zip(b).map(|(a, b)| pair(a, b)).collect::<Option<_>>()?)
        }
        // Bool is stored as a UInt8: the first of the two wins.
        (Type::Bool, Type::UInt8) | (Type::UInt8, Type::Bool) => a.clone(),
        (Type::Bool, other) if other.is_number() => pair(&Type::UInt8, other)?,
        (other, Type::Bool) if other.is_number() => pair(other, &Type::UInt8)?,
        (a, b) if a.is_integer() && b.is_integer() => integers(a, b),
        (Type::Decimal(..), other) | (other, Type::Decimal(..)) if other.is_float() => Type::Float64,
        (Type::Decimal(precision, scale), other) | (other, Type::Decimal(precision, scale)) if other.is_integer() => {
            let digits = [3, 5, 10, 20][(bits(other).ilog2() as usize).clamp(3, 6) - 3];
            Type::Decimal((*precision).max(digits + scale.unsigned_abs()).min(38), *scale)
        }
        (Type::Decimal(a, x), Type::Decimal(b, y)) => {
            let scale = *x.max(y);
            let whole = (i16::from(*a) - i16::from(*x)).max(i16::from(*b) - i16::from(*y));
            Type::Decimal(u8::try_from(whole + i16::from(scale)).unwrap_or(38).min(38), scale)
        }
        (a, b) if a.is_number() && b.is_number() => {
            let narrow = |ty: &Type| *ty == Type::Float32 || (ty.is_integer() && bits(ty) <= 16);
            if narrow(a) && narrow(b) { Type::Float32 } else { Type::Float64 }
        }
        (Type::DateTime(zone), Type::DateTime(_) | Type::Date) | (Type::Date, Type::DateTime(zone)) => {
            Type::DateTime(*zone)
        }
        (Type::DateTime64(a, zone), Type::DateTime64(b, _)) => Type::DateTime64(*a.max(b), *zone),
        (Type::DateTime64(precision, zone), other) | (other, Type::DateTime64(precision, zone)) if other.is_time() => {
            Type::DateTime64(*precision, *zone)
        }
        _ => return None,
    })
}

/// The integer type that holds two others, or Int64 where none does.
fn integers(a: &Type, b: &Type) -> Type {
    if a.is_signed() == b.is_signed() {
        return if bits(a) >= bits(b) { a.clone() } else { b.clone() };
    }
    let (signed, unsigned) = if a.is_signed() { (a, b) } else { (b, a) };
    match bits(signed).max(bits(unsigned) * 2) {
        16 => Type::Int16,
        32 => Type::Int32,
        _ => Type::Int64,
    }
}

/// A value as the type that it shares with others ([`super_type`]). Nothing is wrapped or cut: what does not fit is refused.
pub fn coerce(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    if x.ty == *target {
        return Ok(x);
    }
    if x.ty == Type::Nothing {
        return convert::typed_null(target);
    }
    if x.ty.inner() == target.inner() {
        return Ok(Typed { ty: target.clone(), ..x });
    }
    let (from, to) = (x.ty.inner().clone(), target.inner());
    if from.is_integer() && to.is_integer() && !convert::holds(to, &from) {
        let ty = target.clone().nullable_as(&x.ty);
        let exact = datafusion::logical_expr::cast(x.expr, to.arrow());
        return super::super::kernel::fold(Typed::new(exact, ty));
    }
    let converted = convert::convert(x, target)?;
    Ok(if target.is_nullable() { Typed { ty: target.clone(), ..converted } } else { converted })
}

/// What a value of this type is where there is none: zero, empty, 1970-01-01, or NULL where it may be NULL (AN-SEM-05).
pub fn default_of(ty: &Type) -> ScalarValue {
    let arrow = ty.arrow();
    match ty {
        Type::Nothing => ScalarValue::Null,
        Type::Nullable(_) => ScalarValue::try_new_null(&arrow).unwrap_or(ScalarValue::Null),
        Type::Bool => ScalarValue::Boolean(Some(false)),
        Type::String => ScalarValue::Utf8View(Some(String::new())),
        Type::Date => ScalarValue::Date32(Some(0)),
        Type::Array(element) => {
            let values = new_empty_array(&element.arrow());
            let offsets = OffsetBuffer::from_lengths([0]);
            ScalarValue::List(Arc::new(ListArray::new(convert::item(element), offsets, values, None)))
        }
        Type::Tuple(members) => {
            let columns: Vec<ArrayRef> =
                members.iter().filter_map(|member| default_of(member).to_array().ok()).collect();
            let fields: Vec<_> =
                members.iter().enumerate().map(|(at, member)| member.field((at + 1).to_string())).collect();
            debug_assert!(columns.iter().all(|column| column.len() == 1));
            StructArray::try_new(fields.into(), columns, None)
                .map_or(ScalarValue::Null, |value| ScalarValue::Struct(Arc::new(value)))
        }
        _ => ScalarValue::new_default(&arrow).unwrap_or(ScalarValue::Null),
    }
}
