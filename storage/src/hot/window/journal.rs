//! Rate-limit windows on disk, outside the log: what a restart keeps of the counters (RL-CON-04).
//!
//! One file of equal slots, `windows/journal` below the data directory. About every second the cells that changed are
//! appended and synced; when the file has outgrown twice the cells that live, it is written anew beside itself and renamed
//! over the old one. A graceful stop writes everything. So a graceful restart keeps all counters, and a crash forgets
//! what was counted since the last write: about a second.
//!
//! Counters are no records: whatever is wrong with this file costs counts, never the start. A slot that does not carry
//! its checksum is skipped, a file of another store or format is ignored, and both are reported.
//!
//! ```text
//! header, 40 bytes                          slot, 44 bytes
//!  0  magic "KWWINDOW"                       0  subject: u128
//!  8  format: 2, u32                        16  duration (ms): u64
//! 12  store id: 16 bytes                    24  word: u128, unclaimed, of layout `Wide`
//! 28  seed check: u64                       40  CRC-32 of bytes 0 to 39
//! 36  CRC-32 of bytes 0 to 35
//! ```
//!
//! All numbers are little-endian. Of several slots of one subject the one with the largest word holds, which is the latest.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::windows::{Restored, Saved, Subject, Windows};
use crate::disk::{self, Disk, DiskFile};

/// The directory below the data directory.
pub const DIRECTORY: &str = "windows";
/// The file in it.
pub const FILE: &str = "journal";
/// The file while it is being written anew; a leftover of a crash is overwritten.
pub const FILE_ASIDE: &str = "journal.new";
/// What the file begins with.
pub const MAGIC: [u8; 8] = *b"KWWINDOW";
/// The layout's number.
pub const FORMAT: u32 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 44;

/// Slots read or written at once: some 180 KiB.
const SLOTS_AT_ONCE: usize = 4_096;
/// Slots below which a file is not worth writing anew: some 700 KiB.
const SMALL_FILE_SLOTS: u64 = 16_384;

