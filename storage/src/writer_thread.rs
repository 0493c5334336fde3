//! The writer's thread: waits for work, collects a batch, calls [`Writer::step`], and now and then makes a checkpoint.

use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::error::Unavailable;
use crate::writer::{Fatal, Fate, Job, MAX_BATCH, MAX_TOUCHES, Step, StrictSpend, Writer};

/// What the thread is told.
pub(crate) enum Command {
    /// Run a transaction.
    Transact(Job),
    /// Journal a spend before it is answered.
    Spend(StrictSpend),
    /// Spends are waiting to be journaled within the interval.
    Wake,
    /// Write everything that waits, make a checkpoint, and call this.
    Flush(Box<dyn FnOnce() + Send>),
    /// The same, then end.
    Stop,
}

impl Command {
    /// Tells the one who asked that it is not done; what was spent for it is given back.
    pub fn refuse(self, why: &Unavailable) {
        match self {
            Command::Transact(job) => {
                let (Ok((_, answer)) | Err((_, answer))) = (job.run)(None);
                answer(Fate::Unavailable(why.clone()));
            }
            Command::Spend(spend) => {
                spend.counters.give_back(spend.cost, spend.generation);
                (spend.answer)(Fate::Unavailable(why.clone()));
            }
            Command::Wake | Command::Flush(_) | Command::Stop => {}
        }
    }
}

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

/// Runs until told to stop, or until nobody can tell any more.
pub(crate) fn run(mut writer: Writer, commands: &Receiver<Command>, timing: &Timing) -> Result<(), Fatal> {
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
        let wait = if step.strict.is_empty() { wake.saturating_duration_since(now) } else { Duration::ZERO };
        let mut next = match commands.recv_timeout(wait) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                stop = true;
                None
            }
        };
        while let Some(command) = next {
            match command {
                Command::Transact(job) => step.jobs.push(job),
                Command::Spend(spend) => step.strict.push(spend),
                Command::Wake => drop(due.spends.get_or_insert(Instant::now() + timing.spends)),
                Command::Flush(done) => flushed.push(done),
                Command::Stop => stop = true,
            }
            next =
                if step.jobs.len() + step.strict.len() < MAX_BATCH && !stop { commands.try_recv().ok() } else { None };
        }
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
        let works = !step.jobs.is_empty() || !step.strict.is_empty() || step.journal_spends || step.touches > 0;
        if works {
            strict_again = writer.step(step)?;
            // A full batch of them was written, more are waiting, and nobody may come to wake this thread.
            if writer.waiting.touches() >= MAX_TOUCHES && !writer.is_out_of_room() {
                due.touches = now;
            }
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
                Command::Spend(spend).refuse(&Unavailable::Stopped);
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
    for _ in 0..rounds {
        let step = Step {
            strict: std::mem::take(strict_again),
            journal_spends: true,
            touches: MAX_TOUCHES,
            ..Step::default()
        };
        *strict_again = writer.step(step)?;
        let left = writer.waiting.spends() + writer.waiting.touches() + strict_again.len();
        if left == 0 || writer.is_out_of_room() {
            break;
        }
    }
    Ok(())
}
