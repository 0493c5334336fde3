//! Merging sorted rows of one table: a k-way merge that sums the rows of a roll-up whose group keys are equal.
//!
//! It holds one batch per input and one of output, whatever the inputs' sizes. Rows are compared in Arrow's row format,
//! whose bytes sort as the values do (`arrow::row`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{OwnedRow, RowConverter, Rows, SortField};

use super::parts::BATCH_ROWS;
use super::rollup::{group_columns, sum_columns};
use super::tables::{Family, Level, Table};

/// Sorted batches of one table, of one workspace and day.
pub(crate) type Input = Box<dyn Iterator<Item = io::Result<RecordBatch>> + Send>;

/// Milliseconds of the runs that raw rows are gathered by key in.
pub(crate) const RUN_MS: i64 = 3_600_000;

/// The column whose equal values raw rows are gathered by within a run: what hangs together with it (identity, external
/// id, tags) then repeats, which is most of what compression gains.
pub(crate) fn cluster_column(family: Family) -> &'static str {
    match family {
        Family::Verifications => "key_id",
        Family::Ratelimits => "identifier",
    }
}

/// What gathers equal texts: any function of the text that stays the same for ever.
pub(crate) fn cluster(text: &str) -> u32 {
    crc32fast::hash(text.as_bytes())
}

/// The columns that rows of a table are sorted by, within a workspace and day.
fn sort_columns(table: Table, rows: &RecordBatch) -> Result<Vec<ArrayRef>, ArrowError> {
    let column = |name: &str| {
        let column = rows.column_by_name(name);
        column.cloned().ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
    };
    if table.level == Level::Raw {
        let time = column("time")?;
        let texts = column(cluster_column(table.family))?;
        let runs: Int64Array =
            time.as_primitive::<Int64Type>().values().iter().map(|time| time.div_euclid(RUN_MS)).collect();
        let clusters: UInt32Array = texts.as_string_view().iter().map(|text| text.map(cluster)).collect();
        return Ok(vec![Arc::new(runs), Arc::new(clusters), time]);
    }
    // The workspace is one and the same.
    let names = group_columns(table.family)[1..].iter().copied().chain(["time"]);
    names.map(column).collect()
}

fn sort_types(table: Table) -> Vec<DataType> {
    if table.level == Level::Raw {
        return vec![DataType::Int64, DataType::UInt32, DataType::Int64];
    }
    let schema = table.schema();
    let ty = |name: &str| schema.field_with_name(name).map(|field| field.data_type().clone());
    group_columns(table.family)[1..].iter().copied().chain(["time"]).filter_map(|name| ty(name).ok()).collect()
}

/// One input, at its present row.
struct Cursor {
    input: Input,
    rows: Rows,
    at: usize,
    /// Which of the held batches the rows are.
    held: usize,
}

/// What the heap orders: the present row of a cursor, equal ones by the cursor's number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Front {
    row: OwnedRow,
    cursor: usize,
}

/// The merged rows, batch by batch.
pub(crate) struct Merge {
    table: Table,
    converter: RowConverter,
    cursors: Vec<Option<Cursor>>,
    heap: BinaryHeap<Reverse<Front>>,
    /// The batches that output rows are in.
    batches: Vec<RecordBatch>,
    /// Output rows: batch and row.
    picked: Vec<(usize, usize)>,
    /// Sums of the output rows, by column.
    sums: Vec<Vec<i64>>,
    last: Option<OwnedRow>,
    failed: bool,
}

impl Merge {
    /// Begins to merge inputs that are sorted and, of roll-ups, hold each group key once.
    pub fn new(table: Table, inputs: Vec<Input>) -> io::Result<Merge> {
        let fields = sort_types(table).into_iter().map(SortField::new).collect();
        let sums = if table.level == Level::Raw { 0 } else { sum_columns(table.family).len() };
        let mut merge = Merge {
            table,
            converter: RowConverter::new(fields).map_err(io::Error::other)?,
            cursors: Vec::with_capacity(inputs.len()),
            heap: BinaryHeap::with_capacity(inputs.len()),
            batches: Vec::new(),
            picked: Vec::with_capacity(BATCH_ROWS),
            sums: vec![Vec::with_capacity(BATCH_ROWS); sums],
            last: None,
            failed: false,
        };
        for input in inputs {
            let at = merge.cursors.len();
            merge.cursors.push(None);
            merge.load(at, input)?;
        }
        Ok(merge)
    }

