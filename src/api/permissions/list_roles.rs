//! permissions.listRoles: the roles of the workspace, with the permissions they grant.

use keyward_storage::ids::RoleId;
use keyward_storage::records;
use keyward_storage::records::role::{self, RoleRow};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Role, Roles};
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
    /// Only roles whose id, name or description holds this text, in whatever letters' case.
    #[serde(default)]
    search: SearchText,
}

/// permissions.listRoles.
pub struct ListRoles;

impl Operation for ListRoles {
    const NAME: &'static str = "permissions.listRoles";
    const SUMMARY: &'static str = "List roles";
    const DESCRIPTION: &'static str = "Returns the workspace's roles by id, each with the permissions it grants.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["rbac.*.read_role"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Role>;

    async fn run(call: Call, ask: Request) -> Result<Page<Role>, Problem> {
        let _granted = call.authorize(&Need::tuple("rbac", "*", "read_role"))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, RoleId::PREFIX);
        let search = Search::new(&ask.search);
        let workspace = call.workspace();
        let page = call.read("roles", move |storage| {
            let snapshot = storage.snapshot()?;
            let ids = records::ids(&snapshot, workspace, paging.from(), paging.most(), |id, row: &RoleRow| {
                search.finds([&*RoleId(id).spell(), &row.name, row.description.as_deref().unwrap_or_default()])
            })?;
            let mut roles = Roles::new(&snapshot, workspace);
            paging.fill(
                ids,
                |id| *id,
                |id| match role::role(&snapshot, workspace, RoleId(id))? {
                    Some(row) => Ok(Some(roles.show((RoleId(id), row))?)),
                    None => Ok(None),
                },
            )
        });
        page.await
    }
}
