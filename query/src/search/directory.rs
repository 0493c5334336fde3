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

/// A file of at most so many bytes is read as a whole, and kept while it is open: most commits are smaller.
const WHOLE_BYTES_MAX: usize = 128 << 10;
/// The end of a larger file that is kept while it is open, bytes: where tantivy has what it reads whenever it opens one.
const END_BYTES: usize = 1024;
/// Readings of so many bytes are shared among all who have the file open.
const SHARED_BYTES_MIN: usize = 16 << 10;
/// How much is read at once for whoever reads on where the last reading ended, bytes: a merge and a range of words read the
/// rows of each term by themselves, most of them a few bytes.
const AHEAD_BYTES: usize = 64 << 10;

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
    /// Its last bytes, or all of them.
    end: OwnedBytes,
    /// Large parts that somebody has read and still holds.
    parts: Mutex<Vec<Part>>,
    ahead: Mutex<Ahead>,
}

/// Where a part is, and its bytes for as long as somebody holds them.
type Part = (Range<usize>, Weak<[u8]>);

/// What was read ahead.
struct Ahead {
    /// Where it begins.
    from: usize,
    bytes: OwnedBytes,
    /// Where the last reading ended.
    next: usize,
}

impl Handle {
    fn new(file: Arc<dyn DiskFile>) -> io::Result<Handle> {
        let length = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let kept = if length <= WHOLE_BYTES_MAX { length } else { END_BYTES };
        let end = OwnedBytes::new(read(&*file, length - kept..length)?);
        let ahead = Ahead { from: 0, bytes: OwnedBytes::empty(), next: usize::MAX };
        Ok(Handle { file, length, end, parts: Mutex::default(), ahead: Mutex::new(ahead) })
    }

    /// A small part: of what was read ahead, with more of what comes behind it, or by itself.
    fn small(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        // Whoever finds another at it reads for himself.
        if let Ok(mut ahead) = self.ahead.try_lock() {
            let goes_on = std::mem::replace(&mut ahead.next, range.end) == range.start;
            let known = ahead.from..ahead.from + ahead.bytes.len();
            if known.start <= range.start && range.end <= known.end {
                return Ok(ahead.bytes.slice(range.start - known.start..range.end - known.start));
            }
            if goes_on {
                let until = range.end.max(self.length.min(range.start + AHEAD_BYTES));
                ahead.bytes = OwnedBytes::new(read(&*self.file, range.start..until)?);
                ahead.from = range.start;
                return Ok(ahead.bytes.slice(0..range.len()));
            }
        }
        Ok(OwnedBytes::new(read(&*self.file, range)?))
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
            return self.small(range);
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

#[cfg(test)]
mod tests {
    use keyward_storage::disk::RealDisk;

    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, Seam, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let (seam, name) = (Seam::new(Arc::new(RealDisk), dir.path().to_owned()), PathBuf::from("file"));
        let mut file = seam.open_write(&name).expect("a new file");
        file.write_all(bytes).expect("room");
        file.terminate().expect("room");
        (dir, seam, name)
    }

    /// Whatever is read, in whatever order, from a small file or a large one: it is what was written.
    #[test]
    fn what_is_read_is_what_was_written() {
        let mut dice = 1_u64;
        let mut roll = move |below: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % below
        };
        for length in [0, 1, END_BYTES, WHOLE_BYTES_MAX, WHOLE_BYTES_MAX + 1, 5 * AHEAD_BYTES + 7] {
            let bytes: Vec<u8> = (0..length).map(|_| roll(256) as u8).collect();
            let (_dir, seam, name) = written(&bytes);
            let file = seam.get_file_handle(&name).expect("it is there");
            assert_eq!(file.len(), length);
            let mut at = 0;
            let mut held = Vec::new();
            for _ in 0..3000 {
                if roll(20) == 0 || at >= length {
                    at = roll(length + 1);
                }
                let most = if roll(30) == 0 { usize::MAX } else { 300 };
                let end = at + roll((length - at).min(most) + 1);
                let read = file.read_bytes(at..end).expect("it is there");
                assert!(read.as_slice() == &bytes[at..end], "{at}..{end} of {length}");
                if roll(10) == 0 {
                    held.push((at..end, read));
                }
                at = end;
            }
            assert!(held.iter().all(|(range, read)| read.as_slice() == &bytes[range.clone()]));
            assert!(file.read_bytes(0..length + 1).is_err());
        }
    }

    /// A dictionary that a search has open is not read again by the next commit; one that nobody has open is not kept.
    #[test]
    fn whoever_opens_what_is_open_gets_the_same_bytes() {
        let (_dir, seam, name) = written(&vec![7; 10 * WHOLE_BYTES_MAX]);
        let open = || seam.get_file_handle(&name).expect("it is there");
        let dictionary = |file: &Arc<dyn FileHandle>| file.read_bytes(100..9 * WHOLE_BYTES_MAX).expect("it is there");
        let (first, second) = (open(), open());
        let (of_first, of_second) = (dictionary(&first), dictionary(&second));
        assert!(Arc::ptr_eq(&first, &second) && std::ptr::eq(of_first.as_slice(), of_second.as_slice()));
        drop((of_first, of_second));
        let handle = seam.handle(&name).expect("it is there");
        assert_eq!(handle.parts.lock().expect("whole").iter().filter(|(_, part)| part.strong_count() > 0).count(), 0);
        drop((handle, first, second));
        assert_eq!(seam.files.lock().expect("whole").get(&name).map_or(0, Weak::strong_count), 0);
        seam.delete(&name).expect("it is there");
        assert!(matches!(seam.get_file_handle(&name), Err(OpenReadError::FileDoesNotExist(_))));
    }
}
