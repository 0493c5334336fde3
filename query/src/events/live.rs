//! What queries see: the live parts and the batches that are not sealed yet, as one immutable snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringViewArray, StringViewBuilder};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use keyward_storage::ids::WorkspaceId;

use super::columns::BLOCK_BYTES;
use super::event::workspace_of;
use super::parts::Part;
use super::rollup::{Rolled, roll_up, time_bounds};
use super::tables::{Family, Table};

/// Neighbours are joined when there are so many of them.
const JOINED: usize = 8;
/// Batches of at least so many rows are left as they are. (A query pays some microseconds for each batch, the recorder as
/// much for some rows that it copies.)
const LARGE_ROWS: usize = 4_096;

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
        self.rolled
            .get_or_init(|| roll_up(self.family, std::slice::from_ref(&self.rows)).map(Arc::new).map_err(Arc::new))
            .clone()
    }

    /// Neighbours as one, in their order.
    fn join(neighbours: &[Arc<Unsealed>]) -> Option<Unsealed> {
        let (first, last) = (neighbours.first()?, neighbours.last()?);
        let rows = concat_batches(&first.rows.schema(), neighbours.iter().map(|batch| &batch.rows));
        let rows = rows.and_then(|rows| tidy(&rows)).ok()?;
        Unsealed::new(first.family, rows, (first.numbers.0, last.numbers.1))
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
    let blocks = StringViewBuilder::with_capacity(texts.len()).with_fixed_block_size(BLOCK_BYTES);
    let mut gathered = blocks.with_deduplicate_strings();
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
    /// Up to which batch the rows of other stores are in it, by source.
    marks: Arc<BTreeMap<u32, u64>>,
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

    pub fn marks(&self) -> &BTreeMap<u32, u64> {
        &self.marks
    }

    /// Notes up to where the rows of other stores have come, in the step that shows those rows.
    pub fn come_to(&mut self, marks: &BTreeMap<u32, u64>) {
        if *self.marks != *marks {
            self.marks = Arc::new(marks.clone());
        }
    }

    pub fn all_parts(&self) -> &PartMap {
        &self.parts
    }

    /// Adds a batch. Neighbours become one when there are [`JOINED`] of which none is larger than those behind it together, so
    /// that a row is copied when its batch doubles and not more often; never across `cut`: batches up to that number are
    /// being sealed.
    pub fn push(&mut self, batch: Unsealed, cut: u64) {
        let batches = Arc::make_mut(&mut self.unsealed[at(batch.family)]);
        let mut behind = batch.rows.num_rows();
        batches.push(Arc::new(batch));
        let mut start = batches.len() - 1;
        while let Some(before) = start.checked_sub(1).map(|before| &batches[before]) {
            let rows = before.rows.num_rows();
            if before.numbers.0 <= cut || rows >= LARGE_ROWS || rows > behind {
                break;
            }
            behind += rows;
            start -= 1;
        }
        if batches.len() - start >= JOINED
            && let Some(joined) = Unsealed::join(&batches[start..])
        {
            batches.truncate(start);
            batches.push(Arc::new(joined));
        }
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
