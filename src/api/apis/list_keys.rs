//! apis.listKeys: the keys of an API, page by page.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use keyward_storage::ids::{ApiId, IdentityId, KeyId, PermissionId, RoleId, WorkspaceNo};
use keyward_storage::records::key::{self, KeyRow, KeyView};
use keyward_storage::records::{api, identity, identity::IdentityRow, role, role::RoleRow};
use keyward_storage::{ReadError, Snapshot, Storage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::{api_target, not_found};
use crate::api::call::Call;
use crate::api::keys::key_object::{KeyObject, Linked};
use crate::api::keys::recovery::{self, DECRYPTED, need_encryption_of_listed, need_for_all, need_vault};
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Secret, Text};
use crate::rbac::Need;
use crate::vault::{Owner, Vault};

/// Which page.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The API's id.
    api_id: Text<1, { usize::MAX }>,
    /// Keys on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Cursor,
    /// Only keys of the identity with this id of yours.
    #[serde(default)]
    external_id: Opt<Text<1, { usize::MAX }>>,
    /// Whether to return the plaintexts of recoverable keys.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    decrypt: Opt<bool>,
    /// Has no effect: nothing is cached that could be behind.
    #[serde(default)]
    #[expect(dead_code, reason = "APIS-LIST-1: accepted, and there is no cache to bypass")]
    #[schemars(extend("default" = false))]
    revalidate_keys_cache: Opt<bool>,
}

/// apis.listKeys.
pub struct ListKeys;

