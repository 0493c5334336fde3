//! `arrayFilter`: a lambda over the elements of arrays, computed for all elements of a batch at once.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{filter, take};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{DFSchema, DataFusionError, Result as PlanResult};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ColumnarValue, Expr as Plan};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use super::scope::{Scope, column};
use super::{Binder, internal};
use crate::error::Refusal;
use crate::sql::gate::tree::{Expr, Kind};
use crate::sql::kernel;
use crate::sql::run::{held, watch};
use crate::sql::typed::Typed;
use crate::sql::types::Type;

impl<'q> Binder<'_, 'q> {
    /// `arrayFilter(x -> condition, array)`, `arrayFilter((x, y) -> condition, array, array)`: the elements of the first
    /// array for which the condition holds.
    pub(super) fn array_filter(&mut self, scope: &mut Scope<'q>, arguments: &'q [Expr]) -> Result<Typed, Refusal> {
        let [lambda, arrays @ ..] = arguments else {
            return Err(Refusal::query("arrayFilter takes a lambda and at least one array."));
        };
        let Kind::Lambda(parameters, body) = &lambda.kind else {
            return Err(Refusal::query("The first argument of arrayFilter is a lambda, like `x -> x != ''`."));
        };
        if parameters.len() != arrays.len() || arrays.is_empty() {
            return Err(Refusal::query(format!(
                "The lambda of arrayFilter has {} parameters for {} arrays.",
                parameters.len(),
                arrays.len()
            )));
        }
        let arrays = self.all(scope, arrays)?;
        let mut fields = Vec::new();
        let mut frame = Vec::new();
        for (at, (parameter, array)) in parameters.iter().zip(&arrays).enumerate() {
            let Type::Array(element) = &array.ty else {
                return Err(Refusal::query(format!("arrayFilter takes arrays, not {}.", array.ty)));
            };
            // Named by place, so that two lambdas that say the same are the same.
            let id = format!("l{}_{at}", scope.lambdas.len());
            fields.push(element.field(&id));
            frame.push((parameter.as_str(), Typed::new(column(&id), (**element).clone())));
        }
        scope.lambdas.push(frame);
        let condition = self.condition(scope, body);
        scope.lambdas.pop();
        let condition = condition?;

        // What the condition reads of the row around the arrays, found by its type in the arguments.
        let own = |name: &str| fields.iter().any(|field| field.name() == name);
        let mut captured: Vec<String> =
            condition.column_refs().into_iter().map(|column| column.name.clone()).filter(|name| !own(name)).collect();
        captured.sort();
        captured.dedup();
        if let Some(outside) = has_subquery(&condition) {
            return Err(outside);
        }
        let parameters = format!("{condition} of {fields:?}");
        let result = arrays[0].ty.clone();
        let mut expressions: Vec<Plan> = arrays.into_iter().map(|array| array.expr).collect();
        let arrays = expressions.len();
        expressions.extend(captured.iter().map(|name| column(name)));
        let lambda = Lambda { condition, fields, captured };
        let run = move |values: &[ColumnarValue], rows: usize| lambda.filter(values, arrays, rows);
        let volatility = datafusion::logical_expr::Volatility::Immutable;
        let expr = kernel::expression("arrayFilter", parameters, expressions, result.arrow(), volatility, run);
        kernel::fold(Typed::new(expr, result))
    }
}

/// A condition over elements and over columns of the row that they are in.
struct Lambda {
    condition: Plan,
    /// The elements.
    fields: Vec<Field>,
    /// The columns.
    captured: Vec<String>,
}

