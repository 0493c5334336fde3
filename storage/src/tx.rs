//! A transaction: checks against the current truth, then effects.
//!
//! It runs on the writer's thread, sees everything before it, its own batch included, and leaves nothing behind when it is
//! refused: its changes stay in an overlay until it is accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::ReadError;
use crate::hot::Hot;
use crate::hot::counters::{Change, MAX_BALANCE};
use crate::ids::{KeyId, WorkspaceNo};
use crate::pepper::{Chain, Peppered, Peppers};
use crate::records::audit::{self, AuditEvent};
use crate::records::key::{self, CreditsRow, KeyDigest, KeyHash, KeyRow, KeyView};
use crate::records::{Effect, Row, TableNo, migration};
use crate::store::{RawRow, Read};

/// A transaction being run.
pub struct Tx<'a> {
    base: &'a dyn Read,
    hot: &'a Hot,
    overlay: BTreeMap<(TableNo, Vec<u8>), Option<Vec<u8>>>,
    /// Bytes put so far, those of rows put again included.
    bytes: usize,
    audit: Vec<(WorkspaceNo, AuditEvent)>,
    credit_changes: Vec<CreditChange>,
    /// Of this transaction, and of those before it in its batch.
    moved: Vec<Moved>,
    moved_before: &'a [Moved],
}

/// A key that is found by another hash than before.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    pub workspace: WorkspaceNo,
    pub id: KeyId,
    pub from: KeyHash,
    pub to: KeyHash,
}

/// A change of a balance that takes effect on the hot counters when the transaction is published.
#[derive(Debug, Clone)]
pub(crate) struct CreditChange {
    pub workspace: WorkspaceNo,
    pub id: KeyId,
    pub hash: KeyHash,
    pub change: Change,
    pub generation: u64,
    /// The balance as it is stored.
    pub balance: u64,
    pub refill_due: Option<u64>,
}

/// What an accepted transaction leaves.
pub(crate) struct Accepted {
    pub effects: Vec<Effect>,
    pub credit_changes: Vec<CreditChange>,
    pub moved: Vec<Moved>,
}

/// Why a transaction's function gave up.
#[derive(Debug)]
pub enum Abort<X> {
    /// Its checks refuse the change: an answer, not an error.
    Refused(X),
    /// The records could not be read.
    Read(ReadError),
}

impl<X> From<ReadError> for Abort<X> {
    fn from(error: ReadError) -> Self {
        Abort::Read(error)
    }
}

/// The balance would pass 2^63 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyCredits;

