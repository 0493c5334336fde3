//! A disk in memory that tears, loses and fails on purpose.
//!
//! For every file it keeps two images, what a power cut cannot take any more and what a reader sees now, and between
//! them the un-synced changes in order; for every directory it does the same with names. From that it can make the disk
//! a machine would find after `kill -9` ([`MemoryDisk::kill`]) or after a power cut ([`MemoryDisk::crash`]), as often as
//! a test likes and always the same for the same seed.
//!
//! The model is meant to be as bad as real disks are allowed to be, no worse: a sector of [`SECTOR_BYTES`] is written
//! whole or not at all; a sync that returned keeps its word; everything else may be kept, lost or mixed. A failed sync
//! is the nasty kind, after which the kernel holds the pages for clean: the bytes read back, later syncs succeed, and
//! the next power cut still takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// What [`MemoryDisk`] says is free when a test has set neither capacity nor free bytes: 1 TiB.
const FREE_BYTES_DEFAULT: u64 = 1 << 40;

/// Small, seeded pseudo-random numbers for tests: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014). Not for secrets.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound` (0 for a bound of 0). The slight bias of the remainder does not matter to a test.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// One of two.
    pub fn flip(&mut self) -> bool {
        self.draw() & 1 == 1
    }
}

/// A change to the disk that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A directory was made (durably, as [`Disk::create_dir_all`] promises).
    CreateDir(PathBuf),
    /// A file was made.
    Create(PathBuf),
    /// Bytes were written.
    Write {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// A file was cut or grown.
    SetLen {
        /// The file.
        path: PathBuf,
        /// Its length from then on.
        len: u64,
    },
    /// A file's bytes became durable.
    Sync(PathBuf),
    /// A directory's names became durable.
    SyncDir(PathBuf),
    /// A file's name was removed.
    Remove(PathBuf),
    /// A file was given another name.
    Rename {
        /// Its old name.
        from: PathBuf,
        /// Its new one.
        to: PathBuf,
    },
}

