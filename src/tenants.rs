//! Workspaces and root keys as they are made: at the first start, by the operator's command, and by `rootKeys.*`.

use keyward_storage::Tx;
use keyward_storage::error::ReadError;
use keyward_storage::ids::{CorrelationId, EventId, IdText, KeyId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::audit::{Actor, AuditEvent, Target};
use keyward_storage::records::root_key::{self, RootKeyRow};
use keyward_storage::records::workspace::{self, WorkspaceLimits, WorkspaceRow};

use crate::outside::Entropy;
use crate::secret::{self, Minted};

/// Characters of the name of a workspace or root key.
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of a permission of a root key.
pub const PERMISSION_CHARS_MAX: usize = 512;
/// Permissions of one root key.
pub const PERMISSIONS_MAX: usize = 1000;
/// The last millisecond of the year 9999, Unix ms: no root key expires later.
pub const TIME_MAX: u64 = 253_402_300_799_999;

/// Draws the random part of an id.
pub fn draw_id(entropy: &Entropy) -> IdText {
    let mut pool = [0u8; 32];
    let mut at = pool.len();
    IdText::draw(|| {
        if at == pool.len() {
            entropy.fill(&mut pool);
            at = 0;
        }
        at += 1;
        pool[at - 1]
    })
}

/// The permission that covers everything in a workspace (PM-URN-03).
pub fn administrator(workspace: WorkspaceId) -> String {
    format!("unkey:v1:{workspace}:**#*")
}

/// Who acts without a root key: the program itself, or a user of the operating system (AL-ACTOR-02).
pub fn system_actor(id: &str, name: &str) -> Actor {
    Actor { kind: "system".into(), id: id.into(), name: name.into() }
}

/// A new root key's fields, before it is in the store.
pub struct NewRootKey {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: Option<String>,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Unix ms after which it is refused.
    pub expires: Option<u64>,
    /// Its hash, start and end.
    pub minted: Minted,
}

impl NewRootKey {
    /// A generated root key.
    pub fn generate(
        name: Option<String>,
        permissions: Vec<String>,
        expires: Option<u64>,
        entropy: &Entropy,
    ) -> NewRootKey {
        let minted = secret::mint(Some(secret::ROOT_KEY_PREFIX), secret::DEFAULT_BYTES, entropy);
        NewRootKey { id: KeyId(draw_id(entropy)), name, permissions, expires, minted }
    }

    /// A root key whose plaintext the operator chose.
    pub fn chosen(plaintext: &str, name: Option<String>, permissions: Vec<String>, entropy: &Entropy) -> NewRootKey {
        let minted = Minted {
            plaintext: plaintext.to_owned().into(),
            digest: secret::digest(plaintext),
            // Of a secret that somebody made up, any part may help a guess.
            start: String::new(),
            end: String::new(),
        };
        NewRootKey { id: KeyId(draw_id(entropy)), name, permissions, expires: None, minted }
    }

    /// Its row, to be put by this transaction: enabled, its permissions sorted and each there once.
    ///
    /// # Errors
    /// What reading the records says.
    pub fn into_row(self, tx: &Tx<'_>, workspace: WorkspaceNo, now: u64) -> Result<RootKeyRow, ReadError> {
        let mut permissions = self.permissions;
        permissions.sort();
        permissions.dedup();
        Ok(RootKeyRow {
            hash: tx.hash(&self.minted.digest)?,
            start: self.minted.start,
            end: Some(self.minted.end).filter(|end| !end.is_empty()),
            name: self.name,
            workspace,
            permissions,
            enabled: true,
            expires: self.expires,
            created_at: now,
            updated_at: None,
            deleted_at: None,
        })
    }
}

/// What is the same for all events of one command.
#[derive(Clone)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// Unix ms.
    pub now: u64,
    /// Where ids come from.
    pub entropy: Entropy,
    /// Ties its events together where it records two or more (AL-EV-04).
    pub correlation: Option<CorrelationId>,
}

impl By {
    /// A command that records one event.
    pub fn new(actor: Actor, now: u64, entropy: &Entropy) -> By {
        By { actor, now, entropy: entropy.clone(), correlation: None }
    }

    /// The same for a command that records several (AL-EV-04).
    pub fn correlated(self) -> By {
        By { correlation: Some(CorrelationId(draw_id(&self.entropy))), ..self }
    }

