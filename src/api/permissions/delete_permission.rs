//! permissions.deletePermission: roles and keys lose it with the next request.
//!
//! Its row and its slug go, and one view in memory. Lists in rows of roles and keys that name it stay as they are: its id
//! never recurs, so what they name is nothing from then on, and the cost does not grow with who held it.

use keyward_storage::Abort;
use keyward_storage::records::role;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{find_permission, permission_not_found, whole_permission_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Slug};
use crate::rbac::Need;

/// Which permission.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its id, or its slug in whatever letters' case.
    permission: Slug,
}

/// permissions.deletePermission.
pub struct DeletePermission;

impl Operation for DeletePermission {
    const NAME: &'static str = "permissions.deletePermission";
    const SUMMARY: &'static str = "Delete a permission";
    const DESCRIPTION: &'static str = "Deletes a permission for good. Every role and key loses it with the next request; \
        its slug is free at once.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.delete_permission"];
    const FAILS: &'static [Code] = &[Code::PermissionNotFound];
    const AUDITS: &'static [&'static str] = &["permission.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "delete_permission"))?;
        let gone = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let found = find_permission(change.tx, workspace, &ask.permission)?;
            let entry = found.ok_or_else(|| Abort::Refused(permission_not_found()))?;
            let (id, row) = &entry;
            role::delete_permission(change.tx, workspace, *id, row);
            let description = format!("Deleted {} ({id})", row.slug);
            change.audit("permission.delete", description, vec![whole_permission_target(&entry)]);
            Ok(())
        });
        gone.await?;
        Ok(Empty {})
    }
}
