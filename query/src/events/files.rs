//! Files of raw rows, as operators bring and take them (EXT-4): NDJSON and Parquet in, checked row by row, and out.
//!
//! Reading and writing happen in the process of the command, with its user's permissions; between that process and a
//! running server the same batches travel as [`frames`].

mod arrange;
pub mod frames;
mod ndjson;
mod parquet;
#[cfg(test)]
mod tests;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::parquet::errors::ParquetError;

use super::tables::{Family, Level, Table};

pub use write::RowWriter;

/// Rows of a batch.
const BATCH_ROWS: usize = 8_192;
/// Bytes of a file that one batch is made of, about; a single row may have more.
const BATCH_BYTES: usize = 8 << 20;

/// How rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format that a file's name ends on.
    pub fn of(path: &Path) -> Option<Format> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "parquet" => Some(Format::Parquet),
            _ => None,
        }
    }

    /// What people count such a file's rows in.
    pub fn unit(self) -> &'static str {
        match self {
            Format::Ndjson => "line",
            Format::Parquet => "row",
        }
    }
}

/// A row that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its number in the file, from 1 on. In NDJSON it is the line's.
    pub row: u64,
    /// The column, where one is to blame.
    pub column: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl BadRow {
    /// A sentence that says where and what: `line 3, column time: …`.
    pub fn in_words(&self, unit: &str) -> String {
        let BadRow { row, column, reason } = self;
        match column {
            Some(column) => format!("{unit} {row}, column {column}: {reason}"),
            None => format!("{unit} {row}: {reason}"),
        }
    }
}

/// Why a file's rows cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// One of them.
    #[error("{}", bad.in_words(unit))]
    Row {
        /// `line` or `row`.
        unit: &'static str,
        /// Which, and why.
        bad: BadRow,
    },
    /// Its columns are not the table's.
    #[error("{0}")]
    Columns(String),
    /// It is not what its name says.
    #[error("this is no Parquet file that can be read: {0}")]
    Parquet(#[source] ParquetError),
    /// The disk.
    #[error("the file cannot be read: {0}")]
    Disk(#[source] io::Error),
}

/// The rows of a file, in batches with the raw table's schema. It ends after the first error.
pub struct RowReader {
    rows: Rows,
    taken: u64,
    failed: bool,
}

enum Rows {
    Ndjson(Box<ndjson::Ndjson>),
    Parquet(Box<parquet::Parquet>),
}

impl RowReader {
    /// Reads NDJSON. Where a workspace is given it replaces what the rows say.
    pub fn ndjson(family: Family, workspace: Option<String>, source: Box<dyn Read + Send>) -> RowReader {
        RowReader::new(Rows::Ndjson(Box::new(ndjson::Ndjson::new(family, workspace, source))))
    }

    /// Reads Parquet. Where a workspace is given it replaces what the rows say.
    ///
    /// # Errors
    /// A file that is not Parquet, or whose columns are not the table's.
    pub fn parquet(family: Family, workspace: Option<String>, file: File) -> Result<RowReader, FileError> {
        Ok(RowReader::new(Rows::Parquet(Box::new(parquet::Parquet::open(family, workspace, file)?))))
    }

    fn new(rows: Rows) -> RowReader {
        RowReader { rows, taken: 0, failed: false }
    }

    /// Rows given out so far.
    pub fn rows(&self) -> u64 {
        self.taken
    }

    /// Bytes of the file that these rows took, about.
    pub fn bytes(&self) -> u64 {
        match &self.rows {
            Rows::Ndjson(rows) => rows.bytes(),
            Rows::Parquet(rows) => rows.bytes(),
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Result<RecordBatch, FileError>> {
        if self.failed {
            return None;
        }
        let batch = match &mut self.rows {
            Rows::Ndjson(rows) => rows.read(),
            Rows::Parquet(rows) => rows.read(),
        };
        match &batch {
            Ok(Some(rows)) => self.taken += rows.num_rows() as u64,
            Ok(None) => {}
            Err(_) => self.failed = true,
        }
        batch.transpose()
    }
}

/// A workspace that rows name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner<'a> {
    /// As they name it.
    pub id: &'a str,
    /// The first row that does, from 0 on.
    pub row: usize,
    /// The least time of its rows, unix ms.
    pub oldest: i64,
}

/// The workspaces that rows of a raw table name, in the order in which they first appear.
pub fn owners(rows: &RecordBatch) -> Vec<Owner<'_>> {
    let names = rows.column_by_name("workspace_id").and_then(|column| column.as_string_view_opt());
    let times = rows.column_by_name("time").and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(names), Some(times)) = (names, times) else {
        return Vec::new();
    };
    let mut owners: Vec<Owner<'_>> = Vec::new();
    let mut known = hashbrown::HashMap::<&str, usize, datafusion::common::hash_utils::RandomState>::default();
    let mut last = 0;
    for row in 0..rows.num_rows() {
        let (id, time) = (names.value(row), times.value(row));
        // Nearly always the same as in the row before.
        if owners.get(last).is_none_or(|owner| owner.id != id) {
            last = *known.entry(id).or_insert(owners.len());
            if last == owners.len() {
                owners.push(Owner { id, row, oldest: time });
            }
        }
        owners[last].oldest = owners[last].oldest.min(time);
    }
    owners
}

/// The table that files hold rows of.
fn raw(family: Family) -> Table {
    Table { family, level: Level::Raw }
}

/// What a column holds in a file that does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// `''`, `[]` or 0: what the column says of an event that has no such thing (AN-TAB-02, AN-TAB-06).
    Nothing,
    /// There is no value that would not be made up.
    Refused,
}

/// Whether a column of a raw table may be left out.
fn when_absent(column: &super::tables::Column) -> Absent {
    use crate::sql::types::Type;
    match (column.name, &column.ty) {
        ("workspace_id", _) => Absent::Refused,
        (_, Type::String | Type::Array(_)) | ("spent_credits", _) => Absent::Nothing,
        _ => Absent::Refused,
    }
}

/// Why a column that is not there is missed.
fn missing(column: &str) -> &'static str {
    match column {
        "workspace_id" => "is missing; --workspace WS puts all rows into one workspace",
        _ => "is missing; only texts, tags and spent_credits may be left out",
    }
}

/// Why a column of a file is not taken.
fn stranger(table: Table) -> String {
    let names: Vec<_> = table.columns().into_iter().map(|column| column.name).collect();
    format!("{} has no such column; its columns are {}", table.name(), names.join(", "))
}
