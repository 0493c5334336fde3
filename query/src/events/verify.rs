//! Whether the events on a disk are whole: the manifest, the files it names, the journal. Nothing is changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_storage::disk::Disk;
use keyward_storage::verify::{Finding, Observer};

use super::journal;
use super::manifest::{NAME, PartInfo, State};
use super::parts::{self, Part, Parts};
use super::rollup::time_bounds;
use super::store::{JOURNAL_DIR, refuse_lost_manifest};

const RESTORE: &str = "restore a backup, or start without these events: see the chapter on damage in operate.md";

/// What was read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Files of events.
    pub parts: u64,
    /// Rows in them, roll-ups included.
    pub rows: u64,
    /// Rows in the journal.
    pub journaled: u64,
}

/// Reads all events of a directory, `name` being what it is called in the data directory. What is wrong goes to `tell`. Blocks.
pub fn verify(disk: &Arc<dyn Disk>, dir: &Path, name: &str, tell: &mut dyn Observer) -> Verified {
    let mut verified = Verified::default();
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return verified,
        Err(error) => {
            tell.found(Finding::damage(name, format!("it cannot be read: {error}"), "look at the disk"));
            return verified;
        }
        Ok(_) => {}
    }
    if let Err((file, what)) = parts_and_manifest(disk, dir, name, &mut verified, tell) {
        tell.found(Finding::damage(file, what, RESTORE));
    }
    let journal_dir = dir.join(JOURNAL_DIR);
    match journal::list(&**disk, &journal_dir) {
        Ok(segments) => {
            let newest = segments.last().copied();
            for segment in segments {
                let file = format!("{name}/{JOURNAL_DIR}/{segment:016x}.journal");
                verified.journaled += read_segment(disk, &journal_dir, segment, newest, file, tell);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let file = format!("{name}/{JOURNAL_DIR}");
            tell.found(Finding::damage(file, format!("it cannot be read: {error}"), "look at the disk"));
        }
    }
    verified
}

fn parts_and_manifest(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    name: &str,
    verified: &mut Verified,
    tell: &mut dyn Observer,
) -> Result<(), (String, String)> {
    let manifest = || format!("{name}/{NAME}");
    let on_disk = parts::walk(&**disk, dir).map_err(|error| (name.to_owned(), error.to_string()))?;
    refuse_lost_manifest(&**disk, dir, &on_disk).map_err(|error| (manifest(), error.to_string()))?;
    let state = State::of(&**disk, dir).map_err(|error| (manifest(), error.to_string()))?.unwrap_or_default();
    let there: BTreeMap<u64, PathBuf> = on_disk.into_iter().collect();
    let all: u64 = state.parts.values().map(|part| part.rows).sum();
    let reader = Parts::new(Arc::clone(disk));
    for (no, info) in &state.parts {
        let part = Part::new(dir, *info);
        let file = shown(dir, name, &part.path);
        match there.get(no) {
            Some(path) if *path == part.path => match read_part(disk, &reader, &part) {
                Ok(()) => {}
                Err(what) => tell.found(Finding::damage(file, what, RESTORE)),
            },
            _ => {
                let what = format!("it is missing, and {} rows with it", info.rows);
                tell.found(Finding::damage(
                    file,
                    what,
                    "put it back, or restore a backup; a start without it loses its rows",
                ));
            }
        }
        verified.parts += 1;
        verified.rows += info.rows;
        tell.read(verified.rows, all);
    }
    for path in there.iter().filter(|(no, _)| !state.parts.contains_key(no)).map(|(_, path)| path) {
        let what = "the manifest does not name it: it was being written when the last run ended";
        tell.found(Finding::note(shown(dir, name, path), what, "nothing: the next start removes it"));
    }
    Ok(())
}

fn shown(dir: &Path, name: &str, path: &Path) -> String {
    format!("{name}/{}", path.strip_prefix(dir).unwrap_or(path).display())
}

/// Reads all of a part and compares it with what the manifest says.
fn read_part(disk: &Arc<dyn Disk>, reader: &Parts, part: &Part) -> Result<(), String> {
    let PartInfo { no, rows, bytes, least_time, greatest_time, .. } = part.info;
    let length = disk.open(&part.path, false).and_then(|file| file.len()).map_err(|error| error.to_string())?;
    if length != bytes {
        return Err(format!("it has {length} bytes, and the manifest says {bytes}"));
    }
    let read = || -> io::Result<(u64, Option<(i64, i64)>)> {
        let (mut seen, mut times) = (0, None::<(i64, i64)>);
        for batch in reader.read(part, None)? {
            let batch = batch?;
            seen += batch.num_rows() as u64;
            if let Some((least, greatest)) = time_bounds(&batch) {
                times = Some(times.map_or((least, greatest), |(low, high)| (low.min(least), high.max(greatest))));
            }
        }
        Ok((seen, times))
    };
    // Decoders of damaged bytes may panic; that is damage as well.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    reader.forget(no);
    let (seen, times) = outcome
        .map_err(|_| "reading it panicked; the lines above say where".to_owned())?
        .map_err(|error| format!("it cannot be read: {}", keyward_storage::verify::chain(&error)))?;
    if seen != rows {
        return Err(format!("it has {seen} rows, and the manifest says {rows}"));
    }
    if times.is_some_and(|times| times != (least_time, greatest_time)) {
        return Err("the times of its rows are not those that the manifest says".to_owned());
    }
    Ok(())
}

/// Reads a segment of the journal, and says how many rows it has.
fn read_segment(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    segment: u64,
    newest: Option<u64>,
    file: String,
    tell: &mut dyn Observer,
) -> u64 {
    let read = journal::read(&**disk, dir, segment).and_then(|contents| {
        let goes_on = !contents.whole && journal::goes_on_behind(&**disk, dir, segment, contents.end)?;
        Ok((contents, goes_on))
    });
    match read {
        Ok((contents, goes_on)) => {
            if goes_on {
                let what = format!("it is damaged at byte {}, and events stand behind that", contents.end);
                tell.found(Finding::damage(
                    file,
                    what,
                    "restore a backup, or start without the events behind that place",
                ));
            } else if !contents.whole {
                let what = format!("it is not whole from byte {} on", contents.end);
                let torn = Some(segment) == newest;
                let advice = match torn {
                    true => "nothing: a crash tears the end of the newest one",
                    false => "nothing: a write that failed leaves this, when the disk is full",
                };
                tell.found(Finding::note(file, what, advice));
            }
            contents.batches.iter().map(|batch| batch.rows.num_rows() as u64).sum()
        }
        Err(error) => {
            tell.found(Finding::damage(file, format!("it cannot be read: {error}"), "look at the disk"));
            0
        }
    }
}