impl Lambda {
    fn filter(&self, values: &[ColumnarValue], arrays: usize, rows: usize) -> PlanResult<ColumnarValue> {
        let constant = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { rows };
        let columns = kernel::spread(values, rows)?;
        let lists: Vec<&ListArray> = columns[..arrays].iter().map(|column| column.as_list::<i32>()).collect();
        let first = lists[0];
        let mut parents: Vec<u32> = Vec::new();
        for row in 0..rows {
            let length = first.value_length(row);
            if lists.iter().any(|list| list.value_length(row) != length) {
                return Err(kernel::refused("The arrays of arrayFilter must be equally long in every row."));
            }
            let parent = u32::try_from(row).map_err(|_| kernel::refused("a batch is too long"))?;
            parents.extend(std::iter::repeat_n(parent, usize::try_from(length).unwrap_or(0)));
        }
        // A column of the row is written once for each element.
        for column in &columns[arrays..] {
            let width = held::bytes(column).div_ceil(rows.max(1));
            let lengths = |row: usize| match column.as_list_opt::<i32>() {
                Some(lists) => usize::try_from(lists.value_length(row)).unwrap_or(0).max(1),
                None => 1,
            };
            let all: usize = (0..rows).map(lengths).sum();
            let copied: usize = parents.iter().map(|parent| lengths(*parent as usize)).sum();
            watch::check_bytes((width * rows / all.max(1)).saturating_mul(copied))?;
        }
        let parents = UInt32Array::from(parents);
        let mut fields = self.fields.clone();
        let mut elements: Vec<ArrayRef> = lists.iter().map(|list| flattened(list)).collect::<PlanResult<_>>()?;
        for (name, column) in self.captured.iter().zip(&columns[arrays..]) {
            fields.push(Field::new(name, column.data_type().clone(), true));
            elements.push(take(column, &parents, None)?);
        }
        let schema = Arc::new(Schema::new(fields));
        let keep = self.keep(&schema, elements.clone(), parents.len())?;
        let kept = filter(&elements[0], &keep)?;
        let mut lengths = vec![0_usize; rows];
        for (at, parent) in parents.values().iter().enumerate() {
            lengths[*parent as usize] += usize::from(keep.value(at));
        }
        let field = match first.data_type() {
            datafusion::arrow::datatypes::DataType::List(field) => Arc::clone(field),
            other => return Err(DataFusionError::Internal(format!("{other} is no list"))),
        };
        let list = ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), kept, None)?;
        let result: ArrayRef = Arc::new(list);
        Ok(match constant {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }

    /// For which elements the condition is true: neither false nor NULL.
    fn keep(&self, schema: &Arc<Schema>, elements: Vec<ArrayRef>, count: usize) -> PlanResult<BooleanArray> {
        let physical = self.physical(schema)?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), elements, &options)?;
        let keep = physical.evaluate(&batch)?.into_array(count)?;
        let keep = keep.as_boolean();
        Ok(keep.iter().map(|keep| Some(keep == Some(true))).collect())
    }

    fn physical(&self, schema: &Arc<Schema>) -> PlanResult<Arc<dyn PhysicalExpr>> {
        let schema = DFSchema::try_from(Arc::clone(schema))?;
        create_physical_expr(&self.condition, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
    }
}

/// The elements that a list's rows hold, and no others: a NULL row holds none.
fn flattened(list: &ListArray) -> PlanResult<ArrayRef> {
    let offsets = list.value_offsets();
    let (Some(first), Some(last)) = (offsets.first(), offsets.last()) else {
        return Err(DataFusionError::Internal("a list without offsets".to_owned()));
    };
    let (first, last) = (usize::try_from(*first).unwrap_or(0), usize::try_from(*last).unwrap_or(0));
    Ok(list.values().slice(first, last - first))
}

fn has_subquery(condition: &Plan) -> Option<Refusal> {
    let mut found = false;
    let visited = datafusion::common::tree_node::TreeNode::apply(condition, |node| {
        found |= matches!(node, Plan::ScalarSubquery(_));
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    match visited {
        Ok(_) if !found => None,
        Ok(_) => Some(Refusal::query("A subquery cannot stand in a lambda.")),
        Err(error) => Some(internal(error.to_string())),
    }
}
