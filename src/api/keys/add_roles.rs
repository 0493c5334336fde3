//! keys.addRoles: a key has these roles too.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{Role, RoleName, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List};

/// Which key, and what to add.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Names of roles, found whatever the letters' case. They must exist.
    roles: List<RoleName, 1, 100>,
}

/// keys.addRoles.
pub struct AddRoles;

impl Operation for AddRoles {
    const NAME: &'static str = "keys.addRoles";
    const SUMMARY: &'static str = "Add roles to a key";
    const DESCRIPTION: &'static str = "Attaches roles to a key; those it has already stay. The next verification sees them and what \
        they grant. The reply lists the key's roles.\n\nNext to `update_key` as a tuple, `rbac.*.add_role_to_key` is \
        needed.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key & rbac.*.add_role_to_key",
        "api.<apiId>.update_key & rbac.*.add_role_to_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::RoleNotFound];
    const AUDITS: &'static [&'static str] = &["authorization.connect_role_and_key"];
    type Request = Request;
    type Response = Vec<Role>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Role>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = links::need(&found, &["add_role_to_key"], |need| call.authorize(need))?;
        let id = found.id;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let mut found = find_again(change, id)?;
            let asked = links::roles(change, &ask.roles)?;
            let mut held = links::held_roles(change, &found.row)?;
            let added = without(asked, &held);
            // A request that changes nothing records nothing (AL-OP-01).
            if added.is_empty() {
                return Ok(held);
            }
            added.iter().for_each(|entry| links::tell_role_added(change, &found, entry));
            held.extend(added);
            links::hold_roles(change, &mut found, &held);
            Ok(held)
        });
        let held = changed.await?.value;
        Role::sorted(&call, held).await
    }
}
