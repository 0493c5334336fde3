//! permissions.setRolePermissions: what a role grants becomes exactly the list.

use keyward_storage::Abort;
use keyward_storage::records::role;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Permission, RoleName, SlugList, Slugs, existing, find_role, may_create, permission_target, role_by_id,
    role_not_found, role_target, without,
};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Resource};
use crate::rbac::Need;

/// Which role, and what it shall grant.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["roleId"]}, {"required": ["role"]}]))]
struct Body {
    /// The id of the role. Exactly one of `roleId` and `role` is wanted.
    #[serde(default)]
    role_id: Opt<Resource>,
    /// The role's id, or its name in whatever letters' case.
    #[serde(default)]
    role: Opt<RoleName>,
    /// Slugs of the permissions it grants from now on, and no others; missing ones are made.
    permissions: SlugList,
}

/// A body with its one way of naming the role.
#[derive(Deserialize, JsonSchema)]
#[serde(try_from = "Body")]
#[schemars(with = "Body")]
pub struct Request {
    role: Named,
    permissions: SlugList,
}

/// How a request names the role (RB-SR-01).
enum Named {
    Id(Resource),
    IdOrName(RoleName),
}

impl TryFrom<Body> for Request {
    type Error = &'static str;

    fn try_from(body: Body) -> Result<Request, &'static str> {
        let role = match (body.role_id.0, body.role.0) {
            (Some(id), None) => Named::Id(id),
            (None, Some(named)) => Named::IdOrName(named),
            _ => return Err("exactly one of `roleId` and `role` is wanted"),
        };
        Ok(Request { role, permissions: body.permissions })
    }
}

/// permissions.setRolePermissions.
pub struct SetRolePermissions;

impl Operation for SetRolePermissions {
    const NAME: &'static str = "permissions.setRolePermissions";
    const SUMMARY: &'static str = "Set a role's permissions";
    const DESCRIPTION: &'static str = "Makes a role grant exactly the listed permissions; an empty list takes all away. \
        Every key that has the role sees it with the next request. The reply lists what the role grants now.\n\nBoth \
        permissions are needed, whatever changes; where a listed permission does not exist yet, also \
        `rbac.*.create_permission` or `unkey:v1:<workspaceId>:rbac/permissions/*#create_permission`.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.add_permission_to_role", "rbac.*.remove_permission_from_role"];
    const FAILS: &'static [Code] = &[Code::RoleNotFound];
    const AUDITS: &'static [&'static str] = &[
        "permission.create",
        "authorization.disconnect_role_and_permissions",
        "authorization.connect_role_and_permission",
    ];
    type Request = Request;
    type Response = Vec<Permission>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Permission>, Problem> {
        let granted = call.authorize(&Need::All(&[
            Need::tuple("rbac", "*", "add_permission_to_role"),
            Need::tuple("rbac", "*", "remove_permission_from_role"),
        ]))?;
        let may_create = may_create(&call);
        let set = granted.transact(Correlate::Always, move |change| {
            let workspace = change.workspace();
            let found = match &ask.role {
                Named::Id(id) => role_by_id(change.tx, workspace, id)?,
                Named::IdOrName(named) => find_role(change.tx, workspace, named)?,
            };
            let (id, before) = found.ok_or_else(|| Abort::Refused(role_not_found()))?;
            let slugs = Slugs::find(change, &ask.permissions)?.makable(may_create)?;
            let wanted = slugs.or_make(change, |_| None);
            let held = existing(change, &before.permissions)?;
            let removed = without(held.clone(), &wanted);
            let added = without(wanted.clone(), &held);
            // A request that changes nothing records nothing (AL-OP-01).
            if removed.is_empty() && added.is_empty() {
                return Ok(wanted);
            }
            let mut after = before.clone();
            after.permissions = wanted.iter().map(|(id, _)| *id).collect();
            after.updated_at = Some(change.now());
            role::put_role(change.tx, workspace, id, Some(&before), &after);
            let role = (id, after);
            for permission in &removed {
                let description = format!("Disconnected role {} and permission {}", role.1.name, permission.1.name);
                let targets = vec![role_target(&role), permission_target(permission)];
                change.audit("authorization.disconnect_role_and_permissions", description, targets);
            }
            for permission in &added {
                let description = format!("Connected role {} and permission {}", role.1.name, permission.1.name);
                let targets = vec![role_target(&role), permission_target(permission)];
                change.audit("authorization.connect_role_and_permission", description, targets);
            }
            Ok(wanted)
        });
        Ok(Permission::sorted(set.await?.value))
    }
}
