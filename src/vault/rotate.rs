//! Rotation: every data key wrapped by the current master key, a new data key for each workspace, every copy under it.
//!
//! Each step is an ordinary transaction that leaves the store whole, and what is left to do follows from the rows alone:
//! the row of the newest rotation says that one goes on, a keyring whether its workspace has begun and ended in it, a copy
//! which data key it is under. So a rotation that was cut off anywhere goes on where it was when it is started again, and
//! reads find every copy all the time. When data keys are wrapped, which comes first and is quick, older master keys are
//! needed no more.
//!
//! Batches are small and take their turns as changes of their workspace do, so that nothing waits long behind them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;

use keyward_storage::ids::{DataKeyId, KeyId, WorkspaceNo};
use keyward_storage::records::vault::{self as rows, CopyRow, DataKeyRow, KeyringRow, RotationRow};
use keyward_storage::records::workspace;
use keyward_storage::{ReadError, Snapshot, TransactError, Turn, Tx, Unavailable};

use super::crypt::draw_nonce;
use super::{Owner, Unopened, Vault, wrap};
use crate::app::{ReadFailed, Services};
use crate::tenants::{By, target};

/// Rows changed by one transaction; few in tests, so that there are many transactions to interrupt.
const BATCH: usize = if cfg!(test) { 16 } else { 256 };

/// How far a rotation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Copies there were when it began or went on.
    pub copies: u64,
    /// Copies looked at.
    pub seen: u64,
    /// Copies that are under another data key than before.
    pub moved: u64,
    /// Data keys that were wrapped anew.
    pub wrapped: u64,
    /// Workspaces that are done.
    pub workspaces: u64,
    /// Copies that cannot be opened, and stay as they are.
    pub unopened: u64,
    /// Data keys that cannot be unwrapped, and stay as they are.
    pub lost_data_keys: u64,
    /// Whether it went on with one that was interrupted.
    pub resumed: bool,
}

/// Why a rotation did not come to its end. It can be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum NotRotated {
    /// Nothing to wrap with.
    #[error(
        "no master key is configured; `keyward vault generate-key` prints one, and --master-key-file, \
         KEYWARD_MASTER_KEY_FILE or KEYWARD_MASTER_KEY gives it to the server"
    )]
    NoMasterKey,
    /// One runs already.
    #[error("a rotation runs already")]
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

impl From<TransactError<Infallible>> for NotRotated {
    fn from(error: TransactError<Infallible>) -> NotRotated {
        match error {
            TransactError::Unavailable(why) => NotRotated::Unavailable(why),
            TransactError::Read(error) => NotRotated::Read(error),
            TransactError::Refused(never) => match never {},
        }
    }
}

/// What a step's transaction found.
type Step<R> = Result<R, NotRotated>;

/// Rotates. `tell` is called after each transaction; where it fails, the rotation stops there. Blocks.
///
/// # Errors
/// See [`NotRotated`].
pub fn rotate(
    services: &Services,
    by: &By,
    tell: &mut dyn FnMut(&Progress) -> io::Result<()>,
) -> Result<Progress, NotRotated> {
    let vault = &services.vault;
    let _alone = vault.rotating.try_lock().map_err(|_| NotRotated::Running)?;
    if !vault.is_set_up() {
        return Err(NotRotated::NoMasterKey);
    }
    let mut rotation = Rotation { services, vault, by, tell, progress: Progress::default(), number: 0 };
    rotation.begin()?;
    rotation.wrap_all()?;
    // A workspace that gets its first recoverable key meanwhile has a new data key already.
    for (no, _) in rows::keyrings(&rotation.snapshot()?)? {
        rotation.rotate_workspace(no)?;
    }
    rotation.end()
}

struct Rotation<'r> {
    services: &'r Services,
    vault: &'r Vault,
    by: &'r By,
    tell: &'r mut dyn FnMut(&Progress) -> io::Result<()>,
    progress: Progress,
    number: u64,
}

