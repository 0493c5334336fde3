//! apis.listApis: the APIs of the workspace, with their settings (EXT-11).

use keyward_storage::ids::ApiId;
use keyward_storage::records::api::ApiRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging, Search, SearchText};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;

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
    /// Only APIs whose id or name holds this text, in whatever letters' case.
    #[serde(default)]
    search: SearchText,
}

/// An API with its settings.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Api {
    /// Its id.
    id: String,
    /// Its name, as it was given.
    name: String,
    /// The id of its key space, as permissions and analytics name it.
    keyspace_id: String,
    /// Unix milliseconds.
    created_at: u64,
    /// Whether `apis.deleteApi` is refused.
    delete_protection: bool,
    /// Addresses and CIDR ranges its keys may be verified from; absent = any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_whitelist: Vec<String>,
    /// Prefix of keys whose request names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_prefix: Option<String>,
    /// Random bytes of keys whose request names no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_bytes: Option<u8>,
    /// Whether keys may be made recoverable.
    store_encrypted_keys: bool,
}

impl Api {
    fn new(id: ApiId, row: ApiRow) -> Api {
        Api {
            id: id.to_string(),
            name: row.name,
            keyspace_id: row.keyspace.to_string(),
            created_at: row.created_at,
            delete_protection: row.delete_protection,
            ip_whitelist: row.ip_whitelist,
            default_prefix: row.default_prefix,
            default_bytes: row.default_bytes,
            store_encrypted_keys: row.store_encrypted_keys,
        }
    }
}

/// apis.listApis.
pub struct ListApis;

impl Operation for ListApis {
    const NAME: &'static str = "apis.listApis";
    const SUMMARY: &'static str = "List APIs";
    const DESCRIPTION: &'static str = "Returns the workspace's APIs by id, with the settings `apis.updateApi` changes.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["api.*.read_api"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Api>;

    async fn run(call: Call, ask: Request) -> Result<Page<Api>, Problem> {
        let _granted = call.authorize(&Need::tuple("api", "*", "read_api"))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, ApiId::PREFIX);
        let search = Search::new(&ask.search);
        let keep = move |id, row: &ApiRow| row.deleted_at.is_none() && search.finds([&*ApiId(id).spell(), &row.name]);
        paging.read(&call, "APIs", keep, |id, row| Api::new(ApiId(id), row)).await
    }
}
