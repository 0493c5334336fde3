//! keys.setRoles: what roles a key has becomes exactly the list.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{Role, RoleName, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List};

/// Which key, and what to set.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Names of the roles it has from now on, and no others, found whatever the letters' case. They must exist.
    roles: List<RoleName, 0, 100>,
}

/// keys.setRoles.
pub struct SetRoles;

impl Operation for SetRoles {
    const NAME: &'static str = "keys.setRoles";
    const SUMMARY: &'static str = "Set a key's roles";
    const DESCRIPTION: &'static str = "Makes a key have exactly the listed roles; an empty list takes all away. The next verification \
        sees it. The reply lists the key's roles.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key",
        "api.<apiId>.update_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::RoleNotFound];
    const AUDITS: &'static [&'static str] =
        &["authorization.disconnect_role_and_key", "authorization.connect_role_and_key"];
    type Request = Request;
    type Response = Vec<Role>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Role>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = found.need("update_key", |need| call.authorize(need))?;
        let id = found.id;
        let changed = granted.transact(Correlate::Always, move |change| {
            let mut found = find_again(change, id)?;
            let asked = links::roles(change, &ask.roles)?;
            let held = links::held_roles(change, &found.row)?;
            let removed = without(held.clone(), &asked);
            removed.iter().for_each(|entry| links::tell_role_removed(change, &found, entry));
            let added = without(asked.clone(), &held);
            added.iter().for_each(|entry| links::tell_role_added(change, &found, entry));
            // A request that changes nothing records nothing (AL-OP-01).
            if !removed.is_empty() || !added.is_empty() {
                links::hold_roles(change, &mut found, &asked);
            }
            Ok(asked)
        });
        let held = changed.await?.value;
        Role::sorted(&call, held).await
    }
}
