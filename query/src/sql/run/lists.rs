//! Arrays that are copied row by row: what unnests one column, or joins, writes the other columns of a row once for each row
//! that it makes of it. Ten bytes for each of a million rows are little, an array of a million elements is not.
//!
//! So rows with large arrays go into such an operator a few at a time, and a row whose copies alone would be too much is
//! refused.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{JoinType, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::unnest::UnnestExec;

use super::BATCH_ROWS;
use super::watch::check_bytes;
use crate::sql::nodes::asof::AsofExec;

/// Bytes that the copies of the rows of one slice may take, about.
const SLICE_BYTES: usize = 16 * 1024 * 1024;

/// How an operator copies the rows of its input.
#[derive(Debug, Clone, Copy)]
pub enum Copies {
    /// Once for each element of this column.
    Elements(usize),
    /// Once for each partner: as often as a batch has rows, at most.
    Partners,
}

impl Copies {
    /// How each input of an operator is copied.
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Vec<Option<Copies>> {
        if let Some(unnest) = plan.downcast_ref::<UnnestExec>() {
            let column = unnest.list_column_indices().first().map(|list| Copies::Elements(list.index_in_input_schema));
            return vec![column];
        }
        let semi = |kind: &JoinType| {
            matches!(kind, JoinType::LeftSemi | JoinType::LeftAnti | JoinType::RightSemi | JoinType::RightAnti)
        };
        let copies = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
            !semi(join.join_type())
        } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            !semi(join.join_type())
        } else {
            plan.is::<CrossJoinExec>() || plan.is::<SortMergeJoinExec>() || plan.is::<AsofExec>()
        };
        let has_arrays = |input: &&Arc<dyn ExecutionPlan>| has_arrays(&input.schema());
        let copied = |input| (copies && has_arrays(&input)).then_some(Copies::Partners);
        plan.children().into_iter().map(copied).collect()
    }

    /// How many of these rows can go in together, from this one on.
    ///
    /// # Errors
    /// A row that is too large alone.
    pub fn slice(self, rows: &RecordBatch, from: usize) -> Result<usize> {
        // The array that is unnested goes, so it is not copied itself.
        let is_copied = |at: usize| !matches!(self, Copies::Elements(column) if column == at);
        let is_array = |column: &ArrayRef| matches!(column.data_type(), DataType::List(_));
        let columns = rows.columns().iter().enumerate();
        let arrays: Vec<&ArrayRef> =
            columns.filter(|(at, column)| is_copied(*at) && is_array(column)).map(|(_, column)| column).collect();
        let element = |array: &ArrayRef| element_bytes(array);
        let widths: Vec<usize> = arrays.iter().map(|array| element(array)).collect();
        let mut sum = 0_usize;
        for row in from..rows.num_rows() {
            let bytes: usize = arrays.iter().zip(&widths).map(|(array, width)| length(array, row) * width).sum();
            let copies = match self {
                Copies::Elements(column) => length(rows.column(column), row),
                Copies::Partners => BATCH_ROWS.get(),
            };
            let bytes = bytes.saturating_mul(copies);
            check_bytes(bytes)?;
            sum = sum.saturating_add(bytes);
            if sum > SLICE_BYTES && row > from {
                return Ok(row - from);
            }
        }
        Ok(rows.num_rows() - from)
    }
}

fn has_arrays(schema: &SchemaRef) -> bool {
    schema.fields().iter().any(|field| matches!(field.data_type(), DataType::List(_)))
}

fn length(array: &ArrayRef, row: usize) -> usize {
    array.as_list_opt::<i32>().map_or(0, |lists| usize::try_from(lists.value_length(row)).unwrap_or(0))
}

/// Bytes of an element when it is copied: texts are copied without what they refer to.
fn element_bytes(array: &ArrayRef) -> usize {
    const TEXT_BYTES: usize = 16;
    let Some(lists) = array.as_list_opt::<i32>() else { return TEXT_BYTES };
    match lists.values().data_type() {
        // Of arrays in arrays, what they hold on average.
        DataType::List(_) => {
            let inner = lists.values().as_list::<i32>();
            let offsets = inner.value_offsets();
            let elements = (offsets[inner.len()] - offsets[0]) as usize;
            size_of::<i32>() + elements.div_ceil(inner.len().max(1)) * element_bytes(lists.values())
        }
        other => other.primitive_width().unwrap_or(TEXT_BYTES),
    }
}
