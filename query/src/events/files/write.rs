//! Batches to a file.

use std::io::{self, Write};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use super::super::tables::Family;
use super::{Format, raw};

/// Rows of a row group.
const GROUP_ROWS: usize = 262_144;
/// Bytes of a row group that are held before they are written, about.
const GROUP_BYTES: usize = 64 << 20;
const ZSTD_LEVEL: i32 = 3;

/// Writes raw rows to a file.
pub struct RowWriter<W: Write + Send>(Kind<W>);

enum Kind<W: Write + Send> {
    Ndjson(LineDelimitedWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> RowWriter<W> {
    /// Begins a file; small pieces are written, so give it a buffered one.
    ///
    /// # Errors
    /// The disk.
    pub fn new(format: Format, family: Family, out: W) -> io::Result<RowWriter<W>> {
        Ok(RowWriter(match format {
            Format::Ndjson => Kind::Ndjson(LineDelimitedWriter::new(out)),
            Format::Parquet => {
                let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("zstd has that level");
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .set_created_by(concat!("keyward ", env!("CARGO_PKG_VERSION")).to_owned());
                // Parquet's own types say everything here; Arrow's would only ask readers for its string views.
                let options =
                    ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
                let writer = ArrowWriter::try_new_with_options(out, raw(family).schema(), options);
                Kind::Parquet(Box::new(writer.map_err(io_error)?))
            }
        }))
    }

    /// Adds rows with the raw table's columns.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&mut self, rows: &RecordBatch) -> io::Result<()> {
        match &mut self.0 {
            Kind::Ndjson(writer) => writer.write(rows).map_err(|error| io_error(error.into())),
            Kind::Parquet(writer) => {
                writer.write(rows).map_err(io_error)?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush().map_err(io_error)?;
                }
                Ok(())
            }
        }
    }

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        match &self.0 {
            Kind::Ndjson(writer) => writer.get_ref(),
            Kind::Parquet(writer) => writer.inner(),
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Ndjson(mut writer) => {
                writer.finish().map_err(|error| io_error(error.into()))?;
                Ok(writer.into_inner())
            }
            Kind::Parquet(writer) => writer.into_inner().map_err(io_error),
        }
    }
}

/// The disk's own error where it was the disk, for what it says of itself is clearer.
fn io_error(error: datafusion::parquet::errors::ParquetError) -> io::Error {
    use datafusion::arrow::error::ArrowError;
    use datafusion::parquet::errors::ParquetError;
    let cause = match error {
        ParquetError::External(cause) => cause,
        other => return io::Error::other(other),
    };
    let cause = match cause.downcast::<io::Error>() {
        Ok(error) => return *error,
        Err(cause) => cause,
    };
    match cause.downcast::<ArrowError>() {
        Ok(error) => match *error {
            ArrowError::IoError(_, error) => error,
            other => io::Error::other(other),
        },
        Err(cause) => io::Error::other(cause),
    }
}
