//! keys.deleteKey: end a key, keeping its record or not.

use keyward_storage::records::key;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{find, find_again};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Ident, Opt};

/// Which one, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Whether its record goes too, which frees its hash.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    permanent: Opt<bool>,
}

/// keys.deleteKey.
pub struct DeleteKey;

impl Operation for DeleteKey {
    const NAME: &'static str = "keys.deleteKey";
    const SUMMARY: &'static str = "Delete a key";
    const DESCRIPTION: &'static str = "Deletes a key: from the next request on it verifies as NOT_FOUND and no \
        operation finds it. Its record is kept unless `permanent` is true.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.delete_key",
        "api.<apiId>.delete_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#delete_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &["key.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = found.need("delete_key", |need| call.authorize(need))?;
        let permanent = ask.permanent.unwrap_or(false);
        let id = found.id;
        let deleted = granted.transact(Correlate::IfSeveral, move |change| {
            let found = find_again(change, id)?;
            let (workspace, now) = (change.workspace(), change.now());
            let description = if permanent {
                key::purge(change.tx, workspace, id, &found.row)?;
                format!("Permanently deleted {id}")
            } else {
                key::soft_delete(change.tx, workspace, id, &found.row, now);
                format!("Deleted {id}")
            };
            change.audit("key.delete", description, vec![found.target()]);
            Ok(())
        });
        deleted.await?;
        Ok(Empty {})
    }
}
