//! Whether the server keeps what it promises: the reasons for which health calls it degraded.
//!
//! A degraded server answers, and goes on being sent requests: taking it out of service would lose more than what it is
//! degraded by.

use std::sync::atomic::Ordering;

use crate::app::Services;

/// A reason to call the server degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Changes are refused for lack of disk space.
    DiskFull,
    /// Damaged rows of the records were met since the start.
    RecordsDamaged,
    /// Events were dropped within the last minute.
    EventsDropped,
    /// The events' journal cannot be written.
    EventsJournal,
    /// Events cannot be sealed into files.
    EventsSealing,
    /// The search index cannot be kept.
    SearchFailing,
    /// Recoverable keys are encrypted under a master key that is not configured.
    VaultKeyMissing,
    /// Copies of recoverable keys that are damaged were found within the last hour.
    VaultDamaged,
}

impl Reason {
    /// All there are.
    pub const ALL: &'static [Reason] = &[
        Reason::DiskFull,
        Reason::RecordsDamaged,
        Reason::EventsDropped,
        Reason::EventsJournal,
        Reason::EventsSealing,
        Reason::SearchFailing,
        Reason::VaultKeyMissing,
        Reason::VaultDamaged,
    ];

    /// Its name for programs: in health, in metrics, in `keyward status`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::DiskFull => "disk_full",
            Reason::RecordsDamaged => "records_damaged",
            Reason::EventsDropped => "events_dropped",
            Reason::EventsJournal => "events_journal",
            Reason::EventsSealing => "events_sealing",
            Reason::SearchFailing => "search_failing",
            Reason::VaultKeyMissing => "vault_key_missing",
            Reason::VaultDamaged => "vault_damaged",
        }
    }

    /// What it means, and what to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Reason::DiskFull => {
                "the disk is full: changes are answered 503, verifications go on; free some space, or lower \
                 storage.min_free_bytes"
            }
            Reason::RecordsDamaged => {
                "rows of the records are damaged: what reads them is answered 500, everything else goes on; stop the server and \
                 run `keyward verify-data`, which names them and says what to do"
            }
            Reason::EventsDropped => {
                "events were lost within the last minute, since the disk did not take them as fast as they came; raise \
                 analytics.queue_seconds, or use a faster disk"
            }
            Reason::EventsJournal => {
                "the events' journal cannot be written: events are lost when the process ends; the log says why"
            }
            Reason::EventsSealing => {
                "events cannot be sealed into files and gather in memory and in the journal; the log says why"
            }
            Reason::SearchFailing => {
                "the search index cannot be kept: searches miss the newest changes; the log says why, and the directory \
                 search/ may be deleted at any time"
            }
            Reason::VaultKeyMissing => {
                "a master key is not configured that recoverable keys are encrypted under: they verify, but their \
                 plaintexts cannot be read; `keyward vault status` names it"
            }
            Reason::VaultDamaged => {
                "copies of recoverable keys that are damaged were found within the last hour: they verify, but their plaintexts \
                 cannot be read; `keyward vault status` tells of them"
            }
        }
    }
}

/// The reasons there are now. Cheap: a few loads.
pub fn reasons(services: &Services) -> Vec<Reason> {
    let events = services.events.as_ref().map(|events| events.trouble()).unwrap_or_default();
    let is = |reason| match reason {
        Reason::DiskFull => services.storage.is_read_only(),
        Reason::RecordsDamaged => services.metrics.damaged_reads.load(Ordering::Relaxed) > 0,
        Reason::EventsDropped => events.dropped,
        Reason::EventsJournal => events.journal,
        Reason::EventsSealing => events.sealing,
        Reason::SearchFailing => services.search.as_ref().is_some_and(|search| search.is_failing()),
        Reason::VaultKeyMissing => services.vault.unreadable_data_keys() > 0,
        Reason::VaultDamaged => services.vault.failed_lately(),
    };
    Reason::ALL.iter().copied().filter(|reason| is(*reason)).collect()
}
