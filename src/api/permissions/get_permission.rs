//! permissions.getPermission: a permission by its id or slug.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Permission, find_permission, permission_not_found};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::Slug;
use crate::rbac::Need;

/// Which permission.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its id, or its slug in whatever letters' case.
    permission: Slug,
}

/// permissions.getPermission.
pub struct GetPermission;

impl Operation for GetPermission {
    const NAME: &'static str = "permissions.getPermission";
    const SUMMARY: &'static str = "Get a permission";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["rbac.*.read_permission"];
    const FAILS: &'static [Code] = &[Code::PermissionNotFound];
    type Request = Request;
    type Response = Permission;

    async fn run(call: Call, ask: Request) -> Result<Permission, Problem> {
        let _granted = call.authorize(&Need::tuple("rbac", "*", "read_permission"))?;
        let workspace = call.workspace();
        let found =
            call.read("permission", move |storage| find_permission(&storage.snapshot()?, workspace, &ask.permission));
        Ok(Permission::new(found.await?.ok_or_else(permission_not_found)?))
    }
}