impl Operation for ListKeys {
    const NAME: &'static str = "apis.listKeys";
    const SUMMARY: &'static str = "List an API's keys";
    const DESCRIPTION: &'static str = "Returns the API's keys by id, disabled and expired ones included, each as \
        `keys.getKey` shows it. Permission to read the keys and to read the API are both needed: both as `api.…`, or both \
        as resource names. `decrypt` adds the plaintexts of recoverable keys; it takes the permission `decrypt_key` as well, \
        and leaves an audit event.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "api.*.read_key & api.*.read_api",
        "api.<apiId>.read_key & api.<apiId>.read_api",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/*#read_key & \
         unkey:v1:<workspaceId>:keyspaces/<keyspaceId>#read_keyspace",
    ];
    const FAILS: &'static [Code] = &[Code::ApiNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &[DECRYPTED];
    type Request = Request;
    type Response = Page<KeyObject>;

    async fn run(call: Call, ask: Request) -> Result<Page<KeyObject>, Problem> {
        let id = ApiId::parse(&ask.api_id).ok_or_else(not_found)?;
        let workspace = call.workspace();
        let api = call.read("API", move |storage| api::get_live(&storage.snapshot()?, workspace, id)).await?;
        let api = api.ok_or_else(not_found)?;
        let keyspace = api.keyspace.spell();
        let (keys, space) = (["keyspaces", &keyspace, "keys", "*"], ["keyspaces", &keyspace]);
        let by_name = [Need::urn(&keys, "read_key"), Need::urn(&space, "read_keyspace")];
        let by_tuple =
            [Need::any_or_one("api", &ask.api_id, "read_key"), Need::any_or_one("api", &ask.api_id, "read_api")];
        // One of each does not do: a caller who may not list looks at an API that does not exist (APIS-LIST-4).
        let _granted = call.may(&Need::Any(&[Need::All(&by_name), Need::All(&by_tuple)])).ok_or_else(not_found)?;
        let decrypts = if ask.decrypt.unwrap_or(false) {
            need_vault(&call)?;
            let granted = need_for_all(&ask.api_id, &keyspace, "decrypt_key", |need| call.authorize(need))?;
            need_encryption_of_listed(&api)?;
            Some(granted)
        } else {
            None
        };
        let opener = decrypts.is_some().then(|| (Arc::clone(&call.services().vault), recovery::owner(&call)));
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, KeyId::PREFIX);
        let now = call.now;
        let read = call.read("keys", move |storage| {
            let mut revealed = Revealed { opener, count: 0 };
            let page = page(storage, (workspace, id), ask.external_id.as_deref(), &paging, now, &mut revealed)?;
            Ok((page, revealed.count))
        });
        let (page, count) = read.await?;
        if let Some(granted) = decrypts {
            let mut target = api_target(id, &api.name);
            target.meta = Some(json!({ "count": count }).to_string());
            recovery::tell(granted, format!("Decrypted {count} keys of API {id}"), vec![target]).await?;
        }
        Ok(page)
    }
}

/// Plaintexts on a page: none, unless they were asked for.
struct Revealed {
    opener: Option<(Arc<Vault>, Owner)>,
    count: usize,
}

impl Revealed {
    fn of(&mut self, snapshot: &Snapshot, id: KeyId) -> Result<Option<Secret>, ReadError> {
        let Some((vault, owner)) = &self.opener else { return Ok(None) };
        let plaintext = vault.reveal(snapshot, *owner, id)?;
        self.count += usize::from(plaintext.is_some());
        Ok(plaintext.map(|plaintext| Secret::new(plaintext.as_str())))
    }
}

/// Reads a page. It makes no key hot: whoever looks through a million keys must not drive those out of memory that are in
/// use.
fn page(
    storage: &Storage,
    (workspace, api): (WorkspaceNo, ApiId),
    external_id: Option<&str>,
    paging: &Paging,
    now: u64,
    revealed: &mut Revealed,
) -> Result<Page<KeyObject>, ReadError> {
    let first = storage.snapshot()?;
    let identity = match external_id {
        None => None,
        Some(external_id) => match identity::find(&first, workspace, external_id)? {
            None => return Ok(Page::new(Vec::new(), None)),
            found => found,
        },
    };
    let ids = key::ids(&first, workspace, api, identity, paging.from(), paging.most())?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let row = key::get(&first, workspace, id)?;
        let hot = row.and_then(|row| storage.peek_key(workspace, &row.hash)).filter(|view| view.id == id);
        found.push((id, hot));
    }
    // The page is as of a second snapshot, taken after the look at what is hot: together they have every spend.
    let snapshot = storage.snapshot()?;
    let mut links = Links::new(&snapshot, workspace);
    paging.fill(
        found,
        |(id, _)| id.0,
        |(id, hot): (KeyId, Option<Arc<KeyView>>)| {
            let row = key::get(&snapshot, workspace, id)?.filter(|row| row.deleted_at.is_none());
            let Some(row) = row.filter(|row| identity.is_none() || row.identity == identity) else { return Ok(None) };
            let counted = key::counted(&snapshot, workspace, id, hot.as_deref())?;
            let mut object = KeyObject::stored(id, &row, &counted, links.of(&row)?, now);
            object.plaintext = revealed.of(&snapshot, id)?;
            Ok(Some(object))
        },
    )
}

/// What the keys of a page refer to, each read once.
pub struct Links<'s> {
    snapshot: &'s Snapshot,
    workspace: WorkspaceNo,
    identities: HashMap<IdentityId, Option<IdentityRow>>,
    roles: HashMap<RoleId, Option<RoleRow>>,
    slugs: HashMap<PermissionId, Option<String>>,
}

/// Reads what is not known yet.
fn once<I: Eq + Hash, V>(
    known: &mut HashMap<I, V>,
    id: I,
    read: impl FnOnce() -> Result<V, ReadError>,
) -> Result<(), ReadError> {
    if let Entry::Vacant(place) = known.entry(id) {
        place.insert(read()?);
    }
    Ok(())
}

impl<'s> Links<'s> {
    /// Nothing is read yet.
    pub fn new(snapshot: &'s Snapshot, workspace: WorkspaceNo) -> Links<'s> {
        Links { snapshot, workspace, identities: HashMap::new(), roles: HashMap::new(), slugs: HashMap::new() }
    }

    /// What a key refers to, without what was deleted since.
    pub fn of(&mut self, row: &KeyRow) -> Result<Linked<'_>, ReadError> {
        let (snapshot, workspace) = (self.snapshot, self.workspace);
        for &id in &row.roles {
            once(&mut self.roles, id, || role::role(snapshot, workspace, id))?;
        }
        let roles: Vec<&RoleRow> = row.roles.iter().filter_map(|id| self.roles[id].as_ref()).collect();
        let through_roles = roles.iter().flat_map(|role| &role.permissions);
        let permissions: Vec<PermissionId> = row.permissions.iter().chain(through_roles).copied().collect();
        for &id in &permissions {
            once(&mut self.slugs, id, || Ok(role::permission(snapshot, workspace, id)?.map(|row| row.slug)))?;
        }
        let identity = match row.identity {
            None => None,
            Some(id) => {
                once(&mut self.identities, id, || identity::get_live(snapshot, workspace, id))?;
                self.identities[&id].as_ref().map(|row| (id, row))
            }
        };
        Ok(Linked {
            identity,
            roles: roles.into_iter().map(|role| role.name.as_str()).collect(),
            permissions: permissions.iter().filter_map(|id| self.slugs[id].as_deref()).collect(),
        })
    }
}
