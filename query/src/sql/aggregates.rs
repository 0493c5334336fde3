//! The aggregate functions of the allowlist (AN-FN-01), one file each.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDF, Expr};

use super::functions::Context;
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

/// How to compute a call, in a GROUP BY as in a window.
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
    /// The result over no rows (AN-SEM-04): it takes the place of DataFusion's NULL. `None` where NULL is right.
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

static AGGREGATES: &[Aggregate] = &[];
