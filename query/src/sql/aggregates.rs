//! The aggregate functions of the allowlist (AN-FN-01), one file each.

mod any;
mod avg;
mod count;
mod extremes;
mod gather;
mod keys;
mod own;
mod quantile;
mod rows;
mod sum;
mod uniq;

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDF, Expr};

use super::functions::{Context, arguments};
use super::operators::coerce;
use super::typed::Typed;
use super::types::Type;
use crate::error::Refusal;

/// A call of an aggregate function, as the text has it: `name(parameters)(arguments)`.
pub struct Call {
    /// In the first parentheses where there are two pairs: `quantile(0.95)(x)`.
    pub parameters: Vec<Typed>,
    /// What is aggregated; for `count(*)` and `count()` nothing.
    pub arguments: Vec<Typed>,
    /// Whether DISTINCT stands before the arguments.
    pub distinct: bool,
}

/// How to compute a call, in a GROUP BY as in a window. DataFusion's result is of the type `ty.arrow()`.
pub struct Aggregated {
    /// DataFusion's function.
    pub function: Arc<AggregateUDF>,
    /// What it is fed.
    pub arguments: Vec<Expr>,
    /// Whether equal arguments count once.
    pub distinct: bool,
    /// Which rows it is fed: the condition of `countIf` and `sumIf`.
    pub filter: Option<Expr>,
    /// The type of the result.
    pub ty: Type,
    /// The result over no rows (AN-SEM-04): it takes the place of DataFusion's NULL, also in a group of which the filter lets
    /// no row through, and over an empty frame. `None` where NULL is right.
    pub empty: Option<ScalarValue>,
}

/// An aggregate function.
pub struct Aggregate {
    /// Its name as ClickHouse spells it.
    pub name: &'static str,
    /// Whether ClickHouse itself knows it in this case only (AN-NAME-03).
    pub case_sensitive: bool,
    /// Checks the call and says how to compute it.
    pub build: fn(&Context, Call) -> Result<Aggregated, Refusal>,
}

/// The aggregate function of this name, in any case.
pub fn find(name: &str) -> Option<&'static Aggregate> {
    AGGREGATES.iter().find(|aggregate| aggregate.name.eq_ignore_ascii_case(name))
}

static AGGREGATES: &[Aggregate] = &[
    count::COUNT,
    count::COUNT_IF,
    sum::SUM,
    sum::SUM_IF,
    avg::AVG,
    extremes::MIN,
    extremes::MAX,
    any::ANY,
    gather::GROUP_ARRAY,
    gather::GROUP_UNIQ_ARRAY,
    uniq::UNIQ,
    uniq::UNIQ_EXACT,
    quantile::QUANTILE,
];

fn no_parameters(name: &str, call: &Call) -> Result<(), Refusal> {
    if call.parameters.is_empty() {
        return Ok(());
    }
    Err(Refusal::query(format!("function {name} takes no parameters before its arguments")))
}

/// The only argument; a bare NULL as one of a type that has NULLs.
fn one_argument(name: &str, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [x] = arguments::exactly(name, given)?;
    if x.ty == Type::Nothing { coerce(x, &Type::UInt8.nullable()) } else { Ok(x) }
}

/// Takes the condition, which is the last argument, off a call of `countIf` or `sumIf`.
fn condition(name: &str, mut call: Call) -> Result<(Call, Expr), Refusal> {
    let Some(last) = call.arguments.pop() else {
        return Err(Refusal::query(format!("function {name} takes a condition as its last argument")));
    };
    let condition = last
        .condition()
        .filter(|_| matches!(last.ty.inner(), Type::UInt8 | Type::Bool | Type::Nothing))
        .ok_or_else(|| arguments::illegal(name, "a comparison, a Bool or 0 or 1 as its condition", &last))?;
    Ok((call, condition))
}

#[cfg(test)]
mod tests;
