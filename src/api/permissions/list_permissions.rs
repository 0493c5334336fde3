//! permissions.listPermissions: the permissions of the workspace.

use keyward_storage::ids::PermissionId;
use keyward_storage::records::role::PermissionRow;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Permission;
use crate::api::call::Call;
use crate::api::listing::{LIMIT_DEFAULT, Limit, Paging, Search, SearchText};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Text};
use crate::rbac::Need;

/// Which page.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Rows on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Opt<Text<0, 1024>>,
    /// Only permissions whose id, name, slug or description holds this text, in whatever letters' case.
    #[serde(default)]
    search: SearchText,
}

/// permissions.listPermissions.
pub struct ListPermissions;

impl Operation for ListPermissions {
    const NAME: &'static str = "permissions.listPermissions";
    const SUMMARY: &'static str = "List permissions";
    const DESCRIPTION: &'static str = "Returns the workspace's permissions by id.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["rbac.*.read_permission"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Permission>;

    async fn run(call: Call, ask: Request) -> Result<Page<Permission>, Problem> {
        let _granted = call.authorize(&Need::tuple("rbac", "*", "read_permission"))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, PermissionId::PREFIX);
        let search = Search::new(&ask.search);
        let keep = move |id, row: &PermissionRow| {
            let description = row.description.as_deref().unwrap_or_default();
            search.finds([&*PermissionId(id).spell(), &row.name, &row.slug, description])
        };
        paging.read(&call, "permissions", keep, |id, row| Permission::new((PermissionId(id), row))).await
    }
}
