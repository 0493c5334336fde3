//! rootKeys.deleteKey: a root key is known no more.

use keyward_storage::ids::KeyId;
use keyward_storage::records::root_key::{self, RootKeyRow};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caller, Ceiling, live, need_for_one, not_found, not_oneself, root_key_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Ident};

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The root key's id.
    key_id: Ident<3, 255>,
}

/// rootKeys.deleteKey.
pub struct DeleteKey;

impl Operation for DeleteKey {
    const NAME: &'static str = "rootKeys.deleteKey";
    const SUMMARY: &'static str = "Delete a root key";
    const DESCRIPTION: &'static str = "Deletes a root key: the very next request that brings it finds no such key, and \
        there is no way back.\n\nA root key can delete only those that hold nothing beyond its own permissions (403), \
        however long they live, and not itself (412). Nothing keeps the last administrator among the root keys from being \
        deleted by another one: the operator can always make a new one with `keyward root-key create`.";
    const ALLOWS: &'static [&'static str] = &[
        "root_key.*.delete_root_key",
        "root_key.<keyId>.delete_root_key",
        "unkey:v1:<workspaceId>:rootKeys/<keyId>#delete",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["root_key.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let granted = need_for_one(&ask.key_id, "delete_root_key", "delete", |need| call.authorize(need))?;
        let id = KeyId::parse(&ask.key_id).ok_or_else(not_found)?;
        let caller = Caller::of(&call);
        if id == caller.id {
            return Err(not_oneself("delete"));
        }
        let deleted = granted.transact(Correlate::IfSeveral, move |change| {
            let row = live(change, id)?;
            Ceiling::of(change, &caller)?.covers(&row.permissions)?;
            let target = root_key_target(id, &row);
            root_key::put(change.tx, id, &RootKeyRow { deleted_at: Some(change.now()), ..row })?;
            change.audit("root_key.delete", format!("Deleted root key {id}"), vec![target]);
            Ok(())
        });
        deleted.await?;
        Ok(Empty {})
    }
}
