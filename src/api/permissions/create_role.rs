//! permissions.createRole: a named set of permissions that keys can then be given.

use keyward_storage::ids::RoleId;
use keyward_storage::records::role::{self, RoleRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Description, RoleName, SlugList, Slugs, described, permission_target, refuse_taken_name, whole_role_target,
};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{List, Opt};
use crate::rbac::Need;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its name, which no other role of the workspace may have, in whatever letters' case.
    name: RoleName,
    /// A longer text about it.
    #[serde(default)]
    description: Opt<Description>,
    /// Slugs of the permissions it grants; missing ones are made.
    #[serde(default)]
    permissions: Opt<SlugList>,
}

/// The new role.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    #[schemars(length(min = 3, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    role_id: String,
}

/// permissions.createRole.
pub struct CreateRole;

impl Operation for CreateRole {
    const NAME: &'static str = "permissions.createRole";
    const SUMMARY: &'static str = "Create a role";
    const DESCRIPTION: &'static str = "Makes a role, with the permissions it grants. A key that has the role holds them \
        as it holds its own.\n\nA request with permissions also needs `rbac.*.add_permission_to_role`, and \
        `rbac.*.create_permission` where one of them does not exist yet.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.create_role"];
    const FAILS: &'static [Code] = &[Code::RoleAlreadyExists];
    const AUDITS: &'static [&'static str] =
        &["role.create", "permission.create", "authorization.connect_role_and_permission"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "create_role"))?;
        let slugs = ask.permissions.map_or(Vec::new(), List::into_vec);
        if !slugs.is_empty() {
            call.authorize(&Need::tuple("rbac", "*", "add_permission_to_role")).map(drop)?;
        }
        let may_create = call.authorize(&Need::tuple("rbac", "*", "create_permission")).map(drop);
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            let slugs = Slugs::find(change, &slugs)?.makable(may_create)?;
            refuse_taken_name(change, &ask.name, None)?;
            let row = RoleRow {
                name: ask.name.into_string(),
                description: described(ask.description),
                permissions: Vec::new(),
                created_at: change.now(),
                updated_at: None,
            };
            let mut entry = (RoleId(change.new_id()), row);
            let description = format!("Created role {} ({})", entry.1.name, entry.0);
            change.audit("role.create", description, vec![whole_role_target(&entry)]);
            let linked = slugs.or_make(change, |_| None);
            for permission in &linked {
                change.audit(
                    "authorization.connect_role_and_permission",
                    format!("Connected role {} and permission {}", entry.1.name, permission.1.name),
                    vec![whole_role_target(&entry), permission_target(permission)],
                );
            }
            entry.1.permissions = linked.iter().map(|(id, _)| *id).collect();
            let workspace = change.workspace();
            role::put_role(change.tx, workspace, entry.0, None, &entry.1);
            Ok(entry.0)
        });
        Ok(Response { role_id: made.await?.value.to_string() })
    }
}
