//! Array and tuple literals, and their elements (AN-SEM-15).

use std::sync::Arc;

use datafusion::arrow::array::types::Int64Type;
use datafusion::arrow::array::{Array, AsArray, ListArray, Scalar, StructArray, UInt32Array, new_null_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::kernels::zip::zip;
use datafusion::arrow::compute::{interleave, is_null, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

use super::super::kernel;
use super::super::run::{held, watch};
use super::super::typed::Typed;
use super::super::types::Type;
use super::convert::{convert, item};
use super::{literal, unify};
use crate::error::Refusal;

/// The name under which a tuple is built, by which [`members`] finds its parts again.
const TUPLE: &str = "tuple";

/// `[a, b, ..]`: of the type that its elements share; `[]` is an array of Nothing.
pub fn array(elements: Vec<Typed>) -> Result<Typed, Refusal> {
    let types: Vec<Type> = elements.iter().map(|element| element.ty.clone()).collect();
    let element = unify::super_type(&types)?;
    let ty = Type::Array(Box::new(element.clone()));
    if elements.is_empty() {
        return Ok(Typed::literal(unify::default_of(&ty), ty));
    }
    let elements = elements.into_iter().map(|one| unify::coerce(one, &element)).collect::<Result<Vec<_>, _>>()?;
    kernel::map("array", String::new(), elements, ty, move |columns| {
        let rows = columns[0].len();
        watch::check_bytes(columns.iter().map(held::bytes).sum())?;
        let parts: Vec<&dyn Array> = columns.iter().map(AsRef::as_ref).collect();
        let places: Vec<(usize, usize)> =
            (0..rows).flat_map(|row| (0..columns.len()).map(move |part| (part, row))).collect();
        let values = interleave(&parts, &places)?;
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(columns.len(), rows));
        Ok(Arc::new(ListArray::try_new(item(&element), offsets, values, None)?))
    })
}

/// `(a, b, ..)`.
pub fn tuple(members: Vec<Typed>) -> Result<Typed, Refusal> {
    let ty = Type::Tuple(members.iter().map(|member| member.ty.clone()).collect());
    let DataType::Struct(fields) = ty.arrow() else { return Err(Refusal::query("a tuple has members")) };
    if members.is_empty() {
        return Err(Refusal::query("a tuple has at least one member"));
    }
    kernel::map(TUPLE, String::new(), members, ty, move |columns| {
        Ok(Arc::new(StructArray::try_new(fields.clone(), columns.to_vec(), None)?))
    })
}

/// The members of a tuple, where it is a constant or was built by [`tuple()`].
pub fn members(tuple: &Typed) -> Option<Vec<Typed>> {
    let Type::Tuple(types) = &tuple.ty else { return None };
    match &tuple.expr {
        Expr::Literal(ScalarValue::Struct(value), _) => value
            .columns()
            .iter()
            .zip(types)
            .map(|(column, ty)| Some(Typed::literal(ScalarValue::try_from_array(column, 0).ok()?, ty.clone())))
            .collect(),
        Expr::ScalarFunction(call) if call.func.name() == TUPLE => {
            Some(call.args.iter().zip(types).map(|(expr, ty)| Typed::new(expr.clone(), ty.clone())).collect())
        }
        _ => None,
    }
}

/// `a.1`: the member of a tuple at this place, counted from one.
pub fn tuple_element(a: Typed, at: usize) -> Result<Typed, Refusal> {
    let Type::Tuple(types) = &a.ty else {
        return Err(Refusal::query(format!("a member is taken from a tuple, not from {}", a.ty)));
    };
    let Some((place, ty)) = at.checked_sub(1).and_then(|place| Some((place, types.get(place)?.clone()))) else {
        return Err(Refusal::query(format!("{} has no member {at}", a.ty)));
    };
    if let Some(member) = members(&a).and_then(|members| members.into_iter().nth(place)) {
        return Ok(member);
    }
    kernel::map("tupleElement", at.to_string(), vec![a], ty, move |columns| {
        Ok(Arc::clone(columns[0].as_struct().column(place)))
    })
}

/// `a[index]`: counted from one, or backwards from minus one. Where the array has no such element the default of its type.
pub fn array_element(a: Typed, index: Typed) -> Result<Typed, Refusal> {
    let Type::Array(element) = &a.ty else {
        return Err(Refusal::query(format!("operator arrayElement takes an array on its left, not {}", a.ty)));
    };
    let element = element.as_ref().clone();
    if index.ty == Type::Nothing {
        return Ok(literal::null());
    }
    if element == Type::Nothing {
        return Err(Refusal::query("an array that is always empty has no elements to take"));
    }
    if !index.ty.inner().is_integer() && *index.ty.inner() != Type::Bool {
        return Err(Refusal::query(format!(
            "operator arrayElement takes a whole number as its index, not {}",
            index.ty
        )));
    }
    let ty = element.clone().nullable_as(&index.ty);
    let default = unify::default_of(&element);
    let index = convert(index, &Type::Int64)?;
    if matches!(index.as_literal(), Some(ScalarValue::Int64(Some(0)))) && a.as_literal().is_none() {
        return Err(Refusal::query("an array's elements are counted from 1: there is none at 0"));
    }
    kernel::map("arrayElement", element.to_string(), vec![a, index], ty, move |columns| {
        let lists = columns[0].as_list::<i32>();
        let indexes = columns[1].as_primitive::<Int64Type>();
        let offsets = lists.value_offsets();
        let place = |row: usize| {
            if indexes.is_null(row) {
                return None;
            }
            let (from, length) = (i64::from(offsets[row]), i64::from(offsets[row + 1] - offsets[row]));
            let at = indexes.value(row);
            let at = if at > 0 { at - 1 } else { at.checked_add(length).filter(|_| at < 0)? };
            (0..length).contains(&at).then_some((from + at) as u32)
        };
        let places: UInt32Array = (0..lists.len()).map(place).collect();
        let taken = take(lists.values(), &places, None)?;
        if places.null_count() == 0 || default.is_null() {
            return Ok(taken);
        }
        let filled = zip(&is_null(&places)?, &default.to_scalar()?, &taken)?;
        if indexes.null_count() == 0 {
            return Ok(filled);
        }
        let null = Scalar::new(new_null_array(filled.data_type(), 1));
        Ok(zip(&is_null(indexes)?, &null, &filled)?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn elements_share_a_type() {
        cases(
            r#"
            [1,2,3] => Array(UInt8) "[1,2,3]"
            [1,-2] => Array(Int16) "[1,-2]"
            [1,256] => Array(UInt16) "[1,256]"
            [1,1.5] => Array(Float64) "[1,1.5]"
            [1,NULL] => Array(Nullable(UInt8)) "[1,NULL]"
            [] => Array(Nothing) "[]"
            [[1],[2]] => Array(Array(UInt8)) "[[1],[2]]"
            [[],[1]] => Array(Array(UInt8)) "[[],[1]]"
            [true,false] => Array(Bool) "[true,false]"
            [true,2] => Array(Bool) "[true,true]"
            [toDate('2020-01-01'),toDateTime('2020-01-01 00:00:00')] => Array(DateTime) "['2020-01-01 00:00:00','2020-01-01 00:00:00']"
            [1][1] => UInt8 "1"
            [1,2,3][-1] => UInt8 "3"
            [1,2,3][4] => UInt8 "0"
            [1,2,3][0] => UInt8 "0"
            [1,2,3][-4] => UInt8 "0"
            ['a'][5] => String ""
            [toDate('2020-01-01')][5] => Date "1970-01-01"
            [1,NULL][2] => Nullable(UInt8) NULL
            [1,NULL][5] => Nullable(UInt8) NULL
            [][1] => refused
            [1,2]['a'] => refused
            [1,2][1.5] => refused
            [1,2][toInt64(1)] => UInt8 "1"
            [1,2][NULL] => Nullable(Nothing) NULL
            [[1],[2]][5] => Array(UInt8) "[]"
            'abc'[1] => refused
            [1,2][toUInt64(1)] => UInt8 "1"
            [1,2][true] => UInt8 "1"
            [1,2,3][materialize(2)] => UInt8 "2"
            [2,true] => Array(UInt8) "[2,1]"
            [1, toFloat32(1)] => Array(Float32) "[1,1]"
            [toInt32(1), toFloat32(1)] => Array(Float64) "[1,1]"
            [toUInt32(1), toInt32(1)] => Array(Int64) "[1,1]"
            [toUInt8(1), toInt8(1)] => Array(Int16) "[1,1]"
            [toUInt16(1), toInt8(1)] => Array(Int32) "[1,1]"
            [toIntervalDay(1), toIntervalDay(2)] => Array(IntervalDay) "[1,2]"
            "#,
        );
    }
    // TABLE END
}
