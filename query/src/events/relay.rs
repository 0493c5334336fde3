//! Rows that belong in another store: a follower's, on their way to its leader.
//!
//! A store that *relays* journals its rows and shows them to nobody. Whoever carries them asks for a [parcel](super::parcel),
//! brings it to the other store, and says when it is there; then the watermark of the manifest moves past its batches, with no
//! part, and the journal's segments go as they do behind a seal. So what is not delivered is on the disk alone, however long
//! the other store is away, and a restart goes on from the watermark.
//!
//! The receiver journals each piece of a parcel together with its watermark - up to which batch it has this source's rows of
//! this family - and syncs before it answers. A parcel that comes again is known by that; one that overlaps what is there is
//! refused with the watermarks, and the sender makes another.
//!
//! ```text
//! RELAY: "KWEVR001" | u32 source | u64 last batch that is this store's own | u32 CRC-32 of the twelve bytes before
//! ```
//!
//! The file is there exactly while the store relays. The source names the store to the receiver: it is drawn at random, even,
//! and with the family's number added it is a source of the receiver's manifest.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use crossbeam::channel::bounded;
use datafusion::arrow::array::RecordBatch;
use keyward_storage::disk::{self, Disk};

use super::core::Core;
use super::files::frames;
use super::journal::{self, Journaled, OWN, SegmentReader};
use super::parcel::{self, Parcel};
use super::recorder::Ask;
use super::store::{Events, JOURNAL_DIR, LastUse};
use super::tables::Family;

const NAME: &str = "RELAY";
const ASIDE: &str = "RELAY.new";
const MAGIC: &[u8; 8] = b"KWEVR001";
const FILE_BYTES: usize = 8 + 4 + 8 + 4;
/// Rows of a parcel, and bytes of their values; one batch may have more.
const PARCEL_ROWS: usize = 8_192;
const PARCEL_ROW_BYTES: usize = 8 << 20;

/// Where a store's rows go that is to keep them for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relaying {
    /// Names this store to the other one.
    pub source: u32,
    /// Batches up to this number are this store's own.
    pub from: u64,
}

/// Up to which batch the rows of a source are there, for each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Of verifications.
    pub verifications: u64,
    /// Of rate-limit decisions.
    pub ratelimits: u64,
}

impl Marks {
    pub(crate) fn of(all: &BTreeMap<u32, u64>, source: u32) -> Marks {
        let at = |family| all.get(&mark(source, family)).copied().unwrap_or(0);
        Marks { verifications: at(Family::Verifications), ratelimits: at(Family::Ratelimits) }
    }

    fn at(self, family: Family) -> u64 {
        match family {
            Family::Verifications => self.verifications,
            Family::Ratelimits => self.ratelimits,
        }
    }

    /// Whether nothing of the source is there.
    fn are_none(self) -> bool {
        self == Marks::default()
    }

    /// The newest batch that is there.
    fn newest(self) -> u64 {
        self.verifications.max(self.ratelimits)
    }
}

/// Rows of one family out of a parcel.
#[derive(Debug)]
pub(crate) struct Piece {
    pub source: u32,
    pub family: Family,
    /// The batches they are from; some of those between are of the other family.
    pub first: u64,
    pub last: u64,
    pub rows: RecordBatch,
}

/// Why a parcel was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Untaken {
    /// It is no parcel, or holds rows that no store can.
    #[error("it is no parcel of events: {0}")]
    Malformed(String),
    /// Some of its batches are here and some are not.
    #[error("some of its rows are here already")]
    Overlaps(Marks),
    /// Nothing can be taken now: the journal cannot be written, or sealing is behind.
    #[error("events cannot be taken at the moment")]
    Later,
}

/// A parcel that was taken, now or before.
#[derive(Debug)]
pub struct Taken {
    /// Up to where the source's rows are here.
    pub marks: Marks,
    /// The last uses of keys that it tells of.
    pub uses: Vec<LastUse>,
}

/// The source of a store's rows of a family, as manifests and journals have it.
pub(crate) fn mark(source: u32, family: Family) -> u32 {
    match family {
        Family::Verifications => source,
        Family::Ratelimits => source | 1,
    }
}

/// A name for a store, out of a random number: even, and no other source's.
fn name_of(random: u32) -> u32 {
    (random & !1).max(2)
}

