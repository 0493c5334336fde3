//! Parcels: rows on their way from the store that recorded them to the one that keeps them.
//!
//! ```text
//! parcel: "KWEVP001" | u32 source | u8 n, n times piece | u32 CRC-32 of all before
//! piece:  u8 family | u64 first batch | u64 last batch | u32 m, m times frame
//! frame:  u32 length | bytes; the frames of a piece are one Arrow IPC stream of the raw table, without its end
//! ```
//!
//! A piece holds all rows of its family that the source recorded in the batches from the first to the last.

use std::io;

use datafusion::arrow::compute::concat_batches;

use super::files::frames::{Decoder, Encoder, FRAME_BYTES_MAX};
use super::journal::Journaled;
use super::relay::{Piece, Untaken};
use super::tables::{Family, Level, Table};
use super::transfer;

const MAGIC: &[u8; 8] = b"KWEVP001";
/// Bytes of a parcel that is looked at.
pub const PARCEL_BYTES_MAX: usize = 128 << 20;
/// Rows of a piece: far above what a sender puts into one.
const ROWS_MAX: usize = 1 << 20;
const SUM_BYTES: usize = 4;

/// Rows to be delivered.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Whose they are.
    pub source: u32,
    /// The last batch that is delivered with it.
    pub(crate) until: u64,
    /// What goes over the wire.
    pub bytes: Vec<u8>,
}

/// Packs batches of a source, in the order of their numbers. With them everything up to `until` is delivered.
pub(crate) fn pack(source: u32, until: u64, batches: &[Journaled]) -> io::Result<Parcel> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&source.to_le_bytes());
    let of = |family: Family| batches.iter().filter(move |batch| batch.family == family);
    let families: Vec<Family> = Family::ALL.into_iter().filter(|family| of(*family).next().is_some()).collect();
    bytes.push(u8::try_from(families.len()).map_err(io::Error::other)?);
    for family in families {
        let numbers = || of(family).map(|batch| batch.number);
        bytes.push(family as u8);
        bytes.extend_from_slice(&numbers().min().unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&numbers().max().unwrap_or(0).to_le_bytes());
        let schema = Table { family, level: Level::Raw }.schema();
        let rows = concat_batches(&schema, of(family).map(|batch| &batch.rows)).map_err(io::Error::other)?;
        let mut frames: Vec<Vec<u8>> = Vec::new();
        Encoder::new(family)?.encode(&rows, &mut |frame| {
            frames.push(frame.to_vec());
            Ok(())
        })?;
        bytes.extend_from_slice(&u32::try_from(frames.len()).map_err(io::Error::other)?.to_le_bytes());
        for frame in frames {
            bytes.extend_from_slice(&u32::try_from(frame.len()).map_err(io::Error::other)?.to_le_bytes());
            bytes.extend_from_slice(&frame);
        }
    }
    let sum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(Parcel { source, until, bytes })
}

fn malformed(what: impl ToString) -> Untaken {
    Untaken::Malformed(what.to_string())
}

