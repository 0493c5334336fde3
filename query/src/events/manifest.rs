//! The manifest: which Parquet files are live, and up to which batch each source is sealed.
//!
//! It is a file of checksummed frames. The first holds the whole state and is put there by an atomic replacement; each
//! later one is an edit, appended and synced. An edit takes effect as a whole or not at all, so that a seal (new parts, a
//! watermark) or a compaction (new parts, old parts) happens at one moment, and that moment is its sync.
//!
//! ```text
//! file:   "KWEVM001" frame+
//! frame:  u32 payload length | u32 CRC-32 of the payload | payload
//! payload: u32 n, n times (u32 source, u64 sealed batch); u32 n, n times added part; u32 n, n times (u64 removed part)
//! part:   u64 number | u8 table | 16 bytes workspace | i32 day | u64 rows | u64 bytes | i64 least time | i64 greatest time
//! ```
//!
//! A torn last frame was never acknowledged and is forgotten. Damage before a whole frame is not: start-up refuses rather
//! than take live files for orphans.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_storage::disk::{self, Disk, DiskFile};
use keyward_storage::ids::WorkspaceId;

use super::event::workspace_from;
use super::tables::Table;

const MAGIC: &[u8; 8] = b"KWEVM001";
const FRAME_HEADER_BYTES: usize = 8;
const PART_BYTES: usize = 8 + 1 + 16 + 4 + 8 + 8 + 8 + 8;
/// Edits are folded into a new first frame when they have grown beyond it and this.
const FOLD_BYTES: u64 = 1 << 20;
/// The file's name in the store's directory.
pub(crate) const NAME: &str = "MANIFEST";
const ASIDE: &str = "MANIFEST.new";

/// What the manifest says of a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartInfo {
    /// Never given out twice.
    pub no: u64,
    pub table: Table,
    pub workspace: WorkspaceId,
    /// The UTC day its rows belong to, days since 1970; of a month, its first.
    pub day: i32,
    pub rows: u64,
    pub bytes: u64,
    /// Bounds of column `time`, in its own unit.
    pub least_time: i64,
    pub greatest_time: i64,
}

/// A change of the manifest, all or nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edit {
    /// Batches up to this number are in the parts.
    pub sealed: Vec<(u32, u64)>,
    pub added: Vec<PartInfo>,
    pub removed: Vec<u64>,
}

/// What the edits so far add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub sealed: BTreeMap<u32, u64>,
    pub parts: BTreeMap<u64, PartInfo>,
}

impl State {
    fn apply(&mut self, edit: &Edit) {
        for &(source, batch) in &edit.sealed {
            let sealed = self.sealed.entry(source).or_default();
            *sealed = batch.max(*sealed);
        }
        for no in &edit.removed {
            self.parts.remove(no);
        }
        for part in &edit.added {
            self.parts.insert(part.no, *part);
        }
    }

    /// What the manifest of a directory says; `None` where there is none.
    pub fn of(disk: &dyn Disk, dir: &Path) -> io::Result<Option<State>> {
        match disk.open(&dir.join(NAME), false) {
            Ok(file) => read(&*file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A manifest that holds this state in its first frame.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&frame(&self.as_edit())?);
        Ok(bytes)
    }

    fn as_edit(&self) -> Edit {
        Edit {
            sealed: self.sealed.iter().map(|(source, batch)| (*source, *batch)).collect(),
            added: self.parts.values().copied().collect(),
            removed: Vec::new(),
        }
    }
}

/// The open manifest.
pub(crate) struct Manifest {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    length: u64,
    /// Length of the first frame.
    folded: u64,
    state: State,
}

impl Manifest {
    /// Reads the manifest of a directory, or begins one.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Manifest> {
        let state = State::of(&*disk, dir)?.unwrap_or_default();
        let mut manifest = Manifest { disk, dir: dir.to_path_buf(), file: None, length: 0, folded: 0, state };
        manifest.fold()?;
        Ok(manifest)
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// Makes an edit durable. After an error nothing has changed here; the disk may still hold the edit until the next
    /// one that succeeds, so the files it adds must stay until then.
    pub fn commit(&mut self, edit: &Edit) -> io::Result<()> {
        let grown = self.length - self.folded;
        match &self.file {
            Some(file) if grown < self.folded.max(FOLD_BYTES) => {
                let frame = frame(edit)?;
                let appended = file.write_all_at(self.length, &frame).and_then(|()| file.sync_data());
                if let Err(error) = appended {
                    // What stands at the end is unknown now: a replacement of the whole file takes it back, here or at
                    // the next edit.
                    self.file = None;
                    let _ = self.fold();
                    return Err(error);
                }
                self.length += frame.len() as u64;
                self.state.apply(edit);
                Ok(())
            }
            _ => {
                let mut next = self.state.clone();
                next.apply(edit);
                let before = std::mem::replace(&mut self.state, next);
                self.fold().inspect_err(|_| self.state = before)
            }
        }
    }

