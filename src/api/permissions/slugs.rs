//! Permissions that a request names by slug and that need not exist yet.

use std::collections::HashSet;

use keyward_storage::ids::PermissionId;
use keyward_storage::records::role::{self, PermissionRow};
use keyward_storage::{Abort, ReadError};
use serde_json::json;

use super::{PermissionEntry, by_slug, permission_target};
use crate::api::call::Change;
use crate::api::problem::Problem;

/// What a list of slugs stands for, in the order of the request, several spellings of one slug once (RB-CR-01, KEYS-GEN-19).
pub struct Slugs(Vec<Sought>);

enum Sought {
    Known(PermissionEntry),
    /// The first spelling that the request had.
    Missing(String),
}

impl Slugs {
    /// Looks the slugs up, whatever the letters' case (KEYS-GEN-17).
    pub fn find<S: AsRef<str>>(change: &Change<'_, '_>, slugs: &[S]) -> Result<Slugs, ReadError> {
        let mut seen = HashSet::with_capacity(slugs.len());
        let mut sought = Vec::with_capacity(slugs.len());
        for slug in slugs.iter().map(S::as_ref) {
            if seen.insert(role::folded(slug)) {
                let found = by_slug(change.tx, change.workspace(), slug)?;
                sought.push(found.map_or_else(|| Sought::Missing(slug.to_owned()), Sought::Known));
            }
        }
        Ok(Slugs(sought))
    }

    /// Those that exist.
    pub fn known(&self) -> HashSet<PermissionId> {
        let known = self.0.iter().filter_map(|sought| match sought {
            Sought::Known((id, _)) => Some(*id),
            Sought::Missing(_) => None,
        });
        known.collect()
    }

    /// All of them, where all exist; else the first slug that has no permission.
    pub fn known_or_missing(self) -> Result<Vec<PermissionEntry>, String> {
        let all = self.0.into_iter().map(|sought| match sought {
            Sought::Known(entry) => Ok(entry),
            Sought::Missing(slug) => Err(slug),
        });
        all.collect()
    }

    /// Refuses a request that names what does not exist, where its caller may not make it.
    pub fn makable(self, may_create: Result<(), Problem>) -> Result<Slugs, Abort<Problem>> {
        match may_create {
            Err(denied) if self.0.iter().any(|sought| matches!(sought, Sought::Missing(_))) => {
                Err(Abort::Refused(denied))
            }
            _ => Ok(self),
        }
    }

    /// All of them; those that do not exist are made, each with its own event. `describe` gives a new one its description.
    pub fn or_make(
        self,
        change: &mut Change<'_, '_>,
        describe: impl Fn(&str) -> Option<String>,
    ) -> Vec<PermissionEntry> {
        let all = self.0.into_iter().map(|sought| match sought {
            Sought::Known(entry) => entry,
            Sought::Missing(slug) => {
                let description = describe(&slug);
                make(change, slug, description)
            }
        });
        all.collect()
    }
}

/// Makes a permission that was named and not described: its name is its slug (RB-CR-01, KEYS-PERM-3).
fn make(change: &mut Change<'_, '_>, slug: String, description: Option<String>) -> PermissionEntry {
    let id = PermissionId(change.new_id());
    let row = PermissionRow { name: slug.clone(), slug, description, created_at: change.now(), updated_at: None };
    let workspace = change.workspace();
    role::insert_permission(change.tx, workspace, id, &row);
    let entry = (id, row);
    let mut made = permission_target(&entry);
    made.meta = Some(json!({ "name": entry.1.name, "slug": entry.1.slug }).to_string());
    change.audit("permission.create", format!("Created {} ({id})", entry.1.slug), vec![made]);
    entry
}
