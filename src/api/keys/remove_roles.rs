//! keys.removeRoles: a key has these roles no longer.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{Role, RoleName, among, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List};

/// Which key, and what to remove.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Names of roles, found whatever the letters' case. They must exist.
    roles: List<RoleName, 1, 100>,
}

/// keys.removeRoles.
pub struct RemoveRoles;

impl Operation for RemoveRoles {
    const NAME: &'static str = "keys.removeRoles";
    const SUMMARY: &'static str = "Remove roles from a key";
    const DESCRIPTION: &'static str = "Detaches roles from a key; those it does not have are passed over. The next verification sees \
        it. The reply lists the key's roles.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key",
        "api.<apiId>.update_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::RoleNotFound];
    const AUDITS: &'static [&'static str] = &["authorization.disconnect_role_and_key"];
    type Request = Request;
    type Response = Vec<Role>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Role>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = found.need("update_key", |need| call.authorize(need))?;
        let id = found.id;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let mut found = find_again(change, id)?;
            let asked = links::roles(change, &ask.roles)?;
            let held = links::held_roles(change, &found.row)?;
            let removed = among(asked, &held);
            // A request that changes nothing records nothing (AL-OP-01).
            if removed.is_empty() {
                return Ok(held);
            }
            removed.iter().for_each(|entry| links::tell_role_removed(change, &found, entry));
            let kept = without(held, &removed);
            links::hold_roles(change, &mut found, &kept);
            Ok(kept)
        });
        let held = changed.await?.value;
        Role::sorted(&call, held).await
    }
}
