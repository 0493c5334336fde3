//! `count()`, `count(x)`, `count(DISTINCT x, ..)` and `countIf([x,] condition)`.
//!
//! ClickHouse: a UInt64, of rows or of those where `x` is not NULL; distinct tuples in which nothing is NULL. The condition is
//! a comparison's result, a Bool or a UInt8, NULL counting as not met.

use std::sync::Arc;

use datafusion::arrow::array::types::UInt64Type;
use datafusion::arrow::array::{ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::lit;

use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, condition, no_parameters, uniq};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::functions::arguments;
use crate::sql::types::Type;

pub(super) const COUNT: Aggregate = Aggregate { name: "count", case_sensitive: false, build: count };
pub(super) const COUNT_IF: Aggregate = Aggregate { name: "countIf", case_sensitive: true, build: count_if };

fn count(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    build("count", call)
}

fn count_if(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    let (call, filter) = condition("countIf", call)?;
    Ok(Aggregated { filter: Some(filter), ..build("countIf", call)? })
}

fn build(name: &str, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters(name, &call)?;
    if call.distinct {
        return uniq::exact(name, call.arguments);
    }
    arguments::between(name, &call.arguments, 0, 1)?;
    let definition = Definition {
        name: "count",
        parameters: String::new(),
        state: vec![DataType::UInt64],
        returns: DataType::UInt64,
        empty: ScalarValue::UInt64(Some(0)),
    };
    let counted = call.arguments.into_iter().map(|argument| argument.expr).next();
    Ok(Aggregated {
        function: own::function(definition, || Box::new(Counts(Vec::new()))),
        // A constant carries the number of rows.
        arguments: vec![counted.unwrap_or_else(|| lit(1u8))],
        distinct: false,
        filter: None,
        ty: Type::UInt64,
        empty: Some(ScalarValue::UInt64(Some(0))),
    })
}

struct Counts(Vec<u64>);

impl Groups for Counts {
    fn resize(&mut self, groups: usize) {
        self.0.resize(groups, 0);
    }

    fn update(&mut self, _columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        match rows.in_one_group() {
            Some(rows) => self.0[0] += rows as u64,
            None => rows.each(|_, group| self.0[group] += 1),
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        let counts = states[0].as_primitive::<UInt64Type>();
        Rows::new(states, groups, None).each(|row, group| self.0[group] += counts.value(row));
        Ok(())
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        Ok(Arc::new(UInt64Array::from(self.0[..first].to_vec())))
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(first)?])
    }

    fn forget(&mut self, first: usize) {
        self.0.drain(..first);
    }

    fn size(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}
