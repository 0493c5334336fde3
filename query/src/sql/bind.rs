//! From what a statement says to what DataFusion computes: names, scopes and types in, a `LogicalPlan` out.
//!
//! DataFusion's own SQL planner is not used: what a query means is decided here, as ClickHouse decides it. Every column in
//! a plan has a name of its own (`c1`, `c2`, ..) that no text can spell, so nothing a query is called can hide or reach
//! anything. A table is reached through [`Surroundings::scan`] alone.

mod expression;
mod from;
mod lambda;
mod naming;
mod query;
mod scope;
mod select;
mod sort;
mod stage;
mod window;

use std::marker::PhantomData;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};

use crate::error::Refusal;
use crate::events::tables::{Family, Table};
use crate::sql::functions::Context;
use crate::sql::gate::Statement;
use crate::sql::json::OutputColumn;

/// Most expressions that are bound for a statement, each time an alias is used counting again.
const STEPS_MAX: u32 = 200_000;
/// Most SELECTs that are bound for a statement, each time a CTE is used counting again.
const SELECTS_MAX: u32 = 256;
/// How deep aliases, CTEs and expressions may lead into each other.
const DEPTH_MAX: u32 = 1_000;

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

/// Binds a statement that the gate let through. What it recurses over is bounded, but deep: call it where the stack is
/// large (16 MiB are enough).
pub fn bind(statement: &Statement, surroundings: &Surroundings<'_>) -> Result<Bound, Refusal> {
    let context = Context { now_ms: surroundings.now_ms };
    let mut binder =
        Binder { surroundings, context, ids: 0, steps: 0, selects: 0, queries: 0, depth: 0, statement: PhantomData };
    let bound = binder.query(&statement.query, &scope::Definitions::default(), Some(surroundings.rows_max))?;
    let columns = bound.columns.into_iter().map(|column| OutputColumn { name: column.name, ty: column.ty }).collect();
    Ok(Bound { plan: bound.plan, columns })
}

/// A statement being bound; `'q` is its tree.
struct Binder<'a, 'q> {
    surroundings: &'a Surroundings<'a>,
    context: Context,
    ids: u32,
    steps: u32,
    selects: u32,
    queries: u32,
    depth: u32,
    statement: PhantomData<&'q Statement>,
}

impl Binder<'_, '_> {
    /// A name for a column that no other column has.
    fn id(&mut self) -> String {
        self.ids += 1;
        format!("c{}", self.ids)
    }

    /// One level deeper and one step further, where both are still allowed.
    fn deeper<T>(&mut self, bind: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        self.steps += 1;
        if self.steps > STEPS_MAX || self.depth >= DEPTH_MAX {
            return Err(Refusal::query("The query is too complex: its aliases multiply beyond what can be computed."));
        }
        self.depth += 1;
        let bound = bind(self);
        self.depth -= 1;
        bound
    }

    fn count_select(&mut self) -> Result<(), Refusal> {
        self.selects += 1;
        if self.selects > SELECTS_MAX {
            return Err(Refusal::query(format!(
                "The query is too complex: its CTEs multiply it to more than {SELECTS_MAX} SELECTs."
            )));
        }
        Ok(())
    }
}

/// A step of building a plan. What DataFusion refuses there, the binder should have: its words may name what the sender
/// never wrote, so they stay in the log (AN-ERR-15).
fn built(builder: PlanResult<LogicalPlanBuilder>) -> Result<LogicalPlan, Refusal> {
    builder.and_then(LogicalPlanBuilder::build).map_err(|error| internal(error.to_string()))
}

/// A refusal for what this code should not have let come to pass.
fn internal(why: impl Into<String>) -> Refusal {
    let why = why.into();
    tracing::warn!(why, "a query could not be bound");
    Refusal::query("The query combines its parts in a way that cannot be planned.")
}