    /// Replaces the file by one that holds the state in its first frame.
    fn fold(&mut self) -> io::Result<()> {
        let bytes = self.state.to_bytes()?;
        self.file = None;
        let file = disk::replace(&*self.disk, &self.dir.join(ASIDE), &self.dir.join(NAME), |file| {
            file.write_all_at(0, &bytes)?;
            file.sync_data()?;
            Ok::<_, io::Error>(file)
        })?;
        self.file = Some(file);
        self.length = bytes.len() as u64;
        self.folded = self.length;
        Ok(())
    }
}

fn frame(edit: &Edit) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FRAME_HEADER_BYTES];
    let count = |bytes: &mut Vec<u8>, count: usize| -> io::Result<()> {
        bytes.extend_from_slice(&u32::try_from(count).map_err(io::Error::other)?.to_le_bytes());
        Ok(())
    };
    count(&mut bytes, edit.sealed.len())?;
    for (source, batch) in &edit.sealed {
        bytes.extend_from_slice(&source.to_le_bytes());
        bytes.extend_from_slice(&batch.to_le_bytes());
    }
    count(&mut bytes, edit.added.len())?;
    for part in &edit.added {
        bytes.extend_from_slice(&part.no.to_le_bytes());
        bytes.push(part.table.code());
        bytes.extend_from_slice(part.workspace.as_bytes());
        bytes.extend_from_slice(&part.day.to_le_bytes());
        bytes.extend_from_slice(&part.rows.to_le_bytes());
        bytes.extend_from_slice(&part.bytes.to_le_bytes());
        bytes.extend_from_slice(&part.least_time.to_le_bytes());
        bytes.extend_from_slice(&part.greatest_time.to_le_bytes());
    }
    count(&mut bytes, edit.removed.len())?;
    for no in &edit.removed {
        bytes.extend_from_slice(&no.to_le_bytes());
    }
    let length = u32::try_from(bytes.len() - FRAME_HEADER_BYTES).map_err(io::Error::other)?;
    let sum = crc32fast::hash(&bytes[FRAME_HEADER_BYTES..]);
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

pub(crate) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the manifest of the events is damaged: {what}"))
}

fn read(file: &dyn DiskFile) -> io::Result<State> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(0, &mut bytes)?;
    let Some(frames) = bytes.strip_prefix(MAGIC) else { return Err(damaged("it does not begin as one")) };
    let mut state = State::default();
    let mut rest = frames;
    let mut number = 0;
    while let Some((payload, behind)) = whole_frame(rest) {
        state.apply(&decode(payload).ok_or_else(|| damaged("a frame holds what no version wrote"))?);
        rest = behind;
        number += 1;
    }
    if number == 0 {
        return Err(damaged("its first frame is not whole"));
    }
    // What was being appended when the power went is no frame and has none behind it.
    if (1..rest.len()).any(|at| whole_frame(&rest[at..]).is_some_and(|(payload, _)| decode(payload).is_some())) {
        return Err(damaged("a frame in its middle is not whole"));
    }
    Ok(state)
}

/// The payload of the frame that the bytes begin with, and what follows it.
fn whole_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
    let sum = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
    // The shortest payload has three counts.
    if length < 12 {
        return None;
    }
    let (payload, behind) = rest.split_at_checked(length)?;
    (crc32fast::hash(payload) == sum).then_some((payload, behind))
}

