//! `avg([DISTINCT] x)`.
//!
//! ClickHouse: a Float64 of any number, also a Bool; NaN of nothing, NULL where a NULL-able `x` has no value. Text, arrays and
//! times are refused. The sum is one of floats here, where ClickHouse's of integers may wrap.

use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::average::avg_udaf;

use super::{Aggregate, Aggregated, Call, no_parameters, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::functions::arguments;
use crate::sql::operators::convert;
use crate::sql::types::Type;

pub(super) const AVG: Aggregate = Aggregate { name: "avg", case_sensitive: false, build };

fn build(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters("avg", &call)?;
    let distinct = call.distinct;
    let x = one_argument("avg", call.arguments)?;
    if !x.ty.inner().is_number() {
        return Err(arguments::illegal("avg", "a number", &x));
    }
    let ty = Type::Float64.nullable_as(&x.ty);
    Ok(Aggregated {
        function: avg_udaf(),
        arguments: vec![convert(x, &Type::Float64)?.expr],
        distinct,
        filter: None,
        empty: (!ty.is_nullable()).then_some(ScalarValue::Float64(Some(f64::NAN))),
        ty,
    })
}