/// The calls a test can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// [`Disk::open`], whether or not it makes the file.
    Open,
    /// [`DiskFile::read_exact_at`].
    Read,
    /// [`DiskFile::write_all_at`]: the first half of the bytes is written all the same.
    Write,
    /// [`DiskFile::set_len`].
    SetLen,
    /// [`DiskFile::sync_data`].
    Sync,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::create_dir_all`] of a directory that is absent.
    CreateDir,
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryDisk").field("files", &state.names.keys()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    dirs: BTreeSet<PathBuf>,
    /// Names as everybody sees them, names a power cut leaves, and the changes between the two.
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    pending_names: Vec<NameChange>,
    files: BTreeMap<Inode, Bytes>,
    next_inode: Inode,
    locks: BTreeSet<PathBuf>,

    journal: Vec<Op>,
    faults: Vec<Fault>,
    power: Power,
    capacity: Option<u64>,
    free_bytes: Option<u64>,
}

type Inode = u64;

#[derive(Default, Clone)]
struct Bytes {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, Inode),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Inode),
    /// A directory, with all names below it.
    RenameTree(PathBuf, PathBuf),
    UnlinkTree(PathBuf),
}

struct Fault {
    call: Call,
    /// Only calls about this path or one below it count.
    below: PathBuf,
    /// Calls until it strikes, this one included.
    countdown: u64,
    error: io::ErrorKind,
}

#[derive(Default)]
enum Power {
    #[default]
    On,
    /// Goes out during the change after this many more.
    OutAfter(u64),
    Out,
}

/// What becomes of a call.
enum Verdict {
    Done,
    /// It fails.
    Fails(io::Error),
    /// The power goes while it runs: it is begun, nothing of it is durable, and nobody hears of it.
    PowerGoes,
}

fn power_is_out() -> io::Error {
    io::Error::other("the power is out")
}

fn no_such_file(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no such file: {}", path.display()))
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere has its own message; the state is plain data either way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk that is found after a power cut now: durable bytes and names, and of each un-synced change all, nothing
    /// or some sectors, as `seed` has it. No fault, limit, lock or journal entry is carried over.
    pub fn crash(&self, seed: u64) -> MemoryDisk {
        let state = self.state();
        let mut dice = SplitMix(seed);

        let mut names = state.durable_names.clone();
        // Half of the time the changes of names reach the disk in order, as a journaling file system has it.
        let in_order = dice.flip();
        let kept = dice.below(state.pending_names.len() as u64 + 1);
        for (number, change) in state.pending_names.iter().enumerate() {
            if if in_order { (number as u64) < kept } else { dice.flip() } {
                change.apply(&mut names);
            }
        }

        let mut after = State { dirs: state.dirs.clone(), next_inode: state.next_inode, ..State::default() };
        for inode in names.values() {
            let bytes = &state.files[inode];
            let mut image = bytes.durable.clone();
            for change in &bytes.pending {
                change.tear(&mut image, &mut dice);
            }
            after.files.insert(*inode, Bytes { now: image.clone(), durable: image, pending: Vec::new() });
        }
        after.names = names.clone();
        after.durable_names = names;
        MemoryDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// The disk that is found after `kill -9` now: all that was written is there, what was not synced still is not, and
    /// locks are free. No fault, limit or journal entry is carried over.
    pub fn kill(&self) -> MemoryDisk {
        let state = self.state();
        let after = State {
            dirs: state.dirs.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            files: state.files.clone(),
            next_inode: state.next_inode,
            ..State::default()
        };
        MemoryDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Makes the `nth` such call from now on (1 is the next one) fail with this error, once.
    pub fn fail(&self, call: Call, nth: u64, error: io::ErrorKind) {
        self.fail_below("", call, nth, error);
    }

    /// The same, where only calls about this path or one below it count.
    pub fn fail_below(&self, below: impl Into<PathBuf>, call: Call, nth: u64, error: io::ErrorKind) {
        self.state().faults.push(Fault { call, below: below.into(), countdown: nth.max(1), error });
    }

    /// Takes back every fault that has not struck yet.
    pub fn forgive(&self) {
        self.state().faults.clear();
    }

    /// Lets `changes` more changes happen, then the power goes out during the next one: it and all after it fail, and
    /// [`MemoryDisk::crash`] decides how much of that one took place.
    pub fn stop_after(&self, changes: u64) {
        self.state().power = Power::OutAfter(changes);
    }

    /// Whether the power went out.
    pub fn stopped(&self) -> bool {
        matches!(self.state().power, Power::Out)
    }

    /// Gives the disk room for this many bytes over all files (`None`: no limit). A write that does not fit writes what
    /// does and fails with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// What [`Disk::free_bytes`] answers; with `None`, what the capacity leaves.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.state().free_bytes = bytes;
    }

    /// Bytes in all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Changes that succeeded so far: the next one gets this index in the journal.
    pub fn sequence(&self) -> u64 {
        self.state().journal.len() as u64
    }

    /// The changes from the one with this sequence number on, in the order in which they happened.
    pub fn journal(&self, from: u64) -> Vec<Op> {
        let state = self.state();
        state.journal[(from as usize).min(state.journal.len())..].to_vec()
    }

    /// Syncs of files that succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.state().journal.iter().filter(|op| matches!(op, Op::Sync(_))).count() as u64
    }

    /// What a file holds now; `None` where it is absent.
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|inode| state.files[inode].now.clone())
    }

    /// Puts a file there as if it had always been: durable, with its directories, and unnoticed by faults and journal.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        state.dirs.extend(path.ancestors().skip(1).map(Path::to_path_buf));
        let inode = state.new_inode();
        state.files.insert(inode, Bytes { now: bytes.to_vec(), durable: bytes.to_vec(), pending: Vec::new() });
        state.names.insert(path.to_path_buf(), inode);
        state.durable_names.insert(path.to_path_buf(), inode);
    }
}

impl State {
    fn new_inode(&mut self) -> Inode {
        self.next_inode += 1;
        self.next_inode
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.files[inode].now.len() as u64).sum()
    }

    /// Bytes that files may still grow by.
    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    fn has_dir(&self, dir: &Path) -> bool {
        // The root and the working directory are always there.
        dir.parent().is_none() || dir.as_os_str().is_empty() || self.dirs.contains(dir)
    }

    fn struck(&mut self, call: Call, path: &Path) -> Option<io::Error> {
        let mut error = None;
        self.faults.retain_mut(|fault| {
            if fault.call != call || !path.starts_with(&fault.below) || error.is_some() {
                return true;
            }
            fault.countdown -= 1;
            if fault.countdown == 0 {
                error = Some(io::Error::new(fault.error, "a fault of the test"));
            }
            fault.countdown > 0
        });
        error
    }

    /// Decides about one change.
    fn admit(&mut self, call: Call, path: &Path) -> io::Result<Verdict> {
        match &mut self.power {
            Power::On => {}
            Power::Out => return Err(power_is_out()),
            Power::OutAfter(0) => {
                self.power = Power::Out;
                return Ok(Verdict::PowerGoes);
            }
            Power::OutAfter(left) => *left -= 1,
        }
        Ok(self.struck(call, path).map_or(Verdict::Done, Verdict::Fails))
    }

    fn rename_in_memory(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            NameChange::RenameTree(from, to) => {
                let below: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
                for path in below {
                    let inode = names.remove(&path).expect("it was just listed");
                    names.insert(moved(&path, from, to), inode);
                }
            }
            NameChange::UnlinkTree(dir) => names.retain(|path, _| !path.starts_with(dir)),
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::UnlinkTree(path) => within(path),
            NameChange::Rename(from, to, _) | NameChange::RenameTree(from, to) => within(from) || within(to),
        }
    }
}

/// The name of what lay below a directory that has another name now.
fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    path.strip_prefix(from).map_or_else(
        |_| path.to_path_buf(),
        |rest| if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) },
    )
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => put(image, *offset as usize, bytes),
            Change::SetLen(length) => image.resize(*length as usize, 0),
        }
    }

    /// Leaves of an un-synced change what a power cut may leave.
    fn tear(&self, image: &mut Vec<u8>, dice: &mut SplitMix) {
        let (Change::Write { offset, bytes }, true) = (self, dice.flip()) else {
            if dice.flip() {
                self.apply(image);
            }
            return;
        };
        let mut done = 0;
        while done < bytes.len() {
            let at = *offset as usize + done;
            let piece = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len() - done);
            if dice.flip() {
                put(image, at, &bytes[done..done + piece]);
            }
            done += piece;
        }
        // The length may have reached the disk before the bytes: zeros then.
        let end = *offset as usize + bytes.len();
        if dice.flip() && image.len() < end {
            image.resize(end, 0);
        }
    }
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.has_dir(dir) {
            return Ok(());
        }
        match state.admit(Call::CreateDir, dir)? {
            Verdict::Fails(error) => return Err(error),
            Verdict::PowerGoes => return Err(power_is_out()),
            Verdict::Done => {}
        }
        state.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        state.journal.push(Op::CreateDir(dir.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.has_dir(dir) {
            return Err(no_such_file(dir));
        }
        let within = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn list_dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.has_dir(dir) {
            return Err(no_such_file(dir));
        }
        let within = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        Ok(within.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let inode = if let Some(&inode) = state.names.get(path) {
            if let Some(error) = state.struck(Call::Open, path) {
                return Err(error);
            }
            inode
        } else {
            if !create || !path.parent().is_some_and(|dir| state.has_dir(dir)) {
                return Err(no_such_file(path));
            }
            let verdict = state.admit(Call::Open, path)?;
            if let Verdict::Fails(error) = verdict {
                return Err(error);
            }
            let inode = state.new_inode();
            state.files.insert(inode, Bytes::default());
            state.rename_in_memory(NameChange::Link(path.to_path_buf(), inode));
            if let Verdict::PowerGoes = verdict {
                return Err(power_is_out());
            }
            state.journal.push(Op::Create(path.to_path_buf()));
            inode
        };
        drop(state);
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode, path: path.to_path_buf() }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Err(no_such_file(path));
        }
        let verdict = state.admit(Call::Remove, path)?;
        if let Verdict::Fails(error) = verdict {
            return Err(error);
        }
        state.rename_in_memory(NameChange::Unlink(path.to_path_buf()));
        if let Verdict::PowerGoes = verdict {
            return Err(power_is_out());
        }
        state.journal.push(Op::Remove(path.to_path_buf()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (from_path, to_path) = (from.to_path_buf(), to.to_path_buf());
        let is_dir = state.dirs.contains(from);
        let change = match state.names.get(from) {
            Some(&inode) => NameChange::Rename(from_path, to_path, inode),
            None if is_dir && !state.has_dir(to) => NameChange::RenameTree(from_path, to_path),
            None if is_dir => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
            None => return Err(no_such_file(from)),
        };
        let verdict = state.admit(Call::Rename, from)?;
        if let Verdict::Fails(error) = verdict {
            return Err(error);
        }
        state.rename_in_memory(change);
        if is_dir {
            state.dirs = state.dirs.iter().map(|dir| moved(dir, from, to)).collect();
        }
        if let Verdict::PowerGoes = verdict {
            return Err(power_is_out());
        }
        state.journal.push(Op::Rename { from: from.to_path_buf(), to: to.to_path_buf() });
        Ok(())
    }

    fn remove_tree(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.dirs.contains(dir) {
            return Ok(());
        }
        let verdict = state.admit(Call::Remove, dir)?;
        if let Verdict::Fails(error) = verdict {
            return Err(error);
        }
        state.rename_in_memory(NameChange::UnlinkTree(dir.to_path_buf()));
        state.dirs.retain(|other| !other.starts_with(dir));
        if let Verdict::PowerGoes = verdict {
            return Err(power_is_out());
        }
        state.journal.push(Op::Remove(dir.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.has_dir(dir) {
            return Err(no_such_file(dir));
        }
        match state.admit(Call::SyncDir, dir)? {
            Verdict::Fails(error) => return Err(error),
            Verdict::PowerGoes => return Err(power_is_out()),
            Verdict::Done => {}
        }
        let state = &mut *state;
        state.pending_names.retain(|change| {
            let touched = change.touches(dir);
            if touched {
                change.apply(&mut state.durable_names);
            }
            !touched
        });
        state.journal.push(Op::SyncDir(dir.to_path_buf()));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.free_bytes.unwrap_or_else(|| state.room().min(FREE_BYTES_DEFAULT)))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.open(path, true)?;
        if !self.state().locks.insert(path.to_path_buf()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds the lock"));
        }
        Ok(Box::new(MemoryLock { disk: self.clone(), path: path.to_path_buf() }))
    }
}

struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

/// A handle; it outlives its name, as on Unix.
struct MemoryFile {
    disk: MemoryDisk,
    inode: Inode,
    /// The name it was opened by, for the journal.
    path: PathBuf,
}

impl State {
    fn bytes(&mut self, inode: Inode) -> &mut Bytes {
        self.files.get_mut(&inode).expect("a file is kept as long as its disk")
    }

    fn change(&mut self, inode: Inode, change: Change) {
        let bytes = self.bytes(inode);
        change.apply(&mut bytes.now);
        bytes.pending.push(change);
    }
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().bytes(self.inode).now.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(error) = state.struck(Call::Read, &self.path) {
            return Err(error);
        }
        let now = &state.bytes(self.inode).now;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(now.len());
        let source = now[from..].get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(source);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.admit(Call::Write, &self.path)?;
        let length = state.bytes(self.inode).now.len() as u64;
        let fits = length.saturating_add(state.room()).saturating_sub(offset).min(bytes.len() as u64) as usize;
        let (written, error) = match verdict {
            Verdict::Fails(error) => (fits.min(bytes.len() / 2), Some(error)),
            Verdict::PowerGoes => (fits, Some(power_is_out())),
            Verdict::Done if fits < bytes.len() => (fits, Some(io::ErrorKind::StorageFull.into())),
            Verdict::Done => (bytes.len(), None),
        };
        if written > 0 {
            state.change(self.inode, Change::Write { offset, bytes: bytes[..written].to_vec() });
        }
        if let Some(error) = error {
            return Err(error);
        }
        state.journal.push(Op::Write { path: self.path.clone(), offset, len: bytes.len() as u64 });
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.admit(Call::SetLen, &self.path)?;
        if let Verdict::Fails(error) = verdict {
            return Err(error);
        }
        if length.saturating_sub(state.bytes(self.inode).now.len() as u64) > state.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.change(self.inode, Change::SetLen(length));
        if let Verdict::PowerGoes = verdict {
            return Err(power_is_out());
        }
        state.journal.push(Op::SetLen { path: self.path.clone(), len: length });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let verdict = state.admit(Call::Sync, &self.path)?;
        let bytes = state.bytes(self.inode);
        match verdict {
            Verdict::PowerGoes => return Err(power_is_out()),
            Verdict::Fails(error) => {
                // The pages count as clean from now on, and they are on no disk.
                bytes.pending.clear();
                return Err(error);
            }
            Verdict::Done => {}
        }
        for change in bytes.pending.drain(..) {
            change.apply(&mut bytes.durable);
        }
        state.journal.push(Op::Sync(self.path.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn disk_with(path: &str) -> (MemoryDisk, Arc<dyn DiskFile>) {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/d")).expect("made");
        let file = disk.open(Path::new(path), true).expect("made");
        (disk, file)
    }

    /// The promise every crash test leans on: what was synced is there, and nothing that was never written is.
    #[test]
    fn a_power_cut_keeps_what_was_synced_and_tears_the_rest_by_sectors() {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(0, &[1; 1024]).expect("written");
        file.sync_data().expect("synced");
        disk.sync_dir(Path::new("/d")).expect("synced");
        file.write_all_at(1024, &[2; 1024]).expect("written");

        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let found = disk.crash(seed).contents(Path::new("/d/f")).expect("its name was synced");
            assert_eq!(found[..1024], [1; 1024], "synced bytes stay");
            let tail = &found[1024..];
            for sector in tail.chunks(SECTOR_BYTES) {
                assert!(
                    sector.iter().all(|&byte| byte == 2) || sector.iter().all(|&byte| byte == 0),
                    "a sector is whole"
                );
            }
            seen.insert((tail.len(), tail.first().copied(), tail.last().copied()));
            assert_eq!(found, disk.crash(seed).contents(Path::new("/d/f")).expect("there"), "a seed repeats itself");
        }
        let kept = (1024, Some(2), Some(2));
        let lost = (0, None, None);
        let torn = (1024, Some(0), Some(2));
        let short = (512, Some(2), Some(2));
        for case in [kept, lost, torn, short] {
            assert!(seen.contains(&case), "{case:?} never came up");
        }
    }

    /// A name is as volatile as the bytes, and on its own: a file that was synced can still be gone.
    #[test]
    fn names_live_through_a_power_cut_once_their_directory_was_synced() {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(0, b"x").expect("written");
        file.sync_data().expect("synced");
        let there = |seed| disk.crash(seed).contents(Path::new("/d/f")).is_some();
        assert!((0..50).any(there) && !(0..50).all(there), "an un-synced name is kept or lost");
        disk.sync_dir(Path::new("/d")).expect("synced");
        assert!((0..50).all(there), "a synced name is kept");

        disk.rename(Path::new("/d/f"), Path::new("/d/g")).expect("renamed");
        let names = |seed| disk.crash(seed).list(Path::new("/d")).expect("listed");
        for seed in 0..50 {
            assert!(names(seed) == ["f"] || names(seed) == ["g"], "a rename is one step");
        }
        disk.sync_dir(Path::new("/d")).expect("synced");
        disk.remove(Path::new("/d/g")).expect("removed");
        assert_eq!(disk.kill().list(Path::new("/d")).expect("listed"), [""; 0]);
        assert!((0..50).any(|seed| names(seed) == ["g"]), "an un-synced removal may be lost");
        file.read_exact_at(0, &mut [0]).expect("a handle outlives the name");
    }

    /// After a failed sync the bytes still read back and later syncs succeed, and the power cut takes them all the same.
    #[test]
    fn a_failed_sync_forgets_its_bytes() {
        let (disk, file) = disk_with("/d/f");
        disk.sync_dir(Path::new("/d")).expect("synced");
        file.write_all_at(0, b"lost").expect("written");
        disk.fail(Call::Sync, 1, io::ErrorKind::Other);
        file.sync_data().expect_err("the fault");
        file.sync_data().expect("nothing left to do");
        assert_eq!(disk.kill().contents(Path::new("/d/f")).expect("there"), b"lost");
        assert_eq!(disk.crash(1).contents(Path::new("/d/f")).expect("there"), b"");

        let reopened = disk.kill().open(Path::new("/d/f"), false).expect("there");
        reopened.write_all_at(0, b"lost").expect("written again");
        reopened.sync_data().expect("synced");
    }

    /// Full, failing and powered-off disks answer as real ones do, and count.
    #[test]
    fn faults_strike_where_they_were_set() {
        let (disk, file) = disk_with("/d/f");
        let other = disk.open(Path::new("/d/f"), false).expect("a second handle");
        disk.set_capacity(Some(10));
        file.write_all_at(0, b"0123456").expect("it fits");
        let full = other.write_all_at(7, b"789abc").expect_err("it does not");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.contents(Path::new("/d/f")).expect("there"), b"0123456789", "what fits is written");
        assert_eq!(disk.free_bytes(Path::new("/d")).expect("asked"), 0);
        disk.set_capacity(None);

        disk.fail(Call::Write, 2, io::ErrorKind::Other);
        file.write_all_at(0, b"ABCD").expect("the first");
        file.write_all_at(0, b"efgh").expect_err("the second");
        file.write_all_at(8, b"IJ").expect("the third");
        assert_eq!(disk.contents(Path::new("/d/f")).expect("there"), b"efCD4567IJ");

        let held = disk.lock(Path::new("/d/LOCK")).expect("free");
        assert_eq!(disk.lock(Path::new("/d/LOCK")).err().expect("held").kind(), io::ErrorKind::WouldBlock);
        disk.kill().lock(Path::new("/d/LOCK")).expect("a dead process holds nothing");
        drop(held);

        let from = disk.sequence();
        disk.stop_after(1);
        file.write_all_at(0, b"x").expect("the last");
        file.sync_data().expect_err("the power goes");
        file.write_all_at(0, b"y").expect_err("it is out");
        assert!(disk.stopped());
        assert_eq!(disk.journal(from), [Op::Write { path: "/d/f".into(), offset: 0, len: 1 }]);
        assert_eq!(disk.syncs(), 0);
    }
}
