//! rootKeys.rerollKey: a new secret for what a root key may do.

use keyward_storage::ids::KeyId;
use keyward_storage::records::root_key::{self, RootKeyRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Caller, Ceiling, live, need_for_one, not_found, root_key_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, Int, Null, Secret};
use crate::api::trail::Changes;
use crate::tenants::NewRootKey;

/// Longest time that the old root key may go on, ms, as keys.rerollKey has it (KEYS-REROLL-1).
const EXPIRATION_MAX: i64 = 4_102_444_800_000;

/// Which one, and what becomes of its secret.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The root key's id.
    key_id: Ident<3, 255>,
    /// Milliseconds from now after which the old root key is refused; 0 = it is deleted at once, null = it goes on as it
    /// is. It never lives longer than it would have.
    expiration: Null<Int<0, EXPIRATION_MAX>>,
}

/// The new root key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    key_id: String,
    /// Its plaintext, shown this once.
    key: Secret,
}

/// rootKeys.rerollKey.
pub struct RerollKey;

impl Operation for RerollKey {
    const NAME: &'static str = "rootKeys.rerollKey";
    const SUMMARY: &'static str = "Reroll a root key";
    const DESCRIPTION: &'static str = "Makes a root key with the name, the permissions, the state and the expiry of \
        another one, and says how long the other one goes on. A root key may reroll itself.\n\nWhoever has the new secret \
        can do all that the old root key could: a root key can reroll only those that hold nothing beyond its own \
        permissions and live no longer than itself (403).";
    const ALLOWS: &'static [&'static str] = &[
        "root_key.*.update_root_key",
        "root_key.<keyId>.update_root_key",
        "unkey:v1:<workspaceId>:rootKeys/<keyId>#write",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &["root_key.reroll"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = need_for_one(&ask.key_id, "update_root_key", "write", |need| call.authorize(need))?;
        let old_id = KeyId::parse(&ask.key_id).ok_or_else(not_found)?;
        let caller = Caller::of(&call);
        // Its name, permissions and expiry are those that the old one has when the transaction runs.
        let minted = NewRootKey::generate(None, Vec::new(), None, &call.services().outside.entropy);
        let response = Response { key_id: minted.id.to_string(), key: Secret::new(&*minted.minted.plaintext) };
        let rerolled = granted.transact(Correlate::IfSeveral, move |change| {
            let (workspace, now) = (change.workspace(), change.now());
            let old = live(change, old_id)?;
            let ceiling = Ceiling::of(change, &caller)?;
            ceiling.covers(&old.permissions)?;
            ceiling.outlives(old.expires)?;
            let id = minted.id;
            let new = RootKeyRow {
                name: old.name.clone(),
                permissions: old.permissions.clone(),
                enabled: old.enabled,
                expires: old.expires,
                ..minted.into_row(change.tx, workspace, now)?
            };
            root_key::put(change.tx, id, &new)?;
            let mut old_target = root_key_target(old_id, &old);
            if let Some(expiration) = ask.expiration.0.map(Int::get_unsigned) {
                let (after, changes) = ended(&old, expiration, now);
                root_key::put(change.tx, old_id, &after)?;
                old_target.meta = changes.into_meta();
            }
            let description = format!("Rerolled root key ({old_id}) to ({id})");
            change.audit("root_key.reroll", description, vec![root_key_target(id, &new), old_target]);
            Ok(())
        });
        rerolled.await?;
        Ok(response)
    }
}

/// A root key that ends so many milliseconds from now, at once for 0, and never later than before (KEYS-REROLL-6).
fn ended(old: &RootKeyRow, expiration: u64, now: u64) -> (RootKeyRow, Changes) {
    let mut after = old.clone();
    let mut changes = Changes::default();
    if expiration == 0 {
        after.deleted_at = Some(now);
        changes.note("deletedAt", json!(null), json!(now));
    } else {
        let at = now.saturating_add(expiration);
        after.expires = Some(old.expires.map_or(at, |before| before.min(at)));
        changes.note("expires", json!(old.expires), json!(after.expires));
    }
    after.updated_at = Some(now);
    (after, changes)
}
