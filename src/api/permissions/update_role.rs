//! permissions.updateRole: a role's name and description; what is not named stays as it is (EXT-19).

use keyward_storage::Abort;
use keyward_storage::records::role::{self, RoleRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Description, RoleEntry, RoleName, find_role, redescribed, refuse_taken_name, role_not_found, role_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Patch};
use crate::api::trail::Changes;
use crate::rbac::Need;

/// What to change. Absent leaves as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The role's id, or its name in whatever letters' case.
    role: RoleName,
    /// Its name, which no other role of the workspace may have, in whatever letters' case.
    #[serde(default)]
    name: Opt<RoleName>,
    /// A longer text about it; null or an empty one removes it.
    #[serde(default)]
    description: Patch<Description>,
}

/// The role as it is now, without the permissions it grants.
#[derive(Serialize, JsonSchema)]
pub struct Response {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// A longer text about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// permissions.updateRole.
pub struct UpdateRole;

impl Operation for UpdateRole {
    const NAME: &'static str = "permissions.updateRole";
    const SUMMARY: &'static str = "Update a role";
    const DESCRIPTION: &'static str = "Changes a role's name and description. Whoever has it keeps it. What it grants is \
        changed by `permissions.setRolePermissions`.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.update_role"];
    const FAILS: &'static [Code] = &[Code::RoleNotFound, Code::RoleAlreadyExists];
    const AUDITS: &'static [&'static str] = &["role.update"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "update_role"))?;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let found = find_role(change.tx, workspace, &ask.role)?;
            let (id, before) = found.ok_or_else(|| Abort::Refused(role_not_found()))?;
            let mut after = before.clone();
            if let Some(name) = ask.name.0 {
                refuse_taken_name(change, &name, Some(id))?;
                after.name = name.into_string();
            }
            after.description = redescribed(ask.description, after.description);
            let changes = changes(&before, &after);
            // A request that changes nothing records nothing (AL-OP-01).
            if changes.is_empty() {
                return Ok((id, after));
            }
            after.updated_at = Some(change.now());
            role::put_role(change.tx, workspace, id, Some(&before), &after);
            let entry = (id, after);
            let mut target = role_target(&entry);
            target.meta = changes.into_meta();
            change.audit("role.update", format!("Updated role {} ({id})", entry.1.name), vec![target]);
            Ok(entry)
        });
        let (id, row): RoleEntry = changed.await?.value;
        Ok(Response { id: id.to_string(), name: row.name, description: row.description })
    }
}

fn changes(before: &RoleRow, after: &RoleRow) -> Changes {
    let mut changes = Changes::default();
    changes.note("name", json!(before.name), json!(after.name));
    changes.note("description", json!(before.description), json!(after.description));
    changes
}
