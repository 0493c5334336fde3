//! Recoverable keys: what createKey and rerollKey seal, and what getKey and listKeys open (HASH-6 to HASH-9).

use std::sync::Arc;

use keyward_storage::Abort;
use keyward_storage::ids::KeyId;
use keyward_storage::records::api::ApiRow;
use keyward_storage::records::audit::Target;
use zeroize::Zeroizing;

use super::super::call::{Call, Change, Correlate, Granted};
use super::super::problem::{Code, Problem};
use super::super::shape::Secret;
use crate::app::Services;
use crate::rbac::Need;
use crate::vault::{NotSealed, Owner};

/// The audit event of a plaintext that was read (AL-NAME-02).
pub const DECRYPTED: &str = "key.decrypt";

/// Refuses what needs encryption on a server that has no master key, naming the way out (EXT-6, KEYS-CREATE-3, KEYS-GET-2,
/// APIS-LIST-2).
pub fn need_vault(call: &Call) -> Result<(), Problem> {
    if call.services().vault.is_set_up() { Ok(()) } else { Err(no_vault()) }
}

fn no_vault() -> Problem {
    Problem::new(
        Code::PreconditionFailed,
        "Vault hasn't been set up. The server's operator can set it up with a master key, which `keyward vault generate-key` \
         prints and the setting `master_key_file` names.",
    )
}

/// Refuses what needs encryption on an API where that is switched off (HASH-7).
pub fn need_encryption(api: &ApiRow) -> Result<(), Problem> {
    if api.store_encrypted_keys {
        return Ok(());
    }
    Err(Problem::new(
        Code::PreconditionFailed,
        "This API does not support key encryption. It can be switched on with apis.updateApi: `storeEncryptedKeys`.",
    ))
}

/// The same in the words of apis.listKeys (APIS-LIST-2).
pub fn need_encryption_of_listed(api: &ApiRow) -> Result<(), Problem> {
    if api.store_encrypted_keys {
        return Ok(());
    }
    Err(Problem::new(
        Code::PreconditionFailed,
        "The requested API does not support key encryption. It can be switched on with apis.updateApi: \
         `storeEncryptedKeys`.",
    ))
}

/// Asks for `api.{*|id}.<action>` or the resource name of all keys of the key space with that action (KEYS-GEN-31).
pub fn need_for_all<R>(api: &str, keyspace: &str, action: &str, ask: impl FnOnce(&Need<'_>) -> R) -> R {
    ask(&Need::Any(&[Need::any_or_one("api", api, action), Need::urn(&["keyspaces", keyspace, "keys", "*"], action)]))
}

/// A plaintext on its way into the transaction that makes its key.
pub struct ToSeal {
    services: Arc<Services>,
    owner: Owner,
    plaintext: Zeroizing<String>,
}

impl ToSeal {
    /// Takes a copy of the plaintext.
    pub fn new(call: &Call, plaintext: &str) -> ToSeal {
        ToSeal {
            services: Arc::clone(call.services()),
            owner: owner(call),
            plaintext: Zeroizing::new(plaintext.to_owned()),
        }
    }

    /// Seals it as the copy of a key that this transaction makes.
    ///
    /// # Errors
    /// No master key after all, or unreadable records.
    pub fn seal(&self, change: &mut Change<'_, '_>, key: KeyId) -> Result<(), Abort<Problem>> {
        let by = (&self.services.outside.entropy, change.now());
        self.services.vault.seal(change.tx, self.owner, key, &self.plaintext, by).map_err(|error| match error {
            NotSealed::NoMasterKey => Abort::Refused(no_vault()),
            NotSealed::Read(error) => Abort::Read(error),
        })
    }
}

/// The caller's workspace, by both of its names.
pub fn owner(call: &Call) -> Owner {
    Owner { no: call.workspace(), id: call.workspace_id() }
}

/// Reads the plaintext of a key, and tells the trail of it before anybody sees it. `None` without a copy, or with one that
/// cannot be opened.
pub async fn reveal(
    call: &Call,
    granted: Granted<'_>,
    key: KeyId,
    targets: Vec<Target>,
) -> Result<Option<Secret>, Problem> {
    let (vault, owner) = (Arc::clone(&call.services().vault), owner(call));
    let read = call.read("key", move |storage| vault.reveal(&storage.snapshot()?, owner, key));
    let Some(plaintext) = read.await? else { return Ok(None) };
    tell(granted, format!("Decrypted {key}"), targets).await?;
    Ok(Some(Secret::new(plaintext.as_str())))
}

/// Tells the trail that plaintexts are read.
pub async fn tell(granted: Granted<'_>, description: String, targets: Vec<Target>) -> Result<(), Problem> {
    let told = granted.transact(Correlate::IfSeveral, move |change| {
        change.audit(DECRYPTED, description, targets);
        Ok(())
    });
    told.await.map(drop)
}
