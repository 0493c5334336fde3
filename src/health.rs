//! Whether the server keeps what it promises: the reasons for which health calls it degraded.
//!
//! A degraded server answers, and goes on being sent requests: taking it out of service would lose more than what it is
//! degraded by.

use keyward_storage::Position;
use std::sync::atomic::Ordering;

use crate::app::Services;
use crate::replication::node::Role;

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
    /// This node follows another one and cannot reach it.
    LeaderUnreachable,
    /// This node led until another one was promoted.
    Fenced,
    /// This node leads by a lease that has run out.
    Suspended,
    /// Another node leads in the same term.
    RivalLeader,
}

/// What a node is good for at the moment, as a load balancer asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// It has records to answer from.
    pub reads: bool,
    /// It takes changes, or hands them on to a node that does.
    pub writes: bool,
}

/// What this node is good for. Cheap: a few loads.
pub fn fit(services: &Services) -> Fit {
    let node = &services.node;
    let reads = node.is_leader() || node.position() > Position::START;
    let hands_on = node.role() == Role::Follower && node.is_leader_reachable();
    let takes = node.is_leader() && !services.storage.is_read_only();
    Fit { reads, writes: reads && (takes || hands_on) }
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
        Reason::LeaderUnreachable,
        Reason::Fenced,
        Reason::Suspended,
        Reason::RivalLeader,
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
            Reason::LeaderUnreachable => "leader_unreachable",
            Reason::Fenced => "fenced",
            Reason::Suspended => "suspended",
            Reason::RivalLeader => "rival_leader",
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
            Reason::LeaderUnreachable => {
                "this node follows another one and cannot reach it: keys are verified from the records it has, limits are \
                 counted here, changes are answered 503; see to the leader or the network, or promote a follower \
                 (`keyward promote`)"
            }
            Reason::Suspended => {
                "the lease by which this node leads has run out and cannot be renewed: keys are verified, changes are answered 503; \
                 see to what replication.lease_endpoints names and to the way there, the log says why"
            }
            Reason::RivalLeader => {
                "another node leads in the same term, and both take changes: decide which one goes on, stop the other one and let it \
                 follow (replication.follow); what only that one has goes into a file there"
            }
            Reason::Fenced => {
                "another node was promoted while this one led: it takes no changes any more; set replication.follow to the new \
                 leader and restart it"
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
        Reason::LeaderUnreachable => services.node.role() == Role::Follower && !services.node.is_leader_reachable(),
        Reason::Fenced => services.node.role() == Role::Fenced,
        Reason::Suspended => services.node.is_suspended(),
        Reason::RivalLeader => services.node.rival().is_some(),
    };
    Reason::ALL.iter().copied().filter(|reason| is(*reason)).collect()
}
