//! permissions.updatePermission: a permission's name, slug and description; what is not named stays as it is (EXT-19).

use keyward_storage::Abort;
use keyward_storage::records::role::{self, PermissionRow};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Description, Permission, find_permission, permission_not_found, permission_target, redescribed, refuse_taken_slug,
};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Patch, Slug, Text};
use crate::api::trail::Changes;
use crate::rbac::Need;

/// What to change. Absent leaves as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The permission's id, or its slug in whatever letters' case.
    permission: Slug,
    /// A label for people.
    #[serde(default)]
    name: Opt<Text<1, 512>>,
    /// What verification compares, and no other permission of the workspace may have, in whatever letters' case.
    #[serde(default)]
    slug: Opt<Slug>,
    /// A longer text about it; null or an empty one removes it.
    #[serde(default)]
    description: Patch<Description>,
}

/// permissions.updatePermission.
pub struct UpdatePermission;

impl Operation for UpdatePermission {
    const NAME: &'static str = "permissions.updatePermission";
    const SUMMARY: &'static str = "Update a permission";
    const DESCRIPTION: &'static str = "Changes a permission's name, slug and description. Whoever holds it keeps it, and \
        verification compares the new slug from the next request on.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.update_permission"];
    const FAILS: &'static [Code] = &[Code::PermissionNotFound, Code::PermissionAlreadyExists];
    const AUDITS: &'static [&'static str] = &["permission.update"];
    type Request = Request;
    type Response = Permission;

    async fn run(call: Call, ask: Request) -> Result<Permission, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "update_permission"))?;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let found = find_permission(change.tx, workspace, &ask.permission)?;
            let (id, before) = found.ok_or_else(|| Abort::Refused(permission_not_found()))?;
            let mut after = before.clone();
            if let Some(name) = ask.name.0 {
                after.name = name.into_string();
            }
            if let Some(slug) = ask.slug.0 {
                refuse_taken_slug(change, &slug, Some(id))?;
                after.slug = slug.into_string();
            }
            after.description = redescribed(ask.description, after.description);
            let changes = changes(&before, &after);
            // A request that changes nothing records nothing (AL-OP-01).
            if changes.is_empty() {
                return Ok((id, after));
            }
            after.updated_at = Some(change.now());
            role::update_permission(change.tx, workspace, id, &before, &after);
            let entry = (id, after);
            let mut target = permission_target(&entry);
            target.meta = changes.into_meta();
            change.audit("permission.update", format!("Updated {} ({id})", entry.1.slug), vec![target]);
            Ok(entry)
        });
        Ok(Permission::new(changed.await?.value))
    }
}

fn changes(before: &PermissionRow, after: &PermissionRow) -> Changes {
    let mut changes = Changes::default();
    changes.note("name", json!(before.name), json!(after.name));
    changes.note("slug", json!(before.slug), json!(after.slug));
    changes.note("description", json!(before.description), json!(after.description));
    changes
}
