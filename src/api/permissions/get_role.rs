//! permissions.getRole: a role by its id or name, with the permissions it grants.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Role, RoleName, Roles, find_role, role_not_found};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;

/// Which role.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its id, or its name in whatever letters' case.
    role: RoleName,
}

/// permissions.getRole.
pub struct GetRole;

impl Operation for GetRole {
    const NAME: &'static str = "permissions.getRole";
    const SUMMARY: &'static str = "Get a role";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["rbac.*.read_role"];
    const FAILS: &'static [Code] = &[Code::RoleNotFound];
    type Request = Request;
    type Response = Role;

    async fn run(call: Call, ask: Request) -> Result<Role, Problem> {
        let _granted = call.authorize(&Need::tuple("rbac", "*", "read_role"))?;
        let workspace = call.workspace();
        let found = call.read("role", move |storage| {
            let snapshot = storage.snapshot()?;
            let found = find_role(&snapshot, workspace, &ask.role)?;
            found.map(|entry| Roles::new(&snapshot, workspace).show(entry)).transpose()
        });
        found.await?.ok_or_else(role_not_found)
    }
}
