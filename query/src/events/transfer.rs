//! Import and export of raw rows (EXT-4).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use keyward_storage::ids::WorkspaceId;

use super::columns::TIME_MAX_MS;
use super::core::Core;
use super::event::workspace_of;
use super::files::frames::bytes as row_bytes;
use super::keeper::PIECE_ROWS;
use super::live::Unsealed;
use super::manifest::PartInfo;
use super::parts::{Part, PartRows, Parts};
use super::tables::{Family, Level, Table};

/// Bytes of rows that begin a seal where the rows are large.
const PIECE_BYTES: usize = 256 << 20;

/// Why nothing of a file was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError<E> {
    /// The rows' source failed or refused a row.
    #[error(transparent)]
    Source(E),
    /// A row cannot be kept.
    #[error("row {row}, column {column}: {reason}")]
    Row {
        /// Its number, from 1 on.
        row: u64,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The rows do not have the table's columns.
    #[error("the rows do not have the columns of {0}, in their order and types")]
    Columns(&'static str),
    /// The disk.
    #[error("the events could not be written")]
    Disk(#[source] io::Error),
}

/// Writes rows as parts, in pieces of bounded size, and makes all of them live at once.
pub(crate) fn import<E>(
    core: &Core,
    family: Family,
    batches: impl Iterator<Item = Result<RecordBatch, E>>,
) -> Result<u64, ImportError<E>> {
    let mut parts = Vec::new();
    let rows = import_into(core, family, batches, &mut parts).inspect_err(|_| core.sealer.discard(&parts))?;
    core.commit(&parts, &[], &[]).map_err(ImportError::Disk)?;
    Ok(rows)
}

fn import_into<E>(
    core: &Core,
    family: Family,
    batches: impl Iterator<Item = Result<RecordBatch, E>>,
    parts: &mut Vec<PartInfo>,
) -> Result<u64, ImportError<E>> {
    let mut rows = 0;
    let mut piece: Vec<RecordBatch> = Vec::new();
    let (mut in_piece, mut bytes) = (0, 0);
    let mut seal = |piece: &mut Vec<RecordBatch>| -> io::Result<()> {
        if !core.has_room() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if !piece.is_empty() {
            parts.extend(core.sealer.seal(family, piece)?);
            piece.clear();
        }
        Ok(())
    };
    for batch in batches {
        let batch = batch.map_err(ImportError::Source)?;
        check(family, &batch, rows)?;
        rows += batch.num_rows() as u64;
        bytes += row_bytes(&batch);
        // A large batch is sealed in pieces as well.
        let mut at = 0;
        while at < batch.num_rows() {
            let length = (batch.num_rows() - at).min(PIECE_ROWS - in_piece);
            piece.push(batch.slice(at, length));
            at += length;
            in_piece += length;
            if in_piece == PIECE_ROWS || bytes >= PIECE_BYTES {
                seal(&mut piece).map_err(ImportError::Disk)?;
                (in_piece, bytes) = (0, 0);
            }
        }
    }
    seal(&mut piece).map_err(ImportError::Disk)?;
    Ok(rows)
}

/// Refuses what a store of events cannot hold. `before` rows came earlier.
fn check<E>(family: Family, rows: &RecordBatch, before: u64) -> Result<(), ImportError<E>> {
    let table = Table { family, level: Level::Raw };
    let schema = table.schema();
    let types = |batch: &RecordBatch| -> Vec<_> {
        batch.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    if types(rows) != types(&RecordBatch::new_empty(Arc::clone(&schema))) {
        return Err(ImportError::Columns(table.name()));
    }
    match first_refused(family, rows) {
        Some((row, column, reason)) => Err(ImportError::Row { row: before + row as u64 + 1, column, reason }),
        None => Ok(()),
    }
}

/// The first of these rows (from 0 on) that a store of events cannot hold, the column and the reason. They have the raw
/// table's schema.
pub(crate) fn first_refused(family: Family, rows: &RecordBatch) -> Option<(usize, &'static str, String)> {
    let table = Table { family, level: Level::Raw };
    let mut found: Vec<(usize, &'static str, String)> = Vec::new();
    for (column, array) in table.columns().into_iter().zip(rows.columns()) {
        if let Some(row) = (0..array.len()).find(|row| array.null_count() > 0 && array.is_null(*row)) {
            found.push((row, column.name, "is NULL, which no column of this table holds".to_owned()));
        }
        if let Some(list) = array.as_list_opt::<i32>()
            && list.values().null_count() > 0
            && let Some(row) = (0..list.len()).find(|row| list.value(*row).null_count() > 0)
        {
            found.push((row, column.name, "holds a NULL".to_owned()));
        }
    }
    let column = |name: &str| rows.column_by_name(name).expect("the columns were compared");
    let times = column("time").as_primitive::<Int64Type>().values();
    if let Some(row) = times.iter().position(|time| !(0..=TIME_MAX_MS).contains(time)) {
        let reason =
            format!("{} is not between 0 and {TIME_MAX_MS}, the milliseconds from 1970 to the year 9999", times[row]);
        found.push((row, "time", reason));
    }
    let latencies = column("latency").as_primitive::<Float64Type>().values();
    if let Some(row) = latencies.iter().position(|latency| !latency.is_finite()) {
        found.push((row, "latency", format!("{} is not a finite number", latencies[row])));
    }
    let mut known = "";
    for (row, name) in column("workspace_id").as_string_view().iter().enumerate() {
        let name = name.unwrap_or_default();
        if name != known && workspace_of(name).is_none() {
            found.push((row, "workspace_id", format!("`{name}` is no workspace id")));
            break;
        }
        known = name;
    }
    found.into_iter().min_by_key(|(row, ..)| *row)
}

/// The rows of a workspace (or all) from a time on to before another, unix ms.
pub(crate) fn select(
    rows: &RecordBatch,
    workspace: Option<WorkspaceId>,
    start: Option<i64>,
    end: Option<i64>,
) -> io::Result<RecordBatch> {
    let column = |name: &str| {
        let column = rows.column_by_name(name);
        column.ok_or_else(|| io::Error::other(format!("there is no column {name}")))
    };
    let times = column("time")?.as_primitive::<Int64Type>().values();
    let names = column("workspace_id")?.as_string_view();
    let workspace = workspace.map(|workspace| workspace.to_string());
    let kept: BooleanArray = (0..rows.num_rows())
        .map(|row| {
            let time = times[row];
            Some(
                start.is_none_or(|start| time >= start)
                    && end.is_none_or(|end| time < end)
                    && workspace.as_deref().is_none_or(|workspace| names.value(row) == workspace),
            )
        })
        .collect();
    if kept.true_count() == rows.num_rows() {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &kept).map_err(io::Error::other)
}

/// The rows of one moment, part by part, then those that are not sealed.
pub(crate) struct Export {
    parts: Arc<Parts>,
    waiting: VecDeque<Source>,
    reading: Option<PartRows>,
    workspace: Option<WorkspaceId>,
    start: Option<i64>,
    end: Option<i64>,
    failed: bool,
}

enum Source {
    Part(Arc<Part>),
    Unsealed(Arc<Unsealed>),
}

impl Export {
    pub fn new(
        core: &Core,
        family: Family,
        workspace: Option<WorkspaceId>,
        start: Option<i64>,
        end: Option<i64>,
    ) -> Export {
        let live = core.view.load();
        let table = Table { family, level: Level::Raw };
        let of_table = live
            .all_parts()
            .iter()
            .filter(|((of, whose), _)| *of == table && workspace.is_none_or(|workspace| workspace == *whose));
        let mut parts: Vec<Arc<Part>> = of_table.flat_map(|(_, parts)| parts.iter().cloned()).collect();
        parts.retain(|part| {
            start.is_none_or(|start| part.info.greatest_time >= start)
                && end.is_none_or(|end| part.info.least_time < end)
        });
        parts.sort_by_key(|part| (part.info.workspace, part.info.day, part.info.no));
        let unsealed = live.unsealed(family).iter().cloned().map(Source::Unsealed);
        let waiting = parts.into_iter().map(Source::Part).chain(unsealed).collect();
        Export { parts: Arc::clone(&core.parts), waiting, reading: None, workspace, start, end, failed: false }
    }

    fn read(&mut self) -> io::Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = &mut self.reading {
                match rows.next() {
                    Some(rows) => return Ok(Some(rows?)),
                    None => self.reading = None,
                }
            }
            match self.waiting.pop_front() {
                None => return Ok(None),
                Some(Source::Part(part)) => self.reading = Some(self.parts.read(&part, None)?),
                Some(Source::Unsealed(batch)) => return Ok(Some(batch.rows.clone())),
            }
        }
    }
}

impl Iterator for Export {
    type Item = io::Result<RecordBatch>;

    fn next(&mut self) -> Option<io::Result<RecordBatch>> {
        while !self.failed {
            let selected = match self.read() {
                Ok(None) => return None,
                Ok(Some(rows)) => select(&rows, self.workspace, self.start, self.end),
                Err(error) => Err(error),
            };
            match selected {
                Ok(rows) if rows.num_rows() == 0 => {}
                Ok(rows) => return Some(Ok(rows)),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