impl<'a> Tx<'a> {
    /// A transaction on top of `base`, in whose batch these keys got another hash before.
    pub(crate) fn new(base: &'a dyn Read, hot: &'a Hot, moved_before: &'a [Moved]) -> Tx<'a> {
        let (overlay, audit, credit_changes) = (BTreeMap::new(), Vec::new(), Vec::new());
        Tx { base, hot, overlay, bytes: 0, audit, credit_changes, moved: Vec::new(), moved_before }
    }

    /// The peppers in use.
    pub(crate) fn chain(&self) -> Result<Arc<Chain>, ReadError> {
        self.hot.peppers.chain_in(self)
    }

    /// What a key with this digest is stored under when it is made in this transaction.
    ///
    /// # Errors
    /// What reading the records says.
    pub fn hash(&self, digest: &KeyDigest) -> Result<KeyHash, ReadError> {
        Ok(self.chain()?.hashes(digest).newest().1)
    }

    /// Notes that a key is found by another hash.
    pub(crate) fn moves(&mut self, moved: Moved) {
        self.moved.push(moved);
    }

    pub(crate) fn put_bytes(&mut self, table: TableNo, key: &[u8], value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.overlay.insert((table, key.to_vec()), Some(value));
    }

    pub(crate) fn delete(&mut self, table: TableNo, key: &[u8]) {
        self.overlay.insert((table, key.to_vec()), None);
    }

    /// Adds an audit event; it commits with the change or not at all (AL-EV-03). Events keep their order.
    pub fn audit(&mut self, workspace: WorkspaceNo, event: AuditEvent) {
        self.audit.push((workspace, event));
    }

    /// The names of the events added so far.
    pub fn audited(&self) -> impl Iterator<Item = &str> {
        self.audit.iter().map(|(_, event)| event.event.as_str())
    }

    /// Whether anything was put or deleted so far.
    pub fn has_changes(&self) -> bool {
        !self.overlay.is_empty()
    }

    /// Bytes of the rows put so far, roughly. A function that puts many asks now and then whether it goes beyond
    /// [`MAX_TRANSACTION_BYTES`](crate::MAX_TRANSACTION_BYTES): it would be refused in the end, and all others wait meanwhile.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it leaves nothing, no audit event either.
    pub(crate) fn is_empty(&self) -> bool {
        self.overlay.is_empty() && self.audit.is_empty()
    }

    /// The credits a key has at this moment: what is stored, or, while the key is hot, what is left of it.
    pub fn credits(&self, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) -> Result<CreditsRow, ReadError> {
        let stored = key::credits(self, workspace, id)?;
        let mut credits = stored.unwrap_or(CreditsRow { generation: 0, balance: 0, refill_due: None });
        if let Some(view) = self.hot_view(workspace, id, &row.hash)?
            // A stored generation beyond the hot one was put by a transaction of this very batch: then it is the newest.
            && view.counters.generation() == credits.generation
        {
            credits.balance = view.counters.balance();
        }
        Ok(credits)
    }

    /// The key's view while it is hot. One that got its hash in this very batch is so under the one it had before, or came
    /// with.
    fn hot_view(&self, workspace: WorkspaceNo, id: KeyId, hash: &KeyHash) -> Result<Option<Arc<KeyView>>, ReadError> {
        // A hash may have been another key's until this very batch.
        let peek = |hash: &KeyHash| self.hot.keys.peek(workspace.0, hash).filter(|view| view.id == id);
        if let Some(view) = peek(hash) {
            return Ok(Some(view));
        }
        let moved =
            self.moved_before.iter().chain(&self.moved).filter(|moved| (moved.workspace, moved.id) == (workspace, id));
        if let Some(view) = moved.map(|moved| &moved.from).find_map(peek) {
            return Ok(Some(view));
        }
        Ok(migration::of_key(self, workspace, id)?.and_then(|came| peek(&came.foreign)))
    }

    /// Changes a key's balance and says when its next refill is due (unix ms). The new balance is spendable once the
    /// transaction is published; spends until then count against it.
    pub fn change_credits(
        &mut self,
        workspace: WorkspaceNo,
        id: KeyId,
        row: &KeyRow,
        change: Change,
        refill_due: Option<u64>,
    ) -> Result<Result<u64, TooManyCredits>, ReadError> {
        let credits = self.credits(workspace, id, row)?;
        let Some(balance) = change.apply(credits.balance).filter(|&balance| balance <= MAX_BALANCE) else {
            return Ok(Err(TooManyCredits));
        };
        let generation = credits.generation + 1;
        self.put_bytes(
            CreditsRow::TABLE,
            &key::key(workspace, id),
            CreditsRow { generation, balance, refill_due }.to_bytes(),
        );
        self.credit_changes.push(CreditChange {
            workspace,
            id,
            hash: row.hash,
            change,
            generation,
            balance,
            refill_due,
        });
        Ok(Ok(balance))
    }

    /// The rows as they will be, its audit events numbered and chained.
    pub(crate) fn accept(mut self) -> Result<Accepted, ReadError> {
        let mut events = std::mem::take(&mut self.audit);
        while let Some(&(workspace, _)) = events.first() {
            let (of_workspace, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|(no, _)| *no == workspace);
            audit::append(&mut self, workspace, of_workspace.into_iter().map(|(_, event)| event).collect())?;
            events = others;
        }
        let effects =
            self.overlay.into_iter().map(|((table, key), value)| Effect { table, key, value }).collect::<Vec<_>>();
        Ok(Accepted { effects, credit_changes: self.credit_changes, moved: self.moved })
    }
}

impl Peppered for Tx<'_> {
    fn peppers(&self) -> &Peppers {
        &self.hot.peppers
    }
}

impl Read for Tx<'_> {
    fn bytes(&self, table: TableNo, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        // A lookup needs an owned key because the map's key is a pair; keys are a few dozen bytes.
        match self.overlay.get(&(table, key.to_vec())) {
            Some(value) => Ok(value.clone()),
            None => self.base.bytes(table, key),
        }
    }

    fn range(&self, table: TableNo, prefix: &[u8], from: Option<&[u8]>, most: usize) -> Result<Vec<RawRow>, ReadError> {
        let start = from.filter(|from| *from > prefix).unwrap_or(prefix);
        let changed: Vec<_> = self
            .overlay
            .range((table, start.to_vec())..)
            .take_while(|((no, key), _)| *no == table && key.starts_with(prefix))
            .collect();
        // Rows this transaction deleted may be among those read, so as many more are asked for.
        let rows = self.base.range(table, prefix, from, most.saturating_add(changed.len()))?;
        if changed.is_empty() {
            return Ok(rows);
        }
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
        for ((_, key), value) in changed {
            match value {
                Some(value) => drop(merged.insert(key.clone(), value.clone())),
                None => drop(merged.remove(key)),
            }
        }
        Ok(merged.into_iter().take(most).collect())
    }

    fn last_key(&self, table: TableNo) -> Result<Option<Vec<u8>>, ReadError> {
        let own = self
            .overlay
            .range((table, Vec::new())..=(table, vec![0xff; 512]))
            .rev()
            .find(|(_, value)| value.is_some())
            .map(|((_, key), _)| key.clone());
        Ok(own.max(self.base.last_key(table)?))
    }
}
