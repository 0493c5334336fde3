//! Parquet to batches, row group by row group.

use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringViewArray, StringViewBuilder};
use datafusion::arrow::array::{BooleanArray, new_empty_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};

use super::super::tables::{Column, Family, Table};
use super::super::transfer;
use super::arrange::{Refused, convert, fits};
use super::{Absent, BATCH_BYTES, BATCH_ROWS, BadRow, FileError, Format, missing, raw, stranger, when_absent};
use crate::sql::types::Type;

/// The rows of a Parquet file.
pub(super) struct Parquet {
    file: File,
    length: u64,
    metadata: ArrowReaderMetadata,
    family: Family,
    columns: Vec<Column>,
    workspace: Option<String>,
    next_group: usize,
    reading: Option<ParquetRecordBatchReader>,
    rows: u64,
}

impl Parquet {
    pub fn open(family: Family, workspace: Option<String>, file: File) -> Result<Parquet, FileError> {
        let length = file.metadata().map_err(FileError::Disk)?.len();
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(FileError::Parquet)?;
        let table = raw(family);
        let columns = table.columns();
        check_columns(table, &columns, workspace.is_some(), &metadata)?;
        Ok(Parquet { file, length, metadata, family, columns, workspace, next_group: 0, reading: None, rows: 0 })
    }

    pub fn bytes(&self) -> u64 {
        let all = u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let share = u128::from(self.length) * u128::from(self.rows) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(self.length).min(self.length)
    }

    /// The next rows; `None` at the end.
    pub fn read(&mut self) -> Result<Option<RecordBatch>, FileError> {
        loop {
            if let Some(reading) = &mut self.reading {
                match reading.next() {
                    Some(found) => {
                        let found = found.map_err(|error| FileError::Parquet(error.into()))?;
                        let rows = self.arranged(&found)?;
                        self.rows += rows.num_rows() as u64;
                        return Ok(Some(rows));
                    }
                    None => self.reading = None,
                }
            }
            if self.next_group == self.metadata.metadata().num_row_groups() {
                return Ok(None);
            }
            self.reading = Some(self.group(self.next_group)?);
            self.next_group += 1;
        }
    }

    /// Begins a row group, in batches of as many rows as are not too large together.
    fn group(&self, group: usize) -> Result<ParquetRecordBatchReader, FileError> {
        let about = self.metadata.metadata().row_group(group);
        let bytes = usize::try_from(about.total_byte_size()).unwrap_or(usize::MAX);
        let row_bytes = bytes / usize::try_from(about.num_rows()).unwrap_or(1).max(1);
        let rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS);
        let file = self.file.try_clone().map_err(FileError::Disk)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let fields = self.metadata.schema().fields();
        let read = fields.iter().enumerate().filter(|(_, field)| !self.replaces(field.name())).map(|(at, _)| at);
        let mask = ProjectionMask::roots(builder.parquet_schema(), read);
        let builder = builder.with_row_groups(vec![group]).with_projection(mask).with_batch_size(rows);
        builder.build().map_err(FileError::Parquet)
    }

    fn replaces(&self, column: &str) -> bool {
        column == "workspace_id" && self.workspace.is_some()
    }

    /// The rows with the table's columns, or the first of them that cannot be taken.
    fn arranged(&self, found: &RecordBatch) -> Result<RecordBatch, FileError> {
        let refuse = |row: usize, column: &str, reason| {
            let bad = BadRow { row: self.rows + row as u64 + 1, column: Some(column.to_owned()), reason };
            FileError::Row { unit: Format::Parquet.unit(), bad }
        };
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut first: Option<(&Column, Refused)> = None;
        for column in &self.columns {
            let converted = match (found.column_by_name(column.name), &self.workspace) {
                (_, Some(workspace)) if column.name == "workspace_id" => Ok(repeated(workspace, found.num_rows())),
                (Some(array), _) => convert(column, array),
                (None, _) => Ok(nothing(&column.ty, found.num_rows())),
            };
            match converted {
                Ok(array) => arrays.push(array),
                Err(refused) if first.as_ref().is_none_or(|(_, first)| refused.row < first.row) => {
                    first = Some((column, refused));
                }
                Err(_) => {}
            }
        }
        if let Some((column, Refused { row, reason })) = first {
            // An earlier row may be wrong in another way.
            self.arranged(&found.slice(0, row))?;
            return Err(refuse(row, column.name, reason));
        }
        let rows = RecordBatch::try_new(raw(self.family).schema(), arrays)
            .map_err(|error| FileError::Parquet(error.into()))?;
        match transfer::first_refused(self.family, &rows) {
            Some((row, column, reason)) => Err(refuse(row, column, reason)),
            None => Ok(rows),
        }
    }
}

/// Refuses columns that the table does not have, or whose type cannot hold its values, and columns that are not there.
fn check_columns(
    table: Table,
    columns: &[Column],
    replaced: bool,
    metadata: &ArrowReaderMetadata,
) -> Result<(), FileError> {
    let refuse = |name: &str, why: &str| Err(FileError::Columns(format!("column {name}: {why}")));
    let fields = metadata.schema().fields();
    for (at, field) in fields.iter().enumerate() {
        let Some(column) = columns.iter().find(|column| column.name == field.name()) else {
            return refuse(field.name(), &stranger(table));
        };
        if fields[..at].iter().any(|before| before.name() == field.name()) {
            return refuse(field.name(), "stands twice in this file");
        }
        let is_replaced = replaced && column.name == "workspace_id";
        if !is_replaced && let Err(why) = fits(column, field.data_type()) {
            return refuse(column.name, &why);
        }
    }
    for column in columns.iter().filter(|column| when_absent(column) == Absent::Refused) {
        let is_replaced = replaced && column.name == "workspace_id";
        if !is_replaced && metadata.schema().field_with_name(column.name).is_err() {
            return refuse(column.name, missing(column.name));
        }
    }
    Ok(())
}

fn repeated(text: &str, rows: usize) -> ArrayRef {
    let mut texts = StringViewBuilder::new().with_deduplicate_strings();
    (0..rows).for_each(|_| texts.append_value(text));
    Arc::new(texts.finish())
}

/// What stands for the absence of values of this type.
fn nothing(ty: &Type, rows: usize) -> ArrayRef {
    match ty {
        Type::Array(element) => {
            let none = new_empty_array(&element.arrow());
            let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(0, rows));
            Arc::new(ListArray::new(Arc::new(element.field("item")), offsets, none, None))
        }
        Type::Int64 => Arc::new(Int64Array::from(vec![0; rows])),
        Type::Bool => Arc::new(BooleanArray::from(vec![false; rows])),
        _ => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n("", rows))),
    }
}
