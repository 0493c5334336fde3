//! keys.addPermissions: a key holds these permissions too.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{self, Permission, SLUGS_MAX, Slugs, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List, Slug};

/// Which key, and what to add.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Slugs of permissions, found whatever the letters' case; missing ones are made.
    permissions: List<Slug, 1, SLUGS_MAX>,
}

/// keys.addPermissions.
pub struct AddPermissions;

impl Operation for AddPermissions {
    const NAME: &'static str = "keys.addPermissions";
    const SUMMARY: &'static str = "Add permissions to a key";
    const DESCRIPTION: &'static str = "Attaches permissions to a key; what it holds already stays. The next verification sees them. \
        The reply lists the key's direct permissions, not those of its roles.\n\nNext to `update_key` as a tuple, \
        `rbac.*.add_permission_to_key` is needed; where a listed permission does not exist yet, also \
        `rbac.*.create_permission` or `unkey:v1:<workspaceId>:rbac/permissions/*#create_permission`.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key & rbac.*.add_permission_to_key",
        "api.<apiId>.update_key & rbac.*.add_permission_to_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &["permission.create", "authorization.connect_permission_and_key"];
    type Request = Request;
    type Response = Vec<Permission>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Permission>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = links::need(&found, &["add_permission_to_key"], |need| call.authorize(need))?;
        let may_create = permissions::may_create(&call);
        let id = found.id;
        let changed = granted.transact(Correlate::Always, move |change| {
            let mut found = find_again(change, id)?;
            let asked = Slugs::find(change, &ask.permissions)?.makable(may_create)?.or_make(change, |_| None);
            let mut held = links::held_permissions(change, &found.row)?;
            let added = without(asked, &held);
            // A request that changes nothing records nothing (AL-OP-01).
            if added.is_empty() {
                return Ok(held);
            }
            added.iter().for_each(|entry| links::tell_permission_added(change, &found, entry));
            held.extend(added);
            links::hold_permissions(change, &mut found, &held);
            Ok(held)
        });
        Ok(Permission::sorted(changed.await?.value))
    }
}
