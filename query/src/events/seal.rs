//! Sealing: from raw rows to Parquet parts of the raw table and of its roll-ups.
//!
//! A part holds rows of one table, workspace and UTC day. Raw rows are in runs of an hour, within a run gathered by key,
//! within a key by time: time bounds stay as sharp as an hour, and the columns that hang on the key compress to nearly
//! nothing. Roll-ups are sorted by their group key.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, Encoding, ZstdLevel};
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use datafusion::parquet::schema::types::ColumnPath;
use keyward_storage::disk::{Disk, DiskFile};
use keyward_storage::ids::WorkspaceId;

use super::constant::is_constant;
use super::event::workspace_of;
use super::manifest::PartInfo;
use super::merge::{RUN_MS, cluster, cluster_column};
use super::parts::{BATCH_ROWS, directory, file_name};
use super::rollup::{LEVELS, roll_up, time_bounds};
use super::tables::{Family, Level, Table};
use crate::sql::types::Type;

const DAY_MS: i64 = 86_400_000;
/// Rows of a row group: what two threads of a query can share a day in.
const ROW_GROUP_ROWS: usize = 262_144;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;
/// How often a bloom filter may say "maybe" to a stranger. Filters are a power of two long; at this rate they take about
/// one byte for each distinct value.
const BLOOM_FALSE_POSITIVES: f64 = 0.1;
const ZSTD_LEVEL: i32 = 3;

/// Writes parts.
pub(crate) struct Sealer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    next: AtomicU64,
}

impl Sealer {
    /// `first` is a number above that of any file there.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, first: u64) -> Sealer {
        Sealer { disk, dir: dir.to_path_buf(), next: AtomicU64::new(first) }
    }

    /// Writes raw rows of any workspaces and times, and their roll-ups, as new parts. They are on the disk, and not live
    /// before the manifest names them.
    pub fn seal(&self, family: Family, raw: &[RecordBatch]) -> io::Result<Vec<PartInfo>> {
        let mut parts = Vec::new();
        self.seal_into(&mut parts, family, raw).inspect_err(|_| self.discard(&parts))?;
        Ok(parts)
    }

    /// Removes the files of parts that no manifest was ever asked to name.
    pub fn discard(&self, parts: &[PartInfo]) {
        for part in parts {
            let dir = directory(&self.dir, part.table, part.workspace, part.day);
            let _ = self.disk.remove(&dir.join(file_name(part.no)));
        }
    }

    fn seal_into(&self, parts: &mut Vec<PartInfo>, family: Family, raw: &[RecordBatch]) -> io::Result<()> {
        let table = Table { family, level: Level::Raw };
        let gather = Gather::of(raw);
        let starts = starts(raw)?;
        for (workspace, day, order) in runs(family, raw, &starts)? {
            let chunks = order.chunks(BATCH_ROWS).map(|chunk| {
                let rows: Vec<(usize, usize)> = chunk.iter().map(|row| place(&starts, *row)).collect();
                gather.rows(&rows).map_err(io::Error::other)
            });
            parts.extend(self.write(table, workspace, day, chunks)?);
        }
        let levels = roll_up(family, raw).map_err(io::Error::other)?;
        for (level, rolled) in LEVELS.into_iter().zip(&levels) {
            for slice in &rolled.slices {
                let rows = std::iter::once(Ok(rolled.slice(*slice)));
                parts.extend(self.write(Table { family, level }, slice.workspace, slice.day, rows)?);
            }
        }
        Ok(())
    }

    /// Writes sorted rows of one table, workspace and day as a part; `None` for no rows.
    pub fn write(
        &self,
        table: Table,
        workspace: WorkspaceId,
        day: i32,
        batches: impl Iterator<Item = io::Result<RecordBatch>>,
    ) -> io::Result<Option<PartInfo>> {
        let dir = directory(&self.dir, table, workspace, day);
        let no = self.next.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(file_name(no));
        self.write_at(no, &path, table, workspace, day, batches).inspect_err(|_| {
            // It takes no room on a disk that may be full; the next start would sweep it otherwise.
            let _ = self.disk.remove(&path);
        })
    }

    fn write_at(
        &self,
        no: u64,
        path: &Path,
        table: Table,
        workspace: WorkspaceId,
        day: i32,
        batches: impl Iterator<Item = io::Result<RecordBatch>>,
    ) -> io::Result<Option<PartInfo>> {
        let mut writer: Option<ArrowWriter<Output>> = None;
        let dir = path.parent().unwrap_or(&self.dir);
        let (mut rows, mut least, mut greatest) = (0, i64::MAX, i64::MIN);
        for batch in batches {
            let batch = batch?;
            let Some((first, last)) = time_bounds(&batch) else { continue };
            (least, greatest) = (least.min(first), greatest.max(last));
            rows += batch.num_rows() as u64;
            let writer = match &mut writer {
                Some(writer) => writer,
                None => {
                    self.disk.create_dir_all(dir)?;
                    let file = self.disk.open(path, true)?;
                    let output = Output { file, at: 0, buffer: Vec::with_capacity(WRITE_BYTES) };
                    let made = ArrowWriter::try_new(output, table.schema(), Some(properties(table)));
                    writer.insert(made.map_err(io::Error::other)?)
                }
            };
            writer.write(&batch).map_err(io::Error::other)?;
        }
        let Some(writer) = writer else { return Ok(None) };
        let mut output = writer.into_inner().map_err(io::Error::other)?;
        output.flush()?;
        output.file.sync_data()?;
        self.disk.sync_dir(dir)?;
        let bytes = output.at;
        Ok(Some(PartInfo { no, table, workspace, day, rows, bytes, least_time: least, greatest_time: greatest }))
    }
}

