//! `sum([DISTINCT] x)` and `sumIf(x, condition)` (AN-SEM-08).
//!
//! ClickHouse: unsigned integers and Bools sum to a UInt64, signed ones to an Int64, both wrapping, floats to a Float64; zero of
//! nothing, NULL where a NULL-able `x` has no value. Text, arrays and times are refused.

use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::sum::sum_udaf;

use super::{Aggregate, Aggregated, Call, condition, no_parameters, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::functions::arguments;
use crate::sql::operators::{convert, default_of};
use crate::sql::types::Type;

pub(super) const SUM: Aggregate = Aggregate { name: "sum", case_sensitive: false, build: sum };
pub(super) const SUM_IF: Aggregate = Aggregate { name: "sumIf", case_sensitive: true, build: sum_if };

fn sum(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    build("sum", call)
}

fn sum_if(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    let (call, filter) = condition("sumIf", call)?;
    Ok(Aggregated { filter: Some(filter), ..build("sumIf", call)? })
}

fn build(name: &str, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters(name, &call)?;
    let distinct = call.distinct;
    let x = one_argument(name, call.arguments)?;
    let ty = match x.ty.inner() {
        Type::Bool => Type::UInt64,
        ty if ty.is_unsigned() => Type::UInt64,
        ty if ty.is_signed() => Type::Int64,
        ty if ty.is_float() => Type::Float64,
        Type::Decimal(_, scale) => Type::Decimal(38, *scale),
        _ => return Err(arguments::illegal(name, "a number", &x)),
    };
    let nullable = ty.clone().nullable_as(&x.ty);
    let empty = (!nullable.is_nullable()).then(|| default_of(&ty));
    Ok(Aggregated {
        function: sum_udaf(),
        arguments: vec![convert(x, &ty)?.expr],
        distinct,
        filter: None,
        ty: nullable,
        empty: empty.filter(|empty: &ScalarValue| !empty.is_null()),
    })
}
