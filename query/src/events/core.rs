//! What the store's threads and its callers share.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyward_storage::disk::Disk;
use keyward_storage::ids::WorkspaceId;

use super::live::View;
use super::manifest::{Edit, Manifest, PartInfo};
use super::parts::{Part, Parts};
use super::relay::Relaying;
use super::ring::Ring;
use super::seal::Sealer;

/// Days a workspace's rows are kept; see [`super::Options::retention`].
pub type Retention = Arc<dyn Fn(WorkspaceId) -> Option<u32> + Send + Sync>;

/// Numbers for metrics.
#[derive(Default)]
pub(crate) struct Counters {
    pub written: AtomicU64,
    /// Number of the last batch that was journaled.
    pub journaled: AtomicU64,
    pub lag_ms: AtomicU64,
    /// Of the segment that is written.
    pub journal_bytes: AtomicU64,
    /// Of the others.
    pub closed_bytes: AtomicU64,
    pub seals: AtomicU64,
    /// Whether the last journal write, sync, seal or compaction failed.
    pub journal_fails: AtomicBool,
    pub keeper_fails: AtomicBool,
}

/// The shared parts of an open store.
pub(crate) struct Core {
    pub dir: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub min_free_bytes: u64,
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub retention: Option<Retention>,
    pub ring: Ring,
    pub view: View,
    pub parts: Arc<Parts>,
    pub sealer: Sealer,
    manifest: Mutex<Manifest>,
    pub counters: Counters,
    /// Where the store's rows go to another store.
    relaying: Mutex<Option<Relaying>>,
    /// Whether rows that were kept for another store are being sealed here.
    pub adopting: AtomicBool,
    /// Whether the store's name at the other one was drawn in this run, and not seen there yet.
    pub named_anew: AtomicBool,
}

impl Core {
    #[expect(clippy::too_many_arguments, reason = "it is the list of parts, put together once")]
    pub fn new(
        dir: &Path,
        disk: Arc<dyn Disk>,
        min_free_bytes: u64,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        retention: Option<Retention>,
        ring: Ring,
        sealer: Sealer,
        manifest: Manifest,
    ) -> Core {
        Core {
            dir: dir.to_path_buf(),
            parts: Arc::new(Parts::new(Arc::clone(&disk))),
            disk,
            min_free_bytes,
            clock,
            retention,
            ring,
            view: View::default(),
            sealer,
            manifest: Mutex::new(manifest),
            counters: Counters::default(),
            relaying: Mutex::new(None),
            adopting: AtomicBool::new(false),
            named_anew: AtomicBool::new(false),
        }
    }

    /// Where the rows go, if to another store.
    pub fn relaying(&self) -> Option<Relaying> {
        *self.relaying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_relaying(&self, relaying: Option<Relaying>) {
        *self.relaying.lock().unwrap_or_else(PoisonError::into_inner) = relaying;
    }

    pub fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the disk has room for events: what is left below the bound is for records.
    pub fn has_room(&self) -> bool {
        self.disk.free_bytes(&self.dir).is_ok_and(|free| free >= self.min_free_bytes)
    }

    /// Makes parts live and others not, on the disk and then for queries, and marks batches as sealed. Gives the parts
    /// that are live no more.
    pub fn commit(&self, added: &[PartInfo], removed: &[Arc<Part>], sealed: &[(u32, u64)]) -> io::Result<()> {
        let edit = Edit {
            sealed: sealed.to_vec(),
            added: added.to_vec(),
            removed: removed.iter().map(|part| part.info.no).collect(),
        };
        // Held until queries see it, so that whoever holds it sees the two agree.
        let mut manifest = self.manifest();
        manifest.commit(&edit)?;
        self.view.change(|live| {
            live.remove_parts(removed);
            live.add_parts(added.iter().map(|info| Arc::new(Part::new(&self.dir, *info))));
            if let Some((_, number)) = sealed.iter().find(|(source, _)| *source == super::journal::OWN) {
                live.forget_up_to(*number);
            }
        });
        Ok(())
    }

    /// Notes whether something that the store lives by works.
    pub fn note(flag: &AtomicBool, fails: bool) {
        flag.store(fails, Ordering::Relaxed);
    }
}
