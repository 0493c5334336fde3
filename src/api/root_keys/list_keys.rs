//! rootKeys.listKeys: the root keys of the workspace, without their secrets.

use keyward_storage::ids::KeyId;
use keyward_storage::records::root_key::{self, RootKeyRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::need_for_one;
use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::rbac::{Grants, Need};

/// Which page.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Rows on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Cursor,
}

/// A root key. Official clients want every member there, so what it lacks is `null` here.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootKey {
    /// Its id.
    key_id: String,
    /// Its name; null where it has none.
    name: Option<String>,
    /// Its first characters; empty for one that the operator chose.
    start: String,
    /// Its last characters; empty for one that the operator chose.
    end: String,
    /// Whether it is taken. One that is enabled may have expired.
    enabled: bool,
    /// Unix milliseconds.
    created_at: u64,
    /// Always 0: the use of root keys is not recorded.
    last_used_at: u64,
    /// Unix milliseconds after which it is refused; null = never.
    expires: Option<u64>,
    /// What it may do.
    permissions: Vec<String>,
}

impl RootKey {
    fn new(id: KeyId, row: RootKeyRow) -> RootKey {
        RootKey {
            key_id: id.to_string(),
            name: row.name,
            start: row.start,
            end: row.end.unwrap_or_default(),
            enabled: row.enabled,
            created_at: row.created_at,
            last_used_at: 0,
            expires: row.expires,
            permissions: row.permissions,
        }
    }
}

/// rootKeys.listKeys.
pub struct ListKeys;

impl Operation for ListKeys {
    const NAME: &'static str = "rootKeys.listKeys";
    const SUMMARY: &'static str = "List root keys";
    const DESCRIPTION: &'static str = "Returns the workspace's root keys by id, without their secrets; deleted ones are \
        left out. A caller that may read only some of them gets those.\n\nkeyward does not record when a root key was \
        used: `lastUsedAt` is always 0.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] =
        &["root_key.*.read_root_key", "root_key.<keyId>.read_root_key", "unkey:v1:<workspaceId>:rootKeys/<keyId>#read"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<RootKey>;

    async fn run(call: Call, ask: Request) -> Result<Page<RootKey>, Problem> {
        let grants = std::sync::Arc::clone(&call.principal.grants);
        if !reads_some(&grants) {
            let _granted = call.authorize(&Need::tuple("root_key", "*", "read_root_key"))?;
        }
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, KeyId::PREFIX);
        let workspace = call.workspace();
        let page = call.read("root keys", move |storage| {
            let snapshot = storage.snapshot()?;
            let ids = root_key::ids(&snapshot, workspace, paging.from(), paging.most(), |id| {
                need_for_one(&id.spell(), "read_root_key", "read", |need| grants.allows(need))
            })?;
            let row = |id| Ok(root_key::get(&snapshot, id)?.map(|row| RootKey::new(id, row)));
            paging.fill(ids, |id| id.0, row)
        });
        page.await
    }
}

/// Whether there may be a root key that the caller may read.
fn reads_some(grants: &Grants) -> bool {
    grants.ids("root_key", "read_root_key").any(|id| id == "*" || KeyId::parse(id).is_some())
        || grants.has_urn("rootKeys", "read")
}
