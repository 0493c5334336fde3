//! `min(x)` and `max(x)`.
//!
//! ClickHouse: of any type that has an order, text bytewise; the type's default of nothing, NULL where a NULL-able `x` has no
//! value. NaN loses against every number, and is the result only where there is nothing else; Arrow would order it by its
//! sign, so floats have states of their own.

use std::sync::Arc;

use datafusion::arrow::array::types::Float64Type;
use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};

use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, no_parameters, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::kernel;
use crate::sql::operators::{convert, default_of};
use crate::sql::types::Type;

pub(super) const MIN: Aggregate =
    Aggregate { name: "min", case_sensitive: false, build: |_: &Context, call| build(true, call) };
pub(super) const MAX: Aggregate =
    Aggregate { name: "max", case_sensitive: false, build: |_: &Context, call| build(false, call) };

fn build(least: bool, call: Call) -> Result<Aggregated, Refusal> {
    let name = if least { "min" } else { "max" };
    no_parameters(name, &call)?;
    let x = one_argument(name, call.arguments)?;
    let ty = x.ty.clone();
    let (function, x) = if ty.inner().is_float() {
        let returns = ty.arrow();
        let definition = Definition {
            name,
            parameters: String::new(),
            state: vec![DataType::Float64],
            returns: returns.clone(),
            empty: ScalarValue::try_new_null(&returns).map_err(|error| kernel::refusal(&error))?,
        };
        let make = move || {
            let floats = Floats { least, returns: returns.clone(), extremes: Vec::new(), seen: Vec::new() };
            Box::new(floats) as Box<dyn Groups>
        };
        (own::function(definition, make), convert(x, &Type::Float64)?)
    } else {
        (if least { min_udaf() } else { max_udaf() }, x)
    };
    Ok(Aggregated {
        function,
        arguments: vec![x.expr],
        distinct: false,
        filter: None,
        empty: (!ty.is_nullable()).then(|| default_of(&ty)),
        ty,
    })
}

/// The least or the greatest float of every group.
struct Floats {
    least: bool,
    returns: DataType,
    /// NaN until a number is met.
    extremes: Vec<f64>,
    seen: Vec<bool>,
}

impl Floats {
    fn column(&self, first: usize) -> Float64Array {
        let group = |(&extreme, &seen): (&f64, &bool)| seen.then_some(extreme);
        self.extremes[..first].iter().zip(&self.seen).map(group).collect()
    }
}

impl Groups for Floats {
    fn resize(&mut self, groups: usize) {
        self.extremes.resize(groups, f64::NAN);
        self.seen.resize(groups, false);
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let values = columns[0].as_primitive::<Float64Type>().values();
        let (least, extremes, seen) = (self.least, &mut self.extremes, &mut self.seen);
        rows.each(|row, group| {
            let extreme = &mut extremes[group];
            // `f64::min` and `f64::max` give the other where one is NaN.
            *extreme = if least { extreme.min(values[row]) } else { extreme.max(values[row]) };
            seen[group] = true;
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        self.update(states, &Rows::new(states, groups, None))
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        Ok(cast(&self.column(first), &self.returns)?)
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(self.column(first))])
    }

    fn forget(&mut self, first: usize) {
        self.extremes.drain(..first);
        self.seen.drain(..first);
    }

    fn size(&self) -> usize {
        self.extremes.capacity() * size_of::<f64>() + self.seen.capacity()
    }
}
