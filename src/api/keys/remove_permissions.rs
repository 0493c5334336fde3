//! keys.removePermissions: a key holds these permissions directly no longer.

use keyward_storage::Abort;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again, links};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{Permission, SLUGS_MAX, Slugs, among, without};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, List, Slug};

/// Which key, and what to remove.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Slugs of permissions, found whatever the letters' case. They must exist.
    permissions: List<Slug, 1, SLUGS_MAX>,
}

/// keys.removePermissions.
pub struct RemovePermissions;

impl Operation for RemovePermissions {
    const NAME: &'static str = "keys.removePermissions";
    const SUMMARY: &'static str = "Remove permissions from a key";
    const DESCRIPTION: &'static str = "Detaches permissions from a key; what it does not hold directly is passed over, and what its \
        roles grant it keeps. The next verification sees it. The reply lists the key's direct permissions.\n\nNext to \
        `update_key` as a tuple, `rbac.*.remove_permission_from_key` is needed.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key & rbac.*.remove_permission_from_key",
        "api.<apiId>.update_key & rbac.*.remove_permission_from_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::PermissionNotFound];
    const AUDITS: &'static [&'static str] = &["authorization.disconnect_permission_and_key"];
    type Request = Request;
    type Response = Vec<Permission>;

    async fn run(call: Call, ask: Request) -> Result<Vec<Permission>, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = links::need(&found, &["remove_permission_from_key"], |need| call.authorize(need))?;
        let id = found.id;
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let mut found = find_again(change, id)?;
            let asked = Slugs::find(change, &ask.permissions)?.known_or_missing().map_err(|slug| {
                let detail = format!("Permission '{slug}' was not found.");
                Abort::Refused(Problem::new(Code::PermissionNotFound, detail))
            })?;
            let held = links::held_permissions(change, &found.row)?;
            let removed = among(asked, &held);
            // A request that changes nothing records nothing (AL-OP-01).
            if removed.is_empty() {
                return Ok(held);
            }
            removed.iter().for_each(|entry| links::tell_permission_removed(change, &found, entry));
            let kept = without(held, &removed);
            links::hold_permissions(change, &mut found, &kept);
            Ok(kept)
        });
        Ok(Permission::sorted(changed.await?.value))
    }
}
