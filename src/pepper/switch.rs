//! The switch to a pepper, on a store that goes on to serve: every hash is taken a stage further.
//!
//! As a rotation of the vault ([`crate::vault::rotate`]), each step is an ordinary transaction that leaves the store whole, and
//! what is left to do follows from the rows alone: the row of the chain says whether a switch goes on, an entry of an index at
//! which stage its hash is. So a switch that was cut off anywhere goes on where it was when it is started again, and lookups find
//! every key all the time.

use std::convert::Infallible;
use std::io;

use keyward_storage::ids::WorkspaceNo;
use keyward_storage::pepper::{NoSwitch, Shown};
use keyward_storage::records::audit::OPERATOR;
use keyward_storage::records::key::KeyHash;
use keyward_storage::records::pepper::{self as rows, Fingerprint, PepperRow};
use keyward_storage::{ReadError, Snapshot, TransactError, Turn, Tx, Unavailable};

use crate::app::{ReadFailed, Services};
use crate::tenants::{By, target};

/// Hashes changed by one transaction; few in tests, so that there are many transactions to interrupt.
const BATCH: usize = if cfg!(test) { 8 } else { 256 };

/// How far a switch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Hashes there were when it began or went on.
    pub hashes: u64,
    /// Hashes that it has taken to the pepper.
    pub moved: u64,
    /// Whether it went on with one that was interrupted.
    pub resumed: bool,
    /// Whether there was anything to do.
    pub was_needed: bool,
    /// What names the pepper.
    pub pepper: Fingerprint,
}

