//! Queries: WITH, and SELECTs joined by set operators.

use std::ops::Not;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::NullEquality;
use datafusion::functions_aggregate::count::count_all;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr as Plan, JoinType, LogicalPlan, LogicalPlanBuilder, cast, lit, when};

use super::from::row_number;
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
    /// In what order its rows come, where the query says so by columns of its result.
    pub order: Vec<Sort>,
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
        self.queries += 1;
        let definitions = definitions.of_query(self.queries);
        let definitions = with.iter().fold(definitions, |definitions, with| definitions.with(with));
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
            SetOperator::Except => self.matched(left, right, false)?,
            SetOperator::Intersect => self.matched(left, right, true)?,
            SetOperator::ExceptDistinct => {
                let left = distinct(left)?;
                LogicalPlanBuilder::except(left, right, true).map_err(|error| internal(error.to_string()))?
            }
            SetOperator::IntersectDistinct => {
                let left = distinct(left)?;
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
        Ok(Queried { plan, columns, order: Vec::new() })
    }

    /// The left rows that have a partner on the right, or those that have none; each right row is a partner once.
    fn matched(&mut self, left: LogicalPlan, right: LogicalPlan, with_partner: bool) -> Result<LogicalPlan, Refusal> {
        let columns = left.schema().columns();
        let partners = right.schema().columns();
        let (number, count) = (self.id(), self.id());
        let nth = row_number(columns.iter().cloned().map(Plan::Column).collect(), Vec::new());
        let counted = LogicalPlanBuilder::from(right)
            .aggregate(partners.iter().cloned().map(Plan::Column), vec![count_all().alias(&count)]);
        let counted = built(counted)?;
        let has = when(column(&count).is_null(), lit(false))
            .otherwise(cast(column(&count), DataType::UInt64).gt_eq(column(&number)))
            .map_err(|error| internal(error.to_string()))?;
        let joined = LogicalPlanBuilder::from(left)
            .window(vec![Plan::from(nth).alias(&number)])
            .and_then(|builder| {
                let on = (columns.clone(), partners);
                builder.join_detailed(counted, JoinType::Left, on, None, NullEquality::NullEqualsNull)
            })
            .and_then(|builder| builder.filter(if with_partner { has } else { has.not() }))
            .and_then(|builder| builder.project(columns.into_iter().map(Plan::Column)));
        built(joined)
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
