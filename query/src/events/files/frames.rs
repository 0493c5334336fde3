//! Batches on their way between a command and the server: one Arrow IPC stream, cut into frames of bounded size.

use std::io;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;
use std::sync::Arc;

use super::super::tables::Family;
use super::raw;

/// Bytes of a frame.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes of rows that one frame is made of; the rest of a frame is for what IPC says about them.
const ROWS_BYTES: usize = FRAME_BYTES_MAX / 2;
/// Bytes of a view of a text, and of any number.
const VIEW_BYTES: usize = 16;
const NUMBER_BYTES: usize = 8;

/// Cuts batches into frames.
pub struct Encoder {
    stream: StreamWriter<Vec<u8>>,
}

impl Encoder {
    /// For rows of a raw table.
    ///
    /// # Errors
    /// None that are known: memory is written to.
    pub fn new(family: Family) -> io::Result<Encoder> {
        let stream = StreamWriter::try_new(Vec::new(), &raw(family).schema()).map_err(io::Error::other)?;
        Ok(Encoder { stream })
    }

    /// Hands out a batch as one frame, or as several where it is large.
    ///
    /// # Errors
    /// What `send` says; a row that alone is larger than a frame.
    pub fn encode(&mut self, rows: &RecordBatch, send: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        if rows.num_rows() > 1 && bytes(rows) > ROWS_BYTES {
            let half = rows.num_rows() / 2;
            self.encode(&rows.slice(0, half), send)?;
            return self.encode(&rows.slice(half, rows.num_rows() - half), send);
        }
        let columns = rows.columns().iter().map(compact).collect();
        let rows = RecordBatch::try_new(rows.schema(), columns).map_err(io::Error::other)?;
        self.stream.write(&rows).map_err(io::Error::other)?;
        let frame = self.stream.get_mut();
        if frame.len() > FRAME_BYTES_MAX {
            let reason = format!("a row takes {} bytes, and at most {FRAME_BYTES_MAX} can be sent", frame.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        send(frame)?;
        frame.clear();
        Ok(())
    }
}

/// Puts batches together again.
pub struct Decoder {
    stream: StreamDecoder,
    family: Family,
}

impl Decoder {
    /// For rows of a raw table.
    pub fn new(family: Family) -> Decoder {
        Decoder { stream: StreamDecoder::new(), family }
    }

    /// The batch of a frame.
    ///
    /// # Errors
    /// `InvalidData` for bytes that are no frame of this table's rows.
    pub fn decode(&mut self, frame: Vec<u8>) -> io::Result<RecordBatch> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let mut frame = Buffer::from_vec(frame);
        let mut rows = None;
        while !frame.is_empty() {
            let decoded = self.stream.decode(&mut frame).map_err(|error| invalid(error.to_string()))?;
            rows = rows.or(decoded);
        }
        let rows = rows.ok_or_else(|| invalid("a frame without rows".to_owned()))?;
        match rows.schema().fields() == raw(self.family).schema().fields() {
            true => Ok(rows),
            false => Err(invalid(format!("a frame of other rows than {}'s", raw(self.family).name()))),
        }
    }
}

/// Bytes that rows take when each text is counted where it stands.
pub(crate) fn bytes(rows: &RecordBatch) -> usize {
    let column = |array: &ArrayRef| match array.data_type() {
        DataType::Utf8View => texts_bytes(array),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            lists.len() * NUMBER_BYTES + texts_bytes(&elements(lists))
        }
        _ => array.len() * NUMBER_BYTES,
    };
    rows.columns().iter().map(column).sum()
}

fn texts_bytes(array: &ArrayRef) -> usize {
    let texts = array.as_string_view_opt().map_or(0, |texts| texts.total_buffer_bytes_used());
    array.len() * VIEW_BYTES + texts
}

/// What stands in the lists, no more: slices share the values of the whole.
fn elements(lists: &ListArray) -> ArrayRef {
    let offsets = lists.offsets();
    let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
    lists.values().slice(first, last - first)
}

/// The same values without what other rows hold: texts of a slice share the buffers of the whole.
fn compact(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => match array.as_string_view_opt() {
            Some(texts) if texts.total_buffer_bytes_used() < buffer_bytes(array) => Arc::new(texts.gc()),
            _ => Arc::clone(array),
        },
        DataType::List(field) => {
            let lists = array.as_list::<i32>();
            let offsets =
                OffsetBuffer::from_lengths(lists.offsets().windows(2).map(|pair| (pair[1] - pair[0]) as usize));
            let elements = compact(&elements(lists));
            Arc::new(ListArray::new(Arc::clone(field), offsets, elements, lists.nulls().cloned()))
        }
        _ => Arc::clone(array),
    }
}

fn buffer_bytes(array: &ArrayRef) -> usize {
    array.as_string_view_opt().map_or(0, |texts| texts.data_buffers().iter().map(Buffer::len).sum())
}
