//! The data directory: is it ours, in a format we know, and what to tell the operator where it cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::log;

/// The newest data directory format this build reads and writes.
pub const FORMAT: u32 = 1;

/// In a directory into which a backup is being restored.
pub const RESTORING: &str = "RESTORING";
/// Which program wrote here last: so that one that is too old can name the version to install.
const VERSION_FILE: &str = "VERSION";
/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Longest version that is believed.
const VERSION_BYTES_MAX: u64 = 64;

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
const OWN_FILES: [&str; 15] = [
    "LOCK",
    "NODE",
    "NODE.new",
    "ROLE",
    "ROLE.new",
    "FORMAT",
    "FORMAT.new",
    VERSION_FILE,
    "VERSION.new",
    "root.key",
    "root.key.new",
    "admin.sock",
    crate::store::FILE,
    crate::store::FILE_ASIDE,
    "lost+found",
];
const OWN_DIRS: [&str; 5] = ["log", "windows", "incoming", "admin.sock.new", "lost+found"];

/// Whether something of this name may lie in a directory in which a store is to be made: the lock, and what a file system puts
/// into its first directory.
pub fn may_lie_in_an_empty_dir(name: &str) -> bool {
    name == "LOCK" || name == "lost+found"
}

/// Refuses a directory that is something else's: its files would be mixed with the store's, and a mistyped path would
/// make an empty store beside the real one. Runs before the lock, so that such a directory is left as it is.
pub fn refuse_foreign_files(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let files = disk.list(dir).map_err(io_error(dir))?;
    if files.iter().any(|name| name == RESTORING) {
        return Err(OpenError::HalfRestored(dir.to_owned()));
    }
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

/// Reads the format file; refuses a newer format. `None` where there is none, or none yet: no store was ever opened there.
pub fn read_format(disk: &dyn Disk, dir: &Path) -> Result<Option<u32>, OpenError> {
    let path = dir.join("FORMAT");
    let Some(text) = short_text(disk, dir, "FORMAT", 256)? else { return Ok(None) };
    let found = text
        .strip_prefix(FORMAT_HEAD)
        .and_then(|number| number.trim_end().parse::<u32>().ok())
        .ok_or_else(|| OpenError::NotAStore(path.clone()))?;
    if found > FORMAT {
        let version = short_text(disk, dir, VERSION_FILE, VERSION_BYTES_MAX)?;
        // Only what a version is made of is repeated to the operator.
        let of_version = |sign: char| sign.is_ascii_alphanumeric() || "+-.".contains(sign);
        let version = version.map(|text| text.trim_end().to_owned());
        let version = version.filter(|text| text.chars().all(of_version) && text != VERSION);
        return Err(OpenError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT, version });
    }
    Ok(Some(found))
}

/// The text of a small file of a directory; `None` where it is absent or empty. Bytes that are no text read as none of ours.
fn short_text(disk: &dyn Disk, dir: &Path, name: &str, most: u64) -> Result<Option<String>, OpenError> {
    let path = dir.join(name);
    if !disk.list(dir).map_err(io_error(dir))?.iter().any(|other| other == name) {
        return Ok(None);
    }
    let file = disk.open(&path, false).map_err(io_error(&path))?;
    let length = file.len().map_err(io_error(&path))?.min(most);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes).map_err(io_error(&path))?;
    Ok((length > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes the format file: a power cut must not leave one that nobody understands. Beside it, and before it, which version
/// writes here.
pub fn write_format(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    write_version(disk, dir)?;
    write_text(disk, dir, "FORMAT", &format!("{FORMAT_HEAD}{FORMAT}\n"))
}

/// Notes which version writes here, where that is another one than before.
pub fn write_version(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let text = format!("{VERSION}\n");
    match short_text(disk, dir, VERSION_FILE, VERSION_BYTES_MAX)? {
        Some(before) if before == text => Ok(()),
        _ => write_text(disk, dir, VERSION_FILE, &text),
    }
}

fn write_text(disk: &dyn Disk, dir: &Path, name: &str, text: &str) -> Result<(), OpenError> {
    let path = dir.join(name);
    disk::replace(disk, &dir.join(format!("{name}.new")), &path, |file| {
        file.write_all_at(0, text.as_bytes())?;
        file.sync_data()
    })
    .map_err(io_error(&path))
}
