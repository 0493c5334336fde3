//! keys.setPermissions: what a key holds directly becomes exactly the list.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{self, Permission, SLUGS_MAX, Slugs, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List, Slug};

/// Which key, and what to set.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Slugs of the permissions it holds directly from now on, and no others, found whatever the letters' case; missing ones
    /// are made.
    permissions: List<Slug, 0, SLUGS_MAX>,
}

/// keys.setPermissions.
pub struct SetPermissions;

impl Operation for SetPermissions {
    const NAME: &'static str = "keys.setPermissions";
    const SUMMARY: &'static str = "Set a key's permissions";
    const DESCRIPTION: &'static str = "Makes a key hold exactly the listed permissions directly; an empty list takes all away. What \
        its roles grant it keeps. The next verification sees it. The reply lists the key's direct permissions.\n\nNext \
        to `update_key` as a tuple, `rbac.*.add_permission_to_key` and `rbac.*.remove_permission_from_key` are needed, \
        both; where a listed permission does not exist yet, also \
        `rbac.*.create_permission` or `unkey:v1:<workspaceId>:rbac/permissions/*#create_permission`.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key & rbac.*.add_permission_to_key & rbac.*.remove_permission_from_key",
        "api.<apiId>.update_key & rbac.*.add_permission_to_key & rbac.*.remove_permission_from_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &[
        "authorization.disconnect_permission_and_key",
        "permission.create",
        "authorization.connect_permission_and_key",
    ];
    type Request = Request;
    type Response = Vec<Permission>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Permission>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let actions = ["add_permission_to_key", "remove_permission_from_key"];
        let granted = links::need(&found, &actions, |need| call.authorize(need))?;
        let may_create = permissions::may_create(&call);
        let id = found.id;
        let changed = granted.transact(Correlate::Always, move |change| {
            let mut found = find_again(change, id)?;
            let asked = Slugs::find(change, &ask.permissions)?.makable(may_create)?;
            let held = links::held_permissions(change, &found.row)?;
            let stays = asked.known();
            let removed = held.iter().filter(|(id, _)| !stays.contains(id)).collect::<Vec<_>>();
            removed.iter().for_each(|entry| links::tell_permission_removed(change, &found, entry));
            let asked = asked.or_make(change, |_| None);
            let added = without(asked.clone(), &held);
            added.iter().for_each(|entry| links::tell_permission_added(change, &found, entry));
            // A request that changes nothing records nothing (AL-OP-01).
            if !removed.is_empty() || !added.is_empty() {
                links::hold_permissions(change, &mut found, &asked);
            }
            Ok(asked)
        });
        Ok(Permission::sorted(changed.await?.value))
    }
}
