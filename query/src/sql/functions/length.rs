//! `length(x)`: the bytes of a text or the elements of an array (AN-SEM-12, AN-SEM-15).
//!
//! ClickHouse: a UInt64; anything else is refused.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Array};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments, substring};
use crate::error::Refusal;

pub(super) const LENGTH: Function = Function { name: "length", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [x] = arguments::exactly("length", given)?;
    if let Some(cut) = substring::length(&x) {
        return cut;
    }
    let ty = Type::UInt64.nullable_as(&x.ty);
    match x.ty.inner() {
        Type::Nothing => Ok(x),
        Type::String => kernel::map("length", String::new(), vec![x], ty, |columns| {
            let texts = columns[0].as_string_view();
            // A view's lowest 32 bits are its length.
            let lengths = texts.views().iter().map(|view| u64::from(*view as u32));
            Ok(Arc::new(UInt64Array::new(lengths.collect::<Vec<_>>().into(), texts.nulls().cloned())) as ArrayRef)
        }),
        Type::Array(_) => kernel::map("length", String::new(), vec![x], ty, |columns| {
            let lists = columns[0].as_list::<i32>();
            let lengths = lists.value_offsets().windows(2).map(|pair| u64::from((pair[1] - pair[0]).unsigned_abs()));
            Ok(Arc::new(UInt64Array::new(lengths.collect::<Vec<_>>().into(), lists.nulls().cloned())) as ArrayRef)
        }),
        _ => Err(arguments::illegal("length", "text or an array", &x)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn bytes_and_elements() {
        cases(
            r#"
            length('héllo') => UInt64 "6"
            length('') => UInt64 "0"
            length([1,2]) => UInt64 "2"
            length([]) => UInt64 "0"
            length(1.5) => refused
            length(5) => refused
            length(NULL) => Nullable(Nothing) NULL
            length(toNullable('abc')) => Nullable(UInt64) "3"
            length((1,2)) => refused
            length('a','b') => refused
            length(toDate('2020-01-01')) => refused
            "#,
        );
    }
    // TABLE END
}