    /// Gives a cursor the next batch of its input, or ends it.
    fn load(&mut self, cursor: usize, mut input: Input) -> io::Result<()> {
        self.cursors[cursor] = None;
        for batch in input.by_ref() {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            let columns = sort_columns(self.table, &batch).map_err(io::Error::other)?;
            let rows = self.converter.convert_columns(&columns).map_err(io::Error::other)?;
            self.heap.push(Reverse(Front { row: rows.row(0).owned(), cursor }));
            self.batches.push(batch);
            self.cursors[cursor] = Some(Cursor { input, rows, at: 0, held: self.batches.len() - 1 });
            break;
        }
        Ok(())
    }

    /// Takes the least row. `false` where there is none.
    fn step(&mut self) -> io::Result<bool> {
        let Some(Reverse(front)) = self.heap.pop() else { return Ok(false) };
        let Some(cursor) = self.cursors[front.cursor].as_mut() else { return Ok(false) };
        let (held, at) = (cursor.held, cursor.at);
        cursor.at += 1;
        let more = cursor.at < cursor.rows.num_rows();
        let next = more.then(|| cursor.rows.row(cursor.at).owned());

        let same = self.table.level != Level::Raw && self.last.as_ref() == Some(&front.row) && !self.picked.is_empty();
        if !self.sums.is_empty() {
            let batch = &self.batches[held];
            for (sums, name) in self.sums.iter_mut().zip(sum_columns(self.table.family)) {
                let column = batch.column_by_name(name).expect("a roll-up has its sums");
                let value = column.as_primitive::<Int64Type>().value(at);
                match sums.last_mut().filter(|_| same) {
                    Some(sum) => *sum = sum.wrapping_add(value),
                    None => sums.push(value),
                }
            }
        }
        if !same {
            self.picked.push((held, at));
            self.last = Some(front.row);
        }
        match next {
            Some(row) => self.heap.push(Reverse(Front { row, cursor: front.cursor })),
            None => {
                if let Some(done) = self.cursors[front.cursor].take() {
                    self.load(front.cursor, done.input)?;
                }
            }
        }
        Ok(true)
    }

    /// Whether the next row belongs to the last one picked.
    fn next_is_same(&self) -> bool {
        self.table.level != Level::Raw
            && self.heap.peek().is_some_and(|Reverse(front)| self.last.as_ref() == Some(&front.row))
    }

    fn batch(&mut self) -> io::Result<Option<RecordBatch>> {
        while self.picked.len() < BATCH_ROWS || self.next_is_same() {
            if !self.step()? {
                break;
            }
        }
        if self.picked.is_empty() {
            return Ok(None);
        }
        let schema = self.table.schema();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for (at, field) in schema.fields().iter().enumerate() {
            let sum = sum_columns(self.table.family).iter().position(|name| name == field.name());
            if let Some(sum) = sum.filter(|_| !self.sums.is_empty()) {
                columns.push(Arc::new(Int64Array::from(std::mem::take(&mut self.sums[sum]))) as ArrayRef);
                continue;
            }
            let arrays: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(at).as_ref()).collect();
            columns.push(interleave(&arrays, &self.picked).map_err(io::Error::other)?);
        }
        self.picked.clear();
        // Only what a cursor still stands in is held on to.
        let mut kept = Vec::with_capacity(self.cursors.len());
        for cursor in self.cursors.iter_mut().flatten() {
            kept.push(self.batches[cursor.held].clone());
            cursor.held = kept.len() - 1;
        }
        self.batches = kept;
        RecordBatch::try_new(schema, columns).map(Some).map_err(io::Error::other)
    }
}

impl Iterator for Merge {
    type Item = io::Result<RecordBatch>;

    fn next(&mut self) -> Option<io::Result<RecordBatch>> {
        if self.failed {
            return None;
        }
        let batch = self.batch().transpose();
        self.failed = matches!(batch, Some(Err(_)));
        batch
    }
}
