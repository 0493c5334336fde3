//! A disk of which nothing is changed: what is written stays in memory, over a disk that is only read.
//!
//! Whoever looks at a data directory that nobody has open opens it as a start would, replay and all, and says the same about
//! it in the same words; and the directory is afterwards what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// Bytes kept together.
const PAGE_BYTES: usize = 4096;

/// The disk. Clones are the same one.
#[derive(Clone)]
pub struct Overlay {
    below: Arc<dyn Disk>,
    names: Arc<Mutex<Names>>,
    room: Arc<Mutex<u64>>,
}

#[derive(Default)]
struct Names {
    /// Files that were opened, made or renamed; `None` for those that are gone.
    files: BTreeMap<PathBuf, Option<Arc<Layer>>>,
    dirs: BTreeSet<PathBuf>,
    gone_dirs: BTreeSet<PathBuf>,
}

/// A file, as it would be.
struct Layer {
    room: Arc<Mutex<u64>>,
    below: Option<Arc<dyn DiskFile>>,
    over: Mutex<Over>,
}

struct Over {
    length: u64,
    /// Bytes at the front that are still those below, but for pages that were written.
    kept: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Overlay {
    /// Nothing written yet over `below`. At most `bytes_max` are kept; what does not fit fails with `StorageFull`.
    pub fn over(below: Arc<dyn Disk>, bytes_max: u64) -> Overlay {
        Overlay { below, names: Arc::default(), room: Arc::new(Mutex::new(bytes_max)) }
    }

    fn layer(&self, below: Option<Arc<dyn DiskFile>>) -> io::Result<Arc<Layer>> {
        let length = below.as_ref().map_or(Ok(0), |file| file.len())?;
        let over = Mutex::new(Over { length, kept: length, pages: BTreeMap::new() });
        Ok(Arc::new(Layer { room: Arc::clone(&self.room), below, over }))
    }

    fn find(&self, names: &mut Names, path: &Path) -> io::Result<Arc<Layer>> {
        match names.files.get(path) {
            Some(Some(layer)) => Ok(Arc::clone(layer)),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None if names.gone_dirs.iter().any(|dir| path.starts_with(dir)) => Err(io::ErrorKind::NotFound.into()),
            None => {
                let layer = self.layer(Some(self.below.open(path, false)?))?;
                names.files.insert(path.to_owned(), Some(Arc::clone(&layer)));
                Ok(layer)
            }
        }
    }
}

/// What a listing of the disk below says; nothing where only the layer above has the directory.
fn listed(below: io::Result<Vec<String>>, is_above: bool) -> io::Result<Vec<String>> {
    match below {
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_above => Ok(Vec::new()),
        listed => listed,
    }
}

fn name_in<'p>(path: &'p Path, dir: &Path) -> Option<&'p str> {
    (path.parent() == Some(dir)).then(|| path.file_name()?.to_str()).flatten()
}

impl Disk for Overlay {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        lock(&self.names).dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = lock(&self.names);
        let mut found: BTreeSet<String> = if names.gone_dirs.iter().any(|gone| dir.starts_with(gone)) {
            BTreeSet::new()
        } else {
            listed(self.below.list(dir), names.dirs.contains(dir))?.into_iter().collect()
        };
        for (path, layer) in &names.files {
            if let Some(name) = name_in(path, dir) {
                match layer {
                    Some(_) => found.insert(name.to_owned()),
                    None => found.remove(name),
                };
            }
        }
        Ok(found.into_iter().collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = lock(&self.names);
        let below = listed(self.below.list_dirs(dir), names.dirs.contains(dir))?;
        let is_there = |name: &String| !names.gone_dirs.contains(&dir.join(name));
        let mut found: BTreeSet<String> = below.into_iter().filter(is_there).collect();
        found.extend(names.dirs.iter().filter_map(|path| name_in(path, dir)).map(str::to_owned));
        Ok(found.into_iter().collect())
    }

    fn owner(&self, path: &Path) -> Option<u32> {
        self.below.owner(path)
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut names = lock(&self.names);
        let layer = match self.find(&mut names, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                let layer = self.layer(None)?;
                names.files.insert(path.to_owned(), Some(Arc::clone(&layer)));
                layer
            }
            found => found?,
        };
        Ok(layer)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        self.find(&mut names, path)?;
        names.files.insert(path.to_owned(), None);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        let layer = self.find(&mut names, from)?;
        names.files.insert(from.to_owned(), None);
        names.files.insert(to.to_owned(), Some(layer));
        Ok(())
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        let mut names = lock(&self.names);
        names.files.retain(|path, _| !path.starts_with(dir));
        names.dirs.retain(|path| !path.starts_with(dir));
        names.gone_dirs.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.below.free_bytes(dir)
    }

    /// The lock of the disk below: nobody may change it meanwhile.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.below.lock(path)
    }
}

impl Layer {
    /// A page as it stands; `None` for one that is all zeros because nothing was ever there.
    fn page(&self, over: &Over, number: u64) -> io::Result<Box<[u8; PAGE_BYTES]>> {
        if let Some(page) = over.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE_BYTES]);
        let start = number * PAGE_BYTES as u64;
        let there = usize::try_from(over.kept.saturating_sub(start)).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
        if let Some(below) = self.below.as_ref().filter(|_| there > 0) {
            below.read_exact_at(start, &mut page[..there])?;
        }
        Ok(page)
    }
}