/// Rows out of several batches of a table.
struct Gather<'a> {
    batches: &'a [RecordBatch],
    /// For each column whether it holds one text only.
    constant: Vec<bool>,
}

impl Gather<'_> {
    fn of(batches: &[RecordBatch]) -> Gather<'_> {
        let columns = batches.first().map_or(0, RecordBatch::num_columns);
        let constant = (0..columns).map(|at| is_constant(batches.iter().map(|batch| batch.column(at)))).collect();
        Gather { batches, constant }
    }

    /// These rows, each named by its batch and its place there.
    fn rows(&self, places: &[(usize, usize)]) -> Result<RecordBatch, ArrowError> {
        let (Some(first), Some(place)) = (self.batches.first(), places.first()) else {
            return Err(ArrowError::InvalidArgumentError("there are no rows to gather".to_owned()));
        };
        let same = UInt32Array::from(vec![u32::try_from(place.1).unwrap_or(0); places.len()]);
        let columns = self.constant.iter().enumerate().map(|(at, constant)| match constant {
            true => take(self.batches[place.0].column(at), &same, None),
            false => {
                let columns: Vec<&dyn Array> = self.batches.iter().map(|batch| batch.column(at).as_ref()).collect();
                interleave(&columns, places)
            }
        });
        RecordBatch::try_new(first.schema(), columns.collect::<Result<_, _>>()?)
    }
}

/// The number of each batch's first row, counted through all of them.
fn starts(batches: &[RecordBatch]) -> io::Result<Vec<u32>> {
    let mut next = 0u32;
    let start = |batch: &RecordBatch| {
        let start = next;
        let rows = u32::try_from(batch.num_rows()).map_err(io::Error::other)?;
        next = next.checked_add(rows).ok_or_else(|| io::Error::other("more rows than are sealed in one piece"))?;
        Ok(start)
    };
    batches.iter().map(start).collect()
}

/// The batch that a row is in, and the row in it.
fn place(starts: &[u32], row: u32) -> (usize, usize) {
    let batch = starts.partition_point(|start| *start <= row).saturating_sub(1);
    (batch, (row - starts[batch]) as usize)
}

