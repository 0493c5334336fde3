//! permissions.deleteRole: keys lose it, and what they had through it alone, with the next request.
//!
//! Its row and its name go, and one view in memory. Lists in rows of keys that name it stay as they are: its id never recurs,
//! so what they name is nothing from then on, and the cost does not grow with who had it.

use keyward_storage::Abort;
use keyward_storage::records::role;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{RoleName, find_role, role_not_found, whole_role_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::Empty;
use crate::rbac::Need;

/// Which role.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its id, or its name in whatever letters' case.
    role: RoleName,
}

/// permissions.deleteRole.
pub struct DeleteRole;

impl Operation for DeleteRole {
    const NAME: &'static str = "permissions.deleteRole";
    const SUMMARY: &'static str = "Delete a role";
    const DESCRIPTION: &'static str = "Deletes a role for good. Every key loses it with the next request, however many \
        have it; its permissions stay, and its name is free at once.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.delete_role"];
    const FAILS: &'static [Code] = &[Code::RoleNotFound];
    const AUDITS: &'static [&'static str] = &["role.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "delete_role"))?;
        let gone = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let found = find_role(change.tx, workspace, &ask.role)?;
            let entry = found.ok_or_else(|| Abort::Refused(role_not_found()))?;
            let (id, row) = &entry;
            role::delete_role(change.tx, workspace, *id, row);
            change.audit("role.delete", format!("Deleted role {} ({id})", row.name), vec![whole_role_target(&entry)]);
            Ok(())
        });
        gone.await?;
        Ok(Empty {})
    }
}