/// Why a switch did not come to its end. It can be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum NotSwitched {
    /// It cannot begin.
    #[error(transparent)]
    No(NoSwitch),
    /// One runs already.
    #[error("a switch of the pepper runs already")]
    Running,
    /// The records could not be read.
    #[error("the records could not be read")]
    Read(#[from] ReadError),
    /// The same.
    #[error(transparent)]
    Snapshot(#[from] ReadFailed),
    /// The store does not take changes.
    #[error("{0}; what is done is kept: run it again to go on")]
    Unavailable(Unavailable),
    /// Whoever watches is gone, or wants no more.
    #[error("nobody watches any more; what is done is kept: run it again to go on")]
    Unwatched(#[source] io::Error),
}

impl From<TransactError<Infallible>> for NotSwitched {
    fn from(error: TransactError<Infallible>) -> NotSwitched {
        match error {
            TransactError::Unavailable(why) => NotSwitched::Unavailable(why),
            TransactError::Read(error) => NotSwitched::Read(error),
            TransactError::Refused(never) => match never {},
        }
    }
}

/// Switches to the first configured pepper. `tell` is called after each transaction; where it fails, the switch stops there.
/// Blocks.
///
/// # Errors
/// See [`NotSwitched`].
pub fn switch(
    services: &Services,
    by: &By,
    tell: &mut dyn FnMut(&Progress) -> io::Result<()>,
) -> Result<Progress, NotSwitched> {
    let _alone = services.peppers.switching.try_lock().map_err(|_| NotSwitched::Running)?;
    let mut switch = Switch { services, by, tell, progress: Progress::default() };
    let Some(row) = switch.begin()? else { return Ok(switch.progress) };
    let stage = u8::try_from(row.links.len()).unwrap_or(u8::MAX);
    switch.take_root_keys()?;
    switch.take_keys(stage)?;
    switch.end()
}

/// Writes the pepper in use into the data directory, so that none has to be configured any more, and hashes are no safer than
/// without one. Gives its fingerprint; `None` where there is nothing to do. Blocks.
///
/// # Errors
/// See [`NotSwitched`].
pub fn disclose(services: &Services, by: &By) -> Result<Option<Fingerprint>, NotSwitched> {
    let _alone = services.peppers.switching.try_lock().map_err(|_| NotSwitched::Running)?;
    let by = by.clone();
    let now = by.now;
    let disclosed = services.transact_patiently(
        Turn::FIRST,
        || now,
        move |tx| {
            let row = match rows::disclose(tx)? {
                Ok(row) => row,
                Err(why) => return Ok(Err(why)),
            };
            let pepper = row.and_then(|row| row.links.last().map(|link| link.fingerprint));
            if let Some(pepper) = pepper {
                let description = format!("Wrote the pepper {} into the data directory", Shown(&pepper));
                tell_of(tx, &by, "pepper.disable", description, &pepper);
            }
            Ok(Ok(pepper))
        },
    )?;
    disclosed.map_err(NotSwitched::No)
}

/// An event of no workspace: a pepper is the whole store's.
fn tell_of(tx: &mut Tx<'_>, by: &By, event: &str, description: String, pepper: &Fingerprint) {
    let shown = Shown(pepper).to_string();
    tx.audit(OPERATOR, by.event(event, description, vec![target("pepper", &shown, "")]));
}

struct Switch<'s> {
    services: &'s Services,
    by: &'s By,
    tell: &'s mut dyn FnMut(&Progress) -> io::Result<()>,
    progress: Progress,
}

impl Switch<'_> {
    fn snapshot(&self) -> Result<Snapshot, NotSwitched> {
        Ok(self.services.snapshot()?)
    }

    fn by_now(&self) -> By {
        By { now: self.services.outside.clock.now_ms(), ..self.by.clone() }
    }

    fn told(&mut self) -> Result<(), NotSwitched> {
        (self.tell)(&self.progress).map_err(NotSwitched::Unwatched)
    }

    fn transact<R: Send + 'static>(
        &self,
        turn: Turn,
        run: impl Fn(&mut Tx<'_>) -> Result<R, ReadError> + Clone + Send + 'static,
    ) -> Result<R, NotSwitched> {
        Ok(self.services.transact_patiently(turn, || self.services.outside.clock.now_ms(), run)?)
    }

    /// Begins a switch, or goes on with the one that has no end. `None` where nothing is left to do.
    fn begin(&mut self) -> Result<Option<PepperRow>, NotSwitched> {
        let by = self.by_now();
        let begun = self.transact(Turn::FIRST, move |tx| {
            let before = rows::get(tx)?;
            let row = match rows::begin(tx, by.now)? {
                Ok(row) => row,
                Err(why) => return Ok(Err(why)),
            };
            let is_new = row.is_some() && row != before;
            if let Some(link) = row.as_ref().filter(|_| is_new).and_then(|row| row.links.last()) {
                let description = format!("Began the switch to the pepper {}", Shown(&link.fingerprint));
                tell_of(tx, &by, "pepper.enable", description, &link.fingerprint);
            }
            Ok(Ok((row, is_new)))
        })?;
        let (row, is_new) = begun.map_err(NotSwitched::No)?;
        self.progress.pepper =
            self.services.storage.peppers().configured().first().map_or([0; 8], |first| first.fingerprint);
        if row.is_some() {
            self.progress.was_needed = true;
            self.progress.resumed = !is_new;
            self.progress.hashes = rows::count(&self.snapshot()?)?;
            self.told()?;
        }
        Ok(row)
    }

    fn take_root_keys(&mut self) -> Result<(), NotSwitched> {
        let mut from = Vec::new();
        loop {
            let ids = rows::root_keys(&self.snapshot()?, &from, BATCH)?;
            let Some(last) = ids.last() else { return Ok(()) };
            from = [last.as_bytes().as_slice(), &[0]].concat();
            self.progress.moved += self.transact(Turn::FIRST, move |tx| rows::rehash_root_keys(tx, &ids))?;
            self.told()?;
        }
    }

    /// What comes to an index from here on is at the last stage, so one walk is enough.
    fn take_keys(&mut self, stage: u8) -> Result<(), NotSwitched> {
        let mut from = Vec::new();
        loop {
            let waiting = rows::waiting(&self.snapshot()?, stage, &from, BATCH)?;
            let Some((workspace, hash)) = waiting.last() else { return Ok(()) };
            from = [rows::place(*workspace, hash).as_slice(), &[0]].concat();
            for batch in waiting.chunk_by(|one, other| one.0 == other.0) {
                self.take_batch(batch)?;
            }
        }
    }

    fn take_batch(&mut self, batch: &[(WorkspaceNo, KeyHash)]) -> Result<(), NotSwitched> {
        let Some(workspace) = batch.first().map(|(workspace, _)| *workspace) else { return Ok(()) };
        let hashes: Vec<KeyHash> = batch.iter().map(|(_, hash)| *hash).collect();
        self.progress.moved +=
            self.transact(Turn::of(workspace), move |tx| rows::rehash_keys(tx, workspace, &hashes))?;
        self.told()
    }

    fn end(mut self) -> Result<Progress, NotSwitched> {
        let (by, moved) = (self.by_now(), self.progress.moved);
        self.transact(Turn::FIRST, move |tx| {
            let row = rows::end(tx, by.now)?;
            if let Some(link) = row.as_ref().and_then(|row| row.links.last()) {
                let description = format!("Ended the switch to the pepper {}", Shown(&link.fingerprint));
                tell_of(tx, &by, "pepper.complete", description, &link.fingerprint);
            }
            Ok(())
        })?;
        // The log up to here names older hashes.
        flush(self.services);
        tracing::info!(pepper = %Shown(&self.progress.pepper), moved, "every hash of a key is keyed with the pepper");
        // It is done, whoever hears of it.
        let _ = self.told();
        Ok(self.progress)
    }
}

/// Waits for a checkpoint.
fn flush(services: &Services) {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    services.storage.flush(move || {
        let _ = tell.send(());
    });
    // Unanswered where the writer has ended: then the next start makes one.
    let _ = told.recv();
}

/// Notes that the file of records was written anew at this start, and lets the log before it go.
///
/// # Errors
/// See [`NotSwitched`].
pub fn note_cleared(services: &Services) -> Result<(), NotSwitched> {
    let now = services.outside.clock.now_ms();
    services.transact_patiently(Turn::FIRST, || now, move |tx| rows::cleared(tx, now))?;
    flush(services);
    Ok(())
}
