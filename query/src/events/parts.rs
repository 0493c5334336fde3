//! Parts: live Parquet files, where they lie, and how they are read.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use datafusion::parquet::file::reader::{ChunkReader, Length};
use keyward_storage::disk::{Disk, DiskFile};
use keyward_storage::ids::WorkspaceId;

use super::manifest::PartInfo;
use super::tables::Table;

const SUFFIX: &str = ".parquet";
/// Bytes of footers and page indexes kept in memory.
const FOOTER_BYTES_MAX: usize = 128 << 20;
/// Rows of a batch that is read.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// A live Parquet file. Whoever reads it holds it; its file is removed when it is live no more and nobody holds it.
#[derive(Debug)]
pub(crate) struct Part {
    pub info: PartInfo,
    pub path: PathBuf,
}

impl Part {
    pub fn new(dir: &Path, info: PartInfo) -> Part {
        Part { info, path: directory(dir, info.table, info.workspace, info.day).join(file_name(info.no)) }
    }
}

/// The directory of a table, workspace and day.
pub(crate) fn directory(dir: &Path, table: Table, workspace: WorkspaceId, day: i32) -> PathBuf {
    dir.join(table.name()).join(format!("ws={workspace}")).join(format!("day={}", spell_day(day)))
}

pub(crate) fn file_name(no: u64) -> String {
    format!("{no:016x}{SUFFIX}")
}

/// A day since 1970 as YYYY-MM-DD.
pub(crate) fn spell_day(day: i32) -> String {
    let date = chrono::DateTime::from_timestamp(i64::from(day) * 86_400, 0).unwrap_or_default();
    date.format("%Y-%m-%d").to_string()
}

/// The files below a store's directory that are named like parts: number and path.
pub(crate) fn walk(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for table in Table::all() {
        let table_dir = dir.join(table.name());
        for workspace in list_dirs(disk, &table_dir)? {
            let workspace_dir = table_dir.join(workspace);
            for day in list_dirs(disk, &workspace_dir)? {
                let day_dir = workspace_dir.join(day);
                for name in disk.list(&day_dir)? {
                    if let Some(no) = name.strip_suffix(SUFFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
                        found.push((no, day_dir.join(name)));
                    }
                }
            }
        }
    }
    Ok(found)
}

