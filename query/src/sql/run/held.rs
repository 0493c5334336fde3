//! Memory that windows hold: DataFusion's window operators keep the rows of whole partitions, and what they compute for
//! them, without asking the query's memory for it.
//!
//! So the streams around such an operator count: what goes in is reserved, and what comes out is given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};

/// Bytes of a computed value while it waits to become part of a column.
const VALUE_BYTES: usize = 64;
/// Bytes of a value in a column, about.
const COLUMN_BYTES: usize = 16;

/// What one window operator holds, partition by partition.
#[derive(Debug)]
pub struct Kept {
    partitions: Mutex<HashMap<usize, Arc<Holding>>>,
    /// How often a row is there at the worst moment.
    copies: usize,
    /// Bytes that are computed for a row.
    computed: usize,
}

/// What it holds of one partition.
#[derive(Debug)]
pub struct Holding {
    state: Mutex<State>,
    copies: usize,
    computed: usize,
}

#[derive(Debug)]
struct State {
    memory: MemoryReservation,
    rows: usize,
}

impl Kept {
    /// For an operator that is a window.
    pub fn of(plan: &Arc<dyn ExecutionPlan>) -> Option<Kept> {
        // One has all rows at once, and once more when they are brought together; the other lets go of them as it goes.
        let (copies, computed) = if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
            (2, window.window_expr().len())
        } else if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
            (1, window.window_expr().len())
        } else {
            return None;
        };
        Some(Kept { partitions: Mutex::default(), copies, computed: VALUE_BYTES + COLUMN_BYTES * computed })
    }

    /// What it holds of this partition, for the stream that goes in as for the one that comes out.
    pub fn partition(&self, partition: usize, context: &TaskContext) -> Arc<Holding> {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let memory = MemoryConsumer::new("window").register(context.memory_pool());
            let state = Mutex::new(State { memory, rows: 0 });
            Arc::new(Holding { state, copies: self.copies, computed: self.computed })
        };
        Arc::clone(partitions.entry(partition).or_insert_with(made))
    }
}

impl Holding {
    /// Rows go in.
    ///
    /// # Errors
    /// The query has no memory for them.
    pub fn takes(&self, rows: &RecordBatch) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = rows.columns().iter().map(bytes).sum();
        state.memory.try_grow(bytes * self.copies + self.computed * rows.num_rows())?;
        state.rows += rows.num_rows();
        Ok(())
    }

    /// Rows came out.
    pub fn gives(&self, rows: &RecordBatch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = rows.num_rows().min(state.rows);
        let left = (state.rows - gone) as u128;
        let kept = (state.memory.size() as u128 * left).checked_div(state.rows as u128).unwrap_or(0);
        state.memory.resize(usize::try_from(kept).unwrap_or(0));
        state.rows -= gone;
    }
}

/// Bytes of a column's own rows: slices share the buffers of the whole.
pub fn bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => {
            column.len() * COLUMN_BYTES + column.as_string_view_opt().map_or(0, |texts| texts.total_buffer_bytes_used())
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let offsets = lists.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
            column.len() * size_of::<i32>() + bytes(&lists.values().slice(first, last - first))
        }
        _ => column.to_data().get_slice_memory_size().unwrap_or(column.len() * COLUMN_BYTES),
    }
}
