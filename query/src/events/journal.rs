//! The journal: what a crash leaves of events that are not in Parquet yet.
//!
//! A segment holds one Arrow IPC stream per family, cut into frames: a frame is what one flush wrote of one family (the
//! first one with the stream's schema before the batch), with a checksum, the family, and the batch's source and number.
//!
//! ```text
//! segment:  "KWEVJ001" frame*
//! frame:    u32 payload length | u32 CRC-32 of the rest | u8 kind | u32 source | u64 batch | payload
//! ```
//!
//! Of this server's own batches the kind is their family, 0 or 1. Rows that another store handed over have kind 2 or 3, the
//! family and 2; source and batch say up to where that store's rows are here, and this server's own number of the batch
//! stands behind the stream's bytes, 8 bytes of the payload. So a batch and its watermark are one frame: both or neither.
//!
//! Integers are little-endian. A segment is written by one run of the program and never again: the next run begins a new
//! one, and so does this run after a write that failed, because what stands behind the failure is unknown. Reading stops
//! at the first frame that is not whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc::reader::StreamDecoder;
use datafusion::arrow::ipc::writer::StreamWriter;
use keyward_storage::disk::{Disk, DiskFile};

use super::tables::{Family, Level, Table};

pub(crate) const MAGIC: &[u8; 8] = b"KWEVJ001";
const HEADER_BYTES: usize = 4 + 4 + 1 + 4 + 8;
/// Largest payload that is believed; a flush is far smaller.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;
const SUFFIX: &str = ".journal";

/// Names a batch of events for ever: who recorded it, and its number there, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId {
    /// 0 = this server's own requests.
    pub source: u32,
    pub number: u64,
}

/// The source of events recorded here.
pub(crate) const OWN: u32 = 0;

/// A segment that is being written.
pub(crate) struct Segment {
    pub no: u64,
    file: Arc<dyn DiskFile>,
    length: u64,
    frames: Frames,
}

/// The frames of one segment, in memory: they go on from each other, so each must be written, in its order.
#[derive(Default)]
pub(crate) struct Frames {
    streams: [Option<StreamWriter<Vec<u8>>>; 2],
}

/// A batch out of a segment.
pub(crate) struct Journaled {
    /// Its number here.
    pub number: u64,
    pub family: Family,
    pub rows: RecordBatch,
    /// Where it comes from, where that is another store: up to this batch that store's rows of the family are here.
    pub from: Option<BatchId>,
}

/// What a segment holds, and whether all of it could be read.
pub(crate) struct Contents {
    pub batches: Vec<Journaled>,
    pub bytes: u64,
    /// Where reading ended.
    pub end: u64,
    pub whole: bool,
}

pub(crate) fn path(dir: &Path, no: u64) -> PathBuf {
    dir.join(format!("{no:016x}{SUFFIX}"))
}

/// Payloads that are looked for behind a gap, and the bytes that are summed up for it.
const SOUGHT_BYTES_MAX: usize = 1 << 20;
const SUMMED_BYTES_MAX: usize = 256 << 20;

