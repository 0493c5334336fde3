//! The vault: plaintexts of recoverable keys, encrypted at rest (HASH-6 to HASH-9, EXT-6).
//!
//! An envelope. A key's plaintext is sealed under the data key of its workspace; data keys are wrapped by the operator's
//! master key, which is no part of the data directory. So a stolen directory or backup tells no plaintext, and a lost
//! master key costs the plaintexts alone: nothing else asks for one.
//!
//! Sealing happens in the transaction that makes the key: only there is it certain which data key is the current one while
//! a [`rotate`]ion goes on beside it. It costs a microsecond of the writer's time. Opening happens on threads that may block.

pub mod census;
mod complaints;
mod crypt;
mod master;
pub mod rotate;
pub mod sources;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use keyward_storage::ids::{DataKeyId, KeyId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::vault::{self as rows, CopyRow, DataKeyRow, Fingerprint, KeyringRow};
use keyward_storage::{Read, ReadError, Tx};
use zeroize::Zeroizing;

use crate::config::SecretSources;
use crate::outside::Entropy;
use crate::tenants::draw_id;
use complaints::Complaints;
use crypt::{Cipher, SymmetricKey, draw_nonce};
use master::{MasterKey, MasterKeys};
pub use master::{Shown, generate};
pub use sources::SourceError;

/// The names of the master key's sources.
pub const MASTER_KEY_CREDENTIAL: &str = "keyward-master-key";
/// What people call it.
const MASTER_KEY: &str = "master key";
/// Data keys that are kept unwrapped: a workspace in use has one, and unwrapping another takes microseconds.
const UNWRAPPED_MAX: usize = 1024;

/// The master keys, and the data keys in use.
#[derive(Debug)]
pub struct Vault {
    masters: MasterKeys,
    /// Where they are, for people.
    place: Option<String>,
    unwrapped: Mutex<Unwrapped>,
    complaints: Complaints,
    /// Data keys whose master key was not configured when it was last looked.
    unreadable_data_keys: AtomicU64,
    /// Held by the one rotation that runs.
    rotating: Mutex<()>,
}

/// A workspace, by both of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// As rows have it.
    pub no: WorkspaceNo,
    /// As seals have it.
    pub id: WorkspaceId,
}

/// Nothing can be sealed: no master key is configured.
#[derive(Debug, thiserror::Error)]
pub enum NotSealed {
    /// No master key is configured.
    #[error("no master key is configured")]
    NoMasterKey,
    /// The records could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a copy that is there cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The master key that wraps its data key is not among the configured ones.
    #[error("the master key {} is not configured; add it behind the current one", Shown(.0))]
    MasterKeyMissing(Fingerprint),
    /// Its data key is gone.
    #[error("its data key {0} is gone")]
    DataKeyGone(DataKeyId),
    /// Its data key does not unwrap although its master key is there.
    #[error("its data key {0} is damaged or was moved here")]
    DataKeyDamaged(DataKeyId),
    /// The copy itself does not open.
    #[error("the copy is damaged or was moved here from another key")]
    CopyDamaged,
}

impl Vault {
    /// A vault with the master keys that the sources name. None at all is legal.
    ///
    /// # Errors
    /// A source is set and cannot be used.
    pub fn open(sources: &SecretSources, data_dir: &Path) -> Result<Vault, SourceError> {
        let wanted = sources::Wanted {
            what: MASTER_KEY,
            credential: MASTER_KEY_CREDENTIAL,
            file: sources.master_key_file.as_deref(),
            variable: crate::config::MASTER_KEY_VARIABLE,
            given: sources.master_key.as_ref(),
        };
        let Some(found) = sources::find(wanted, sources, data_dir)? else {
            return Ok(Vault::new(MasterKeys::default(), None));
        };
        match MasterKeys::read(&found.text) {
            Ok(masters) => Ok(Vault::new(masters, Some(found.place))),
            Err(source) => Err(SourceError::Bad { what: MASTER_KEY, place: found.place, source: Box::new(source) }),
        }
    }

    fn new(masters: MasterKeys, place: Option<String>) -> Vault {
        Vault {
            masters,
            place,
            unwrapped: Mutex::default(),
            complaints: Complaints::default(),
            unreadable_data_keys: AtomicU64::new(0),
            rotating: Mutex::default(),
        }
    }

    /// Whether there is a master key, so that keys can be made recoverable.
    pub fn is_set_up(&self) -> bool {
        self.masters.current().is_some()
    }

    /// Seals the plaintext of a new key and puts its copy. The first one of a workspace makes its data key, and so does the
    /// first one after the master key of the current data key was lost.
    ///
    /// # Errors
    /// [`NotSealed`]; nothing was put.
    pub fn seal(
        &self,
        tx: &mut Tx<'_>,
        owner: Owner,
        key: KeyId,
        plaintext: &str,
        (entropy, now): (&Entropy, u64),
    ) -> Result<(), NotSealed> {
        let master = self.masters.current().ok_or(NotSealed::NoMasterKey)?;
        let keyring = rows::keyring(tx, owner.no)?;
        let usable = match &keyring {
            Some(keyring) => self.cipher(tx, owner, keyring.current)?.ok().map(|cipher| (keyring.current, cipher)),
            None => None,
        };
        let (data_key, cipher) = match usable {
            Some(usable) => usable,
            None => {
                let (id, row, cipher) = self.make_data_key(master, owner, (entropy, now));
                let rotation = match &keyring {
                    Some(keyring) => keyring.rotation,
                    None => rows::rotation(tx)?.map_or(0, |rotation| rotation.number),
                };
                rows::put_data_key(tx, owner.no, id, &row);
                rows::put_keyring(tx, owner.no, &KeyringRow { current: id, rotation, settled: true });
                (id, cipher)
            }
        };
        let nonce = draw_nonce(entropy);
        let sealed = cipher.seal_copy(&nonce, (owner.id, data_key, key), plaintext);
        rows::put_copy(tx, owner.no, key, &CopyRow { data_key, nonce, sealed });
        Ok(())
    }