fn list_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<String>> {
    match disk.list_dirs(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Opens parts and remembers their footers, so that each is parsed once while it is in use.
pub(crate) struct Parts {
    disk: Arc<dyn Disk>,
    footers: Mutex<Footers>,
}

#[derive(Default)]
struct Footers {
    of: HashMap<u64, Footer>,
    bytes: usize,
    tick: u64,
}

struct Footer {
    metadata: Arc<ParquetMetaData>,
    bytes: usize,
    used: u64,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

impl Parts {
    pub fn new(disk: Arc<dyn Disk>) -> Parts {
        Parts { disk, footers: Mutex::new(Footers::default()) }
    }

    pub fn open(&self, part: &Part) -> io::Result<PartFile> {
        Ok(PartFile { file: self.disk.open(&part.path, false)?, length: part.info.bytes })
    }

    /// The footer of a part with its page index. It is refused unless every row group says that all its rows are the
    /// workspace's: a scan takes that for granted (AN-TAB-08).
    pub fn footer(&self, part: &Part, file: &PartFile) -> Result<Arc<ParquetMetaData>, ParquetError> {
        if let Some(known) = self.known(part.info.no) {
            return Ok(known);
        }
        let metadata =
            ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(file)?;
        let workspace = part.info.workspace.to_string();
        if !holds_only(&metadata, &workspace) {
            return Err(ParquetError::General(format!("{} holds rows of another workspace", part.path.display())));
        }
        let metadata = Arc::new(metadata);
        self.keep(part.info.no, &metadata);
        Ok(metadata)
    }

    fn known(&self, no: u64) -> Option<Arc<ParquetMetaData>> {
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        footers.tick += 1;
        let tick = footers.tick;
        let footer = footers.of.get_mut(&no)?;
        footer.used = tick;
        Some(Arc::clone(&footer.metadata))
    }

    fn keep(&self, no: u64, metadata: &Arc<ParquetMetaData>) {
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = metadata.memory_size();
        footers.tick += 1;
        let footer = Footer { metadata: Arc::clone(metadata), bytes, used: footers.tick };
        footers.bytes += bytes;
        if let Some(before) = footers.of.insert(no, footer) {
            footers.bytes -= before.bytes;
        }
        if footers.bytes > FOOTER_BYTES_MAX {
            // Half of them go at once, those not used for longest: a sweep is rare then.
            let mut uses: Vec<u64> = footers.of.values().map(|footer| footer.used).collect();
            uses.sort_unstable();
            let middle = uses[uses.len() / 2];
            footers.of.retain(|_, footer| footer.used > middle);
            footers.bytes = footers.of.values().map(|footer| footer.bytes).sum();
        }
    }

    /// Forgets the footer of a part that is live no more.
    pub fn forget(&self, no: u64) {
        let mut footers = self.footers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(footer) = footers.of.remove(&no) {
            footers.bytes -= footer.bytes;
        }
    }

    /// Removes the file of a part that is live no more.
    pub fn remove(&self, part: &Part) -> io::Result<()> {
        self.forget(part.info.no);
        self.disk.remove(&part.path)
    }

    /// A part's rows in their order, all columns or those named.
    pub fn read(&self, part: &Part, columns: Option<&[&str]>) -> io::Result<PartRows> {
        let file = self.open(part)?;
        let metadata = self.footer(part, &file).map_err(io::Error::other)?;
        let options = ArrowReaderOptions::new().with_schema(part.info.table.schema());
        let metadata = ArrowReaderMetadata::try_new(metadata, options).map_err(io::Error::other)?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata).with_batch_size(BATCH_ROWS);
        if let Some(columns) = columns {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            builder = builder.with_projection(mask);
        }
        Ok(PartRows(builder.build().map_err(io::Error::other)?))
    }
}

fn holds_only(metadata: &ParquetMetaData, workspace: &str) -> bool {
    let columns = metadata.file_metadata().schema_descr();
    let Some(column) = (0..columns.num_columns()).find(|at| columns.column(*at).name() == "workspace_id") else {
        return false;
    };
    metadata.row_groups().iter().all(|group| {
        group.column(column).statistics().is_some_and(|bounds| {
            bounds.min_is_exact()
                && bounds.max_is_exact()
                && bounds.min_bytes_opt() == Some(workspace.as_bytes())
                && bounds.max_bytes_opt() == Some(workspace.as_bytes())
        })
    })
}

/// A part's rows, batch by batch.
pub(crate) struct PartRows(ParquetRecordBatchReader);

impl Iterator for PartRows {
    type Item = io::Result<RecordBatch>;

    fn next(&mut self) -> Option<io::Result<RecordBatch>> {
        self.0.next().map(|batch| batch.map_err(io::Error::other))
    }
}

/// A part's open file.
pub(crate) struct PartFile {
    file: Arc<dyn DiskFile>,
    length: u64,
}

impl PartFile {
    /// Bytes of the file. Blocks; a query's thread is its own.
    pub fn bytes(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end.checked_sub(range.start).and_then(|length| usize::try_from(length).ok());
        let Some(length) = length.filter(|_| range.end <= self.length) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a Parquet file is shorter than it says"));
        };
        let mut buffer = vec![0; length];
        self.file.read_exact_at(range.start, &mut buffer)?;
        Ok(Bytes::from(buffer))
    }
}

impl Length for PartFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for PartFile {
    type T = PartRead;

    fn get_read(&self, start: u64) -> Result<PartRead, ParquetError> {
        Ok(PartRead { file: Arc::clone(&self.file), at: start, end: self.length })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.bytes(start..start.saturating_add(length as u64))?)
    }
}

/// Reads a part's file from somewhere on.
pub(crate) struct PartRead {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
}

impl Read for PartRead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        self.file.read_exact_at(self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}