/// The source and the pieces of a parcel, each with rows that a store can hold.
pub(crate) fn unpack(bytes: &[u8]) -> Result<(u32, Vec<Piece>), Untaken> {
    if bytes.len() > PARCEL_BYTES_MAX {
        return Err(malformed("it is too large"));
    }
    let end = bytes.len().checked_sub(SUM_BYTES).ok_or_else(|| malformed("it is too short"))?;
    let (body, sum) = bytes.split_at(end);
    if crc32fast::hash(body).to_le_bytes() != sum {
        return Err(malformed("its checksum is wrong"));
    }
    let mut rest = Rest(body);
    if rest.take(MAGIC.len())? != MAGIC {
        return Err(malformed("another version made it"));
    }
    let source = rest.u32()?;
    if source < 2 || source % 2 == 1 {
        return Err(malformed("it has the name of no store"));
    }
    let count = rest.take(1)?[0];
    let mut pieces = Vec::new();
    for _ in 0..count {
        let family = *Family::ALL.get(usize::from(rest.take(1)?[0])).ok_or_else(|| malformed("an unknown table"))?;
        if pieces.iter().any(|other: &Piece| other.family == family) {
            return Err(malformed("a table twice"));
        }
        let (first, last) = (rest.u64()?, rest.u64()?);
        if first == 0 || first > last {
            return Err(malformed("numbers of batches that are none"));
        }
        let mut decoder = Decoder::new(family);
        let mut batches = Vec::new();
        let mut rows = 0;
        for _ in 0..rest.u32()? {
            let length = rest.u32()? as usize;
            if length > FRAME_BYTES_MAX {
                return Err(malformed("a frame that is too large"));
            }
            let batch = decoder.decode(rest.take(length)?.to_vec()).map_err(malformed)?;
            rows += batch.num_rows();
            if rows > ROWS_MAX {
                return Err(malformed("too many rows"));
            }
            batches.push(batch);
        }
        let schema = Table { family, level: Level::Raw }.schema();
        let rows = concat_batches(&schema, &batches).map_err(malformed)?;
        if rows.num_rows() == 0 {
            return Err(malformed("a piece without rows"));
        }
        if let Some((row, column, reason)) = transfer::first_refused(family, &rows) {
            return Err(malformed(format!("row {}, column {column}: {reason}", row + 1)));
        }
        pieces.push(Piece { source, family, first, last, rows });
    }
    if !rest.0.is_empty() {
        return Err(malformed("bytes behind its end"));
    }
    Ok((source, pieces))
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Untaken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| malformed("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Untaken> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, Untaken> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::columns::Columns;
    use crate::events::testing::{identified, ratelimit, verification};

    /// What is unpacked is what was packed, and whatever becomes of the bytes on the way is noticed.
    #[test]
    fn a_parcel_comes_out_as_it_went_in_or_not_at_all() {
        let mut columns = Columns::new("here");
        let mut batches = Vec::new();
        for number in 1..=5 {
            columns.push(verification(number).into());
            columns.push(identified(number, &["a tag", "another"]).into());
            columns.push(ratelimit(number).into());
            let family = Family::ALL[usize::try_from(number % 2).unwrap()];
            batches.push(Journaled { number, family, rows: columns.take(family).unwrap(), from: None });
            columns.take(Family::ALL[usize::try_from((number + 1) % 2).unwrap()]);
        }
        let parcel = pack(6, 5, &batches).unwrap();
        let (source, pieces) = unpack(&parcel.bytes).unwrap();
        assert_eq!((source, pieces.len()), (6, 2));
        for piece in &pieces {
            let of: Vec<&Journaled> = batches.iter().filter(|batch| batch.family == piece.family).collect();
            assert_eq!((piece.first, piece.last), (of[0].number, of[of.len() - 1].number));
            let rows: Vec<_> = of.iter().map(|batch| batch.rows.clone()).collect();
            assert_eq!(piece.rows, concat_batches(&rows[0].schema(), &rows).unwrap());
        }
        for at in (0..parcel.bytes.len()).step_by(61) {
            let mut flipped = parcel.bytes.clone();
            flipped[at] ^= 4;
            assert!(unpack(&flipped).is_err() && unpack(&parcel.bytes[..at]).is_err(), "at {at}");
        }
        let (_, none) = unpack(&pack(6, 5, &[]).unwrap().bytes).unwrap();
        assert!(none.is_empty(), "a parcel may hold nothing");
    }

    /// The first bytes of a parcel, for ever.
    #[test]
    fn the_layout_is_frozen() {
        let parcel = pack(0x0a, 5, &[]).unwrap();
        let hex: String = parcel.bytes[..13].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4b57455650303031".to_owned() + "0a000000" + "00");
        assert_eq!(parcel.bytes.len(), 13 + SUM_BYTES);
    }
}
