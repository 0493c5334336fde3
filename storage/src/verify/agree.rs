//! Does what the log still has agree with the records?
//!
//! Of every row that a record in the log names, the last such record must say what the store holds. The log is read twice: once
//! for a mark of the last thing said of each row, once more for the keys of these rows.

use std::collections::HashMap;
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{Finding, Progress, RESTORE, chain};
use crate::disk::Disk;
use crate::error::ReadError;
use crate::log::{Log, LogError, Reader};
use crate::position::Position;
use crate::records::{Effect, TableNo, decode_record};
use crate::store::{FILE, Read, Snapshot};

/// Rows that are compared; what is more is left out. Each takes some 50 bytes of memory.
const ROWS_MAX: usize = 8 << 20;
/// Rows that are told of one by one.
const TOLD_MAX: u64 = 20;

/// Compares them. How many records the log has, and how many rows were compared.
pub fn check(
    disk: &Arc<dyn Disk>,
    log_dir: &Path,
    log: &Log,
    snapshot: &Snapshot,
    store_id: [u8; 16],
    progress: &mut Progress<'_>,
) -> Result<(u64, u64), ReadError> {
    let before = Position(log.first_kept().0 - 1);
    let mut last: HashMap<u128, u64> = HashMap::new();
    let mut records = 0;
    let noted = each(disk, log_dir, log, store_id, before, &mut |effect, is_new_record| {
        if is_new_record {
            records += 1;
            progress.step(1);
        }
        if let Some(effect) = effect {
            let mark = mark(effect.table, &effect.key);
            if last.len() < ROWS_MAX || last.contains_key(&mark) {
                last.insert(mark, said(effect.value.as_deref()));
            }
        }
        Ok(())
    });
    if let Err(told) = noted {
        match told {
            Told::Read(error) => return Err(error),
            Told::Log(what) => progress.tell.found(Finding::damage("log", what, RESTORE)),
        }
        return Ok((records, 0));
    }
    let (mut compared, mut wrong) = (0, 0);
    let read = each(disk, log_dir, log, store_id, before, &mut |effect, is_new_record| {
        if is_new_record {
            progress.step(1);
        }
        let Some(effect) = effect else { return Ok(()) };
        let Some(expected) = last.remove(&mark(effect.table, &effect.key)) else { return Ok(()) };
        compared += 1;
        if said(snapshot.bytes(effect.table, &effect.key)?.as_deref()) != expected {
            wrong += 1;
            if wrong <= TOLD_MAX {
                let what = format!("a row of table {} is not what the log last made of it", effect.table);
                progress.tell.found(Finding::damage(FILE, what, super::REBUILD));
            }
        }
        Ok(())
    });
    match read {
        Err(Told::Read(error)) => return Err(error),
        Err(Told::Log(what)) => progress.tell.found(Finding::damage("log", what, RESTORE)),
        Ok(()) if wrong > TOLD_MAX => {
            let what = format!("{} more rows are not what the log last made of them", wrong - TOLD_MAX);
            progress.tell.found(Finding::damage(FILE, what, super::REBUILD));
        }
        Ok(()) => {}
    }
    Ok((records, compared))
}

/// Why reading ended.
enum Told {
    Read(ReadError),
    Log(String),
}

impl From<ReadError> for Told {
    fn from(error: ReadError) -> Told {
        Told::Read(error)
    }
}

impl From<LogError> for Told {
    fn from(error: LogError) -> Told {
        Told::Log(chain(&error))
    }
}

/// Calls `take` for each record, without an effect, and for each effect of it.
fn each(
    disk: &Arc<dyn Disk>,
    log_dir: &Path,
    log: &Log,
    store_id: [u8; 16],
    after: Position,
    take: &mut dyn FnMut(Option<Effect>, bool) -> Result<(), ReadError>,
) -> Result<(), Told> {
    if log.last() == after {
        return Ok(());
    }
    let mut reader = Reader::open(Arc::clone(disk), log_dir, store_id, after)?;
    while let Some(frame) = reader.next(log.last())? {
        for (position, record) in frame.records().skip_while(|(position, _)| *position <= after) {
            take(None, true)?;
            let effects = decode_record(record).map_err(|error| Told::Log(format!("record {position}: {error}")))?;
            for effect in effects {
                take(Some(effect), false)?;
            }
        }
    }
    Ok(())
}

fn mark(table: TableNo, key: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write(&table.to_le_bytes());
    hasher.write(key);
    hasher.finish128().as_u128()
}

/// A value, or that there is none.
fn said(value: Option<&[u8]>) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&[u8::from(value.is_some())]);
    hasher.write(value.unwrap_or_default());
    hasher.finish128().h1
}
