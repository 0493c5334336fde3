//! rootKeys.updateKey: a root key's name, permissions, and whether it is taken.

use keyward_storage::ids::KeyId;
use keyward_storage::records::root_key;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{
    Caller, Ceiling, Name, Permissions, check_name, live, need_for_one, not_found, not_oneself, permissions,
    root_key_target,
};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Ident, Opt, Patch, Text};
use crate::api::trail::Changes;

/// What to change. Absent leaves as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The root key's id.
    key_id: Ident<3, 255>,
    /// A name for people and for the audit log; null clears it.
    #[serde(default)]
    name: Patch<Name>,
    /// What it may do, in place of all it might before.
    #[serde(default)]
    permissions: Opt<Permissions>,
    /// Whether it is taken.
    #[serde(default)]
    enabled: Opt<bool>,
}

/// rootKeys.updateKey.
pub struct UpdateKey;

impl Operation for UpdateKey {
    const NAME: &'static str = "rootKeys.updateKey";
    const SUMMARY: &'static str = "Update a root key";
    const DESCRIPTION: &'static str = "Changes a root key, all or nothing; the very next request that brings it is judged \
        by what it is then.\n\nA root key can change only those that hold nothing beyond its own permissions, and can give \
        them nothing beyond these; what lives longer than itself it can neither give a permission nor enable (403). It \
        cannot disable itself (412). Nothing keeps the last administrator among the root keys from being cut by another \
        one: the operator can always make a new one with `keyward root-key create`.";
    const ALLOWS: &'static [&'static str] = &[
        "root_key.*.update_root_key",
        "root_key.<keyId>.update_root_key",
        "unkey:v1:<workspaceId>:rootKeys/<keyId>#write",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["root_key.update"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let granted = need_for_one(&ask.key_id, "update_root_key", "write", |need| call.authorize(need))?;
        let id = KeyId::parse(&ask.key_id).ok_or_else(not_found)?;
        let caller = Caller::of(&call);
        if let Patch::Set(name) = &ask.name {
            check_name(name)?;
        }
        let permissions = ask.permissions.map(permissions).transpose()?;
        if id == caller.id && ask.enabled == Opt(Some(false)) {
            return Err(not_oneself("disable"));
        }
        let changed = granted.transact(Correlate::IfSeveral, move |change| {
            let before = live(change, id)?;
            let ceiling = Ceiling::of(change, &caller)?;
            ceiling.covers(&before.permissions)?;
            let mut after = before.clone();
            after.name = ask.name.map(Text::into_string).apply(after.name);
            after.permissions = permissions.unwrap_or(after.permissions);
            after.enabled = ask.enabled.unwrap_or(after.enabled);
            ceiling.covers(&after.permissions)?;
            let gains = after.permissions.iter().any(|permission| !before.permissions.contains(permission));
            if gains || (after.enabled && !before.enabled) {
                ceiling.outlives(after.expires)?;
            }
            let mut changes = Changes::default();
            changes.note("name", json!(before.name), json!(after.name));
            changes.note("permissions", json!(before.permissions), json!(after.permissions));
            changes.note("enabled", json!(before.enabled), json!(after.enabled));
            // A request that changes nothing records nothing (AL-OP-01).
            if changes.is_empty() {
                return Ok(());
            }
            after.updated_at = Some(change.now());
            root_key::put(change.tx, id, &after)?;
            let mut target = root_key_target(id, &after);
            target.meta = changes.into_meta();
            change.audit("root_key.update", format!("Updated root key {id}"), vec![target]);
            Ok(())
        });
        changed.await?;
        Ok(Empty {})
    }
}
