//! A live export: a reader of the audit trail that hands each event to a target outside, and remembers how far it has got.
//!
//! It reads what is committed, by workspace and sequence number, so no change ever waits for it, and what its target does not
//! take waits in the store, where it is already. Its position is a row of the store, written after the target has taken the
//! events: they come at least once, and `event_id` tells the ones that come twice. Events that retention deletes before a
//! target has taken them are lost to it, and the log says so.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyward_storage::ids::WorkspaceNo;
use keyward_storage::records::audit::{self, AuditEvent, OPERATOR};
use keyward_storage::records::workspace;
use keyward_storage::{Abort, ReadError, Snapshot, Turn};

use super::file::FileTarget;
use super::is_over;
use super::syslog::SyslogTarget;
use crate::api::audit_event;
use crate::app::Services;
use crate::config::Audit;
use crate::telemetry::error_chain;

/// Events and bytes of one workspace that are handed over at a time.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// Between two looks for new events.
const PAUSE: Duration = Duration::from_millis(250);
/// Between two tries of a target that does not take events: from this, doubled, up to that.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Between two lines about the same trouble.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);

/// An event as a target is handed it.
pub struct Outgoing<'a> {
    /// What its workspace is called.
    pub workspace: &'a str,
    /// The event.
    pub event: &'a AuditEvent,
    /// The event as a line of JSON, its end included.
    pub line: Vec<u8>,
}

/// Where events go.
enum Target {
    File(FileTarget),
    Syslog(SyslogTarget),
}

impl Target {
    fn send(&mut self, events: &[Outgoing<'_>]) -> io::Result<()> {
        match self {
            Target::File(file) => file.send(events),
            Target::Syslog(syslog) => syslog.send(events),
        }
    }

    /// What was sent will be there after a crash, as far as the target can promise it.
    fn sync(&mut self) -> io::Result<()> {
        match self {
            Target::File(file) => file.sync(),
            Target::Syslog(_) => Ok(()),
        }
    }
}

/// One live export.
pub struct Export {
    /// `file` or `syslog`: names it, and its position in the store.
    pub name: &'static str,
    /// Where to, as the settings have it.
    pub place: String,
    target: Mutex<Target>,
    trouble: Mutex<Option<String>>,
}

/// The live exports that the settings ask for.
pub fn exports(settings: &Audit) -> Vec<Arc<Export>> {
    let export = |name, place: String, target| {
        Arc::new(Export { name, place, target: Mutex::new(target), trouble: Mutex::new(None) })
    };
    let file = settings
        .export_file
        .as_ref()
        .map(|path| export("file", path.display().to_string(), Target::File(FileTarget::new(path.clone()))));
    let syslog = settings
        .export_syslog
        .as_ref()
        .map(|address| export("syslog", address.to_string(), Target::Syslog(SyslogTarget::new(address.clone()))));
    file.into_iter().chain(syslog).collect()
}

/// Why events could not be handed over.
enum Stuck {
    Target(io::Error),
    Store(String),
}

impl From<ReadError> for Stuck {
    fn from(error: ReadError) -> Stuck {
        Stuck::Store(error_chain(&error))
    }
}

/// How far an export is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Events that were not handed over yet.
    pub events: u64,
    /// When the oldest of them was recorded, unix ms.
    pub since: Option<u64>,
}

impl Export {
    /// What keeps events from being handed over, if anything.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far it is behind what a snapshot shows.
    ///
    /// # Errors
    /// What reading says.
    pub fn lag(&self, snapshot: &Snapshot) -> Result<Lag, ReadError> {
        let mut lag = Lag::default();
        for (no, head) in audit::heads(snapshot)? {
            let position = audit::exported(snapshot, no, self.name)?.max(audit::anchor(snapshot, no)?.sequence);
            if head.sequence > position {
                lag.events += head.sequence - position;
                let oldest = audit::page(snapshot, no, position + 1, 1, 1)?.first().map(|(_, row)| row.event.time);
                lag.since = lag.since.into_iter().chain(oldest).min();
            }
        }
        Ok(lag)
    }

