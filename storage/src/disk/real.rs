//! The disk of the machine, by way of std.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::{Disk, DiskFile};

/// Only the owner reads or writes what a store keeps.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// How often a lock is tried whose file goes away meanwhile.
const LOCK_TRIES: usize = 8;

/// The file systems of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.as_os_str().is_empty() || dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(dir) {
            // Somebody else was quicker; the name is made durable all the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                // A name that is not UTF-8 is none of ours; its lossy form cannot be mistaken for one.
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn owner(&self, path: &Path) -> Option<u32> {
        path.ancestors().find_map(|path| fs::metadata(path).ok()).map(|found| found.uid())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(open(path, create)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[expect(clippy::disallowed_methods, reason = "this is the seam; its caller syncs the directory")]
        fs::rename(from, to)
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        for _ in 0..LOCK_TRIES {
            let file = open(path, true)?;
            // Dropping the file closes it, and closing it gives the lock back, kill -9 included.
            file.try_lock()?;
            // Who had it before may have removed it on leaving: a lock on a file without a name keeps nobody out.
            let has_name = |found: fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == found.ino());
            if fs::metadata(path).is_ok_and(has_name) {
                return Ok(Box::new(file));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(FILE_MODE).open(path)
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, buffer, offset)
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        // fdatasync: it covers the length too, which the bytes could not be read back without.
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it was just made").permissions().mode() & 0o777
    }

    /// A store's files are the owner's alone, whatever the umask of the shell that started us.
    #[test]
    fn files_and_directories_are_private_and_read_back() {
        let home = tempfile::tempdir().expect("a scratch directory");
        let dir = home.path().join("a/b");
        RealDisk.create_dir_all(&dir).expect("made");
        RealDisk.create_dir_all(&dir).expect("and already there");
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&home.path().join("a")), 0o700);

        let path = dir.join("one");
        let missing = RealDisk.open(&path, false).err().expect("it is absent");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let file = RealDisk.open(&path, true).expect("made");
        assert_eq!(mode(&path), 0o600);
        assert!(file.is_empty().expect("length"));
        file.write_all_at(3, b"abc").expect("written");
        file.sync_data().expect("synced");

        let other = RealDisk.open(&path, true).expect("opened, not cut");
        let mut bytes = [9u8; 6];
        other.read_exact_at(0, &mut bytes).expect("read");
        assert_eq!(&bytes, b"\0\0\0abc");
        let past = other.read_exact_at(1, &mut bytes).expect_err("past the end");
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
        other.set_len(4).expect("cut");
        assert_eq!(file.len().expect("length"), 4);

        RealDisk.rename(&path, &dir.join("two")).expect("renamed");
        RealDisk.sync_dir(&dir).expect("synced");
        assert_eq!(RealDisk.list(&dir).expect("listed"), ["two"]);
        assert_eq!(RealDisk.list(home.path()).expect("listed"), [""; 0]);
        RealDisk.remove(&dir.join("two")).expect("removed");
        assert!(RealDisk.list(&dir).expect("listed").is_empty());
        assert!(RealDisk.free_bytes(&dir).expect("asked") > 0);
    }

    /// Two processes on one data directory would tear it apart: the second is told to wait.
    #[test]
    fn a_lock_has_one_holder() {
        let home = tempfile::tempdir().expect("a scratch directory");
        let path = home.path().join("LOCK");
        let held = RealDisk.lock(&path).expect("free");
        let refused = RealDisk.lock(&path).err().expect("taken");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).expect("free again");
    }
}