/// Makes the file of another store this one's, whose secret is the same. A file that is not there, or that no start would read,
/// stays as it is.
///
/// # Errors
/// The disk's.
pub fn rehome(disk: &dyn Disk, data: &Path, store_id: [u8; 16]) -> io::Result<()> {
    let file = match disk.open(&data.join(DIRECTORY).join(FILE), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut header = [0; HEADER_BYTES];
    if file.len()? < HEADER_BYTES as u64 {
        return Ok(());
    }
    file.read_exact_at(0, &mut header)?;
    let is_whole = header[..8] == MAGIC
        && header[8..12] == FORMAT.to_le_bytes()
        && header[36..] == crc32fast::hash(&header[..36]).to_le_bytes();
    if is_whole {
        header[12..28].copy_from_slice(&store_id);
        let crc = crc32fast::hash(&header[..36]);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(0, &header)?;
        file.sync_data()?;
    }
    Ok(())
}

/// How many bytes of the file a start could not use: those of another store or format, and slots whose checksum is wrong. 0 where
/// there is no file.
///
/// # Errors
/// The disk's.
pub fn survey(disk: &dyn Disk, data: &Path, store_id: [u8; 16]) -> io::Result<u64> {
    let file = match disk.open(&data.join(DIRECTORY).join(FILE), false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    let length = file.len()?;
    let mut header = [0; HEADER_BYTES];
    if length < HEADER_BYTES as u64 {
        return Ok(length);
    }
    file.read_exact_at(0, &mut header)?;
    if header[..8] != MAGIC || header[8..12] != FORMAT.to_le_bytes() || header[12..28] != store_id {
        return Ok(length);
    }
    let slots = (length - HEADER_BYTES as u64) / SLOT_BYTES as u64;
    let mut unread = (length - HEADER_BYTES as u64) % SLOT_BYTES as u64;
    let mut slot = [0; SLOT_BYTES];
    for number in 0..slots {
        file.read_exact_at(HEADER_BYTES as u64 + number * SLOT_BYTES as u64, &mut slot)?;
        if slot[SLOT_BYTES - 4..] != crc32fast::hash(&slot[..SLOT_BYTES - 4]).to_le_bytes() {
            unread += SLOT_BYTES as u64;
        }
    }
    Ok(unread)
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Slots whose cell counts again. A subject may have several.
    pub kept: u64,
    /// Slots in which nothing counted any more.
    pub expired: u64,
    /// Slots for which there was no room.
    pub no_room: u64,
    /// Bytes that could not be used: torn, damaged, or of another store.
    pub ignored_bytes: u64,
    /// The error that ended reading before the end of the file, if one did.
    pub unread: Option<io::Error>,
}

/// What one call wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Cells written.
    pub cells: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Whether the file was written anew.
    pub anew: bool,
}

/// The file of the windows, and what it needs to be continued. One thread owns it.
pub struct WindowJournal {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    header: [u8; HEADER_BYTES],
    /// The file and its slots; none where it has to be written anew before anything is appended.
    current: Option<Current>,
}

struct Current {
    file: Arc<dyn DiskFile>,
    slots: u64,
}

impl WindowJournal {
    /// Makes the directory where it is absent and loads what an earlier run left into `windows`, whose secret must be
    /// that run's. Writes nothing else: the first [`write_changed`](Self::write_changed) begins a new file.
    ///
    /// # Errors
    /// Only where the directory cannot be made. What cannot be read is in [`Loaded`].
    pub fn open(
        disk: Arc<dyn Disk>,
        data: &Path,
        store_id: [u8; 16],
        windows: &Windows,
        now_ms: u64,
    ) -> io::Result<(WindowJournal, Loaded)> {
        let directory = data.join(DIRECTORY);
        disk.create_dir_all(&directory)?;
        let mut header = [0; HEADER_BYTES];
        header[0..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[12..28].copy_from_slice(&store_id);
        header[28..36].copy_from_slice(&windows.seed_check().to_le_bytes());
        let crc = crc32fast::hash(&header[..36]);
        header[36..40].copy_from_slice(&crc.to_le_bytes());

        let journal = WindowJournal { disk, directory, header, current: None };
        let mut loaded = Loaded::default();
        if !windows.is_for_tests()
            && let Err(error) = journal.load(windows, now_ms, &mut loaded)
            && error.kind() != io::ErrorKind::NotFound
        {
            loaded.unread = Some(error);
        }
        Ok((journal, loaded))
    }

    fn load(&self, windows: &Windows, now_ms: u64, loaded: &mut Loaded) -> io::Result<()> {
        let file = self.disk.open(&self.directory.join(FILE), false)?;
        let length = file.len()?;
        let mut header = [0; HEADER_BYTES];
        if length >= HEADER_BYTES as u64 {
            file.read_exact_at(0, &mut header)?;
        }
        if header != self.header {
            loaded.ignored_bytes = length;
            return Ok(());
        }
        let mut left = (length - HEADER_BYTES as u64) / SLOT_BYTES as u64;
        loaded.ignored_bytes = (length - HEADER_BYTES as u64) % SLOT_BYTES as u64;
        let mut offset = HEADER_BYTES as u64;
        let mut buffer = vec![0; SLOTS_AT_ONCE.min(usize::try_from(left).unwrap_or(SLOTS_AT_ONCE)) * SLOT_BYTES];
        while left > 0 {
            let slots = left.min(SLOTS_AT_ONCE as u64);
            let bytes = &mut buffer[..slots as usize * SLOT_BYTES];
            if let Err(error) = file.read_exact_at(offset, bytes) {
                loaded.ignored_bytes += left * SLOT_BYTES as u64;
                return Err(error);
            }
            for slot in bytes.chunks_exact(SLOT_BYTES) {
                match decode(slot).map(|saved| windows.restore(saved, now_ms)) {
                    Some(Restored::Kept) => loaded.kept += 1,
                    Some(Restored::Expired) => loaded.expired += 1,
                    Some(Restored::NoRoom) => loaded.no_room += 1,
                    None => loaded.ignored_bytes += SLOT_BYTES as u64,
                }
            }
            offset += bytes.len() as u64;
            left -= slots;
        }
        Ok(())
    }

    /// Appends and syncs the cells that changed since the last call; now and then, and after an error, writes all of them
    /// to a fresh file instead. To be called about every second.
    ///
    /// # Errors
    /// The disk's. Nothing in memory is lost, and the next call writes everything anew.
    pub fn write_changed(&mut self, windows: &Windows, now_ms: u64) -> io::Result<Written> {
        if windows.is_for_tests() {
            return Ok(Written::default());
        }
        // Taken out, so that an error on the way leaves none.
        let Some(Current { file, slots }) = self.current.take() else {
            return self.write_all(windows, now_ms);
        };
        if slots > SMALL_FILE_SLOTS.max(2 * windows.len() as u64) {
            return self.write_all(windows, now_ms);
        }
        let mut out = Out { file: &*file, at: end_of(slots), buffer: Vec::new(), cells: 0 };
        windows.changed_cells(now_ms, |saved| out.put(&saved))?;
        let written = out.finish(false)?;
        self.current = Some(Current { file, slots: slots + written.cells });
        Ok(written)
    }

    /// Writes every live cell to a fresh file and puts it in the old one's place: what a graceful stop does last.
    ///
    /// # Errors
    /// The disk's. The old file stays, and the next call tries again.
    pub fn write_all(&mut self, windows: &Windows, now_ms: u64) -> io::Result<Written> {
        if windows.is_for_tests() {
            return Ok(Written::default());
        }
        self.current = None;
        let (aside, path) = (self.directory.join(FILE_ASIDE), self.directory.join(FILE));
        let (current, written) = disk::replace(&*self.disk, &aside, &path, |file| -> io::Result<_> {
            file.write_all_at(0, &self.header)?;
            let mut out = Out { file: &*file, at: end_of(0), buffer: Vec::new(), cells: 0 };
            windows.all_cells(now_ms, |saved| out.put(&saved))?;
            let mut written = out.finish(true)?;
            written.bytes += HEADER_BYTES as u64;
            Ok((Current { file, slots: written.cells }, written))
        })?;
        self.current = Some(current);
        Ok(written)
    }
}

/// Where the slot after so many begins.
fn end_of(slots: u64) -> u64 {
    HEADER_BYTES as u64 + slots * SLOT_BYTES as u64
}

/// Slots on their way to a file, in large writes.
struct Out<'f> {
    file: &'f dyn DiskFile,
    at: u64,
    buffer: Vec<u8>,
    cells: u64,
}

impl Out<'_> {
    fn put(&mut self, saved: &Saved) -> io::Result<()> {
        self.buffer.extend_from_slice(&encode(saved));
        self.cells += 1;
        if self.buffer.len() >= SLOTS_AT_ONCE * SLOT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, even_if_empty: bool) -> io::Result<Written> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        if self.cells > 0 || even_if_empty {
            self.file.sync_data()?;
        }
        Ok(Written { cells: self.cells, bytes: self.cells * SLOT_BYTES as u64, anew: even_if_empty })
    }
}

