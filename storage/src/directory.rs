//! The data directory: is it ours, in a format we know, and what to tell the operator where it cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::log;

/// The newest data directory format this build reads and writes.
pub const FORMAT: u32 = 1;

/// Names the file or directory that an error was about.
pub fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// Says what the operator can do about a file that cannot be used.
pub fn explain(disk: &dyn Disk, path: PathBuf, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            OpenError::Denied { owner: disk.owner(&path), user: rustix::process::geteuid().as_raw(), path }
        }
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnlyFileSystem(path),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => OpenError::NotADirectory(path),
        _ => OpenError::Io { path, source },
    }
}

/// Files that a start may leave behind before there is a log, wherever it is killed, and what file systems put there.
const OWN_FILES: [&str; 13] = [
    "LOCK",
    "NODE",
    "NODE.new",
    "ROLE",
    "ROLE.new",
    "FORMAT",
    "FORMAT.new",
    "root.key",
    "root.key.new",
    "admin.sock",
    crate::store::FILE,
    crate::store::FILE_ASIDE,
    "lost+found",
];
const OWN_DIRS: [&str; 5] = ["log", "windows", "incoming", "admin.sock.new", "lost+found"];

/// Refuses a directory that is something else's: its files would be mixed with the store's, and a mistyped path would
/// make an empty store beside the real one. Runs before the lock, so that such a directory is left as it is.
pub fn refuse_foreign_files(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let files = disk.list(dir).map_err(io_error(dir))?;
    if files.iter().any(|name| name == "FORMAT") {
        return Ok(());
    }
    let dirs = disk.list_dirs(dir).map_err(io_error(dir))?;
    let foreign =
        |names: Vec<String>, own: &[&str]| names.into_iter().filter(|name| !own.contains(&name.as_str())).min();
    let Some(found) = foreign(files, &OWN_FILES).or_else(|| foreign(dirs, &OWN_DIRS)) else { return Ok(()) };
    // With a log it is a store, whatever else lies there; one that cannot be read is for the log to explain.
    match log::store_id(disk, &dir.join("log")) {
        Ok(None) => Err(OpenError::ForeignFiles { dir: dir.to_owned(), found }),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

const FORMAT_HEAD: &str = "keyward data format ";

/// Reads the format file; refuses a newer format. Whether there is one: a store that was opened before.
pub fn read_format(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join("FORMAT");
    if !disk.list(dir).map_err(io_error(dir))?.iter().any(|name| name == "FORMAT") {
        return Ok(false);
    }
    let file = disk.open(&path, false).map_err(io_error(&path))?;
    let length = file.len().map_err(io_error(&path))?;
    if length == 0 {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(length.min(256)).expect("at most 256")];
    file.read_exact_at(0, &mut bytes).map_err(io_error(&path))?;
    let found = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix(FORMAT_HEAD))
        .and_then(|number| number.trim_end().parse::<u32>().ok())
        .ok_or_else(|| OpenError::NotAStore(path.clone()))?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT });
    }
    Ok(true)
}

/// Writes the format file: a power cut must not leave one that nobody understands.
pub fn write_format(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let path = dir.join("FORMAT");
    disk::replace(disk, &dir.join("FORMAT.new"), &path, |file| {
        file.write_all_at(0, format!("{FORMAT_HEAD}{FORMAT}\n").as_bytes())?;
        file.sync_data()
    })
    .map_err(io_error(&path))
}