    /// The plaintext of a key; `None` for one that has no copy, and for one whose copy cannot be opened, which the operator
    /// then hears of (KEYS-GET-3, APIS-LIST-10).
    ///
    /// # Errors
    /// What reading the records says.
    pub fn reveal(&self, read: &impl Read, owner: Owner, key: KeyId) -> Result<Option<Zeroizing<String>>, ReadError> {
        let Some(copy) = rows::copy(read, owner.no, key)? else { return Ok(None) };
        match self.open_copy(read, owner, key, &copy)? {
            Ok(plaintext) => Ok(Some(plaintext)),
            Err(why) => {
                self.complaints.tell(owner.id, key, why);
                Ok(None)
            }
        }
    }

    /// Copies that could not be opened since the start.
    pub fn failures(&self) -> u64 {
        self.complaints.count()
    }

    /// Whether a copy was found within the last hour that is damaged, or has lost its data key.
    pub fn failed_lately(&self) -> bool {
        self.complaints.came_lately()
    }

    /// Data keys whose master key is not configured, as of the start.
    pub fn unreadable_data_keys(&self) -> u64 {
        self.unreadable_data_keys.load(Ordering::Relaxed)
    }

    /// Opens a copy.
    fn open_copy(
        &self,
        read: &impl Read,
        owner: Owner,
        key: KeyId,
        copy: &CopyRow,
    ) -> Result<Result<Zeroizing<String>, Unopened>, ReadError> {
        Ok(self.cipher(read, owner, copy.data_key)?.and_then(|cipher| {
            let place = (owner.id, copy.data_key, key);
            cipher.open_copy(&copy.nonce, place, &copy.sealed).map_err(|_| Unopened::CopyDamaged)
        }))
    }

    /// A data key, prepared: from memory, or unwrapped.
    fn cipher(
        &self,
        read: &impl Read,
        owner: Owner,
        id: DataKeyId,
    ) -> Result<Result<Arc<Cipher>, Unopened>, ReadError> {
        if let Some(cipher) = self.unwrapped().get((owner.no, id)) {
            return Ok(Ok(cipher));
        }
        let Some(row) = rows::data_key(read, owner.no, id)? else { return Ok(Err(Unopened::DataKeyGone(id))) };
        Ok(self.unwrap(owner, id, &row).map(|key| self.keep((owner.no, id), &key)))
    }

    /// Unwraps a data key.
    fn unwrap(&self, owner: Owner, id: DataKeyId, row: &DataKeyRow) -> Result<SymmetricKey, Unopened> {
        let master = self.masters.find(&row.master).ok_or(Unopened::MasterKeyMissing(row.master))?;
        let unwrapped = master.cipher.unwrap(&row.nonce, (owner.id, id), &row.wrapped);
        unwrapped.map_err(|_| Unopened::DataKeyDamaged(id))
    }

    /// Draws a data key and wraps it.
    fn make_data_key(
        &self,
        master: &MasterKey,
        owner: Owner,
        (entropy, now): (&Entropy, u64),
    ) -> (DataKeyId, DataKeyRow, Arc<Cipher>) {
        let (id, key) = (DataKeyId(draw_id(entropy)), SymmetricKey::draw(entropy));
        let row = wrap(master, owner, id, &key, (entropy, now));
        (id, row, self.keep((owner.no, id), &key))
    }

    fn keep(&self, place: (WorkspaceNo, DataKeyId), key: &SymmetricKey) -> Arc<Cipher> {
        let cipher = Arc::new(Cipher::new(key));
        self.unwrapped().put(place, Arc::clone(&cipher));
        cipher
    }

    fn unwrapped(&self) -> std::sync::MutexGuard<'_, Unwrapped> {
        self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A data key's row: wrapped by this master key, under a nonce of its own.
fn wrap(
    master: &MasterKey,
    owner: Owner,
    id: DataKeyId,
    key: &SymmetricKey,
    (entropy, created_at): (&Entropy, u64),
) -> DataKeyRow {
    let nonce = draw_nonce(entropy);
    let wrapped = master.cipher.wrap(&nonce, (owner.id, id), key);
    DataKeyRow { master: master.fingerprint, nonce, wrapped, created_at }
}

/// Data keys that were unwrapped, the oldest ones forgotten when there are too many. A data key never changes under its id.
#[derive(Debug, Default)]
struct Unwrapped {
    ciphers: HashMap<(WorkspaceNo, DataKeyId), Arc<Cipher>>,
    order: VecDeque<(WorkspaceNo, DataKeyId)>,
}

impl Unwrapped {
    fn get(&self, place: (WorkspaceNo, DataKeyId)) -> Option<Arc<Cipher>> {
        self.ciphers.get(&place).cloned()
    }

    fn put(&mut self, place: (WorkspaceNo, DataKeyId), cipher: Arc<Cipher>) {
        if self.ciphers.insert(place, cipher).is_some() {
            return;
        }
        self.order.push_back(place);
        if self.order.len() > UNWRAPPED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ciphers.remove(&oldest);
        }
    }

    fn forget(&mut self, place: (WorkspaceNo, DataKeyId)) {
        if self.ciphers.remove(&place).is_some() {
            self.order.retain(|kept| *kept != place);
        }
    }
}

#[cfg(test)]
mod tests;
