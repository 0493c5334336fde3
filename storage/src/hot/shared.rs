//! Views that many keys share: APIs, identities, permissions, roles, workspaces.
//!
//! A key's view points at cells, not at the views in them, so changing a role publishes one view, not a million. A cell
//! whose resource was deleted is empty, for good: ids never recur.
//!
//! A verify reads several cells and must see them as of one moment. The writer makes the generation odd before it changes
//! cells and even afterwards; a reader that saw an odd generation, or another one at the end, reads again. That is a
//! sequence lock (Lameter, "Effective synchronization on Linux/NUMA systems", 2005) over immutable values: readers write
//! nothing and block nobody, and the writer holds it only for the few stores of a change to a shared resource.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, Weak};

use arc_swap::{ArcSwapOption, Guard};

use super::sync::{AtomicU64, Mutex, Ordering, spin_loop};
use crate::error::ReadError;
use crate::ids::{ApiId, IdentityId, PermissionId, RoleId, WorkspaceNo};
use crate::position::Position;
use crate::records::api::ApiView;
use crate::records::identity::IdentityView;
use crate::records::role::{PermissionView, RoleView};
use crate::records::workspace::WorkspaceView;

/// A cell that holds the current view of a shared resource, or nothing once that is deleted.
#[derive(Debug)]
pub struct Shared<V> {
    current: ArcSwapOption<V>,
}

impl<V> Shared<V> {
    fn new(view: Option<V>) -> Shared<V> {
        Shared { current: ArcSwapOption::from(view.map(Arc::new)) }
    }

    /// The view as it is now.
    pub fn load(&self) -> Guard<Option<Arc<V>>> {
        self.current.load()
    }
}

/// The cells that are in use, by id. A cell nobody refers to any more is dropped at the next sweep of its map.
struct Cells<I, V> {
    map: Mutex<CellMap<I, V>>,
}

struct CellMap<I, V> {
    cells: HashMap<(WorkspaceNo, I), Weak<Shared<V>>>,
    /// Sweep when the map has grown to this.
    sweep_at: usize,
}

impl<I: Hash + Eq, V> CellMap<I, V> {
    fn insert(&mut self, workspace: WorkspaceNo, id: I, view: Option<V>) -> Arc<Shared<V>> {
        if self.cells.len() >= self.sweep_at {
            self.cells.retain(|_, cell| cell.strong_count() > 0);
            self.sweep_at = (self.cells.len() * 2).max(FIRST_SWEEP);
        }
        let cell = Arc::new(Shared::new(view));
        self.cells.insert((workspace, id), Arc::downgrade(&cell));
        cell
    }
}

/// Fewest cells before a sweep looks for dropped ones.
const FIRST_SWEEP: usize = 1024;

