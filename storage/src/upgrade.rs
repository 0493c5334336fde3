//! What a start does before it changes a data directory of an older format: it keeps what the directory was.
//!
//! The snapshot is a directory in the data directory, `before-format-N`, that is a data directory itself. What is never written
//! again once it has its name (older segments of the log, events in Parquet, journals of earlier runs) is there by a second
//! name, where the file system has such a thing, and takes no room; the rest is copied. `FORMAT` is written last: a snapshot
//! without it was interrupted, and is made anew. A whole one is left alone, so that a start that fails half-way through an
//! upgrade and is repeated does not keep the half-way state for the old one. Nobody removes it but the operator.

use std::io;
use std::path::Path;

use crate::directory::{FORMAT, io_error};
use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::log::segment;

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;
/// What is derived, of this process, or a secret of its own: it is left out, and so are earlier snapshots.
const LEFT_OUT: [&str; 5] = ["LOCK", "FORMAT", "RESTORING", "root.key", "admin.sock"];
const LEFT_OUT_DIRS: [&str; 2] = ["search", "admin.sock.new"];
const NAME_HEAD: &str = "before-format-";

/// Keeps a directory of an older format as it is; does nothing for one of the present format, or of none.
///
/// # Errors
/// The snapshot could not be made. Nothing but it has changed.
pub fn keep(disk: &dyn Disk, dir: &Path, format: Option<u32>) -> Result<(), OpenError> {
    let Some(found) = format.filter(|found| *found < FORMAT) else { return Ok(()) };
    let snapshot = dir.join(format!("{NAME_HEAD}{FORMAT}"));
    if disk.list(&snapshot).is_ok_and(|names| names.iter().any(|name| name == "FORMAT")) {
        tracing::info!(snapshot = %snapshot.display(), "the data directory was kept as it was before an upgrade");
        return Ok(());
    }
    tracing::info!(
        from = found,
        to = FORMAT,
        snapshot = %snapshot.display(),
        "the data directory gets a newer format; what it was is kept first"
    );
    let kept = || {
        disk.remove_tree(&snapshot)?;
        disk.create_dir_all(&snapshot)?;
        copy_tree(disk, dir, &snapshot, true)?;
        // Its name says that all else is there, so it must not come to be before its bytes are.
        let bytes = all(disk, &dir.join("FORMAT"))?;
        disk::replace(disk, &snapshot.join("FORMAT.new"), &snapshot.join("FORMAT"), |file| {
            file.write_all_at(0, &bytes)?;
            file.sync_data()
        })
    };
    kept().map_err(|source| {
        // What there is of it would only take the room that is missing.
        let _ = disk.remove_tree(&snapshot);
        OpenError::NoSnapshot { dir: dir.to_owned(), found, known: FORMAT, snapshot: snapshot.clone(), source }
    })?;
    disk.sync_dir(dir).map_err(io_error(dir))
}

fn copy_tree(disk: &dyn Disk, from: &Path, to: &Path, is_top: bool) -> io::Result<()> {
    let newest_segment = disk.list(from)?.iter().filter_map(|name| segment::first_of_name(name)).max();
    for name in disk.list(from)? {
        if is_top && (LEFT_OUT.contains(&name.as_str()) || name.ends_with(".new")) {
            continue;
        }
        let never_changes = match segment::first_of_name(&name) {
            Some(first) => Some(first) != newest_segment,
            None => name.ends_with(".parquet") || name.ends_with(".journal"),
        };
        let (one, other) = (from.join(&name), to.join(&name));
        if !never_changes || disk.link(&one, &other).is_err() {
            copy(disk, &one, &other)?;
        }
    }
    for name in disk.list_dirs(from)? {
        if is_top && (LEFT_OUT_DIRS.contains(&name.as_str()) || name.starts_with(NAME_HEAD)) {
            continue;
        }
        let below = to.join(&name);
        disk.create_dir_all(&below)?;
        copy_tree(disk, &from.join(&name), &below, false)?;
    }
    disk.sync_dir(to)
}

/// The bytes of a small file.
fn all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, false)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

fn copy(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    let (source, target) = (disk.open(from, false)?, disk.open(to, true)?);
    let length = source.len()?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < length {
        let part = usize::try_from(length - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        source.read_exact_at(at, &mut buffer[..part])?;
        target.write_all_at(at, &buffer[..part])?;
        at += part as u64;
    }
    target.set_len(length)?;
    target.sync_data()
}
