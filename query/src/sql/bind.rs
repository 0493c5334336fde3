//! From what a statement says to what DataFusion computes: names, scopes and types in, a `LogicalPlan` out.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::logical_expr::LogicalPlan;

use crate::error::Refusal;
use crate::events::tables::{Family, Table};
use crate::sql::gate::Statement;
use crate::sql::json::OutputColumn;

/// What a statement is bound against.
pub struct Surroundings<'a> {
    /// The tables of the operation.
    pub family: Family,
    /// The query's clock, Unix milliseconds.
    pub now_ms: i64,
    /// Most rows of an outermost SELECT (AN-LIM-01).
    pub rows_max: u64,
    /// The only way to a table. What it gives holds the caller's rows and no others (AN-SCOPE-01): the binder never sees
    /// anything wider.
    pub scan: &'a dyn Fn(Table) -> Result<Arc<dyn TableProvider>, Refusal>,
}

/// A statement that can be run.
#[derive(Debug)]
pub struct Bound {
    /// What to compute. Its columns are in the order of `columns`; their names mean nothing.
    pub plan: LogicalPlan,
    /// The columns of the answer.
    pub columns: Vec<OutputColumn>,
}

/// Binds a statement that the gate let through.
pub fn bind(_statement: &Statement, _surroundings: &Surroundings<'_>) -> Result<Bound, Refusal> {
    Err(Refusal::query("binding follows"))
}
