//! Workspaces: the tenants.

use super::codec::{part, row};
use super::{WORKSPACE_BY_ID, WORKSPACE_BY_SLUG};
use crate::ids::{WorkspaceId, WorkspaceNo};
use crate::store::Read;
use crate::{error::ReadError, records::Row, tx::Tx};

part! {
    /// What a workspace may use (EXT-2).
    pub struct WorkspaceLimits {
        /// Requests per minute over all root keys; `None` = no limit, 0 = none at all (COM-WRL-01).
        api_requests_per_minute: Option<u64>,
        /// Days verification and rate-limit events are kept.
        logs_retention_days: u32,
        /// Days audit events are kept.
        audit_retention_days: u32,
        /// Analytics queries per hour.
        queries_per_hour: u32,
        /// Seconds of analytics execution per hour.
        query_seconds_per_hour: u32,
        /// Bytes of memory one analytics query may take.
        query_max_memory: u64,
        /// Seconds one analytics query may run.
        query_max_seconds: u32,
        /// Rows one analytics query may return.
        query_max_rows: u64,
    }
}

impl Default for WorkspaceLimits {
    fn default() -> Self {
        WorkspaceLimits {
            api_requests_per_minute: None,
            logs_retention_days: 90,
            audit_retention_days: 365,
            queries_per_hour: 1000,
            query_seconds_per_hour: 1800,
            query_max_memory: 1_000_000_000,
            query_max_seconds: 30,
            query_max_rows: 10_000_000,
        }
    }
}

row! {
    /// A workspace.
    pub struct WorkspaceRow in WORKSPACE version 1 {
        /// Its public id.
        id: WorkspaceId,
        /// Its name, for people.
        name: String,
        /// A short unique name, if the operator gave one.
        slug: Option<String>,
        /// A disabled workspace's root keys are refused.
        enabled: bool,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its deletion; its root keys then find no workspace (COM-RK-02).
        deleted_at: Option<u64>,
        /// What it may use.
        limits: WorkspaceLimits,
    }
}

/// What every request needs of its workspace, in memory.
#[derive(Debug)]
pub struct WorkspaceView {
    /// Its number.
    pub no: WorkspaceNo,
    /// Its public id.
    pub id: WorkspaceId,
    /// Whether its root keys are taken.
    pub enabled: bool,
    /// See [`WorkspaceLimits::api_requests_per_minute`].
    pub api_requests_per_minute: Option<u64>,
}

impl WorkspaceView {
    pub(crate) fn new(no: WorkspaceNo, row: &WorkspaceRow) -> Option<WorkspaceView> {
        row.deleted_at.is_none().then_some(WorkspaceView {
            no,
            id: row.id,
            enabled: row.enabled,
            api_requests_per_minute: row.limits.api_requests_per_minute,
        })
    }
}

pub(crate) fn key(no: WorkspaceNo) -> [u8; 4] {
    no.0.to_be_bytes()
}

/// Reads a workspace.
pub fn get(read: &impl Read, no: WorkspaceNo) -> Result<Option<WorkspaceRow>, ReadError> {
    read.row(&key(no))
}

/// Finds a workspace's number by its public id.
pub fn find(read: &impl Read, id: WorkspaceId) -> Result<Option<WorkspaceNo>, ReadError> {
    Ok(read
        .bytes(WORKSPACE_BY_ID, id.as_bytes())?
        .and_then(|no| no.try_into().ok())
        .map(u32::from_be_bytes)
        .map(WorkspaceNo))
}

/// Finds a workspace's number by its slug.
pub fn find_slug(read: &impl Read, slug: &str) -> Result<Option<WorkspaceNo>, ReadError> {
    Ok(read
        .bytes(WORKSPACE_BY_SLUG, slug.as_bytes())?
        .and_then(|no| no.try_into().ok())
        .map(u32::from_be_bytes)
        .map(WorkspaceNo))
}

/// Every workspace in order of creation, deleted ones included.
pub fn list(read: &impl Read) -> Result<Vec<(WorkspaceNo, WorkspaceRow)>, ReadError> {
    let mut all = Vec::new();
    for (key, value) in read.range(super::WORKSPACE, &[], None, usize::MAX)? {
        if let Some(no) = super::workspace_of(&key) {
            all.push((no, crate::store::decode(&value)?));
        }
    }
    Ok(all)
}

/// The number the next workspace gets.
pub fn next_no(tx: &Tx<'_>) -> Result<WorkspaceNo, ReadError> {
    let last = tx.last_key(super::WORKSPACE)?;
    Ok(WorkspaceNo(last.and_then(|key| super::workspace_of(&key)).map_or(1, |no| no.0 + 1)))
}

/// Puts a workspace and its indexes. `before` is the row it replaces.
pub fn put(tx: &mut Tx<'_>, no: WorkspaceNo, before: Option<&WorkspaceRow>, row: &WorkspaceRow) {
    let stored = key(no);
    tx.put_bytes(WorkspaceRow::TABLE, &stored, row.to_bytes());
    if before.is_none() {
        tx.put_bytes(WORKSPACE_BY_ID, row.id.as_bytes(), stored.to_vec());
    }
    let live_slug = |row: &WorkspaceRow| row.slug.clone().filter(|_| row.deleted_at.is_none());
    let old = before.and_then(live_slug);
    let new = live_slug(row);
    if old != new {
        if let Some(slug) = old {
            tx.delete(WORKSPACE_BY_SLUG, slug.as_bytes());
        }
        if let Some(slug) = new {
            tx.put_bytes(WORKSPACE_BY_SLUG, slug.as_bytes(), stored.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Row;
    use crate::testing::{hex, id};

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = WorkspaceRow {
            id: WorkspaceId(id('w')),
            name: "Acme".into(),
            slug: Some("acme".into()),
            enabled: true,
            created_at: 0x0102,
            deleted_at: None,
            limits: WorkspaceLimits { api_requests_per_minute: Some(5), ..WorkspaceLimits::default() },
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "01777777777777777777777777777777770400000041636d65010400000061636d650102010000000000000001050000000000\
             00005a0000006d010000e80300000807000000ca9a3b000000001e0000008096980000000000"
        );
        assert_eq!(WorkspaceRow::from_bytes(&row.to_bytes()), Ok(row));
    }
}
