//! Queries: WITH, and SELECTs joined by set operators.

use datafusion::logical_expr::{Expr as Plan, LogicalPlan, LogicalPlanBuilder};

use super::scope::{Definitions, column};
use super::{Binder, built, internal};
use crate::error::Refusal;
use crate::sql::gate::tree::{Body, Query, SetOperator};
use crate::sql::operators;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// A query that was bound.
pub(super) struct Queried {
    pub plan: LogicalPlan,
    /// The plan's columns, in its order.
    pub columns: Vec<Output>,
}

/// A column of a query's result.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub name: String,
    /// Its name in the plan.
    pub id: String,
    pub ty: Type,
}

impl<'q> Binder<'_, 'q> {
    /// Binds a query. With `rows_max` it is outermost, and each of its SELECTs gives so many rows at most.
    pub(super) fn query(
        &mut self,
        query: &'q Query,
        definitions: &Definitions<'q>,
        rows_max: Option<u64>,
    ) -> Result<Queried, Refusal> {
        let Query { with, body, depth: _ } = query;
        let definitions = with.iter().fold(definitions.clone(), |definitions, with| definitions.with(with));
        self.deeper(|binder| binder.body(body, &definitions, rows_max))
    }

    fn body(
        &mut self,
        body: &'q Body,
        definitions: &Definitions<'q>,
        rows_max: Option<u64>,
    ) -> Result<Queried, Refusal> {
        match body {
            Body::Select(select) => self.select(select, definitions, rows_max),
            Body::Query(query) => self.query(query, definitions, rows_max),
            Body::Set { operator, left, right } => {
                let left = self.deeper(|binder| binder.body(left, definitions, rows_max))?;
                let right = self.deeper(|binder| binder.body(right, definitions, rows_max))?;
                self.combine(*operator, left, right)
            }
        }
    }

    fn combine(&mut self, operator: SetOperator, left: Queried, right: Queried) -> Result<Queried, Refusal> {
        if left.columns.len() != right.columns.len() {
            return Err(Refusal::query(format!(
                "The SELECTs of a set operator have {} and {} columns: they must have the same number.",
                left.columns.len(),
                right.columns.len()
            )));
        }
        let types: Vec<Type> = left
            .columns
            .iter()
            .zip(&right.columns)
            .map(|(left, right)| operators::super_type(&[left.ty.clone(), right.ty.clone()]))
            .collect::<Result<_, _>>()?;
        let names: Vec<String> = left.columns.iter().map(|column| column.name.clone()).collect();
        let left = self.conform(left, &types)?;
        let right = self.conform(right, &types)?;
        let distinct = |plan| built(LogicalPlanBuilder::from(plan).distinct());
        let combined = match operator {
            SetOperator::UnionAll => built(LogicalPlanBuilder::from(left).union(right))?,
            SetOperator::UnionDistinct => distinct(built(LogicalPlanBuilder::from(left).union(right))?)?,
            SetOperator::Except | SetOperator::ExceptDistinct => {
                let left = if operator == SetOperator::ExceptDistinct { distinct(left)? } else { left };
                LogicalPlanBuilder::except(left, right, true).map_err(|error| internal(error.to_string()))?
            }
            SetOperator::Intersect | SetOperator::IntersectDistinct => {
                let left = if operator == SetOperator::IntersectDistinct { distinct(left)? } else { left };
                LogicalPlanBuilder::intersect(left, right, true).map_err(|error| internal(error.to_string()))?
            }
        };
        // Names may have changed on the way; positions have not.
        let mut columns = Vec::new();
        let mut projected = Vec::new();
        for ((name, ty), source) in names.into_iter().zip(types).zip(combined.schema().columns()) {
            let id = self.id();
            projected.push(Plan::Column(source).alias(&id));
            columns.push(Output { name, id, ty });
        }
        let plan = built(LogicalPlanBuilder::from(combined).project(projected))?;
        Ok(Queried { plan, columns })
    }

    /// A query's rows with columns of these types.
    fn conform(&mut self, queried: Queried, types: &[Type]) -> Result<LogicalPlan, Refusal> {
        let mut projected = Vec::new();
        for (output, ty) in queried.columns.iter().zip(types) {
            let typed = operators::coerce(Typed::new(column(&output.id), output.ty.clone()), ty)?;
            projected.push(typed.expr.alias(self.id()));
        }
        built(LogicalPlanBuilder::from(queried.plan).project(projected))
    }
}
