//! `has(array, x)`, `hasAny(a, b)`, `hasAll(a, b)` (AN-SEM-16).
//!
//! ClickHouse: elements are compared in the type that both sides share, and text and numbers share none. NULL is found where
//! it is an element, NaN never. `hasAny(a, [])` is 0 and `hasAll(a, [])` is 1.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Datum, ListArray, Scalar, UInt32Array,
    make_comparator,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::compute::{SortOptions, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::super::kernel;
use super::super::operators::{self, coerce, default_of, super_type};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const HAS: Function = Function { name: "has", case_sensitive: true, call: has };
pub(super) const HAS_ANY: Function =
    Function { name: "hasAny", case_sensitive: true, call: |_, given| has_several("hasAny", false, given) };
pub(super) const HAS_ALL: Function =
    Function { name: "hasAll", case_sensitive: true, call: |_, given| has_several("hasAll", true, given) };

/// A constant right side of at most this many elements is compared element by element over whole columns.
const NEEDLES_MAX: usize = 16;

fn has(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [array, needle] = arguments::exactly("has", given)?;
    let Type::Array(element) = &array.ty else { return Err(arguments::illegal("has", "an array", &array)) };
    if **element == Type::Nothing && needle.ty != Type::Nothing {
        // The empty array has an element type as soon as it is asked for one.
        let ty = Type::Array(Box::new(needle.ty.clone()));
        return has_in(coerce(array, &ty)?, needle);
    }
    if needle.ty == Type::Nothing {
        let target = element.as_ref().clone().nullable();
        return has_in(array, coerce(needle, &target)?);
    }
    let shared = super_type(&[element.inner().clone(), needle.ty.inner().clone()])
        .map_err(|_| arguments::illegal("has", &format!("an element of {}", array.ty), &needle))?;
    let of = shared.clone().nullable_as(element);
    let array = coerce(array, &Type::Array(Box::new(of)))?;
    let target = shared.nullable_as(&needle.ty);
    has_in(array, coerce(needle, &target)?)
}

/// One needle of the array's element type.
fn has_in(array: Typed, needle: Typed) -> Result<Typed, Refusal> {
    if is_nan(needle.as_literal()) {
        return Ok(Typed::literal(ScalarValue::UInt8(Some(0)), Type::UInt8));
    }
    let (name, parameters, operands) = match needle.as_literal() {
        Some(value) => ("has", format!("{value:?}"), vec![array]),
        None => ("has", String::new(), vec![array, needle.clone()]),
    };
    let constant = needle.as_literal().cloned();
    // NULL is a value to be found: the result is never NULL.
    let found = kernel::test(name, parameters, operands, move |columns| {
        let lists = columns[0].as_list::<i32>();
        let equal = match &constant {
            Some(value) => same(lists.values(), &value.to_scalar()?)?,
            None => {
                let lengths = lists.value_offsets().windows(2).map(|pair| (pair[1] - pair[0]) as usize);
                let rows = lengths.enumerate().flat_map(|(row, length)| std::iter::repeat_n(row as u32, length));
                let rows: UInt32Array = rows.collect::<Vec<_>>().into();
                let first = lists.value_offsets()[0] as usize;
                let values = lists.values().slice(first, rows.len());
                let spread = same(&values, &take(&columns[1], &rows, None)?)?;
                let mut aligned = BooleanBufferBuilder::new(lists.values().len());
                aligned.append_n(first, false);
                aligned.append_buffer(&spread);
                aligned.append_n(lists.values().len() - first - rows.len(), false);
                aligned.finish()
            }
        };
        Ok(BooleanArray::new(any_in_rows(lists, &equal), None))
    })?;
    Ok(Typed { ty: Type::UInt8, ..found })
}

fn is_nan(value: Option<&ScalarValue>) -> bool {
    matches!(value, Some(ScalarValue::Float64(Some(value))) if value.is_nan())
}

/// Which elements equal a needle, or each its own; NULL equals NULL.
fn same(values: &ArrayRef, needles: &dyn Datum) -> Result<BooleanBuffer> {
    let (array, is_scalar) = needles.get();
    if matches!(values.data_type(), DataType::List(_) | DataType::Struct(_)) {
        let compare = make_comparator(values, array, SortOptions::default())?;
        return Ok(BooleanBuffer::collect_bool(values.len(), |row| {
            compare(row, if is_scalar { 0 } else { row }).is_eq()
        }));
    }
    Ok(not_distinct(values, needles)?.values().clone())
}

/// For each row whether any of its elements is marked.
fn any_in_rows(lists: &ListArray, marked: &BooleanBuffer) -> BooleanBuffer {
    let offsets = lists.value_offsets();
    if marked.count_set_bits() == 0 {
        return BooleanBuffer::new_unset(lists.len());
    }
    BooleanBuffer::collect_bool(lists.len(), |row| {
        (offsets[row]..offsets[row + 1]).any(|place| marked.value(place as usize))
    })
}

fn has_several(name: &'static str, all: bool, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [a, b] = arguments::exactly(name, given)?;
    if a.ty == Type::Nothing || b.ty == Type::Nothing {
        return Ok(operators::null());
    }
    if let Some(other) = [&a, &b].into_iter().find(|argument| !matches!(argument.ty, Type::Array(_))) {
        return Err(arguments::illegal(name, "two arrays", other));
    }
    let shared = super_type(&[a.ty.clone(), b.ty.clone()])
        .map_err(|_| arguments::illegal(name, &format!("an array that shares a type with {}", a.ty), &b))?;
    let (a, b) = (coerce(a, &shared)?, coerce(b, &shared)?);
    let needles = match b.as_literal() {
        Some(ScalarValue::List(list)) if list.values().len() <= NEEDLES_MAX => Some(Arc::clone(list.values())),
        _ => None,
    };
    let Some(needles) = needles else {
        return kernel::test(name, String::new(), vec![a, b], move |columns| rows(columns, all));
    };
    let parameters = format!("{:?}", b.as_literal().unwrap_or(&default_of(&shared)));
    kernel::test(name, parameters, vec![a], move |columns| {
        let lists = columns[0].as_list::<i32>();
        let mut outcome = if all { BooleanBuffer::new_set(lists.len()) } else { BooleanBuffer::new_unset(lists.len()) };
        for at in 0..needles.len() {
            let needle = ScalarValue::try_from_array(&needles, at)?;
            let found = if is_nan(Some(&needle)) {
                BooleanBuffer::new_unset(lists.len())
            } else {
                any_in_rows(lists, &same(lists.values(), &Scalar::new(needles.slice(at, 1)))?)
            };
            outcome = if all { &outcome & &found } else { &outcome | &found };
        }
        Ok(BooleanArray::new(outcome, None))
    })
}

/// Both sides vary: each row's elements against each other.
fn rows(columns: &[ArrayRef], all: bool) -> Result<BooleanArray> {
    let (a, b) = (columns[0].as_list::<i32>(), columns[1].as_list::<i32>());
    let compare = make_comparator(a.values(), b.values(), SortOptions::default())?;
    let places =
        |lists: &ListArray, row: usize| lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
    let found = |row: usize, needle: usize| places(a, row).any(|place| compare(place, needle).is_eq());
    let outcome = BooleanBuffer::collect_bool(a.len(), |row| {
        let mut needles = places(b, row);
        if all { needles.all(|needle| found(row, needle)) } else { needles.any(|needle| found(row, needle)) }
    });
    Ok(BooleanArray::new(outcome, None))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn elements_are_found() {
        cases(
            r#"
            has([1,2],1) => UInt8 "1"
            has([1,2],3) => UInt8 "0"
            has(['a'],'a') => UInt8 "1"
            has([1,NULL],NULL) => UInt8 "1"
            has([1,2],NULL) => UInt8 "0"
            has([1,2],'a') => refused
            has(['a'],1) => refused
            has([1,2],1.0) => UInt8 "1"
            has([1.5],toInt64(1)) => UInt8 "0"
            has([toInt64(1)],toUInt64(1)) => UInt8 "1"
            has([],1) => UInt8 "0"
            has(NULL,1) => refused
            has(5,1) => refused
            has('a','a') => refused
            has([toDate('2026-03-18')],'2026-03-18') => refused
            has([toDate('2026-03-18')],toDate('2026-03-18')) => UInt8 "1"
            has([toDateTime('2026-03-18 00:00:00')],toDate('2026-03-18')) => UInt8 "1"
            has([[1]],[1]) => UInt8 "1"
            has([1,2],materialize(2)) => UInt8 "1"
            has([1,2],toNullable(2)) => UInt8 "1"
            has([1]) => refused
            has([true],true) => UInt8 "1"
            has([true],1) => UInt8 "1"
            has([nan],nan) => UInt8 "0"
            has([256],toUInt8(0)) => UInt8 "0"
            hasAny([1,2],[2,3]) => UInt8 "1"
            hasAny([1,2],[]) => UInt8 "0"
            hasAny([],[]) => UInt8 "0"
            hasAll([1,2],[]) => UInt8 "1"
            hasAll([],[1]) => UInt8 "0"
            hasAll([],[]) => UInt8 "1"
            hasAll([1,2],[1]) => UInt8 "1"
            hasAll([1,2],[1,1,2]) => UInt8 "1"
            hasAny(['a'],['b','a']) => UInt8 "1"
            hasAny(['a'],[1]) => refused
            hasAny([1],[1.5]) => UInt8 "0"
            hasAny([1],'a') => refused
            hasAny(1,[1]) => refused
            hasAny([1,NULL],[NULL]) => UInt8 "1"
            hasAny([1],[NULL]) => UInt8 "0"
            hasAll([1,NULL],[NULL]) => UInt8 "1"
            hasAny(NULL,[1]) => Nullable(Nothing) NULL
            hasAny([[1]],[[1]]) => UInt8 "1"
            hasAny([1]) => refused
            hasAny(materialize([1,2]),materialize([2])) => UInt8 "1"
            hasAll([toInt64(1)],[toUInt64(1)]) => UInt8 "1"
            "#,
        );
    }
    // TABLE END
}
