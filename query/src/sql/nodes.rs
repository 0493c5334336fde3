//! Operators of our own that plans may contain, and the planner that knows them: a session that runs bound statements is
//! built with [`planner`].

pub mod asof;
pub mod fill;
pub mod sliding;

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{LexOrdering, create_physical_expr, create_physical_sort_exprs};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use asof::{Asof, AsofExec};
use fill::{Fill, FillExec};

/// The planner of sessions that run bound statements.
pub fn planner() -> Arc<dyn QueryPlanner + Send + Sync> {
    Arc::new(Planner)
}

#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Nodes)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct Nodes;

#[async_trait]
impl ExtensionPlanner for Nodes {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(asof) = node.as_any().downcast_ref::<Asof>() {
            return plan_asof(asof, physical_inputs).map(Some);
        }
        let Some(fill) = node.as_any().downcast_ref::<Fill>() else { return Ok(None) };
        let ([logical], [input]) = (logical_inputs, physical_inputs) else {
            return Err(DataFusionError::Internal("Fill has one input".to_owned()));
        };
        let schema = logical.schema();
        let position = |name: &str| {
            schema
                .index_of_column_by_name(None, name)
                .ok_or_else(|| DataFusionError::Internal("a column of Fill is gone".to_owned()))
        };
        let properties = session.execution_props();
        let order = create_physical_sort_exprs(&fill.order, schema, properties, context)?;
        let order =
            LexOrdering::new(order).ok_or_else(|| DataFusionError::Internal("Fill without an order".to_owned()))?;
        let keys = fill.keys.iter().map(|key| Ok((key.clone(), position(&key.column)?))).collect::<Result<_>>()?;
        let prefix = fill.prefix.iter().map(|name| position(name)).collect::<Result<_>>()?;
        let interpolated = fill
            .interpolated
            .iter()
            .map(|(name, expr)| Ok((position(name)?, create_physical_expr(expr, schema, properties, context)?)))
            .collect::<Result<_>>()?;
        Ok(Some(Arc::new(FillExec {
            properties: FillExec::properties_of(input),
            input: Arc::clone(input),
            order,
            prefix,
            keys,
            defaults: fill.defaults.clone(),
            interpolated,
        })))
    }
}

fn plan_asof(asof: &Asof, inputs: &[Arc<dyn ExecutionPlan>]) -> Result<Arc<dyn ExecutionPlan>> {
    let [left, right] = inputs else {
        return Err(DataFusionError::Internal("Asof has two inputs".to_owned()));
    };
    let by = asof
        .by
        .iter()
        .map(|(one, other)| Ok((left.schema().index_of(one)?, right.schema().index_of(other)?)))
        .collect::<Result<_>>()?;
    Ok(Arc::new(AsofExec::new(Arc::clone(left), Arc::clone(right), by, asof.nearest, asof.outer)))
}
