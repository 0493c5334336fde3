//! The index's files, through the disk seam of the whole program.
//!
//! They are read with positioned reads and not mapped: a file that is cut or a sector that fails under a running server is
//! then an error of one search and not the end of the process. Nothing is synced. The index is derived; after a loss of power
//! its checksums tell whether it is whole, and it is made anew where it is not, while the log's syncs have the disk for
//! themselves.
//!
//! After every commit tantivy opens every segment twice, to mark deleted rows and to search it, and reads its dictionary and
//! columns whole each time. A segment's files never change, so whoever opens one that is open gets the same bytes: a commit
//! reads what is new. Nothing is kept that nobody has open.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

use keyward_storage::disk::{Disk, DiskFile};
use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, Lock, META_LOCK, OwnedBytes, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

/// The end of a file that is kept while it is open, bytes: where tantivy has what it reads whenever it opens one.
const END_BYTES: usize = 1024;
/// Readings of so many bytes are shared among all who have the file open.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// A directory of the disk seam, as tantivy wants one.
#[derive(Clone)]
pub struct Seam {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    meta: Arc<MetaLock>,
    /// The files that are open for reading.
    files: Arc<Mutex<HashMap<PathBuf, Weak<Handle>>>>,
}

/// Held while the list of segments is read and their files are opened, so that a merge that ends meanwhile does not remove
/// them.
#[derive(Default)]
struct MetaLock {
    held: Mutex<bool>,
    freed: Condvar,
}

struct MetaGuard(Arc<MetaLock>);

impl MetaGuard {
    fn take(lock: &Arc<MetaLock>) -> MetaGuard {
        let held = lock.held.lock().unwrap_or_else(PoisonError::into_inner);
        *lock.freed.wait_while(held, |held| *held).unwrap_or_else(PoisonError::into_inner) = true;
        MetaGuard(Arc::clone(lock))
    }
}

impl Drop for MetaGuard {
    fn drop(&mut self) {
        *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.freed.notify_one();
    }
}

impl Seam {
    /// The directory, which is there.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Seam {
        Seam { disk, dir, meta: Arc::default(), files: Arc::default() }
    }

    fn path(&self, name: &Path) -> PathBuf {
        self.dir.join(name)
    }

    fn open(&self, name: &Path) -> Result<Arc<dyn DiskFile>, OpenReadError> {
        self.disk.open(&self.path(name), false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenReadError::FileDoesNotExist(name.to_owned()),
            _ => OpenReadError::wrap_io_error(error, name.to_owned()),
        })
    }

    /// A file that is never written again, as everybody has it open.
    fn handle(&self, name: &Path) -> Result<Arc<Handle>, OpenReadError> {
        let known = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = known().get(name).and_then(Weak::upgrade) {
            return Ok(handle);
        }
        let handle =
            Handle::new(self.open(name)?).map_err(|error| OpenReadError::wrap_io_error(error, name.to_owned()))?;
        let handle = Arc::new(handle);
        let mut files = known();
        files.retain(|_, handle| handle.strong_count() > 0);
        files.insert(name.to_owned(), Arc::downgrade(&handle));
        Ok(handle)
    }
}

impl fmt::Debug for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seam").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Directory for Seam {
    fn get_file_handle(&self, name: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(self.handle(name)?)
    }

    fn delete(&self, name: &Path) -> Result<(), DeleteError> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        self.disk.remove(&self.path(name)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DeleteError::FileDoesNotExist(name.to_owned()),
            _ => DeleteError::IoError { io_error: Arc::new(error), filepath: name.to_owned() },
        })
    }

    fn exists(&self, name: &Path) -> Result<bool, OpenReadError> {
        match self.open(name) {
            Ok(_) => Ok(true),
            Err(OpenReadError::FileDoesNotExist(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open_write(&self, name: &Path) -> Result<WritePtr, OpenWriteError> {
        let failed = |error| OpenWriteError::wrap_io_error(error, name.to_owned());
        match self.exists(name) {
            Ok(false) => {}
            Ok(true) => return Err(OpenWriteError::FileAlreadyExists(name.to_owned())),
            Err(error) => return Err(failed(io::Error::other(error))),
        }
        let file = self.disk.open(&self.path(name), true).map_err(failed)?;
        Ok(BufWriter::new(Box::new(Appender { file, at: 0 })))
    }

    fn atomic_read(&self, name: &Path) -> Result<Vec<u8>, OpenReadError> {
        let file = self.open(name)?;
        let read = || {
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
            file.read_exact_at(0, &mut bytes).map(|()| bytes)
        };
        read().map_err(|error| OpenReadError::wrap_io_error(error, name.to_owned()))
    }

    fn atomic_write(&self, name: &Path, data: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let mut aside = path.clone().into_os_string();
        aside.push(".new");
        let file = self.disk.open(Path::new(&aside), true)?;
        file.set_len(0)?;
        file.write_all_at(0, data)?;
        self.disk.rename(Path::new(&aside), &path)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// One process works in the data directory, and one thread writes the index: locks are this process's own.
    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        if lock.filepath == META_LOCK.filepath {
            return Ok(DirectoryLock::from(Box::new(MetaGuard::take(&self.meta))));
        }
        Ok(DirectoryLock::from(Box::new(())))
    }

    /// Nobody watches: whoever commits tells.
    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

/// A file that is read.
struct Handle {
    file: Arc<dyn DiskFile>,
    length: usize,
    /// Its last bytes, at most [`END_BYTES`].
    end: OwnedBytes,
    /// Large parts that somebody has read and still holds.
    parts: Mutex<Vec<(Range<usize>, Weak<[u8]>)>>,
}

impl Handle {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Handle> {
        let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let end = read(&*file, length.saturating_sub(END_BYTES)..length)?;
        Ok(Handle { file, length, end: OwnedBytes::new(end), parts: Mutex::default() })
    }

    /// A large part, as somebody else has it or from the file.
    fn part(&self, range: Range<usize>) -> io::Result<Arc<[u8]>> {
        let parts = || self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = parts().iter().find(|(of, _)| *of == range).and_then(|(_, part)| part.upgrade());
        if let Some(part) = known {
            return Ok(part);
        }
        let part = read(&*self.file, range.clone())?;
        let mut parts = parts();
        parts.retain(|(_, part)| part.strong_count() > 0);
        parts.push((range, Arc::downgrade(&part)));
        Ok(part)
    }
}

fn read(file: &dyn DiskFile, range: Range<usize>) -> io::Result<Arc<[u8]>> {
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, range.len()).collect();
    if let Some(bytes) = Arc::get_mut(&mut bytes) {
        file.read_exact_at(range.start as u64, bytes)?;
    }
    Ok(bytes)
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("length", &self.length).finish_non_exhaustive()
    }
}

impl HasLen for Handle {
    fn len(&self) -> usize {
        self.length
    }
}

impl FileHandle for Handle {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start > range.end || range.end > self.length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let before_end = self.length - self.end.len();
        if range.start >= before_end {
            return Ok(self.end.slice(range.start - before_end..range.end - before_end));
        }
        if range.len() < SHARED_BYTES_MIN {
            return Ok(OwnedBytes::new(read(&*self.file, range)?));
        }
        Ok(OwnedBytes::new(self.part(range)?))
    }
}

/// A file that is written, front to end.
struct Appender {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TerminatingWrite for Appender {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        Ok(())
    }
}
