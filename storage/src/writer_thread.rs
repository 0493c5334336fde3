//! The writer's thread: waits for work, collects a batch, calls [`Writer::step`], and now and then makes a checkpoint.

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::error::Unavailable;
use crate::position::{Position, Term};
use crate::queue::{Queue, Work};
use crate::replication::messages::Received;
use crate::replication::{NotApplied, NotPromoted, Promotion};
use crate::writer::{Fatal, MAX_BATCH, MAX_TOUCHES, Step, StrictSpend, Writer};

/// What the thread is told.
pub(crate) enum Command {
    /// There is work in the queue.
    Work,
    /// Spends are waiting to be journaled within the interval.
    Wake,
    /// Write everything that waits, make a checkpoint, and call this.
    Flush(Box<dyn FnOnce() + Send>),
    /// Apply the leader's frames, and call this.
    Replicate(Vec<Received>, Box<dyn FnOnce(Result<Position, NotApplied>) + Send>),
    /// Become the leader, and call this.
    Promote(Promotion, Box<dyn FnOnce(Result<Term, NotPromoted>) + Send>),
    /// Do the work that waits and take no more; then the same, and end.
    Stop,
}

impl Command {
    /// Tells the one who asked that it is not followed: the writer has ended.
    pub fn refuse(self) {
        match self {
            Command::Replicate(_, done) => done(Err(NotApplied::Stopped)),
            Command::Promote(_, done) => done(Err(NotPromoted::Stopped)),
            Command::Work | Command::Wake | Command::Flush(_) | Command::Stop => {}
        }
    }
}

/// Commands that may wait. More than one of a kind is rare: whoever gives one knows whether it was given already.
pub(crate) const MAX_COMMANDS: usize = 64;

/// How often the free room is looked at while nothing is written.
const ROOM_EVERY: Duration = Duration::from_secs(1);

/// When the thread does what nobody asked for.
pub(crate) struct Timing {
    /// Longest a spend waits for the journal.
    pub spends: Duration,
    /// Between two rounds of writing last-used times.
    pub touches: Duration,
    /// Longest between two checkpoints while there are changes.
    pub checkpoint: Duration,
    /// Log bytes after which a checkpoint is made at once.
    pub checkpoint_bytes: u64,
}

/// What waits for its time. Thread timing only: no decision on data rests on it.
struct Due {
    spends: Option<Instant>,
    touches: Instant,
    checkpoint: Instant,
    room: Instant,
}

/// Runs until told to stop, or until nobody can tell any more. `clock` gives unix ms.
pub(crate) fn run(
    mut writer: Writer,
    queue: &Queue,
    commands: &Receiver<Command>,
    timing: &Timing,
    clock: &dyn Fn() -> u64,
) -> Result<(), Fatal> {
    let start = Instant::now();
    // What was replayed would be replayed again after the next crash: a process that keeps dying early must not take
    // longer at each start.
    let first_checkpoint = if writer.is_ahead_of_checkpoint() { start } else { start + timing.checkpoint };
    let mut due = Due { spends: None, touches: start + timing.touches, checkpoint: first_checkpoint, room: start };
    let mut strict_again: Vec<StrictSpend> = Vec::new();
    loop {
        let now = Instant::now();
        let wake = due.spends.unwrap_or(due.touches).min(due.touches).min(due.checkpoint).min(due.room);
        let mut step = Step { strict: std::mem::take(&mut strict_again), ..Step::default() };
        let mut flushed: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        let mut stop = false;
        let waits = !step.strict.is_empty() || queue.len() > 0;
        let wait = if waits { Duration::ZERO } else { wake.saturating_duration_since(now) };
        let first = match commands.recv_timeout(wait) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                stop = true;
                None
            }
        };
        for command in first.into_iter().chain(commands.try_iter()).take(MAX_COMMANDS) {
            match command {
                Command::Work => {}
                Command::Wake => drop(due.spends.get_or_insert(Instant::now() + timing.spends)),
                Command::Flush(done) => flushed.push(done),
                Command::Replicate(frames, done) => done(writer.apply(&frames)?),
                Command::Promote(promotion, done) => done(writer.promote(&promotion)?),
                Command::Stop => stop = true,
            }
        }
        if stop {
            queue.close();
        }
        let mut turns = queue.turns(MAX_BATCH.saturating_sub(step.strict.len()), clock);
        let now = Instant::now();
        let everything = stop || !flushed.is_empty();
        if everything || due.spends.is_some_and(|at| at <= now) {
            step.journal_spends = true;
            due.spends = None;
        }
        if everything || due.touches <= now || writer.waiting.touches() >= MAX_TOUCHES {
            step.touches = MAX_TOUCHES;
            due.touches = now + timing.touches;
        }
        if due.spends.is_some() || everything {
            turns.others_wait();
        }
        if !turns.is_empty() || !step.strict.is_empty() || step.journal_spends || step.touches > 0 {
            strict_again = writer.step(step, &mut turns)?;
            // A full batch of them was written, more are waiting, and nobody may come to wake this thread.
            if writer.waiting.touches() >= MAX_TOUCHES && !writer.is_out_of_room() {
                due.touches = now;
            }
        }
        drop(turns);
        while stop && queue.len() > 0 {
            let step = Step { strict: std::mem::take(&mut strict_again), ..Step::default() };
            strict_again = writer.step(step, &mut queue.turns(MAX_BATCH, clock))?;
        }
        if everything {
            write_what_waits(&mut writer, &mut strict_again)?;
            writer.checkpoint()?;
            due.checkpoint = now + timing.checkpoint;
            flushed.into_iter().for_each(|done| done());
        } else if due.checkpoint <= now || writer.checkpoint_is_due(timing.checkpoint_bytes) {
            if writer.is_ahead_of_checkpoint() {
                writer.checkpoint()?;
            }
            due.checkpoint = Instant::now() + timing.checkpoint;
        }
        if due.room <= now {
            writer.look_at_room();
            due.room = now + ROOM_EVERY;
        }
        // Spends that came while the writer was told already, or that have to be written again.
        if due.spends.is_none() && writer.waiting.spends() > 0 {
            // Without room they wait for it; a look each second is enough to notice it.
            let wait = if writer.is_out_of_room() { ROOM_EVERY.max(timing.spends) } else { timing.spends };
            due.spends = Some(Instant::now() + wait);
        }
        if stop {
            if writer.is_out_of_room() && writer.waiting.spends() > 0 {
                tracing::warn!(keys = writer.waiting.spends(), "credits spent on a full disk are lost with this stop");
            }
            for spend in strict_again {
                Work::Spend(spend).refuse(&Unavailable::Stopped);
            }
            return Ok(());
        }
    }
}

/// Writes the spends and last-used times that wait at this moment; more may come all the while. Stops early if the disk
/// does not take them.
fn write_what_waits(writer: &mut Writer, strict_again: &mut Vec<StrictSpend>) -> Result<(), Fatal> {
    // One round more for what had to wait for the publication of its own batch.
    let rounds = 1 + writer.steps_to_write_all();
    let nobody = Queue::default();
    for _ in 0..rounds {
        let step = Step { strict: std::mem::take(strict_again), journal_spends: true, touches: MAX_TOUCHES };
        *strict_again = writer.step(step, &mut nobody.turns(0, &|| 0))?;
        let left = writer.waiting.spends() + writer.waiting.touches() + strict_again.len();
        if left == 0 || writer.is_out_of_room() {
            break;
        }
    }
    Ok(())
}
