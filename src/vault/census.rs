//! What the vault holds: data keys, how many copies are under each, and which master keys they still need.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use keyward_storage::ids::{DataKeyId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::vault::{self as rows, Fingerprint, RotationRow};
use keyward_storage::records::workspace;
use keyward_storage::{ReadError, Snapshot};

use super::Vault;

/// A data key, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Its id.
    pub id: DataKeyId,
    /// Its workspace.
    pub workspace: Option<WorkspaceId>,
    /// The master key that wraps it.
    pub master: Fingerprint,
    /// Whether new copies go under it.
    pub is_current: bool,
    /// Copies under it.
    pub copies: u64,
    /// Unix ms.
    pub created_at: u64,
}

/// A master key, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// What names it.
    pub fingerprint: Fingerprint,
    /// Whether it wraps new data keys.
    pub is_current: bool,
    /// Whether it is configured.
    pub is_configured: bool,
    /// Data keys it wraps.
    pub data_keys: u64,
    /// Copies under these.
    pub copies: u64,
}

impl Master {
    /// Whether it may be taken out of the configuration: nothing needs it any more.
    pub fn is_removable(&self) -> bool {
        self.is_configured && !self.is_current && self.data_keys == 0
    }
}

/// What the vault holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Where the configured master keys are, for people.
    pub place: Option<String>,
    /// Master keys, configured ones first and in their order, then those that are missing.
    pub masters: Vec<Master>,
    /// Data keys, in the order of workspaces.
    pub data_keys: Vec<DataKey>,
    /// Copies whose data key is gone.
    pub orphans: u64,
    /// The newest rotation.
    pub rotation: Option<RotationRow>,
    /// Copies that could not be opened since the start of this process.
    pub failures: u64,
}

impl Census {
    /// Copies in all.
    pub fn copies(&self) -> u64 {
        self.data_keys.iter().map(|key| key.copies).sum::<u64>() + self.orphans
    }
}

impl Vault {
    /// Counts. Walks over all copies once.
    ///
    /// # Errors
    /// What reading the records says.
    pub fn census(&self, snapshot: &Snapshot) -> Result<Census, ReadError> {
        let current: HashMap<WorkspaceNo, DataKeyId> =
            rows::keyrings(snapshot)?.into_iter().map(|(no, keyring)| (no, keyring.current)).collect();
        let mut copies: HashMap<(WorkspaceNo, DataKeyId), u64> = HashMap::new();
        rows::for_each_copy(snapshot, |no, data_key| *copies.entry((no, data_key)).or_default() += 1)?;
        let mut data_keys = Vec::new();
        let mut wrapped: BTreeMap<Fingerprint, (u64, u64)> = BTreeMap::new();
        for (no, id, row) in rows::data_keys(snapshot)? {
            let copies = copies.remove(&(no, id)).unwrap_or(0);
            let by_master = wrapped.entry(row.master).or_default();
            *by_master = (by_master.0 + 1, by_master.1 + copies);
            data_keys.push(DataKey {
                id,
                workspace: workspace::get(snapshot, no)?.map(|row| row.id),
                master: row.master,
                is_current: current.get(&no) == Some(&id),
                copies,
                created_at: row.created_at,
            });
        }
        let mut masters: Vec<Master> = Vec::new();
        for (at, key) in self.masters.all().iter().enumerate() {
            let (data_keys, copies) = wrapped.remove(&key.fingerprint).unwrap_or_default();
            let fingerprint = key.fingerprint;
            masters.push(Master { fingerprint, is_current: at == 0, is_configured: true, data_keys, copies });
        }
        masters.extend(wrapped.into_iter().map(|(fingerprint, (data_keys, copies))| Master {
            fingerprint,
            is_current: false,
            is_configured: false,
            data_keys,
            copies,
        }));
        Ok(Census {
            place: self.place.clone(),
            masters,
            data_keys,
            orphans: copies.into_values().sum(),
            rotation: rows::rotation(snapshot)?,
            failures: self.failures(),
        })
    }

    /// Master keys that data keys need and that are not configured, with how many need each; health and metrics go by their
    /// number from here on. Walks over data keys alone.
    ///
    /// # Errors
    /// What reading the records says.
    pub fn look(&self, snapshot: &Snapshot) -> Result<BTreeMap<Fingerprint, u64>, ReadError> {
        let mut missing: BTreeMap<Fingerprint, u64> = BTreeMap::new();
        for (_, _, row) in rows::data_keys(snapshot)? {
            if self.masters.find(&row.master).is_none() {
                *missing.entry(row.master).or_default() += 1;
            }
        }
        self.unreadable_data_keys.store(missing.values().sum(), Ordering::Relaxed);
        Ok(missing)
    }

    /// Says in the log, at a start, what of the vault needs the operator: master keys that data keys need and that are not
    /// configured, and a rotation that has not ended. Walks over data keys alone.
    ///
    /// # Errors
    /// What reading the records says.
    pub fn remark(&self, snapshot: &Snapshot) -> Result<(), ReadError> {
        for (fingerprint, data_keys) in self.look(snapshot)? {
            tracing::error!(
                master_key = %super::Shown(&fingerprint),
                data_keys,
                "a master key that recoverable keys are encrypted under is not configured: those keys verify, but their \
                 plaintexts cannot be read; name its file with --master-key-file, behind the current key where there is one"
            );
        }
        if rows::rotation(snapshot)?.is_some_and(|rotation| rotation.ended_at.is_none()) {
            tracing::warn!("a rotation of the vault was interrupted; run `keyward vault rotate` to go on with it");
        }
        Ok(())
    }
}
