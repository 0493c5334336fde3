//! keys.createKey: mint a key in an API's key space and return its secret, this once.

use keyward_storage::Abort;
use keyward_storage::ids::{ApiId, KeyId};
use keyward_storage::records::api;
use keyward_storage::records::key::{self, KeyRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::recovery::{ToSeal, need_encryption, need_for_all, need_vault};
use super::settings::{CreditsRequest, EXPIRES_MAX, credits_of_new_key, meta_text};
use super::{links, refill};
use crate::api::apis::api_target;
use crate::api::attached_limits::{RatelimitsRequest, ratelimits};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{ExternalId, Ident, Int, List, Meta, Opt, Prefix, Secret, Slug, Text};
use crate::rbac::Need;
use crate::secret;
use crate::tenants::target;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The API the key hangs under.
    api_id: Ident<3, 255>,
    /// What the key begins with, an underscore behind it; else the API's default.
    #[serde(default)]
    prefix: Opt<Prefix>,
    /// A name for people.
    #[serde(default)]
    name: Opt<Text<1, 255>>,
    /// Random bytes in the key; else the API's default, else 16.
    #[serde(default)]
    #[schemars(extend("default" = 16))]
    byte_length: Opt<Int<16, 255>>,
    /// Your own id of whoever holds the key: links it to that identity, which is made where it does not exist.
    #[serde(default)]
    external_id: Opt<ExternalId>,
    /// Whatever should come back with each verification.
    #[serde(default)]
    meta: Opt<Meta>,
    /// Names of roles to attach. They must exist.
    #[serde(default)]
    roles: Opt<List<Text<1, 128>, 0, 100>>,
    /// Slugs of permissions to attach; missing ones are made.
    #[serde(default)]
    permissions: Opt<List<Slug, 0, 1000>>,
    /// Unix milliseconds after which the key is expired.
    #[serde(default)]
    expires: Opt<Int<0, EXPIRES_MAX>>,
    /// How many verifications the key is good for; absent = unlimited.
    #[serde(default)]
    credits: Opt<CreditsRequest>,
    /// Rate limits of the key; of repeated names the last counts.
    #[serde(default)]
    ratelimits: Opt<RatelimitsRequest>,
    /// Whether the key verifies.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    enabled: Opt<bool>,
    /// Whether the key can be read again later; needs encryption to be set up.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    recoverable: Opt<bool>,
}

/// The new key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    pub(super) key_id: String,
    /// Its plaintext, shown this once.
    pub(super) key: Secret,
}

/// keys.createKey.
pub struct CreateKey;

impl Operation for CreateKey {
    const NAME: &'static str = "keys.createKey";
    const SUMMARY: &'static str = "Create a key";
    const DESCRIPTION: &'static str = "Makes a key and returns its plaintext, which is stored nowhere and cannot be \
        shown again, unless `recoverable` is true: then it is kept encrypted, for `decrypt` of `keys.getKey` and \
        `apis.listKeys`, which takes the permission `encrypt_key` as well. The key verifies at once. Every call makes another \
        key.";
    const ALLOWS: &'static [&'static str] =
        &["api.*.create_key", "api.<apiId>.create_key", "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>#create_key"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound, Code::RoleNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &[
        "permission.create",
        "identity.create",
        "authorization.connect_permission_and_key",
        "authorization.connect_role_and_key",
        "key.create",
    ];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let api_id = ApiId::parse(&ask.api_id).ok_or_else(not_found)?;
        let workspace = call.workspace();
        let api = call.read("API", move |storage| api::get_live(&storage.snapshot()?, workspace, api_id)).await?;
        let api = api.ok_or_else(not_found)?;
        let keyspace = api.keyspace.spell();
        let path = ["keyspaces", &keyspace];
        let need = [Need::any_or_one("api", &ask.api_id, "create_key"), Need::urn(&path, "create_key")];
        // A caller who may not create keys here cannot tell this API from one that does not exist (KEYS-CREATE-3).
        let granted = call.may(&Need::Any(&need)).ok_or_else(not_found)?;
        let recoverable = ask.recoverable.unwrap_or(false);
        if recoverable {
            need_vault(&call)?;
            let _may_encrypt =
                need_for_all(&ask.api_id, &keyspace, "encrypt_key", |need| call.may(need)).ok_or_else(not_found)?;
            need_encryption(&api)?;
        }
        let (remaining, refill) = credits_of_new_key(ask.credits)?;

        let prefix = ask.prefix.as_deref().or(api.default_prefix.as_deref());
        let bytes =
            ask.byte_length.map(|length| usize::try_from(length.get()).expect("the shape bounds it to 16..255"));
        let bytes = bytes.or(api.default_bytes.map(usize::from)).unwrap_or(secret::DEFAULT_BYTES);
        let minted = secret::mint(prefix, bytes, &call.services().outside.entropy);
        let (digest, start) = (minted.digest, minted.start);
        let to_seal = recoverable.then(|| ToSeal::new(&call, &minted.plaintext));

        let made = granted.transact(Correlate::Always, move |change| {
            let api = api::get_live(change.tx, workspace, api_id)?.ok_or_else(|| Abort::Refused(not_found()))?;
            let id = KeyId(change.new_id());
            let role_names: Vec<_> = Option::from(ask.roles).map(List::into_vec).unwrap_or_default();
            let slugs: Vec<_> = Option::from(ask.permissions).map(List::into_vec).unwrap_or_default();
            let roles = links::roles(change, &role_names)?;
            let permissions = links::permissions(change, &slugs, |_| None)?;
            let identity = match ask.external_id.as_deref() {
                Some(external_id) => Some(links::identity(change, external_id)?),
                None => None,
            };
            let limits = match ask.ratelimits.into() {
                Some(asked) => ratelimits(change, asked, &[]),
                None => Vec::new(),
            };
            let row = KeyRow {
                hash: change.tx.hash(&digest)?,
                api: api_id,
                start,
                name: ask.name.map(Text::into_string),
                meta: ask.meta.map(meta_text),
                identity,
                expires: ask.expires.map(Int::get_unsigned),
                enabled: ask.enabled.unwrap_or(true),
                limited: remaining.is_some(),
                refill,
                ratelimits: limits,
                permissions: permissions.iter().map(|(id, _)| *id).collect(),
                roles: roles.iter().map(|(id, _)| *id).collect(),
                created_at: change.now(),
                updated_at: None,
                deleted_at: None,
            };
            key::insert(change.tx, workspace, id, &row)?;
            if let Some(to_seal) = to_seal {
                need_encryption(&api).map_err(Abort::Refused)?;
                to_seal.seal(change, id)?;
            }
            if let Some(remaining) = remaining {
                refill::begin(change, id, &row, remaining)?;
            }
            // The key's target is named by its id here (KEYS-CREATE-11).
            let key_target = target("key", id, &id.spell());
            links::tell_first(change, &key_target, &permissions, &roles);
            let targets = vec![key_target, api_target(api_id, &api.name)];
            change.audit("key.create", format!("Created key {id}"), targets);
            Ok(id)
        });
        let key_id = made.await?.value.to_string();
        Ok(Response { key_id, key: Secret::new(&*minted.plaintext) })
    }
}

fn not_found() -> Problem {
    Problem::new(Code::ApiNotFound, "The specified API was not found.")
}
