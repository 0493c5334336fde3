//! keys.searchKeys: keys by whatever somebody can tell of them (EXT-16).

use keyward_query::search::{Found, Freshness, Keys, SearchError, Words};
use keyward_storage::ids::{ApiId, KeyId, WorkspaceNo};
use keyward_storage::records::api::{self, ApiRow};
use keyward_storage::records::key::{self, KeyDigest, KeyRow};
use keyward_storage::{Snapshot, Storage};
use schemars::JsonSchema;
use serde::Deserialize;

use super::key_object::KeyObject;
use crate::api::apis::list_keys::Links;
use crate::api::apis::not_found as no_such_api;
use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, PAGE_BYTES, Paging, json_bytes};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::api::search::{self, Searched};
use crate::api::shape::{Opt, SecretText, Text};
use crate::rbac::Need;
use crate::secret;

/// What to search for.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Words, the beginning of a key, an id, an external id, an address; or a whole key.
    query: SecretText<1, 1024>,
    /// Only keys of the API with this id.
    #[serde(default)]
    api_id: Opt<Text<1, { usize::MAX }>>,
    /// Keys on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Cursor,
}

/// keys.searchKeys.
pub struct SearchKeys;

impl Operation for SearchKeys {
    const NAME: &'static str = "keys.searchKeys";
    const SUMMARY: &'static str = "Search keys";
    const DESCRIPTION: &'static str = "Finds keys by name, start, id, external id, and what is in their metadata, and returns \
        them by id, each as `apis.listKeys` shows it.\n\n\
        Every word of the query must be in the key. Words are runs of letters and digits; letters' case and accents do not \
        count. What is written together, as `ada@example.com` or `prod_4fKx`, is found together and in this order, and so is \
        what stands in quotation marks. The last word may be the beginning of one. There is no other syntax. A whole key as \
        the query finds that key; it is compared by its hash, and kept nowhere.\n\n\
        Keys of an API are found by who may list them. Without the permission for all APIs, keys of the others are as if they \
        were not there.\n\n\
        Changes are found within two seconds. `index` says when that cannot be kept: `behind` (what changed within the last \
        `behindMs` milliseconds may be missing) or `partial` (the index is being made anew, and anything may be missing). \
        What is shown is always as it is now.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "api.*.read_key & api.*.read_api",
        "api.<apiId>.read_key & api.<apiId>.read_api",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/*#read_key & \
         unkey:v1:<workspaceId>:keyspaces/<keyspaceId>#read_keyspace",
    ];
    const FAILS: &'static [Code] = &[Code::ApiNotFound];
    type Request = Request;
    type Response = Searched<KeyObject>;

    async fn run(call: Call, ask: Request) -> Result<Searched<KeyObject>, Problem> {
        let apis = match ask.api_id.as_deref() {
            Some(id) => Some(vec![readable_api(&call, id).await?]),
            None => readable_apis(&call).await?,
        };
        let workspace = call.workspace();
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, KeyId::PREFIX);
        let query = ask.query.expose_secret().trim();
        let presented = secret::digest(query);
        let keys =
            Keys { workspace, apis, words: Words::new(query), from: paging.from().to_vec(), most: paging.most() - 1 };
        let now = call.now;
        search::ask(&call, "keys", move |search, storage| {
            let snapshot = storage.snapshot()?;
            let found = match presented_key(&snapshot, &keys, &presented)? {
                Some(found) => found,
                None => search.keys(&snapshot, &keys)?,
            };
            page(storage, workspace, found, now)
        })
        .await
    }
}

/// What it takes to see the keys of an API, as `apis.listKeys` asks for it (APIS-LIST-3).
fn may_list(call: &Call, api: &str, keyspace: &str) -> bool {
    let (keys, space) = (["keyspaces", keyspace, "keys", "*"], ["keyspaces", keyspace]);
    let by_name = [Need::urn(&keys, "read_key"), Need::urn(&space, "read_keyspace")];
    let by_tuple = [Need::any_or_one("api", api, "read_key"), Need::any_or_one("api", api, "read_api")];
    call.may(&Need::Any(&[Need::All(&by_name), Need::All(&by_tuple)])).is_some()
}

/// The API of that id; one whose keys the caller may not see does not exist for it (APIS-LIST-4).
async fn readable_api(call: &Call, id: &str) -> Result<ApiId, Problem> {
    let api = ApiId::parse(id).ok_or_else(no_such_api)?;
    let workspace = call.workspace();
    let row = call.read("API", move |storage| api::get_live(&storage.snapshot()?, workspace, api)).await?;
    let row = row.filter(|row| may_list(call, id, &row.keyspace.spell()));
    row.map(|_| api).ok_or_else(no_such_api)
}

/// The APIs whose keys the caller may see, by id; `None` for all there are.
async fn readable_apis(call: &Call) -> Result<Option<Vec<ApiId>>, Problem> {
    let by_name =
        [Need::urn(&["keyspaces", "*", "keys", "*"], "read_key"), Need::urn(&["keyspaces", "*"], "read_keyspace")];
    let by_tuple = [Need::tuple("api", "*", "read_key"), Need::tuple("api", "*", "read_api")];
    let all = Need::Any(&[Need::All(&by_tuple), Need::All(&by_name)]);
    if call.may(&all).is_some() {
        return Ok(None);
    }
    let workspace = call.workspace();
    let mut live = call
        .read("APIs", move |storage| {
            let snapshot = storage.snapshot()?;
            let mut live = Vec::new();
            keyward_storage::records::ids(&snapshot, workspace, &[], usize::MAX, |id, row: &ApiRow| {
                live.extend(row.deleted_at.is_none().then_some((ApiId(id), row.keyspace)));
                false
            })?;
            Ok(live)
        })
        .await?;
    live.retain(|(api, keyspace)| may_list(call, &api.spell(), &keyspace.spell()));
    if live.is_empty() {
        drop(call.authorize(&all)?);
    }
    Ok(Some(live.into_iter().map(|(api, _)| api).collect()))
}

/// The key whose plaintext is the query, if there is one that may be seen.
fn presented_key(
    snapshot: &Snapshot,
    ask: &Keys,
    digest: &KeyDigest,
) -> Result<Option<Found<KeyId, String>>, keyward_storage::ReadError> {
    let Some(id) = key::find(snapshot, ask.workspace, digest)? else { return Ok(None) };
    let row = key::get_live(snapshot, ask.workspace, id)?;
    let is_seen = |row: &KeyRow| ask.apis.as_ref().is_none_or(|apis| apis.binary_search(&row.api).is_ok());
    if !row.is_some_and(|row| is_seen(&row)) {
        return Ok(None);
    }
    let rows = if id.as_bytes().as_slice() >= ask.from.as_slice() { vec![id] } else { Vec::new() };
    Ok(Some(Found { rows, next: None, freshness: Freshness::Current }))
}

/// The keys as `apis.listKeys` shows them. It makes none of them hot.
fn page(
    storage: &Storage,
    workspace: WorkspaceNo,
    found: Found<KeyId, String>,
    now: u64,
) -> Result<Searched<KeyObject>, SearchError> {
    let first = storage.snapshot()?;
    let mut hot = Vec::with_capacity(found.rows.len());
    for &id in &found.rows {
        let row = key::get(&first, workspace, id)?;
        hot.push(row.and_then(|row| storage.peek_key(workspace, &row.hash)).filter(|view| view.id == id));
    }
    // As of a second snapshot, taken after the look at what is hot: together they have every spend.
    let snapshot = storage.snapshot()?;
    let mut links = Links::new(&snapshot, workspace);
    let (mut rows, mut bytes, mut next) = (Vec::with_capacity(found.rows.len()), 0, found.next);
    for (id, hot) in found.rows.into_iter().zip(hot) {
        if bytes >= PAGE_BYTES {
            next = Some(id.0.as_str().to_owned());
            break;
        }
        let Some(row) = key::get(&snapshot, workspace, id)?.filter(|row| row.deleted_at.is_none()) else { continue };
        let counted = key::counted(&snapshot, workspace, id, hot.as_deref())?;
        let object = KeyObject::stored(id, &row, &counted, links.of(&row)?, now);
        bytes += json_bytes(&object);
        rows.push(object);
    }
    Ok(Searched::new(Page::new(rows, next.map(|place| [KeyId::PREFIX, &place].concat())), found.freshness))
}