fn encode(saved: &Saved) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[0..16].copy_from_slice(&saved.subject.0.to_le_bytes());
    slot[16..24].copy_from_slice(&saved.duration_ms.to_le_bytes());
    slot[24..40].copy_from_slice(&saved.word.to_le_bytes());
    let crc = crc32fast::hash(&slot[..40]);
    slot[40..44].copy_from_slice(&crc.to_le_bytes());
    slot
}

/// Reads a slot; none where it is not what [`encode`] wrote.
fn decode(slot: &[u8]) -> Option<Saved> {
    let (subject, rest) = slot.split_first_chunk::<16>()?;
    let (duration, rest) = rest.split_first_chunk::<8>()?;
    let (word, rest) = rest.split_first_chunk::<16>()?;
    let crc = u32::from_le_bytes(rest.try_into().ok()?);
    let word = u128::from_le_bytes(*word);
    // The claim's bit is never saved.
    (crc == crc32fast::hash(&slot[..40]) && word >> 127 == 0).then(|| Saved {
        subject: Subject(u128::from_le_bytes(*subject)),
        duration_ms: u64::from_le_bytes(*duration),
        word,
    })
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::super::windows::{Kind, Take};
    use super::*;
    use crate::disk::MemoryDisk;

    /// The bytes of a shipped file, from the hash that makes a subject to the last checksum: they never change.
    #[test]
    fn the_bytes_of_a_file() {
        let windows = Windows::new(*b"0123456789abcdef", 8);
        let subject = windows.subject(Kind::Namespace, 7, b"AbCdEfGh01234567", b"user-1", 60_000);
        let take = Take { subject, duration_ms: 60_000, limit: 1_000, cost: 3 };
        for now in [1_700_000_000_123, 1_700_000_060_000] {
            assert!(windows.take(&take, now).expect("room").passed);
        }
        let disk = Arc::new(MemoryDisk::new());
        let store = *b"a store's own id";
        let (mut journal, _) = WindowJournal::open(disk.clone(), Path::new("/d"), store, &windows, 0).expect("a disk");
        journal.write_all(&windows, 1_700_000_060_001).expect("a disk");
        let file = disk.open(Path::new("/d/windows/journal"), false).expect("the file");
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_exact_at(0, &mut bytes).expect("the bytes");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "4b5757494e444f57",
            "02000000",
            "612073746f72652773206f776e206964",
            "3eb15d700a5d422d",
            "50faf267",
            "dd9030e27d6261fab73d134958d10300",
            "60ea000000000000",
            "03000000008001000000008045156c00",
            "ea002176",
        );
        assert_eq!(hex, expected);
    }
}