    /// An audit event of this command.
    pub fn event(&self, event: &str, description: String, targets: Vec<Target>) -> AuditEvent {
        AuditEvent {
            id: EventId(draw_id(&self.entropy)),
            time: self.now,
            event: event.into(),
            description,
            actor: self.actor.clone(),
            remote_ip: None,
            user_agent: None,
            targets,
            correlation: self.correlation,
        }
    }
}

/// An audit target without metadata.
pub fn target(kind: &str, id: impl ToString, name: &str) -> Target {
    Target { kind: kind.into(), id: id.to_string(), name: name.into(), meta: None }
}

/// Makes a workspace. The caller has seen that its slug is free.
pub fn create_workspace(
    tx: &mut Tx<'_>,
    id: WorkspaceId,
    name: &str,
    slug: Option<String>,
    by: &By,
) -> Result<WorkspaceNo, ReadError> {
    let no = workspace::next_no(tx)?;
    let row = WorkspaceRow {
        id,
        name: name.to_owned(),
        slug,
        enabled: true,
        created_at: by.now,
        deleted_at: None,
        limits: WorkspaceLimits::default(),
    };
    workspace::put(tx, no, None, &row);
    tx.audit(no, by.event("workspace.create", format!("Created workspace {id}"), vec![target("workspace", id, name)]));
    Ok(no)
}

/// Makes a root key. The caller has seen that its hash is free.
pub fn create_root_key(tx: &mut Tx<'_>, workspace: WorkspaceNo, key: NewRootKey, by: &By) -> Result<(), ReadError> {
    let id = key.id;
    let row = key.into_row(tx, workspace, by.now)?;
    root_key::put(tx, id, &row)?;
    let name = row.name.as_deref().unwrap_or_default();
    let event = by.event("root_key.create", format!("Created root key {id}"), vec![target("rootKey", id, name)]);
    tx.audit(workspace, event);
    Ok(())
}

/// Changes a workspace. `changes` is what the audit event tells of them: compact JSON text of an object (AL-EV-09). The
/// caller has seen that something changes.
pub fn update_workspace(
    tx: &mut Tx<'_>,
    no: WorkspaceNo,
    before: &WorkspaceRow,
    after: &WorkspaceRow,
    changes: String,
    by: &By,
) {
    workspace::put(tx, no, Some(before), after);
    let target = Target { meta: Some(changes), ..target("workspace", after.id, &after.name) };
    tx.audit(no, by.event("workspace.update", format!("Updated workspace {}", after.id), vec![target]));
}

/// Deletes a workspace softly: its rows and its audit log stay, its slug is free again, and its root keys find no
/// workspace from the next request on (COM-RK-02).
pub fn delete_workspace(tx: &mut Tx<'_>, no: WorkspaceNo, before: &WorkspaceRow, by: &By) {
    let after = WorkspaceRow { deleted_at: Some(by.now), ..before.clone() };
    workspace::put(tx, no, Some(before), &after);
    let targets = vec![target("workspace", after.id, &after.name)];
    tx.audit(no, by.event("workspace.delete", format!("Deleted workspace {}", after.id), targets));
}

/// Changes a root key; effective for the next request (COM-RK-07). `changes` as in [`update_workspace`].
pub fn update_root_key(
    tx: &mut Tx<'_>,
    id: KeyId,
    after: &RootKeyRow,
    changes: String,
    by: &By,
) -> Result<(), ReadError> {
    root_key::put(tx, id, after)?;
    let target = Target { meta: Some(changes), ..target("rootKey", id, after.name.as_deref().unwrap_or_default()) };
    tx.audit(after.workspace, by.event("root_key.update", format!("Updated root key {id}"), vec![target]));
    Ok(())
}

/// Revokes a root key: the next request that brings it finds no such key (COM-RK-07). Its row stays for the audit log.
pub fn revoke_root_key(tx: &mut Tx<'_>, id: KeyId, before: &RootKeyRow, by: &By) -> Result<(), ReadError> {
    let after = RootKeyRow { deleted_at: Some(by.now), ..before.clone() };
    root_key::put(tx, id, &after)?;
    let targets = vec![target("rootKey", id, after.name.as_deref().unwrap_or_default())];
    tx.audit(after.workspace, by.event("root_key.delete", format!("Revoked root key {id}"), targets));
    Ok(())
}
