//! What queries see: the live parts and the batches that are not sealed yet, as one immutable snapshot.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringViewArray, StringViewBuilder};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use keyward_storage::ids::WorkspaceId;

use super::event::workspace_of;
use super::parts::Part;
use super::rollup::{Rolled, roll_up, time_bounds};
use super::tables::{Family, Table};

/// Batches below it are joined with their neighbours.
const SMALL_ROWS: usize = 8_192;

/// Raw rows that are journaled and not in Parquet.
pub(crate) struct Unsealed {
    pub family: Family,
    pub rows: RecordBatch,
    /// Numbers of the first and the last batch in it.
    pub numbers: (u64, u64),
    /// The workspace of all its rows, where there is only one.
    pub only: Option<WorkspaceId>,
    /// Bounds of `time`, unix ms.
    pub times: (i64, i64),
    rolled: OnceLock<Result<Arc<[Rolled; 4]>, Arc<ArrowError>>>,
}

impl Unsealed {
    /// `None` for no rows.
    pub fn new(family: Family, rows: RecordBatch, numbers: (u64, u64)) -> Option<Unsealed> {
        let times = time_bounds(&rows)?;
        let only = only_workspace(&rows);
        Some(Unsealed { family, rows, numbers, only, times, rolled: OnceLock::new() })
    }

    /// Its roll-ups, made when they are first asked for.
    pub fn rolled(&self) -> Result<Arc<[Rolled; 4]>, Arc<ArrowError>> {
        self.rolled.get_or_init(|| roll_up(self.family, &self.rows).map(Arc::new).map_err(Arc::new)).clone()
    }

    /// Two neighbours as one.
    fn join(&self, next: &Unsealed) -> Option<Unsealed> {
        let rows = concat_batches(&self.rows.schema(), [&self.rows, &next.rows]).and_then(|rows| tidy(&rows)).ok()?;
        Unsealed::new(self.family, rows, (self.numbers.0, next.numbers.1))
    }
}

fn only_workspace(rows: &RecordBatch) -> Option<WorkspaceId> {
    let names = rows.column_by_name("workspace_id")?.as_string_view();
    let first = names.iter().next().flatten()?;
    names.iter().all(|name| name == Some(first)).then(|| workspace_of(first)).flatten()
}

/// A batch whose texts lie together again: joining many small ones leaves a buffer of each.
fn tidy(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema();
    let columns = rows.columns().iter().zip(schema.fields()).map(|(column, field)| -> Result<ArrayRef, ArrowError> {
        Ok(match column.data_type() {
            DataType::Utf8View if field.name() == "request_id" => Arc::new(column.as_string_view().gc()),
            DataType::Utf8View => Arc::new(gather(column.as_string_view())),
            DataType::List(item) => {
                let list = column.as_list::<i32>();
                let texts = Arc::new(gather(list.values().as_string_view()));
                Arc::new(ListArray::try_new(Arc::clone(item), list.offsets().clone(), texts, list.nulls().cloned())?)
            }
            _ => Arc::clone(column),
        })
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
}

fn gather(texts: &StringViewArray) -> StringViewArray {
    let mut gathered = StringViewBuilder::with_capacity(texts.len()).with_deduplicate_strings();
    texts.iter().for_each(|text| gathered.append_option(text));
    gathered.finish()
}

/// The live parts of a table and workspace, by day and number.
pub(crate) type PartMap = HashMap<(Table, WorkspaceId), Arc<Vec<Arc<Part>>>>;

/// One moment of the store.
#[derive(Clone, Default)]
pub(crate) struct Live {
    /// By family, in the order they were recorded.
    unsealed: [Arc<Vec<Arc<Unsealed>>>; 2],
    parts: Arc<PartMap>,
}

fn at(family: Family) -> usize {
    match family {
        Family::Verifications => 0,
        Family::Ratelimits => 1,
    }
}

impl Live {
    pub fn unsealed(&self, family: Family) -> &[Arc<Unsealed>] {
        &self.unsealed[at(family)]
    }

    pub fn unsealed_rows(&self) -> usize {
        self.unsealed.iter().flat_map(|batches| batches.iter()).map(|batch| batch.rows.num_rows()).sum()
    }

    pub fn parts(&self, table: Table, workspace: WorkspaceId) -> &[Arc<Part>] {
        self.parts.get(&(table, workspace)).map_or(&[], |parts| parts.as_slice())
    }

    pub fn all_parts(&self) -> &PartMap {
        &self.parts
    }

    /// Adds a batch; it is joined with those before it while they are small, but never across `cut`: batches up to that
    /// number are being sealed.
    pub fn push(&mut self, batch: Unsealed, cut: u64) {
        let batches = Arc::make_mut(&mut self.unsealed[at(batch.family)]);
        let mut batch = batch;
        while let Some(before) = batches.last() {
            let (rows, of_before) = (batch.rows.num_rows(), before.rows.num_rows());
            // Like a binary counter: each row is copied about as often as batches double up to the bound.
            if before.numbers.0 <= cut || rows + of_before > SMALL_ROWS || of_before > 2 * rows {
                break;
            }
            let Some(joined) = before.join(&batch) else { break };
            batch = joined;
            batches.pop();
        }
        batches.push(Arc::new(batch));
    }

    /// Forgets the batches up to a number: they are sealed.
    pub fn forget_up_to(&mut self, number: u64) {
        for batches in &mut self.unsealed {
            Arc::make_mut(batches).retain(|batch| batch.numbers.1 > number);
        }
    }

    pub fn add_parts(&mut self, added: impl IntoIterator<Item = Arc<Part>>) {
        let parts = Arc::make_mut(&mut self.parts);
        for part in added {
            let list = Arc::make_mut(parts.entry((part.info.table, part.info.workspace)).or_default());
            let place = |other: &Arc<Part>| (other.info.day, other.info.no) < (part.info.day, part.info.no);
            let place = list.partition_point(place);
            list.insert(place, part);
        }
    }

    pub fn remove_parts(&mut self, removed: &[Arc<Part>]) {
        let parts = Arc::make_mut(&mut self.parts);
        for part in removed {
            let of = (part.info.table, part.info.workspace);
            if let Some(list) = parts.get_mut(&of) {
                Arc::make_mut(list).retain(|other| other.info.no != part.info.no);
                if list.is_empty() {
                    parts.remove(&of);
                }
            }
        }
    }
}

/// The present moment, read without a lock and replaced as a whole.
#[derive(Default)]
pub(crate) struct View {
    live: ArcSwap<Live>,
    change: Mutex<()>,
}

impl View {
    pub fn load(&self) -> Arc<Live> {
        self.live.load_full()
    }

    pub fn change(&self, change: impl FnOnce(&mut Live)) {
        let _one = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Live::clone(&self.live.load());
        change(&mut next);
        self.live.store(Arc::new(next));
    }
}