/// Reads which store's rows this one keeps.
pub(crate) fn recall(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Relaying>> {
    let file = match disk.open(&dir.join(NAME), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = [0; FILE_BYTES];
    file.read_exact_at(0, &mut bytes)?;
    let sum = u32::from_le_bytes(bytes[20..].try_into().expect("four bytes"));
    if bytes[..8] != *MAGIC || crc32fast::hash(&bytes[8..20]) != sum {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file RELAY of the events is damaged"));
    }
    Ok(Some(Relaying {
        source: u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes")),
        from: u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes")),
    }))
}

fn layout(relaying: Relaying) -> [u8; FILE_BYTES] {
    let mut bytes = [0; FILE_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&relaying.source.to_le_bytes());
    bytes[12..20].copy_from_slice(&relaying.from.to_le_bytes());
    let sum = crc32fast::hash(&bytes[8..20]);
    bytes[20..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Writes down that rows are kept for another store.
pub(crate) fn remember(core: &Core, relaying: Relaying) -> io::Result<()> {
    disk::replace(&*core.disk, &core.dir.join(ASIDE), &core.dir.join(NAME), |file| {
        file.write_all_at(0, &layout(relaying))?;
        file.sync_data()
    })?;
    if core.relaying().is_none_or(|before| before.source != relaying.source) {
        core.named_anew.store(true, Ordering::Release);
    }
    core.set_relaying(Some(relaying));
    Ok(())
}

/// Forgets that they were.
pub(crate) fn forget(core: &Core) -> io::Result<()> {
    match core.disk.remove(&core.dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => core.disk.sync_dir(&core.dir)?,
    }
    core.set_relaying(None);
    Ok(())
}

/// Where the carrier is in the journal.
#[derive(Default)]
pub(crate) struct Outbox {
    reader: Option<(u64, SegmentReader)>,
    /// A batch that did not fit into the last parcel.
    ahead: Option<Journaled>,
    /// Number of the last batch that was read.
    seen: u64,
}

impl Outbox {
    /// The next batch beyond what was read; `None` where the journal has no more.
    fn next(&mut self, core: &Core) -> io::Result<Option<Journaled>> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let dir = core.dir.join(JOURNAL_DIR);
        loop {
            let mut newest = 0;
            if let Some((no, reader)) = &mut self.reader {
                newest = *no;
                if let Some(batch) = reader.next()? {
                    // A batch whose first writing failed stands twice.
                    if batch.number > self.seen {
                        self.seen = batch.number;
                        return Ok(Some(batch));
                    }
                    continue;
                }
            }
            let Some(next) = journal::list(&*core.disk, &dir)?.into_iter().find(|no| *no > newest) else {
                return Ok(None);
            };
            // The one before was written to its end when the next began, but maybe not when it was read.
            if let Some((_, reader)) = &mut self.reader
                && let Some(batch) = reader.next()?
            {
                if batch.number > self.seen {
                    self.seen = batch.number;
                    return Ok(Some(batch));
                }
                continue;
            }
            match SegmentReader::open(&*core.disk, &dir, next) {
                Ok(reader) => self.reader = Some((next, reader)),
                // It was delivered whole, and swept between the list and here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Events {
    /// Keeps rows for another store from now on; what was recorded before stays this one's own and is sealed here. `random`
    /// gives this store its name there. Where it relays already nothing changes. Blocks.
    ///
    /// # Errors
    /// The disk; `WouldBlock` while rows that it relayed before are still being sealed: ask again.
    pub fn relay(&self, random: u32) -> io::Result<()> {
        if self.core().relaying().is_some() && !self.is_adopting() {
            return Ok(());
        }
        self.ask_for(|tell| Ask::Relay(name_of(random), tell))?
    }

    /// Takes another name: the old one is somebody else's. Blocks.
    ///
    /// # Errors
    /// As [`Events::relay`].
    pub fn rename(&self, random: u32) -> io::Result<()> {
        self.rewind();
        self.ask_for(|tell| Ask::Relay(name_of(random), tell))?
    }

    /// Keeps rows as this store's own from now on, also those that were not delivered: they are sealed here, and seen by queries
    /// then. Blocks until that is begun.
    ///
    /// # Errors
    /// The disk has no room for the journal: ask again.
    pub fn keep(&self) -> io::Result<()> {
        if self.core().relaying().is_none() {
            return Ok(());
        }
        self.ask_for(Ask::Keep)?
    }

    /// The name under which this store's rows go to another one; `None` where they are its own.
    pub fn relays_as(&self) -> Option<u32> {
        self.core().relaying().map(|relaying| relaying.source)
    }

    /// Whether the other store's `marks` of this one's name are of somebody else: it has rows of a name that was drawn a moment
    /// ago, or batches that were never recorded here. Then this store is to take another name.
    pub fn are_anothers(&self, marks: Marks) -> bool {
        let is_new = self.core().named_anew.load(Ordering::Acquire);
        if is_new && marks.are_none() {
            self.core().named_anew.store(false, Ordering::Release);
        }
        (is_new && !marks.are_none()) || marks.newest() > self.journaled()
    }

    /// Number of the last batch that is journaled.
    fn journaled(&self) -> u64 {
        self.core().counters.journaled.load(Ordering::Acquire)
    }

    /// Batches that are journaled and not delivered yet.
    pub fn undelivered(&self) -> u64 {
        match self.core().relaying() {
            None => 0,
            Some(_) => self.journaled().saturating_sub(self.sealed().load(Ordering::Acquire)),
        }
    }

    /// The next rows to be delivered to a store that has those up to `marks`; `None` where there are none. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn next_parcel(&self, marks: Marks) -> io::Result<Option<Parcel>> {
        let Some(relaying) = self.core().relaying() else { return Ok(None) };
        let sealed = self.sealed().load(Ordering::Acquire);
        if sealed < relaying.from {
            return Ok(None);
        }
        let mut outbox = self.outbox();
        outbox.seen = outbox.seen.max(sealed);
        let (mut rows, mut bytes, mut until) = (0, 0, 0);
        let mut batches: Vec<Journaled> = Vec::new();
        while let Some(batch) = outbox.next(self.core())? {
            let (more_rows, more_bytes) = (batch.rows.num_rows(), frames::bytes(&batch.rows));
            if until > 0 && (rows + more_rows > PARCEL_ROWS || bytes + more_bytes > PARCEL_ROW_BYTES) {
                outbox.ahead = Some(batch);
                break;
            }
            until = batch.number;
            if batch.number > marks.at(batch.family) {
                rows += more_rows;
                bytes += more_bytes;
                batches.push(batch);
            }
        }
        if until == 0 {
            return Ok(None);
        }
        parcel::pack(relaying.source, until, &batches).map(Some)
    }

    /// Reads what is not delivered anew: a parcel did not arrive.
    pub fn rewind(&self) {
        *self.outbox() = Outbox::default();
    }

    /// A parcel has arrived: what is in it may go. Blocks.
    ///
    /// # Errors
    /// The disk. It will be delivered again then.
    pub fn delivered(&self, parcel: &Parcel) -> io::Result<()> {
        if self.core().relaying().is_none_or(|relaying| relaying.source != parcel.source) {
            return Ok(());
        }
        self.core().commit(&[], &[], &[(OWN, parcel.until)])?;
        self.sealed().fetch_max(parcel.until, Ordering::AcqRel);
        Ok(())
    }

    /// Up to where the rows of another store are here. Blocks.
    ///
    /// # Errors
    /// The store has stopped.
    pub fn marks(&self, source: u32) -> io::Result<Marks> {
        self.ask_for(|tell| Ask::Marks(source, tell))
    }

    /// Takes rows of another store; they are durable when this returns, and queries see them within a second. Blocks.
    ///
    /// # Errors
    /// What the sender is to do about it; pieces before the one that was not taken are here.
    pub fn take_parcel(&self, bytes: &[u8]) -> Result<Taken, Untaken> {
        let (source, pieces) = parcel::unpack(bytes)?;
        let mut uses = std::collections::HashMap::new();
        for piece in pieces {
            if piece.family == Family::Verifications {
                super::store::note_uses(&mut uses, &piece.rows);
            }
            self.ask_for(|tell| Ask::Take(Box::new(piece), tell)).map_err(|_| Untaken::Later)??;
        }
        self.syncer().sync().map_err(|error| {
            tracing::error!(%error, "the events' journal cannot be synced: a follower's events are not acknowledged");
            Untaken::Later
        })?;
        let marks = self.marks(source).map_err(|_| Untaken::Later)?;
        Ok(Taken { marks, uses: uses.into_values().collect() })
    }

    /// Whether rows that were kept for another store are being sealed here.
    fn is_adopting(&self) -> bool {
        self.core().adopting.load(Ordering::Acquire)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox_lock().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_for<R>(&self, ask: impl FnOnce(crossbeam::channel::Sender<R>) -> Ask) -> io::Result<R> {
        let (tell, told) = bounded(1);
        let stopped = || io::Error::other("the event store has stopped");
        self.tell(ask(tell)).map_err(|()| stopped())?;
        told.recv().map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the file, for ever.
    #[test]
    fn the_layout_is_frozen() {
        let relaying = Relaying { source: 0x0102_0304, from: 5 };
        let hex: String = layout(relaying).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..40], "4b57455652303031040302010500000000000000");
        let sum = crc32fast::hash(&layout(relaying)[8..20]);
        assert_eq!(&hex[40..], format!("{:08x}", sum.swap_bytes()));
        let disk = keyward_storage::disk::MemoryDisk::new();
        let dir = Path::new("/events");
        disk.create_dir_all(dir).unwrap();
        assert_eq!(recall(&disk, dir).unwrap(), None);
        disk.plant(&dir.join(NAME), &layout(relaying));
        assert_eq!(recall(&disk, dir).unwrap(), Some(relaying));
        let mut flipped = layout(relaying);
        flipped[9] ^= 1;
        disk.plant(&dir.join(NAME), &flipped);
        assert!(recall(&disk, dir).is_err());
    }
}