/// The rows of each workspace and day, in the order they are kept in; `starts` are the batches' own.
fn runs(family: Family, batches: &[RecordBatch], starts: &[u32]) -> io::Result<Vec<(WorkspaceId, i32, Vec<u32>)>> {
    let mut workspaces: Vec<(WorkspaceId, &str)> = Vec::new();
    let mut number_of: hashbrown::HashMap<&str, u32, datafusion::common::hash_utils::RandomState> =
        hashbrown::HashMap::with_hasher(Default::default());
    let mut keys: Vec<(u32, i64, u32, i64, u32)> =
        Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum::<usize>());
    for (rows, first) in batches.iter().zip(starts) {
        let column = |name: &str| {
            let column = rows.column_by_name(name);
            column.ok_or_else(|| io::Error::other(format!("there is no column {name}")))
        };
        let time = column("time")?.as_primitive::<Int64Type>();
        let names = column("workspace_id")?.as_string_view();
        let clusters = column(cluster_column(family))?.as_string_view();
        for (row, number) in (0..rows.num_rows()).zip(*first..) {
            let name = names.value(row);
            let workspace = match workspaces.last() {
                // Nearly always the same as the row before, or one of a few.
                Some((_, last)) if *last == name => u32::try_from(workspaces.len() - 1).map_err(io::Error::other)?,
                _ => match number_of.get(name) {
                    Some(number) => *number,
                    None => {
                        let id = workspace_of(name)
                            .ok_or_else(|| io::Error::other(format!("`{name}` is no workspace id")))?;
                        let number = u32::try_from(workspaces.len()).map_err(io::Error::other)?;
                        workspaces.push((id, name));
                        number_of.insert(name, number);
                        number
                    }
                },
            };
            let at = time.value(row);
            keys.push((workspace, at.div_euclid(RUN_MS), cluster(clusters.value(row)), at, number));
        }
    }
    keys.sort_unstable();
    let mut runs: Vec<(WorkspaceId, i32, Vec<u32>)> = Vec::new();
    for run in keys.chunk_by(|one, other| one.0 == other.0 && day_of_run(one.1) == day_of_run(other.1)) {
        let day = i32::try_from(day_of_run(run[0].1)).map_err(io::Error::other)?;
        runs.push((workspaces[run[0].0 as usize].0, day, run.iter().map(|key| key.4).collect()));
    }
    Ok(runs)
}

fn day_of_run(run: i64) -> i64 {
    run.div_euclid(DAY_MS / RUN_MS)
}

/// How a table's files are written.
fn properties(table: Table) -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("zstd has that level");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_dictionary_page_size_limit(4 << 20)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("keyward ", env!("CARGO_PKG_VERSION")).to_owned());
    let path = |name: &str| ColumnPath::from(name);
    for column in table.columns() {
        let name = column.name;
        if matches!(name, "key_id" | "external_id" | "identity_id" | "request_id" | "identifier") {
            // It is folded down to what its values need when the row group ends.
            properties = properties
                .set_column_bloom_filter_enabled(path(name), true)
                .set_column_bloom_filter_fpp(path(name), BLOOM_FALSE_POSITIVES)
                .set_column_bloom_filter_max_ndv(path(name), ROW_GROUP_ROWS as u64);
        }
        if table.level != Level::Raw {
            continue;
        }
        // The least and the greatest text of rows that are in no order of their texts say nothing about where a text is;
        // to find them cost more than the bloom filters that do. (Roll-ups are sorted by theirs, and the bounds of the
        // workspace say whose a file is.)
        if column.ty == Type::String && name != "workspace_id" {
            properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::None);
        }
        // What never repeats has no dictionary; what is left of a number after its dictionary grew too large is split so
        // that its bytes compress.
        match name {
            "request_id" => {
                properties = properties
                    .set_column_dictionary_enabled(path(name), false)
                    .set_column_encoding(path(name), Encoding::DELTA_BYTE_ARRAY);
            }
            "time" => {
                properties = properties
                    .set_column_dictionary_enabled(path(name), false)
                    .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
            }
            "reset_at" => properties = properties.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED),
            "latency" => properties = properties.set_column_encoding(path(name), Encoding::BYTE_STREAM_SPLIT),
            _ => {}
        }
    }
    properties.build()
}

/// A file that is written from its beginning, in large pieces.
struct Output {
    file: Arc<dyn DiskFile>,
    at: u64,
    buffer: Vec<u8>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            self.file.write_all_at(self.at, bytes)?;
            self.at += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
