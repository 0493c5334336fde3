//! `concat(a, b, ..)` (AN-SEM-06, AN-SEM-13).
//!
//! ClickHouse: values of any types, each as `toString` shows it; NULL where any is NULL, `''` of nothing. Arrays alone are
//! joined to one array.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, ListArray, StringViewArray, StringViewBuilder};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::interleave;

use super::super::kernel;
use super::super::operators::{self, coerce, convert, super_type};
use super::super::run::{held, watch};
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const CONCAT: Function = Function { name: "concat", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    if arguments::any_null(&given) {
        return Ok(operators::null());
    }
    if !given.is_empty() && given.iter().all(|argument| matches!(argument.ty, Type::Array(_))) {
        return arrays(given);
    }
    let mut ty = Type::String;
    // Constants are kept apart, so that they are not spread to a column each.
    let mut parts = Vec::with_capacity(given.len());
    let mut columns = Vec::new();
    for argument in given {
        ty = ty.nullable_as(&argument.ty);
        let text = convert(argument, &Type::String)?;
        match text.as_text() {
            Some(constant) => parts.push(Part::Constant(constant.to_owned())),
            None => {
                parts.push(Part::Column(columns.len()));
                columns.push(text);
            }
        }
    }
    if columns.is_empty() {
        let whole: String =
            parts.iter().map(|part| if let Part::Constant(text) = part { text.as_str() } else { "" }).collect();
        return Ok(Typed { ty, ..Typed::text(&whole) });
    }
    let parameters = format!("{parts:?}");
    kernel::map("concat", parameters, columns, ty, move |columns| {
        let texts: Vec<&StringViewArray> = columns.iter().map(|column| column.as_string_view()).collect();
        let rows = columns[0].len();
        let constant = |part: &Part| if let Part::Constant(text) = part { text.len() * rows } else { 0 };
        watch::check_bytes(columns.iter().map(held::bytes).sum::<usize>() + parts.iter().map(constant).sum::<usize>())?;
        let mut built = StringViewBuilder::with_capacity(rows);
        let mut whole = String::new();
        for row in 0..rows {
            if texts.iter().any(|text| text.is_null(row)) {
                built.append_null();
                continue;
            }
            whole.clear();
            for part in &parts {
                whole.push_str(match part {
                    Part::Constant(text) => text,
                    Part::Column(at) => texts[*at].value(row),
                });
            }
            built.append_value(&whole);
        }
        Ok(Arc::new(built.finish()))
    })
}

#[derive(Debug)]
enum Part {
    Constant(String),
    Column(usize),
}

fn arrays(given: Vec<Typed>) -> Result<Typed, Refusal> {
    let types: Vec<Type> = given.iter().map(|argument| argument.ty.clone()).collect();
    let ty = super_type(&types)?;
    let given = given.into_iter().map(|argument| coerce(argument, &ty)).collect::<Result<Vec<_>, _>>()?;
    let Type::Array(element) = ty.clone() else { return Ok(operators::null()) };
    kernel::map("concat", "arrays", given, ty, move |columns| {
        let lists: Vec<&ListArray> = columns.iter().map(|column| column.as_list::<i32>()).collect();
        watch::check_bytes(columns.iter().map(held::bytes).sum())?;
        let values: Vec<&dyn Array> = lists.iter().map(|list| list.values().as_ref()).collect();
        let mut places = Vec::new();
        let mut lengths = Vec::with_capacity(columns[0].len());
        for row in 0..columns[0].len() {
            let before = places.len();
            for (at, list) in lists.iter().enumerate() {
                let (from, to) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
                places.extend((from..to).map(|place| (at, place as usize)));
            }
            lengths.push(places.len() - before);
        }
        let values = interleave(&values, &places)?;
        let field = Arc::new(element.field("item"));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None)?))
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn anything_is_joined_as_text() {
        cases(
            r#"
            concat('a','b') => String "ab"
            concat('a',1) => String "a1"
            concat('a',NULL) => Nullable(Nothing) NULL
            concat(1,2) => String "12"
            concat('a') => String "a"
            concat() => String ""
            concat('a',toDate('2020-01-01'),1.5,true,[1,2]) => String "a2020-01-011.5true[1,2]"
            concat([1],[2]) => Array(UInt8) "[1,2]"
            concat(toNullable('a'),'b') => Nullable(String) "ab"
            concat((1,2),(3,4)) => String "(1,2)(3,4)"
            concat(NULL) => Nullable(Nothing) NULL
            "#,
        );
    }
    // TABLE END
}
