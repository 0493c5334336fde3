//! What requests read without a lock, and the counters they change by compare-and-swap.

pub(crate) mod absent;
pub(crate) mod build;
pub mod counters;
pub mod index;
pub(crate) mod load;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod shared;
pub mod sync;
pub mod table;
pub mod window;

use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::ids::{NamespaceId, WorkspaceNo};
use crate::pepper::Peppers;
use crate::records::key::KeyView;
use crate::records::ratelimit::{NamespaceView, OverrideView};
use crate::records::root_key::RootKeyView;
use index::{Index, View};
use shared::SharedViews;
use table::fetch_shared;
use window::Windows;

/// Everything hot.
pub struct Hot {
    /// Keys by (workspace, hash).
    pub keys: Index<KeyView>,
    /// Root keys by hash; their scope is 0.
    pub root_keys: Index<RootKeyView>,
    /// Namespaces by (workspace, hash of id or name): see `name_hash`.
    pub namespaces: Index<NamespaceView>,
    /// Overrides of exactly one identifier by (workspace, hash of namespace and identifier): see `override_hash`.
    pub overrides: Index<OverrideView>,
    /// Views that many others share.
    pub shared: SharedViews,
    /// Rate-limit cells.
    pub windows: Windows,
    /// What digests of keys are turned into hashes with.
    pub peppers: Arc<Peppers>,
    seed: [u8; 16],
}

/// Scope of what belongs to no workspace.
pub(crate) const OPERATOR: u32 = 0;

impl Hot {
    pub(crate) fn new(
        keys: Index<KeyView>,
        root_keys: Index<RootKeyView>,
        namespaces: Index<NamespaceView>,
        overrides: Index<OverrideView>,
        windows: Windows,
        peppers: Arc<Peppers>,
        seed: [u8; 16],
    ) -> Hot {
        Hot { keys, root_keys, namespaces, overrides, shared: SharedViews::new(), windows, peppers, seed }
    }

    /// What a namespace is found by: a keyed hash of its id or name, so that no tenant can aim at another's entry.
    /// (SipHash-1-3 with 128 bits: Aumasson and Bernstein, 2012.)
    pub(crate) fn name_hash(&self, workspace: WorkspaceNo, name: &str) -> [u8; 32] {
        self.keyed_hash(workspace, &[name.as_bytes()])
    }

    /// What the override of an identifier is found by, in the same way.
    pub(crate) fn override_hash(&self, workspace: WorkspaceNo, namespace: NamespaceId, identifier: &[u8]) -> [u8; 32] {
        self.keyed_hash(workspace, &[namespace.as_bytes(), identifier])
    }

    /// All parts but the last have a length of their own.
    fn keyed_hash(&self, workspace: WorkspaceNo, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = SipHasher13::new_with_key(&self.seed);
        hasher.write_u32(workspace.0);
        parts.iter().for_each(|part| hasher.write(part));
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&hasher.finish128().as_bytes());
        hash
    }
}

fn text(text: Option<&str>) -> usize {
    text.map_or(0, str::len)
}

impl View for KeyView {
    fn weight(&self) -> usize {
        self.bytes()
    }

    fn retire(&self) -> bool {
        self.counters.retire()
    }

    fn leads_to(&self) -> Option<u32> {
        self.ratelimits.first().map(|limit| limit.subject.low_hash())
    }

    fn fetch_parts(&self) {
        if self.limited {
            fetch_shared(&self.counters);
        }
    }
}

impl View for RootKeyView {
    fn weight(&self) -> usize {
        size_of::<RootKeyView>()
            + text(self.name.as_deref())
            + self.permissions.iter().map(|permission| 16 + permission.len()).sum::<usize>()
    }
}

impl View for NamespaceView {
    fn weight(&self) -> usize {
        self.bytes()
    }
}

impl View for OverrideView {
    fn weight(&self) -> usize {
        size_of::<OverrideView>()
    }
}
