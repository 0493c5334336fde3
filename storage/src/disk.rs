//! Files behind one seam: the real disk, and (`memory`) one that tears, loses and fails on purpose.
//!
//! Nobody else in the product opens a file below the data directory. The seam is as narrow as its users allow: positioned
//! reads and writes, one durable sync, durable names.

use std::io;
use std::path::Path;
use std::sync::Arc;

pub mod memory;
pub mod overlay;
pub mod real;

pub use memory::MemoryDisk;
pub use overlay::Overlay;
pub use real::RealDisk;

/// What a store needs of a disk. Its second implementer is the faulty disk of the tests.
///
/// Two things are volatile until they are synced, and apart from each other: a file's bytes and length
/// ([`DiskFile::sync_data`]) and the names in a directory ([`Disk::sync_dir`]).
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents where they are absent, readable by the owner alone (0700). What it made is
    /// durable when it returns: directories are made once in a store's life, so this need not be cheap.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no particular order; directories in it are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// The names of the directories in a directory, in no particular order.
    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Number of the user who owns a file or directory, or else the nearest directory above it that is there. `None` where
    /// the system does not tell.
    fn owner(&self, _path: &Path) -> Option<u32> {
        None
    }
    /// Opens a file for reading and writing, making it (0600) where it is absent and `create` says so; `NotFound` where
    /// it is absent otherwise. A name made here is durable once `sync_dir` of the directory has returned.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file's name; open handles go on working. Durable once `sync_dir` of the directory has returned.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a new name, replacing what had it, or a directory one that is free; durable once `sync_dir` of the directory
    /// has returned.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it; nothing happens where it is absent. Durable once `sync_dir` of the directory
    /// that held it has returned. A symbolic link in it is removed, not followed.
    fn remove_tree(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file another name besides, `to`, which must be free; durable once `sync_dir` of the directory has returned.
    /// `Unsupported` where a file has one name only: whoever wants a second one copies it.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes a user without privileges may still write below this directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive advisory lock named by this file until the guard is dropped; `WouldBlock` where another
    /// process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// Whether a failed write found no room, which heals by itself, rather than a disk that can no longer be trusted.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a file that gets its name when it is whole: `make` fills `aside`, an empty file beside it, and syncs it; then the
/// name is moved over and made durable. So a power cut leaves the old file or the new one, never a part. Both paths are in
/// the same directory.
///
/// # Errors
/// The disk's, or what `make` says. `aside` is removed then, so that it takes no room on a disk that may be full; where
/// even that fails, the next attempt overwrites it.
pub fn replace<T, E: From<io::Error>>(
    disk: &dyn Disk,
    aside: &Path,
    path: &Path,
    make: impl FnOnce(Arc<dyn DiskFile>) -> Result<T, E>,
) -> Result<T, E> {
    let replaced = || {
        let file = disk.open(aside, true)?;
        file.set_len(0)?;
        let made = make(file)?;
        disk.rename(aside, path)?;
        disk.sync_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok(made)
    };
    replaced().inspect_err(|_| {
        let _ = disk.remove(aside);
    })
}

/// An open file. Offsets and lengths are bytes. Two handles on one path are two views of the same bytes.
pub trait DiskFile: Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; `UnexpectedEof` past the end.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed. After an error any part of them may have been
    /// written.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or grows (with zeros) to `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Returns once everything written so far, and the file's length, survives a loss of power. After an error nobody
    /// knows what survives, and a second try that succeeds proves nothing: the kernel may have given up on the pages.
    fn sync_data(&self) -> io::Result<()>;
}