impl Rotation<'_> {
    fn snapshot(&self) -> Step<Snapshot> {
        Ok(self.services.snapshot()?)
    }

    fn now(&self) -> u64 {
        self.services.outside.clock.now_ms()
    }

    fn told(&mut self) -> Step<()> {
        (self.tell)(&self.progress).map_err(NotRotated::Unwatched)
    }

    /// Runs a step's transaction.
    fn transact<R: Send + 'static>(
        &self,
        turn: Turn,
        run: impl Fn(&mut Tx<'_>) -> Result<R, ReadError> + Clone + Send + 'static,
    ) -> Step<R> {
        Ok(self.services.transact_patiently(turn, || self.now(), run)?)
    }

    /// Begins a rotation, or goes on with the one that has no end.
    fn begin(&mut self) -> Step<()> {
        let now = self.now();
        let (row, resumed) = self.transact(Turn::FIRST, move |tx| {
            let newest = rows::rotation(tx)?;
            match newest {
                Some(row) if row.ended_at.is_none() => Ok((row, true)),
                newest => {
                    let number = newest.map_or(1, |row| row.number + 1);
                    let row = RotationRow { number, begun_at: now, ended_at: None };
                    rows::put_rotation(tx, &row);
                    Ok((row, false))
                }
            }
        })?;
        self.number = row.number;
        self.progress.resumed = resumed;
        self.progress.copies = rows::count_copies(&self.snapshot()?)?;
        self.told()
    }

    fn end(mut self) -> Result<Progress, NotRotated> {
        let (number, now) = (self.number, self.now());
        self.transact(Turn::FIRST, move |tx| {
            if let Some(row) = rows::rotation(tx)?.filter(|row| row.number == number) {
                rows::put_rotation(tx, &RotationRow { ended_at: Some(now), ..row });
            }
            Ok(())
        })?;
        // It is done, whoever hears of it.
        let _ = self.told();
        Ok(self.progress)
    }

    /// Wraps with the current master key what another one has wrapped.
    fn wrap_all(&mut self) -> Step<()> {
        let (vault, entropy) = (self.vault, &self.services.outside.entropy);
        let snapshot = self.snapshot()?;
        let Some(master) = vault.masters.current() else { return Err(NotRotated::NoMasterKey) };
        let mut owners: HashMap<WorkspaceNo, Option<Owner>> = HashMap::new();
        let mut batch: Vec<(WorkspaceNo, DataKeyId, DataKeyRow, DataKeyRow)> = Vec::new();
        let mut waiting =
            rows::data_keys(&snapshot)?.into_iter().filter(|(_, _, row)| row.master != master.fingerprint).peekable();
        while let Some((no, id, before)) = waiting.next() {
            let owner = match owners.get(&no) {
                Some(owner) => *owner,
                None => {
                    let owner = owner(&snapshot, no)?;
                    owners.insert(no, owner);
                    owner
                }
            };
            match owner.map(|owner| (owner, vault.unwrap(owner, id, &before))) {
                Some((owner, Ok(key))) => {
                    let after = wrap(master, owner, id, &key, (entropy, before.created_at));
                    batch.push((no, id, before, after));
                }
                Some((_, Err(_))) | None => self.progress.lost_data_keys += 1,
            }
            if batch.len() == BATCH || (waiting.peek().is_none() && !batch.is_empty()) {
                let rewrapped = std::mem::take(&mut batch);
                self.progress.wrapped += self.transact(Turn::FIRST, move |tx| {
                    let mut put = 0;
                    for (no, id, before, after) in &rewrapped {
                        if rows::data_key(tx, *no, *id)?.as_ref() == Some(before) {
                            rows::put_data_key(tx, *no, *id, after);
                            put += 1;
                        }
                    }
                    Ok(put)
                })?;
                self.told()?;
            }
        }
        Ok(())
    }

    /// Gives a workspace a new data key and moves its copies there.
    fn rotate_workspace(&mut self, no: WorkspaceNo) -> Step<()> {
        let Some(owner) = owner(&self.snapshot()?, no)? else { return Ok(()) };
        let Some(current) = self.current_of(owner)? else { return Ok(()) };
        let mut from = None;
        // Copies that stay, by the data key they are under.
        let mut staying: HashMap<DataKeyId, u64> = HashMap::new();
        let mut moved = 0;
        loop {
            let snapshot = self.snapshot()?;
            let copies = rows::copies(&snapshot, no, from, BATCH + 1)?;
            let next = copies.get(BATCH).map(|(id, _)| *id);
            let mut batch = Vec::new();
            for (id, before) in copies.into_iter().take(BATCH) {
                self.progress.seen += 1;
                if before.data_key == current {
                    continue;
                }
                match self.moved(&snapshot, owner, (id, &before), current)? {
                    Ok(after) => batch.push((id, before, after)),
                    Err(_) => {
                        self.progress.unopened += 1;
                        *staying.entry(before.data_key).or_default() += 1;
                    }
                }
            }
            drop(snapshot);
            if !batch.is_empty() {
                let put = self.transact(Turn::of(no), move |tx| {
                    let mut put = 0;
                    for (id, before, after) in &batch {
                        // It may have gone with its key since it was read.
                        if rows::copy(tx, no, *id)?.as_ref() == Some(before) {
                            rows::put_copy(tx, no, *id, after);
                            put += 1;
                        }
                    }
                    Ok(put)
                })?;
                moved += put;
                self.progress.moved += put;
                self.told()?;
            }
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        self.settle(owner, current, &staying, moved)
    }

    /// The data key a workspace's copies go to: the new one of this rotation, made if it is not there yet. `None` where this
    /// rotation is done with the workspace.
    fn current_of(&mut self, owner: Owner) -> Step<Option<DataKeyId>> {
        let Some(master) = self.vault.masters.current() else { return Err(NotRotated::NoMasterKey) };
        let (number, no) = (self.number, owner.no);
        let (id, row, _) = self.vault.make_data_key(master, owner, (&self.services.outside.entropy, self.now()));
        let keyring = self.transact(Turn::of(no), move |tx| {
            let Some(before) = rows::keyring(tx, no)? else { return Ok(None) };
            if before.rotation >= number {
                return Ok(Some(before));
            }
            let keyring = KeyringRow { current: id, rotation: number, settled: false };
            rows::put_data_key(tx, no, id, &row);
            rows::put_keyring(tx, no, &keyring);
            Ok(Some(keyring))
        })?;
        if keyring.as_ref().is_none_or(|keyring| keyring.current != id) {
            self.vault.unwrapped().forget((no, id));
        }
        self.told()?;
        Ok(keyring.filter(|keyring| !keyring.settled).map(|keyring| keyring.current))
    }

    /// A copy, sealed under the current data key.
    fn moved(
        &self,
        snapshot: &Snapshot,
        owner: Owner,
        (id, before): (KeyId, &CopyRow),
        current: DataKeyId,
    ) -> Step<Result<CopyRow, Unopened>> {
        let plaintext = match self.vault.open_copy(snapshot, owner, id, before)? {
            Ok(plaintext) => plaintext,
            Err(why) => return Ok(Err(why)),
        };
        Ok(self.vault.cipher(snapshot, owner, current)?.map(|cipher| {
            let nonce = draw_nonce(&self.services.outside.entropy);
            let sealed = cipher.seal_copy(&nonce, (owner.id, current, id), &plaintext);
            CopyRow { data_key: current, nonce, sealed }
        }))
    }

    /// Takes the data keys away that no copy is under any more, and tells of the workspace's rotation. A copy never goes
    /// under an older data key, so what was seen of them holds.
    fn settle(&mut self, owner: Owner, current: DataKeyId, staying: &HashMap<DataKeyId, u64>, moved: u64) -> Step<()> {
        let no = owner.no;
        let by = By { now: self.now(), ..self.by.clone() };
        let kept: Vec<DataKeyId> = staying.keys().copied().collect();
        let unopened: u64 = staying.values().sum();
        let gone = self.transact(Turn::of(no), move |tx| {
            let Some(before) = rows::keyring(tx, no)?.filter(|row| row.current == current && !row.settled) else {
                return Ok(Vec::new());
            };
            let older = rows::data_keys_of(tx, no)?.into_iter().map(|(_, id, _)| id).filter(|id| *id != current);
            let gone: Vec<DataKeyId> = older.filter(|id| !kept.contains(id)).collect();
            gone.iter().for_each(|id| rows::delete_data_key(tx, no, *id));
            rows::put_keyring(tx, no, &KeyringRow { settled: true, ..before });
            let mut description =
                format!("Rotated the data key of workspace {}: {current} is the current one", owner.id);
            if unopened > 0 {
                description.push_str(&format!(", {unopened} copies could not be opened and stay as they are"));
            }
            let name = workspace::get(tx, no)?.map(|row| row.name).unwrap_or_default();
            let target = target("workspace", owner.id, &name);
            tx.audit(no, by.event("vault.rotate", description, vec![target]));
            Ok(gone)
        })?;
        for id in gone {
            self.vault.unwrapped().forget((no, id));
        }
        tracing::info!(workspace = %owner.id, data_key = %current, moved, unopened, "a workspace's data key was rotated");
        self.progress.workspaces += 1;
        self.told()
    }
}

/// A workspace by both of its names; `None` where its row is gone.
fn owner(snapshot: &Snapshot, no: WorkspaceNo) -> Result<Option<Owner>, ReadError> {
    Ok(workspace::get(snapshot, no)?.map(|row| Owner { no, id: row.id }))
}
