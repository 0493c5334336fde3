//! Rows become views: whole, immutable, with everything a verify will ask resolved.

use std::sync::Arc;

use super::Hot;
use super::counters::KeyCounters;
use super::shared::{Shared, Stale};
use super::window::Kind;
use crate::error::ReadError;
use crate::ids::{KeyId, NamespaceId, PermissionId, WorkspaceNo};
use crate::position::Position;
use crate::records::api::{self, ApiView};
use crate::records::identity::{self, IdentityRow, IdentityView};
use crate::records::key::{self, KeyHash, KeyRow, KeyView, Linked, Ratelimit, RatelimitView};
use crate::records::ratelimit::{self, NamespaceView, OverrideView};
use crate::records::role::{self, PermissionRow, PermissionView, RoleRow, RoleView};
use crate::records::root_key::{self, RootKeyRow, RootKeyView};
use crate::records::workspace::{self, WorkspaceView};
use crate::store::Snapshot;

/// Why there is no view.
pub(crate) enum NotBuilt {
    /// The snapshot is older than what was published since.
    Stale,
    /// The rows cannot be read.
    Read(ReadError),
}

impl From<ReadError> for NotBuilt {
    fn from(error: ReadError) -> Self {
        NotBuilt::Read(error)
    }
}

impl From<Stale> for NotBuilt {
    fn from(_: Stale) -> Self {
        NotBuilt::Stale
    }
}

/// Builds views from a snapshot.
pub(crate) struct Builder<'a> {
    pub hot: &'a Hot,
    pub snapshot: &'a Snapshot,
}

/// Turns "stale" into "read again".
pub(crate) fn unless_stale<T>(built: Result<T, NotBuilt>) -> Result<Option<T>, ReadError> {
    match built {
        Ok(view) => Ok(Some(view)),
        Err(NotBuilt::Stale) => Ok(None),
        Err(NotBuilt::Read(error)) => Err(error),
    }
}