impl DiskFile for Layer {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.over).length)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let over = lock(&self.over);
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= over.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some(below) = self.below.as_ref().filter(|_| over.pages.is_empty() && end <= over.kept) {
            return below.read_exact_at(offset, buffer);
        }
        for (at, length, number, within) in parts(offset, buffer.len()) {
            let page = self.page(&over, number)?;
            buffer[at..at + length].copy_from_slice(&page[within..within + length]);
        }
        Ok(())
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut over = lock(&self.over);
        for (at, length, number, within) in parts(offset, bytes.len()) {
            if !over.pages.contains_key(&number) {
                let page = self.page(&over, number)?;
                let mut room = lock(&self.room);
                *room = room.checked_sub(PAGE_BYTES as u64).ok_or(io::ErrorKind::StorageFull)?;
                over.pages.insert(number, page);
            }
            let page = over.pages.get_mut(&number).expect("it was just put there");
            page[within..within + length].copy_from_slice(&bytes[at..at + length]);
        }
        over.length = over.length.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut over = lock(&self.over);
        if length < over.length {
            over.kept = over.kept.min(length);
            let gone = over.pages.split_off(&length.div_ceil(PAGE_BYTES as u64));
            *lock(&self.room) += gone.len() as u64 * PAGE_BYTES as u64;
            let within = usize::try_from(length % PAGE_BYTES as u64).unwrap_or(0);
            if within > 0
                && let Some(page) = over.pages.get_mut(&(length / PAGE_BYTES as u64))
            {
                page[within..].fill(0);
            }
        }
        over.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The pages that a range of a file touches: where in the range, how many bytes, which page, and where in it.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (usize, usize, u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE_BYTES as u64).expect("less than a page");
        let part = (done, (PAGE_BYTES - within).min(length - done), at / PAGE_BYTES as u64, within);
        done += part.1;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::super::memory::SplitMix;
    use super::super::{MemoryDisk, replace};
    use super::*;

    /// Whatever is done to an overlay, it answers as a disk of its own with the same history, and the one below stays as it was.
    #[test]
    fn an_overlay_is_a_disk_over_one_that_never_changes() {
        for seed in 0..200 {
            let mut dice = SplitMix(seed);
            let (below, model) = (MemoryDisk::new(), MemoryDisk::new());
            let path = Path::new("/d/file");
            let first: Vec<u8> = (0..dice.below(20_000)).map(|n| n as u8).collect();
            for disk in [&below, &model] {
                disk.plant(path, &first);
            }
            let over = Overlay::over(Arc::new(below.clone()), u64::MAX);
            let (one, other) = (over.open(path, false).unwrap(), model.open(path, false).unwrap());
            for _ in 0..40 {
                match dice.below(4) {
                    0 => {
                        let length = dice.below(24_000);
                        one.set_len(length).unwrap();
                        other.set_len(length).unwrap();
                    }
                    1 | 2 => {
                        let (at, byte) = (dice.below(22_000), dice.below(256) as u8);
                        let bytes = vec![byte; dice.below(9_000) as usize];
                        one.write_all_at(at, &bytes).unwrap();
                        other.write_all_at(at, &bytes).unwrap();
                    }
                    _ => {
                        let (at, length) = (dice.below(24_000), dice.below(9_000) as usize);
                        let (mut here, mut there) = (vec![1; length], vec![1; length]);
                        let read = one.read_exact_at(at, &mut here).map_err(|error| error.kind());
                        assert_eq!(read, other.read_exact_at(at, &mut there).map_err(|error| error.kind()), "{seed}");
                        assert_eq!(read.is_ok().then_some(here), read.is_ok().then_some(there), "seed {seed}");
                    }
                }
                assert_eq!(one.len().unwrap(), other.len().unwrap(), "seed {seed}");
            }
            assert_eq!(below.contents(path), Some(first));
        }
    }

    /// Names, too: what is renamed, removed and made is seen above and not below, and memory has a bound.
    #[test]
    fn names_change_above_only() {
        let below = MemoryDisk::new();
        below.plant(Path::new("/d/a"), b"a");
        below.plant(Path::new("/d/sub/b"), b"b");
        let over = Overlay::over(Arc::new(below.clone()), 2 * PAGE_BYTES as u64);
        let dir = Path::new("/d");
        replace(&over, &dir.join("a.new"), &dir.join("a"), |file| file.write_all_at(0, b"new")).unwrap();
        over.remove_tree(&dir.join("sub")).unwrap();
        over.create_dir_all(&dir.join("made")).unwrap();
        assert_eq!(over.list(dir).unwrap(), ["a"]);
        assert_eq!(over.list_dirs(dir).unwrap(), ["made"]);
        assert_eq!(over.open(&dir.join("sub/b"), false).err().unwrap().kind(), io::ErrorKind::NotFound);
        let mut read = [0; 3];
        over.open(&dir.join("a"), false).unwrap().read_exact_at(0, &mut read).unwrap();
        assert_eq!(&read, b"new");
        assert_eq!(below.contents(&dir.join("a")), Some(b"a".to_vec()));
        assert_eq!(below.contents(&dir.join("sub/b")), Some(b"b".to_vec()));
        let file = over.open(&dir.join("c"), true).unwrap();
        file.write_all_at(0, b"fits").unwrap();
        let refused = file.write_all_at(3 * PAGE_BYTES as u64, b"does not").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }
}
