//! `abs(x)` (AN-SEM-09).
//!
//! ClickHouse: of a signed integer the unsigned one of its width, so that even the least has one; else of its own type. A Bool
//! is a UInt8.

use std::sync::Arc;

use datafusion::arrow::array::types::{Decimal128Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use datafusion::arrow::array::{ArrayRef, AsArray, PrimitiveArray};

use super::super::kernel;
use super::super::operators::convert;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const ABS: Function = Function { name: "abs", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [x] = arguments::exactly("abs", given)?;
    let ty = match x.ty.inner() {
        Type::Nothing => return Ok(x),
        Type::Bool => return convert(x, &Type::UInt8),
        unsigned if unsigned.is_unsigned() => return Ok(x),
        Type::Int8 => Type::UInt8,
        Type::Int16 => Type::UInt16,
        Type::Int32 => Type::UInt32,
        Type::Int64 => Type::UInt64,
        other if other.is_float() || matches!(other, Type::Decimal(..)) => other.clone(),
        _ => return Err(arguments::illegal("abs", "a number", &x)),
    };
    let nullable = ty.clone().nullable_as(&x.ty);
    if ty.is_integer() {
        let wide = convert(x, &Type::Int64)?;
        let between = Type::UInt64.nullable_as(&nullable);
        let magnitudes = kernel::map("abs", String::new(), vec![wide], between, |columns| {
            let values = columns[0].as_primitive::<Int64Type>();
            Ok(Arc::new(values.unary::<_, UInt64Type>(i64::unsigned_abs)))
        })?;
        return convert(magnitudes, &ty);
    }
    let arrow = ty.arrow();
    kernel::map("abs", String::new(), vec![x], nullable, move |columns| {
        Ok(match ty {
            Type::Float32 => Arc::new(columns[0].as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::abs)),
            Type::Float64 => Arc::new(columns[0].as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::abs)),
            _ => {
                let values: PrimitiveArray<Decimal128Type> =
                    columns[0].as_primitive::<Decimal128Type>().unary(i128::saturating_abs);
                Arc::new(values.with_data_type(arrow.clone())) as ArrayRef
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn signed_becomes_unsigned() {
        cases(
            r#"
            abs(-5) => UInt8 "5"
            abs(toInt64(-5)) => UInt64 "5"
            abs(toInt8(-128)) => UInt8 "128"
            abs(5) => UInt8 "5"
            abs(-1.5) => Float64 "1.5"
            abs(true) => UInt8 "1"
            abs('a') => refused
            abs(NULL) => Nullable(Nothing) NULL
            abs(toDate('2020-01-01')) => refused
            abs(toInt64(-9223372036854775808)) => UInt64 "9223372036854775808"
            "#,
        );
    }
    // TABLE END
}
