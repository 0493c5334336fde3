//! A public table as a query sees it: the rows of one workspace, of the spaces the caller may see, within retention.

use keyward_storage::ids::WorkspaceId;

/// Whose rows a scan gives. Nothing a query says can widen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The caller's workspace (AN-TAB-08).
    pub workspace: WorkspaceId,
    /// The key spaces or namespaces the caller may see (AN-PERM).
    pub spaces: Spaces,
    /// The query's now, unix ms.
    pub now_ms: u64,
    /// Days of retention, N of AN-RET-01; 0 = no limit.
    pub retention_days: u32,
}

/// Which key spaces or namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spaces {
    /// All of the workspace.
    All,
    /// These ids; none of them = no rows (AN-PERM-04).
    These(Vec<String>),
}