fn decode(payload: &[u8]) -> Option<Edit> {
    let mut reader = Reader(payload);
    let mut edit = Edit::default();
    for _ in 0..reader.count(12)? {
        edit.sealed.push((u32::from_le_bytes(reader.take()?), u64::from_le_bytes(reader.take()?)));
    }
    for _ in 0..reader.count(PART_BYTES)? {
        edit.added.push(PartInfo {
            no: u64::from_le_bytes(reader.take()?),
            table: Table::of_code(u8::from_le_bytes(reader.take()?))?,
            workspace: workspace_from(reader.take()?)?,
            day: i32::from_le_bytes(reader.take()?),
            rows: u64::from_le_bytes(reader.take()?),
            bytes: u64::from_le_bytes(reader.take()?),
            least_time: i64::from_le_bytes(reader.take()?),
            greatest_time: i64::from_le_bytes(reader.take()?),
        });
    }
    for _ in 0..reader.count(8)? {
        edit.removed.push(u64::from_le_bytes(reader.take()?));
    }
    reader.0.is_empty().then_some(edit)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// A count of things so many bytes long; `None` where the payload cannot hold them.
    fn count(&mut self, each: usize) -> Option<usize> {
        let count = u32::from_le_bytes(self.take()?) as usize;
        (count.checked_mul(each)? <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::text;
    use keyward_storage::disk::MemoryDisk;

    fn part(no: u64, day: i32) -> PartInfo {
        let tables: Vec<Table> = Table::all().collect();
        PartInfo {
            no,
            table: tables[usize::try_from(no).unwrap() % tables.len()],
            workspace: WorkspaceId(text('w')),
            day,
            rows: no * 10,
            bytes: no * 100,
            least_time: -5,
            greatest_time: i64::MAX,
        }
    }

    /// The bytes of a frame, for ever.
    #[test]
    fn the_layout_is_frozen() {
        let edit = Edit { sealed: vec![(1, 2)], added: vec![part(3, -2)], removed: vec![4] };
        let hex: String = frame(&edit).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        let payload = concat!(
            "01000000",
            "01000000",
            "0200000000000000",
            "01000000",
            "0300000000000000",
            "03",
            "77777777777777777777777777777777",
            "feffffff",
            "1e00000000000000",
            "2c01000000000000",
            "fbffffffffffffff",
            "ffffffffffffff7f",
            "01000000",
            "0400000000000000"
        );
        assert_eq!(hex[..8], format!("{:08x}", u32::try_from(payload.len() / 2).unwrap().swap_bytes()));
        assert_eq!(&hex[16..], payload);
        assert_eq!(decode(&frame(&edit).unwrap()[FRAME_HEADER_BYTES..]).unwrap().added, edit.added);
    }

    fn edits() -> Vec<Edit> {
        let mut edits: Vec<Edit> = (1..6)
            .map(|no| Edit { sealed: vec![(0, no), (9, no * 2)], added: vec![part(no, 20_000)], removed: vec![] })
            .collect();
        edits.push(Edit { sealed: vec![], added: vec![part(6, -1)], removed: vec![1, 2, 4] });
        edits.push(Edit { sealed: vec![(0, 3)], added: vec![], removed: vec![] });
        edits
    }

    /// The power may go at any change: the next start finds exactly the edits whose commit returned, or one more.
    #[test]
    fn an_edit_is_there_as_a_whole_or_not_at_all_wherever_the_power_goes() {
        let dir = Path::new("/events");
        for stop in 0..40 {
            for seed in 0..4 {
                let disk = MemoryDisk::new();
                disk.create_dir_all(dir).unwrap();
                disk.stop_after(stop);
                let mut states = vec![State::default()];
                let mut done = 0;
                if let Ok(mut manifest) = Manifest::open(Arc::new(disk.clone()), dir) {
                    for edit in edits() {
                        let mut next = states.last().unwrap().clone();
                        next.apply(&edit);
                        states.push(next);
                        if manifest.commit(&edit).is_err() {
                            break;
                        }
                        done += 1;
                    }
                }
                let found = Manifest::open(Arc::new(disk.crash(seed)), dir).unwrap();
                assert!(
                    found.state() == &states[done] || states.get(done + 1) == Some(found.state()),
                    "power out after {stop}, seed {seed}"
                );
            }
        }
    }

    /// A write or sync that fails leaves the manifest as it was, in memory and on the disk, and the next edit works.
    #[test]
    fn a_failed_edit_changes_nothing() {
        use keyward_storage::disk::memory::Call;
        let dir = Path::new("/events");
        for call in [Call::Write, Call::Sync, Call::Rename, Call::SyncDir] {
            for nth in 1..4 {
                let disk = MemoryDisk::new();
                disk.create_dir_all(dir).unwrap();
                let mut manifest = Manifest::open(Arc::new(disk.clone()), dir).unwrap();
                let mut expected = State::default();
                disk.fail(call, nth, io::ErrorKind::StorageFull);
                for edit in edits() {
                    if manifest.commit(&edit).is_ok() {
                        expected.apply(&edit);
                    }
                    assert_eq!(manifest.state(), &expected);
                }
                assert_eq!(Manifest::open(Arc::new(disk.kill()), dir).unwrap().state(), &expected, "{call:?} {nth}");
            }
        }
    }

    /// Damage in the middle is not taken for a torn end: files that are live must not be swept as orphans.
    #[test]
    fn damage_in_the_middle_refuses_and_a_torn_end_does_not() {
        let dir = Path::new("/events");
        let disk = MemoryDisk::new();
        disk.create_dir_all(dir).unwrap();
        let mut manifest = Manifest::open(Arc::new(disk.clone()), dir).unwrap();
        let mut ends = vec![manifest.length as usize];
        for edit in edits() {
            manifest.commit(&edit).unwrap();
            ends.push(manifest.length as usize);
        }
        let image = disk.contents(&dir.join(NAME)).unwrap();
        let open = |image: &[u8]| {
            let disk = MemoryDisk::new();
            disk.plant(&dir.join(NAME), image);
            Manifest::open(Arc::new(disk), dir).map(|manifest| manifest.state().clone())
        };
        let last = ends[ends.len() - 2];
        for at in (0..last).step_by(7) {
            let mut flipped = image.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped).is_err(), "byte {at}");
        }
        let mut without = State::default();
        edits()[..ends.len() - 2].iter().for_each(|edit| without.apply(edit));
        for cut in last..image.len() {
            assert_eq!(open(&image[..cut]).unwrap(), without, "cut at {cut}");
        }
        assert_eq!(&open(&image).unwrap(), manifest.state());
    }
}