    /// Hands events over until it is told to stop.
    pub(super) fn run(&self, services: &Services, stop: &Receiver<()>) {
        let mut positions = HashMap::new();
        let mut seen = None;
        let mut retry = RETRY_FIRST;
        let mut complained: Option<Instant> = None;
        loop {
            let pause = match self.pass(services, &mut positions, &mut seen) {
                Ok(more) => {
                    if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
                        tracing::info!(export = self.name, target = self.place, "the audit trail is exported again");
                        complained = None;
                    }
                    retry = RETRY_FIRST;
                    if more { Duration::ZERO } else { PAUSE }
                }
                Err(stuck) => {
                    let reason = match stuck {
                        Stuck::Target(error) => error.to_string(),
                        Stuck::Store(reason) => reason,
                    };
                    if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        tracing::warn!(
                            export = self.name,
                            target = self.place,
                            reason,
                            "the audit trail cannot be exported for now; its events wait in the store"
                        );
                        complained = Some(Instant::now());
                    }
                    *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    seen = None;
                    let pause = retry;
                    retry = (retry * 2).min(RETRY_LAST);
                    pause
                }
            };
            if is_over(stop, pause) {
                // What came since the last look; a target that is away gets it after the next start.
                let _ = self.pass(services, &mut positions, &mut seen);
                return;
            }
        }
    }

    /// Hands over a batch of each workspace that has something new. Whether there is more.
    fn pass(
        &self,
        services: &Services,
        positions: &mut HashMap<WorkspaceNo, u64>,
        seen: &mut Option<keyward_storage::position::Position>,
    ) -> Result<bool, Stuck> {
        if !services.node.is_leader() {
            // The leader exports, and its positions are rows: they are read when this node leads.
            positions.clear();
            *seen = None;
            return Ok(false);
        }
        let snapshot = services.storage.snapshot()?;
        if *seen == Some(snapshot.position()) {
            return Ok(false);
        }
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut moved, mut more, mut stuck) = (Vec::new(), false, None);
        for (no, head) in audit::heads(&snapshot)? {
            let position = match positions.get(&no) {
                Some(position) => *position,
                None => *positions.entry(no).or_insert(audit::exported(&snapshot, no, self.name)?),
            };
            if head.sequence <= position {
                continue;
            }
            match self.hand_over(&snapshot, no, position, &mut target) {
                Ok(through) => {
                    more |= through < head.sequence;
                    moved.push((no, through));
                }
                // Of one workspace's trouble others need not know; a target that is away has nothing for anybody.
                Err(Stuck::Store(reason)) => stuck = Some(Stuck::Store(reason)),
                Err(error) => {
                    stuck = Some(error);
                    break;
                }
            }
        }
        if !moved.is_empty() {
            target.sync().map_err(Stuck::Target)?;
            positions.extend(moved.iter().copied());
            self.remember(services, moved)?;
        }
        match stuck {
            Some(stuck) => Err(stuck),
            None => {
                if !more {
                    *seen = Some(snapshot.position());
                }
                Ok(more)
            }
        }
    }

    /// Hands over a batch of a workspace's events behind `position`; the number of the last one.
    fn hand_over(
        &self,
        snapshot: &Snapshot,
        no: WorkspaceNo,
        position: u64,
        target: &mut Target,
    ) -> Result<u64, Stuck> {
        let rows = audit::page(snapshot, no, position + 1, BATCH_EVENTS, BATCH_BYTES)?;
        let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else {
            let reason = "the records name audit events that are not there; `keyward audit verify` says more";
            return Err(Stuck::Store(reason.to_owned()));
        };
        if *first > position + 1 {
            tracing::warn!(
                export = self.name,
                target = self.place,
                workspace = no.0,
                events = first - position - 1,
                "audit events were deleted, for their age, before they were exported"
            );
        }
        let id = if no == OPERATOR { None } else { workspace::get(snapshot, no)?.map(|row| row.id) };
        let name = audit_event::spell(id);
        let events: Vec<Outgoing<'_>> = rows
            .iter()
            .map(|(_, row)| {
                let mut line = Vec::with_capacity(512);
                audit_event::write_line(&name, &row.event, &mut line);
                Outgoing { workspace: &name, event: &row.event, line }
            })
            .collect();
        target.send(&events).map_err(Stuck::Target)?;
        Ok(*last)
    }

    /// Writes down how far it has got.
    fn remember(&self, services: &Services, moved: Vec<(WorkspaceNo, u64)>) -> Result<(), Stuck> {
        let name = self.name;
        let written = services.transact_blocking(Turn::FIRST, services.outside.clock.now_ms(), move |tx| {
            for (no, sequence) in moved {
                audit::put_exported(tx, no, name, sequence);
            }
            Ok::<_, Abort<std::convert::Infallible>>(())
        });
        written.map(drop).map_err(|error| Stuck::Store(format!("its position cannot be written: {error}")))
    }
}
