//! The keeper: the one thread that seals, compacts and retires.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use datafusion::arrow::array::RecordBatch;

use super::compact::{self, Eagerness};
use super::core::Core;
use super::journal::{self, OWN};
use super::manifest::PartInfo;
use super::merge::{Input, Merge};
use super::parts::Part;
use super::recorder::Closed;
use super::relay;
use super::retention;
use super::tables::Family;
use crate::priority::{self, Priority};

/// How long a sealed segment is kept: last uses of keys that their store has not written down yet are read out of it after
/// a crash (KEYS-ANALYTICS-5), and it writes them twice a minute.
const LINGER: Duration = Duration::from_secs(90);
/// How often there is something to look at without being told.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often rows are looked at for their age.
const RETIRE_EVERY: Duration = Duration::from_secs(600);
/// How long parts must have been left alone before small ones are joined for tidiness.
const QUIET: Duration = Duration::from_secs(60);
/// Rows that are sealed in one piece: what bounds the memory of a seal.
pub(crate) const PIECE_ROWS: usize = 524_288;

/// What the keeper is told.
pub(crate) enum Job {
    /// Batches up to this number may be sealed; with them, other stores' rows up to these batches.
    Seal(u64, Vec<(u32, u64)>),
    /// Batches up to this number were meant for another store and are this one's own now: they are in the journal alone.
    Adopt(u64),
    /// A segment is written no more.
    Closed(Closed),
    /// There are new parts.
    Look,
    /// Seal what may be, compact all there is, then tell.
    Settle(Sender<()>),
    /// Seal what may be, then end.
    Stop,
}

/// The keeper's state; [`Keeper::run`] is its thread.
pub(crate) struct Keeper {
    core: Arc<Core>,
    jobs: Receiver<Job>,
    /// Batches up to each of these numbers may be sealed, and up to which batches of other stores their rows are among them.
    goals: VecDeque<(u64, Vec<(u32, u64)>)>,
    /// Batches up to this number are in the journal alone and have to be sealed out of it.
    adopting: Option<u64>,
    sealed: Arc<AtomicU64>,
    closed: Vec<(Closed, Option<Instant>)>,
    /// Parts that are live no more, until no query reads them.
    dead: Vec<Arc<Part>>,
    retired_at: Option<Instant>,
    changed_at: Instant,
}

impl Keeper {
    /// With `goals` to begin with.
    pub fn new(
        core: Arc<Core>,
        jobs: Receiver<Job>,
        sealed: Arc<AtomicU64>,
        closed: Vec<Closed>,
        goals: VecDeque<(u64, Vec<(u32, u64)>)>,
    ) -> Keeper {
        let closed = closed.into_iter().map(|closed| (closed, None)).collect();
        Keeper {
            core,
            jobs,
            goals,
            adopting: None,
            sealed,
            closed,
            dead: Vec::new(),
            retired_at: None,
            changed_at: Instant::now(),
        }
    }

    /// Works until it is told to stop.
    pub fn run(mut self) {
        priority::set(Priority::Background);
        let mut wait = LOOK_EVERY;
        loop {
            let job = match self.jobs.recv_timeout(wait) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let worked = match job {
                Some(Job::Stop) => {
                    self.guard(Keeper::seal);
                    self.sweep();
                    return;
                }
                Some(job) => self.take(job),
                None => self.guard(Keeper::tidy),
            };
            wait = match worked {
                // Whatever is told meanwhile comes before the next step.
                Some(true) => Duration::ZERO,
                Some(false) | None => LOOK_EVERY,
            };
        }
    }

    fn take(&mut self, job: Job) -> Option<bool> {
        match job {
            Job::Seal(number, marks) => {
                self.goals.push_back((number, marks));
                self.guard(Keeper::seal)
            }
            Job::Adopt(number) => {
                self.adopting = Some(number);
                self.guard(Keeper::seal)
            }
            Job::Closed(closed) => {
                self.closed.push((closed, None));
                Some(true)
            }
            Job::Look => {
                self.changed_at = Instant::now();
                Some(true)
            }
            Job::Settle(told) => {
                self.guard(Keeper::seal);
                while self.guard(|keeper| keeper.compact(Eagerness::All)) == Some(true) {}
                self.sweep();
                let _ = told.send(());
                Some(false)
            }
            Job::Stop => None,
        }
    }

