//! Files behind one seam: the real disk, and (`memory`) one that tears, loses and fails on purpose.
//!
//! Nobody else in the product opens a file below the data directory. The seam is as narrow as its users allow: positioned
//! reads and writes, one durable sync, durable names.

use std::io;
use std::path::Path;
use std::sync::Arc;

/// What a store needs of a disk. Its second implementer is the faulty disk of the tests.
pub trait Disk: Send + Sync + 'static {
    /// Makes a directory and its parents, readable by the owner alone (0700).
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file for reading and writing, making it (0600) where it is absent and `create` says so.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a new name, replacing what had it; durable once `sync_dir` of the directory has returned.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes a user without privileges may still write below this directory.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the exclusive advisory lock named by this file until the guard is dropped; `WouldBlock` where another
    /// process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Offsets and lengths are bytes.
pub trait DiskFile: Send + Sync {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Whether it holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; `UnexpectedEof` past the end.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or grows (with zeros) to `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Returns once everything written so far survives a loss of power.
    fn sync_data(&self) -> io::Result<()>;
}