impl<I: Hash + Eq + Copy, V> Cells<I, V> {
    fn new() -> Cells<I, V> {
        Cells { map: Mutex::new(CellMap { cells: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    fn get(&self, workspace: WorkspaceNo, id: I) -> Option<Arc<Shared<V>>> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.cells.get(&(workspace, id)).and_then(Weak::upgrade)
    }

    /// The cell of a resource; where it has none, one with the view that `read` finds at position `at`.
    fn get_or_read(
        &self,
        workspace: WorkspaceNo,
        id: I,
        floor: &AtomicU64,
        at: Position,
        read: impl FnOnce() -> Result<Option<V>, ReadError>,
    ) -> Result<Result<Arc<Shared<V>>, Stale>, ReadError> {
        if let Some(cell) = self.get(workspace, id) {
            return Ok(Ok(cell));
        }
        let view = read()?;
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = map.cells.get(&(workspace, id)).and_then(Weak::upgrade) {
            return Ok(Ok(cell));
        }
        // The publisher raises the floor before it takes this lock: a view older than a publish that found no cell is
        // seen here, one that comes later finds the cell.
        if floor.load(Ordering::SeqCst) > at.0 {
            return Ok(Err(Stale));
        }
        Ok(Ok(map.insert(workspace, id, view)))
    }

    /// The cell of a resource; where it has none, one with this view. Only the writer does this, while it publishes.
    fn get_or_set(&self, workspace: WorkspaceNo, id: I, view: Option<V>) -> Arc<Shared<V>> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = map.cells.get(&(workspace, id)).and_then(Weak::upgrade) {
            return cell;
        }
        map.insert(workspace, id, view)
    }

    fn set(&self, workspace: WorkspaceNo, id: I, view: Option<V>) {
        if let Some(cell) = self.get(workspace, id) {
            cell.current.store(view.map(Arc::new));
        }
    }

    fn len(&self) -> usize {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).cells.len()
    }
}

/// The snapshot that was read is older than something published since: read again.
#[derive(Debug)]
pub(crate) struct Stale;

/// All shared views.
pub struct SharedViews {
    /// Even at rest, odd while the writer changes cells.
    generation: AtomicU64,
    /// Newest position whose changes to shared resources were published.
    floor: AtomicU64,
    apis: Cells<ApiId, ApiView>,
    identities: Cells<IdentityId, IdentityView>,
    permissions: Cells<PermissionId, PermissionView>,
    roles: Cells<RoleId, RoleView>,
    workspaces: Cells<(), WorkspaceView>,
}

macro_rules! kinds {
    ($($field:ident, $get:ident, $set:ident, $id:ty, $view:ty;)*) => {$(
        impl SharedViews {
            pub(crate) fn $get(
                &self,
                workspace: WorkspaceNo,
                id: $id,
                at: Position,
                read: impl FnOnce() -> Result<Option<$view>, ReadError>,
            ) -> Result<Result<Arc<Shared<$view>>, Stale>, ReadError> {
                self.$field.get_or_read(workspace, id, &self.floor, at, read)
            }
        }

        impl Publishing<'_> {
            pub(crate) fn $set(&self, workspace: WorkspaceNo, id: $id, view: Option<$view>) {
                self.views.$field.set(workspace, id, view);
            }
        }
    )*};
}
kinds! {
    apis, api, set_api, ApiId, ApiView;
    identities, identity, set_identity, IdentityId, IdentityView;
    permissions, permission, set_permission, PermissionId, PermissionView;
    roles, role, set_role, RoleId, RoleView;
    workspaces, workspace, set_workspace, (), WorkspaceView;
}

impl SharedViews {
    pub(crate) fn new() -> SharedViews {
        SharedViews {
            generation: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            apis: Cells::new(),
            identities: Cells::new(),
            permissions: Cells::new(),
            roles: Cells::new(),
            workspaces: Cells::new(),
        }
    }

    /// Runs `read` until it has seen all shared views as of one moment.
    pub fn consistent<R>(&self, mut read: impl FnMut() -> R) -> R {
        loop {
            let before = self.generation.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let seen = read();
                std::sync::atomic::fence(Ordering::Acquire);
                if self.generation.load(Ordering::Relaxed) == before {
                    return seen;
                }
            }
            spin_loop();
        }
    }

    /// Begins to publish changes to shared resources up to `position`. Only the writer does.
    pub(crate) fn publish(&self, position: Position) -> Publishing<'_> {
        self.generation.fetch_add(1, Ordering::AcqRel);
        std::sync::atomic::fence(Ordering::Release);
        self.floor.store(position.0, Ordering::SeqCst);
        Publishing { views: self }
    }

    /// The cell of a permission, if it has one.
    pub(crate) fn known_permission(
        &self,
        workspace: WorkspaceNo,
        id: PermissionId,
    ) -> Option<Arc<Shared<PermissionView>>> {
        self.permissions.get(workspace, id)
    }

    /// How many cells are known, for metrics.
    pub fn len(&self) -> usize {
        self.apis.len() + self.identities.len() + self.permissions.len() + self.roles.len() + self.workspaces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The writer is changing cells; readers wait for its end.
pub(crate) struct Publishing<'a> {
    views: &'a SharedViews,
}

impl Publishing<'_> {
    /// The cell of a permission; where it has none, one with this view.
    pub(crate) fn permission(
        &self,
        workspace: WorkspaceNo,
        id: PermissionId,
        view: Option<PermissionView>,
    ) -> Arc<Shared<PermissionView>> {
        self.views.permissions.get_or_set(workspace, id, view)
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.views.generation.fetch_add(1, Ordering::Release);
    }
}