    /// Does a step and reports failure: it is tried again later.
    fn guard(&mut self, step: impl FnOnce(&mut Keeper) -> io::Result<bool>) -> Option<bool> {
        let done = step(self);
        let failed = done.is_err();
        if let Err(error) = &done
            && !self.core.counters.keeper_fails.load(Ordering::Relaxed)
        {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "events cannot be sealed or compacted; they stay in the journal and in memory, and it is tried again"
            );
        }
        Core::note(&self.core.counters.keeper_fails, failed);
        done.ok()
    }

    /// The next thing to do; `false` where there is nothing.
    pub fn tidy(&mut self) -> io::Result<bool> {
        self.sweep();
        if self.seal()? {
            return Ok(true);
        }
        let eager = match self.changed_at.elapsed() >= QUIET {
            true => Eagerness::Quiet,
            false => Eagerness::Busy,
        };
        if self.compact(eager)? {
            return Ok(true);
        }
        if self.retired_at.is_none_or(|at| at.elapsed() >= RETIRE_EVERY) {
            self.retired_at = Some(Instant::now());
            return self.retire();
        }
        Ok(false)
    }

    fn need_room(&self) -> io::Result<()> {
        match self.core.has_room() {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }

    /// Puts the batches up to the goals into Parquet. Whether there were any.
    pub fn seal(&mut self) -> io::Result<bool> {
        let mut worked = false;
        loop {
            let next = self.goals.front().map(|(goal, _)| *goal);
            match (self.adopting, next) {
                // What lies in the journal alone comes between what was recorded before it and after it.
                (Some(until), next) if next.is_none_or(|goal| goal > until) => self.adopt(until)?,
                (_, Some(_)) => self.seal_next()?,
                (_, None) => return Ok(worked),
            }
            worked = true;
            self.changed_at = Instant::now();
        }
    }

    /// Puts the batches up to the next goal into Parquet.
    fn seal_next(&mut self) -> io::Result<()> {
        let Some((goal, marks)) = self.goals.front().cloned() else { return Ok(()) };
        if goal <= self.sealed.load(Ordering::Acquire) {
            self.goals.pop_front();
            return Ok(());
        }
        self.need_room()?;
        let live = self.core.view.load();
        let mut parts: Vec<PartInfo> = Vec::new();
        for family in Family::ALL {
            let batches = live.unsealed(family).iter().filter(|batch| batch.numbers.1 <= goal);
            let batches: Vec<RecordBatch> = batches.map(|batch| batch.rows.clone()).collect();
            for piece in pieces(&batches) {
                let sealed = self.core.sealer.seal(family, piece).inspect_err(|_| self.core.sealer.discard(&parts))?;
                parts.extend(sealed);
            }
        }
        self.commit_sealed(&parts, goal, &marks)?;
        self.goals.pop_front();
        Ok(())
    }

    /// Makes sealed parts live; the batches up to this number are in them.
    fn commit_sealed(&self, parts: &[PartInfo], number: u64, marks: &[(u32, u64)]) -> io::Result<()> {
        let sealed: Vec<(u32, u64)> = std::iter::once((OWN, number)).chain(marks.iter().copied()).collect();
        self.core.commit(parts, &[], &sealed)?;
        self.sealed.store(number, Ordering::Release);
        self.core.counters.seals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the batches that were meant for another store into Parquet, a segment of the journal at a time, and forgets that
    /// store.
    fn adopt(&mut self, until: u64) -> io::Result<()> {
        let dir = self.core.dir.join(super::store::JOURNAL_DIR);
        let mut segments: Vec<Closed> = self.closed.iter().map(|(closed, _)| *closed).collect();
        segments.sort_by_key(|closed| closed.segment);
        for segment in segments {
            let sealed = self.sealed.load(Ordering::Acquire);
            if segment.last <= sealed {
                continue;
            }
            self.need_room()?;
            let batches = journal::read(&*self.core.disk, &dir, segment.segment)?.batches;
            let mut parts: Vec<PartInfo> = Vec::new();
            let mut last = sealed;
            for family in Family::ALL {
                let mut own: Vec<RecordBatch> = Vec::new();
                let mut seen = sealed;
                for batch in batches.iter().filter(|batch| batch.number <= until && batch.family == family) {
                    // A batch whose first writing failed is in two segments.
                    if batch.number > seen {
                        seen = batch.number;
                        own.push(batch.rows.clone());
                    }
                }
                last = last.max(seen);
                for piece in pieces(&own) {
                    let sealed = self.core.sealer.seal(family, piece);
                    parts.extend(sealed.inspect_err(|_| self.core.sealer.discard(&parts))?);
                }
            }
            if last > sealed {
                self.commit_sealed(&parts, last, &[])?;
            }
        }
        // Its last batches may have been lost with a disk that failed: none of that number will come any more.
        if self.sealed.load(Ordering::Acquire) < until {
            self.commit_sealed(&[], until, &[])?;
        }
        relay::forget(&self.core)?;
        self.adopting = None;
        self.core.adopting.store(false, Ordering::Release);
        Ok(())
    }

    /// Merges one set of parts. Whether there was one.
    pub fn compact(&mut self, eager: Eagerness) -> io::Result<bool> {
        let live = self.core.view.load();
        let Some(chosen) = compact::choose(live.all_parts(), eager) else { return Ok(false) };
        drop(live);
        self.need_room()?;
        let of = chosen[0].info;
        let inputs = chosen.iter().map(|part| Ok(Box::new(self.core.parts.read(part, None)?) as Input));
        let merge = Merge::new(of.table, inputs.collect::<io::Result<_>>()?)?;
        let added: Vec<PartInfo> = self.core.sealer.write(of.table, of.workspace, of.day, merge)?.into_iter().collect();
        self.core.commit(&added, &chosen, &[])?;
        self.dead.extend(chosen);
        Ok(true)
    }

    /// Lets go of parts whose rows are past their time. Whether there were any.
    pub fn retire(&mut self) -> io::Result<bool> {
        let Some(retention) = &self.core.retention else { return Ok(false) };
        let live = self.core.view.load();
        let now = (self.core.clock)();
        let gone = retention::expired(live.all_parts(), now, |workspace| retention(workspace));
        drop(live);
        if gone.is_empty() {
            return Ok(false);
        }
        self.core.commit(&[], &gone, &[])?;
        tracing::info!(files = gone.len(), "removed event files whose rows are past their retention");
        self.dead.extend(gone);
        Ok(true)
    }

    /// Removes what nobody needs: files of dead parts that no query reads, segments that were sealed a while ago.
    pub fn sweep(&mut self) {
        let core = &self.core;
        self.dead.retain(|part| {
            // The one that is left is this list's: the snapshots that had it are gone, and nobody can get it any more.
            if Arc::strong_count(part) > 1 {
                return true;
            }
            match core.parts.remove(part) {
                Ok(()) => false,
                Err(error) => error.kind() != io::ErrorKind::NotFound,
            }
        });
        let sealed = self.sealed.load(Ordering::Acquire);
        let now = Instant::now();
        let dir = core.dir.join(super::store::JOURNAL_DIR);
        let mut bytes = 0;
        self.closed.retain_mut(|(closed, since)| {
            bytes += closed.bytes;
            if closed.last > sealed {
                return true;
            }
            let since = *since.get_or_insert(now);
            now.duration_since(since) < LINGER
                || core
                    .disk
                    .remove(&journal::path(&dir, closed.segment))
                    .is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
        core.counters.closed_bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Batches in pieces of bounded rows; a batch is not cut.
fn pieces(batches: &[RecordBatch]) -> impl Iterator<Item = &[RecordBatch]> {
    let mut rest = batches;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut rows = 0;
        let fits = rest.iter().take_while(|batch| {
            rows += batch.num_rows();
            rows <= PIECE_ROWS
        });
        let (piece, behind) = rest.split_at(fits.count().max(1));
        rest = behind;
        Some(piece)
    })
}
