//! Aggregates over windows that can be stopped.
//!
//! A window whose frame reaches to the end of its partition is computed when the partition is complete, row by row and all
//! in one step; over millions of rows that takes seconds. What is called for each row is the accumulator, so that is where
//! such a step can be ended.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunctionParams, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, ReversedUDAF, SetMonotonicity, Signature,
    WindowFunctionDefinition,
};

use super::watch::{check, count_array};

/// The plan with accumulators that look whether to go on, in all its windows.
pub fn watch_windows(plan: LogicalPlan) -> Result<LogicalPlan> {
    let watched = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Window(_) => plan.map_expressions(|expression| expression.transform_up(|part| Ok(watched(part)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(watched.data)
}

fn watched(expression: Expr) -> Transformed<Expr> {
    match expression {
        Expr::WindowFunction(mut window) => {
            let WindowFunction { fun, .. } = &mut *window;
            match fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    let inner = Arc::clone(function);
                    *function = Arc::new(AggregateUDF::new_from_impl(Watched(inner)));
                    Transformed::yes(Expr::WindowFunction(window))
                }
                WindowFunctionDefinition::WindowUDF(_) => Transformed::no(Expr::WindowFunction(window)),
            }
        }
        other => Transformed::no(other),
    }
}

/// An aggregate function whose accumulators look whether to go on. In all else it is that function.
#[derive(Debug, PartialEq, Eq)]
struct Watched(Arc<AggregateUDF>);

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl AggregateUDFImpl for Watched {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn schema_name(&self, parameters: &AggregateFunctionParams) -> Result<String> {
        self.0.schema_name(parameters)
    }

    fn display_name(&self, parameters: &AggregateFunctionParams) -> Result<String> {
        self.0.display_name(parameters)
    }

    fn window_function_schema_name(&self, parameters: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_schema_name(parameters)
    }

    fn window_function_display_name(&self, parameters: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_display_name(parameters)
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.0.return_field(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn default_value(&self, ty: &DataType) -> Result<ScalarValue> {
        self.0.default_value(ty)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.0.state_fields(arguments)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(WatchedAccumulator(self.0.accumulator(arguments)?)))
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(WatchedAccumulator(self.0.create_sliding_accumulator(arguments)?)))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.0.reverse_udf() {
            ReversedUDAF::Reversed(function) => {
                ReversedUDAF::Reversed(Arc::new(AggregateUDF::new_from_impl(Watched(function))))
            }
            other => other,
        }
    }

    fn set_monotonicity(&self, ty: &DataType) -> SetMonotonicity {
        self.0.inner().set_monotonicity(ty)
    }
}

#[derive(Debug)]
struct WatchedAccumulator(Box<dyn Accumulator>);

impl Accumulator for WatchedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        check()?;
        self.0.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        check()?;
        let value = self.0.evaluate()?;
        if let ScalarValue::List(array) = &value {
            count_array(array.get_array_memory_size())?;
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        check()?;
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }
}