/// Whether a whole frame stands behind the place where a segment stops being readable: then what is missing was whole once. A
/// write that did not finish is the last one of its segment. Gives up, saying no, where that would take too long.
pub(crate) fn goes_on_behind(disk: &dyn Disk, dir: &Path, no: u64, gap: u64) -> io::Result<bool> {
    let file = disk.open(&path(dir, no), false)?;
    let length = usize::try_from(file.len()?.saturating_sub(gap)).unwrap_or(usize::MAX).min(SUMMED_BYTES_MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(gap, &mut bytes)?;
    let mut summed = 0;
    for at in 1..length.saturating_sub(HEADER_BYTES) {
        let (header, rest) = bytes[at..].split_at(HEADER_BYTES);
        let payload = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        if header[8] >= 2 * FOREIGN || payload == 0 || payload > rest.len().min(SOUGHT_BYTES_MAX) {
            continue;
        }
        summed += payload;
        if summed > SUMMED_BYTES_MAX {
            return Ok(false);
        }
        let mut seen = crc32fast::Hasher::new();
        seen.update(&header[8..]);
        seen.update(&rest[..payload]);
        if seen.finalize() == u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The numbers of the segments in a directory, in order.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> =
        disk.list(dir)?.iter().filter_map(|name| u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()).collect();
    found.sort_unstable();
    Ok(found)
}

fn index(family: Family) -> usize {
    match family {
        Family::Verifications => 0,
        Family::Ratelimits => 1,
    }
}

/// What is added to a family's number where the rows are another store's.
const FOREIGN: u8 = 2;
/// Bytes of this server's own number behind another store's rows.
const NUMBER_BYTES: usize = 8;

fn arrow(error: datafusion::arrow::error::ArrowError) -> io::Error {
    io::Error::other(error)
}

impl Segment {
    pub fn begin(disk: &dyn Disk, dir: &Path, no: u64) -> io::Result<Segment> {
        let file = disk.open(&path(dir, no), true)?;
        file.set_len(0)?;
        file.write_all_at(0, MAGIC)?;
        disk.sync_dir(dir)?;
        Ok(Segment { no, file, length: MAGIC.len() as u64, frames: Frames::default() })
    }

    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// The file, for whoever syncs it.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Writes a batch under its number here, and where it comes from. After an error the segment takes no more.
    pub fn append(&mut self, number: u64, family: Family, rows: &RecordBatch, from: Option<BatchId>) -> io::Result<()> {
        let frame = self.frames.next(number, family, rows, from)?;
        self.file.write_all_at(self.length, frame)?;
        self.length += frame.len() as u64;
        Ok(())
    }
}

impl Frames {
    /// The frame of a batch: its number here, and where it comes from. After an error there is none any more.
    pub fn next(
        &mut self,
        number: u64,
        family: Family,
        rows: &RecordBatch,
        from: Option<BatchId>,
    ) -> io::Result<&[u8]> {
        let stream = &mut self.streams[index(family)];
        let stream = match stream {
            Some(stream) => {
                // The frame before is written. (A new stream begins with its schema.)
                stream.get_mut().truncate(HEADER_BYTES);
                stream
            }
            None => stream.insert(StreamWriter::try_new(vec![0; HEADER_BYTES], &rows.schema()).map_err(arrow)?),
        };
        stream.write(rows).map_err(arrow)?;
        // The stream wrote behind room for a header: a frame is not copied together.
        let frame = stream.get_mut();
        let mut kind = u8::try_from(index(family)).expect("two families");
        if from.is_some() {
            kind += FOREIGN;
            frame.extend_from_slice(&number.to_le_bytes());
        }
        let id = from.unwrap_or(BatchId { source: OWN, number });
        let length = u32::try_from(frame.len() - HEADER_BYTES).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[8] = kind;
        frame[9..13].copy_from_slice(&id.source.to_le_bytes());
        frame[13..HEADER_BYTES].copy_from_slice(&id.number.to_le_bytes());
        let sum = crc32fast::hash(&frame[8..]);
        frame[4..8].copy_from_slice(&sum.to_le_bytes());
        Ok(frame)
    }
}

/// Reads a segment frame by frame. At its end it may be asked again: the segment may have grown.
pub(crate) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    /// Up to here it was read.
    at: u64,
    streams: [StreamDecoder; 2],
}

impl SegmentReader {
    pub fn open(disk: &dyn Disk, dir: &Path, no: u64) -> io::Result<SegmentReader> {
        let file = disk.open(&path(dir, no), false)?;
        Ok(SegmentReader { file, at: 0, streams: [StreamDecoder::new(), StreamDecoder::new()] })
    }

    /// How many bytes the segment has, and whether all of them are read.
    pub fn extent(&self) -> io::Result<(u64, bool)> {
        let bytes = self.file.len()?;
        Ok((bytes, bytes == self.at))
    }

    /// The next batch; `None` where no whole frame follows.
    pub fn next(&mut self) -> io::Result<Option<Journaled>> {
        let bytes = self.file.len()?;
        if self.at == 0 {
            let mut magic = [0; MAGIC.len()];
            if bytes < magic.len() as u64 {
                return Ok(None);
            }
            self.file.read_exact_at(0, &mut magic)?;
            if magic != *MAGIC {
                return Ok(None);
            }
            self.at = magic.len() as u64;
        }
        if self.at + HEADER_BYTES as u64 > bytes {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(self.at, &mut header)?;
        let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let sum = u32::from_le_bytes(header[4..8].try_into().expect("four bytes"));
        let end = self.at + (HEADER_BYTES + length) as u64;
        let (kind, is_foreign) = (header[8] % FOREIGN, header[8] >= FOREIGN);
        if length > PAYLOAD_BYTES_MAX || end > bytes || header[8] >= 2 * FOREIGN {
            return Ok(None);
        }
        let mut payload = vec![0; length];
        self.file.read_exact_at(self.at + HEADER_BYTES as u64, &mut payload)?;
        let mut seen = crc32fast::Hasher::new();
        seen.update(&header[8..]);
        seen.update(&payload);
        if seen.finalize() != sum {
            return Ok(None);
        }
        let id = BatchId {
            source: u32::from_le_bytes(header[9..13].try_into().expect("four bytes")),
            number: u64::from_le_bytes(header[13..21].try_into().expect("eight bytes")),
        };
        let (number, from) = if is_foreign {
            let Some(at) = length.checked_sub(NUMBER_BYTES) else { return Ok(None) };
            let number = u64::from_le_bytes(payload[at..].try_into().expect("eight bytes"));
            payload.truncate(at);
            (number, Some(id))
        } else {
            (id.number, None)
        };
        let family = Family::ALL[usize::from(kind)];
        let mut payload = Buffer::from_vec(payload);
        let mut rows = None;
        while !payload.is_empty() {
            match self.streams[usize::from(kind)].decode(&mut payload) {
                Ok(Some(batch)) => rows = Some(batch),
                Ok(None) => {}
                // Its checksum is right and its content is not: written by another version, or not by us.
                Err(_) => return Ok(None),
            }
        }
        let schema = Table { family, level: Level::Raw }.schema();
        let Some(rows) = rows.filter(|rows| rows.schema().fields() == schema.fields()) else { return Ok(None) };
        self.at = end;
        Ok(Some(Journaled { number, family, rows, from }))
    }
}

/// Reads a segment up to its end or its first frame that is not whole.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, no: u64) -> io::Result<Contents> {
    let mut reader = SegmentReader::open(disk, dir, no)?;
    let mut batches = Vec::new();
    while let Some(batch) = reader.next()? {
        batches.push(batch);
    }
    let (bytes, whole) = reader.extent()?;
    Ok(Contents { batches, bytes, end: reader.at, whole })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::columns::Columns;
    use crate::events::testing::{identified, ratelimit, verification};
    use keyward_storage::disk::MemoryDisk;

    /// What is read of a segment is what was written up to the first bad byte, whichever byte that is: whole batches, in
    /// order, never a torn one.
    #[test]
    fn a_damaged_segment_gives_whole_batches_up_to_the_damage() {
        let disk = MemoryDisk::new();
        let dir = Path::new("/journal");
        disk.create_dir_all(dir).unwrap();
        let mut segment = Segment::begin(&disk, dir, 7).unwrap();
        let mut written = Vec::new();
        let mut ends = vec![MAGIC.len() as u64];
        for number in 1..=4 {
            let mut columns = Columns::new("r");
            columns.push(verification(number).into());
            columns.push(identified(number, &["x"]).into());
            columns.push(ratelimit(number).into());
            let family = Family::ALL[usize::try_from(number % 2).unwrap()];
            let rows = columns.take(family).unwrap();
            let from = (number > 2).then_some(BatchId { source: 6, number: number * 10 });
            segment.append(number, family, &rows, from).unwrap();
            written.push((number, family, rows, from));
            ends.push(segment.bytes());
        }
        assert_eq!(list(&disk, dir).unwrap(), [7]);
        let image = disk.contents(&path(dir, 7)).unwrap();
        let read_back = |image: &[u8]| {
            let disk = MemoryDisk::new();
            disk.plant(&path(dir, 7), image);
            read(&disk, dir, 7).unwrap()
        };
        let check = |contents: &Contents, expected: usize| {
            assert_eq!(contents.batches.len(), expected);
            for (batch, (number, family, rows, from)) in contents.batches.iter().zip(&written) {
                assert_eq!((batch.number, batch.family, &batch.rows, batch.from), (*number, *family, rows, *from));
            }
        };
        let whole = read_back(&image);
        check(&whole, 4);
        assert!(whole.whole);
        for cut in (0..image.len()).step_by(97) {
            let expected = ends[1..].iter().filter(|end| **end <= cut as u64).count();
            let contents = read_back(&image[..cut]);
            check(&contents, expected);
            let mut flipped = image.clone();
            flipped[cut] ^= 0x10;
            check(&read_back(&flipped), expected);
        }
    }
}