impl Builder<'_> {
    fn at(&self) -> Position {
        self.snapshot.position()
    }

    /// The key with this hash, if there is a live one.
    pub fn key_by_hash(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Result<Option<Arc<KeyView>>, NotBuilt> {
        let Some(id) = key::find_stored(self.snapshot, workspace, hash)? else { return Ok(None) };
        let row = key::get(self.snapshot, workspace, id)?;
        // Under an alias no key is hot: it would be there twice, with credits of its own each time.
        let Some(row) = row.filter(|row| row.deleted_at.is_none() && row.hash == *hash) else { return Ok(None) };
        let counters = self.counters(workspace, id, &row)?;
        Ok(Some(Arc::new(self.key(workspace, id, &row, counters)?)))
    }

    /// The counters of a key that is not hot.
    pub fn counters(&self, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) -> Result<Arc<KeyCounters>, ReadError> {
        let credits = if row.limited { key::credits(self.snapshot, workspace, id)? } else { None };
        let last_used = key::last_used(self.snapshot, workspace, id)?;
        Ok(Arc::new(KeyCounters::new(workspace, id, credits.as_ref(), last_used)))
    }

    /// A live key's view.
    pub fn key(
        &self,
        workspace: WorkspaceNo,
        id: KeyId,
        row: &KeyRow,
        counters: Arc<KeyCounters>,
    ) -> Result<KeyView, NotBuilt> {
        let shared = &self.hot.shared;
        let api = shared.api(workspace, row.api, self.at(), || {
            Ok(api::get(self.snapshot, workspace, row.api)?.and_then(|found| ApiView::new(row.api, &found)))
        })??;
        let identity = match row.identity {
            None => None,
            Some(identity) => Some(shared.identity(workspace, identity, self.at(), || {
                Ok(identity::get(self.snapshot, workspace, identity)?
                    .and_then(|found| self.identity(workspace, identity, &found)))
            })??),
        };
        let roles = row
            .roles
            .iter()
            .map(|&role| {
                // The role's permissions are cells too, so they are resolved before the role's own cell is asked for.
                let found = role::role(self.snapshot, workspace, role)?;
                let view = found.map(|found| self.role(workspace, role, &found)).transpose()?;
                Ok(shared.role(workspace, role, self.at(), || Ok(view))??)
            })
            .collect::<Result<_, NotBuilt>>()?;
        let linked = Linked {
            permissions: self.permissions(workspace, &row.permissions)?,
            roles,
            meta: row.meta.as_deref().map(Into::into),
        };
        let ratelimits = self.ratelimits(workspace, Kind::Key, id.as_bytes(), &row.ratelimits);
        Ok(KeyView::new((workspace, id, row), api, identity, ratelimits.into(), linked, counters))
    }

    fn permissions(
        &self,
        workspace: WorkspaceNo,
        ids: &[PermissionId],
    ) -> Result<Box<[Arc<Shared<PermissionView>>]>, NotBuilt> {
        ids.iter()
            .map(|&id| {
                Ok(self.hot.shared.permission(workspace, id, self.at(), || {
                    Ok(role::permission(self.snapshot, workspace, id)?.map(|row| permission(id, &row)))
                })??)
            })
            .collect()
    }

    /// A role's view.
    pub fn role(&self, workspace: WorkspaceNo, id: crate::ids::RoleId, row: &RoleRow) -> Result<RoleView, NotBuilt> {
        Ok(RoleView { id, name: row.name.as_str().into(), permissions: self.permissions(workspace, &row.permissions)? })
    }

    /// An identity's view; `None` for a deleted one.
    pub fn identity(
        &self,
        workspace: WorkspaceNo,
        id: crate::ids::IdentityId,
        row: &IdentityRow,
    ) -> Option<IdentityView> {
        row.deleted_at.is_none().then(|| IdentityView {
            id,
            external_id: row.external_id.as_str().into(),
            meta: row.meta.as_deref().map(Into::into),
            ratelimits: self.ratelimits(workspace, Kind::Identity, id.as_bytes(), &row.ratelimits),
        })
    }

    fn ratelimits(
        &self,
        workspace: WorkspaceNo,
        kind: Kind,
        owner: &[u8],
        limits: &[Ratelimit],
    ) -> Box<[RatelimitView]> {
        limits
            .iter()
            .map(|limit| RatelimitView {
                id: limit.id,
                name: limit.name.as_str().into(),
                limit: limit.limit,
                duration: limit.duration,
                auto_apply: limit.auto_apply,
                subject: self.hot.windows.subject(kind, workspace.0, owner, limit.name.as_bytes(), limit.duration),
            })
            .collect()
    }

    /// The root key with this hash, if there is a live one.
    pub fn root_key_by_hash(&self, hash: &KeyHash) -> Result<Option<Arc<RootKeyView>>, NotBuilt> {
        let Some(id) = root_key::find_stored(self.snapshot, hash)? else { return Ok(None) };
        let Some(row) = root_key::get(self.snapshot, id)?.filter(|row| row.deleted_at.is_none()) else {
            return Ok(None);
        };
        Ok(Some(Arc::new(self.root_key(id, &row)?)))
    }

    /// A live root key's view.
    pub fn root_key(&self, id: KeyId, row: &RootKeyRow) -> Result<RootKeyView, NotBuilt> {
        let no = row.workspace;
        let workspace = self.hot.shared.workspace(no, (), self.at(), || workspace_view(self.snapshot, no))??;
        Ok(RootKeyView {
            id,
            name: row.name.as_deref().map(Into::into),
            workspace_no: no,
            workspace,
            permissions: row.permissions.iter().map(|permission| permission.as_str().into()).collect(),
            enabled: row.enabled,
            expires: row.expires,
            memo: std::sync::OnceLock::new(),
        })
    }

    /// The override of exactly this identifier.
    pub fn override_of(
        &self,
        workspace: WorkspaceNo,
        namespace: NamespaceId,
        identifier: &str,
    ) -> Result<Option<Arc<OverrideView>>, ReadError> {
        let row = ratelimit::get_override(self.snapshot, workspace, namespace, identifier)?;
        Ok(row.map(|row| Arc::new(OverrideView::new(&row))))
    }

    /// A namespace, deleted ones included.
    pub fn namespace(&self, workspace: WorkspaceNo, id: NamespaceId) -> Result<Option<Arc<NamespaceView>>, ReadError> {
        Ok(ratelimit::view(self.snapshot, workspace, id)?.map(Arc::new))
    }
}

/// A permission's view.
pub(crate) fn permission(id: PermissionId, row: &PermissionRow) -> PermissionView {
    PermissionView { id, slug: row.slug.as_str().into() }
}

/// A workspace's view as of a snapshot; `None` for a deleted one.
pub(crate) fn workspace_view(snapshot: &Snapshot, no: WorkspaceNo) -> Result<Option<WorkspaceView>, ReadError> {
    Ok(workspace::get(snapshot, no)?.and_then(|row| WorkspaceView::new(no, &row)))
}
