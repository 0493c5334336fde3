//! `ORDER BY .. WITH FILL .. INTERPOLATE`: adds the points that a sorted sequence lacks (AN-FILL).
//!
//! A key has a grid: it starts at FROM, or at the first row, and goes on in steps. Before a row come the points of the grid
//! that lie before it, and after the last row those before TO. Rows stay, on the grid or off it. With several keys, a point
//! of an outer one that has no row is filled by the inner ones as if it were an empty group.

mod exec;
mod key;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchemaRef, Result, ScalarValue};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

pub(super) use exec::FillExec;
pub use key::Filled;

/// The node, as a plan holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fill {
    /// Rows sorted by `order`.
    pub input: LogicalPlan,
    /// ORDER BY.
    pub order: Vec<Sort>,
    /// The columns of its keys before the first one WITH FILL: rows with other values there are filled apart.
    pub prefix: Vec<String>,
    /// The keys WITH FILL.
    pub keys: Vec<Filled>,
    /// What each column holds in a row that is added.
    pub defaults: Vec<ScalarValue>,
    /// Columns that hold something else there, computed from the row before.
    pub interpolated: Vec<(String, Expr)>,
}

impl Fill {
    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

/// Nodes have no order among each other.
impl PartialOrd for Fill {
    fn partial_cmp(&self, _: &Fill) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Fill {
    fn name(&self) -> &str {
        "Fill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    /// None that a rule could rewrite: what the node computes, it computes from columns by their names.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fill: {} keys", self.keys.len())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Fill> {
        let input = inputs.pop().unwrap_or_else(|| self.input.clone());
        Ok(Fill { input, ..self.clone() })
    }
}
