//! What the expressions of a SELECT need computed before them, collected while they are bound.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{AggregateUDF, Expr, LogicalPlan, WindowFrame};

use crate::sql::aggregates::Aggregated;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// A key of GROUP BY.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Over the rows.
    pub value: Typed,
    /// Its name in the plan, over groups.
    pub id: String,
}

/// The aggregates of a SELECT, each once.
#[derive(Default)]
pub(super) struct Aggregates {
    pub all: Vec<Aggregate>,
}

/// An aggregate.
pub(super) struct Aggregate {
    pub call: Aggregated,
    /// Its name in the plan.
    pub id: String,
}

impl Aggregates {
    /// The value of an aggregate, over groups.
    pub fn add(&mut self, call: Aggregated, id: impl FnOnce() -> String) -> Typed {
        let ty = call.ty.clone();
        let same = |known: &&Aggregate| same(&known.call, &call);
        let id = match self.all.iter().find(same) {
            Some(known) => known.id.clone(),
            None => {
                let id = id();
                self.all.push(Aggregate { call, id: id.clone() });
                id
            }
        };
        Typed::new(super::scope::column(&id), ty)
    }
}

fn same(a: &Aggregated, b: &Aggregated) -> bool {
    let Aggregated { function, arguments, distinct, filter, ty, empty } = a;
    *function == b.function
        && *arguments == b.arguments
        && *distinct == b.distinct
        && *filter == b.filter
        && *ty == b.ty
        && *empty == b.empty
}

/// The window functions of a SELECT, each once.
#[derive(Default)]
pub(super) struct Windows {
    pub all: Vec<WindowCall>,
}

/// A window function.
#[derive(PartialEq)]
pub(super) struct WindowCall {
    pub function: Arc<AggregateUDF>,
    pub arguments: Vec<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub partition_by: Vec<Expr>,
    pub order_by: Vec<Sort>,
    pub frame: WindowFrame,
    pub ty: Type,
    /// What it gives over an empty frame.
    pub empty: Option<ScalarValue>,
    /// Its name in the plan.
    pub id: String,
}

impl Windows {
    /// The value of a window function.
    pub fn add(&mut self, call: WindowCall) -> Typed {
        let ty = call.ty.clone();
        let known = self.all.iter().find(|known| {
            let WindowCall { function, arguments, distinct, filter, partition_by, order_by, frame, ty, empty, id: _ } =
                known;
            *function == call.function
                && *arguments == call.arguments
                && *distinct == call.distinct
                && *filter == call.filter
                && *partition_by == call.partition_by
                && *order_by == call.order_by
                && *frame == call.frame
                && *ty == call.ty
                && *empty == call.empty
        });
        let id = match known {
            Some(known) => known.id.clone(),
            None => {
                let id = call.id.clone();
                self.all.push(call);
                id
            }
        };
        Typed::new(super::scope::column(&id), ty)
    }
}

/// An `arrayJoin`: a row for each element.
#[derive(Debug, Clone)]
pub(super) struct Exploded {
    /// The array.
    pub array: Expr,
    /// The element's name in the plan.
    pub id: String,
}

/// A set that rows are looked up in: the right side of `IN (SELECT ..)`.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    /// Distinct values without NULL, and a column that is true.
    pub set: LogicalPlan,
    /// What is looked up, and the set's column that it must equal.
    pub on: Vec<(Expr, String)>,
    /// The column that is true where a row was found, and NULL elsewhere.
    pub marker: String,
}

/// A state that binding can return to where an attempt led nowhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub aggregates: usize,
    pub windows: usize,
    pub exploded: usize,
    pub exploded_late: usize,
    pub attached: usize,
    pub attached_late: usize,
    pub sets: usize,
    pub scalars: usize,
}
