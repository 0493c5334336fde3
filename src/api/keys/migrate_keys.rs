//! keys.migrateKeys: take keys over from another system by their hashes, their plaintexts unseen.
//!
//! A call is one transaction: who repeats it because it failed must find nothing of it done (KEYS-GEN-35). Its size is
//! bounded by what one transaction may hold.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyward_storage::ids::{ApiId, IdentityId, KeyId, MigrationId, RoleId};
use keyward_storage::records::key::{self, KeyDigest, KeyRow, Refill};
use keyward_storage::records::migration::{self, Algorithm};
use keyward_storage::records::role::{self, RoleRow};
use keyward_storage::records::{api, api::ApiRow};
use keyward_storage::{Abort, ReadError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::links;
use super::refill;
use super::settings::{CreditsRequest, EXPIRES_MAX, credits_of_new_key, meta_text};
use crate::api::apis::{self, api_target};
use crate::api::attached_limits::{RatelimitsRequest, ratelimits};
use crate::api::call::{Call, Change, Correlate};
use crate::api::operation::Operation;
use crate::api::permissions::{PermissionEntry, RoleEntry, role_by_name, role_target};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, List, Meta, Opt, Secret, SecretText, Slug, Text};
use crate::rbac::Need;
use crate::tenants::target;

/// Most keys in one call (KEYS-MIGRATE-1).
const KEYS_MAX: usize = 10_000;
/// Most roles and permissions that the keys of one call name together. Each link leaves an audit event, which takes many
/// times what naming it took, and all other changes wait meanwhile: without a bound a request within the size limit could
/// ask for gigabytes.
const LINKS_MAX: usize = 20_000;

/// What to take over.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The migration's id.
    migration_id: Text<3, 255>,
    /// The API that the keys hang under from now on.
    api_id: Text<3, 255>,
    /// The keys.
    keys: List<Item, 1, KEYS_MAX>,
}

/// A key to take over.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// Its hash, made as the migration's algorithm says: for `sha256` the digest in base64 with padding, 44 characters
    /// (not the hexadecimal that `sha256sum` prints); for `github.com/seamapi/prefixed-api-key` lower-case hexadecimal of
    /// the long token's digest. What has another shape is stored and never verifies.
    hash: SecretText<3, 256>,
    /// A name for people.
    #[serde(default)]
    name: Opt<Text<1, 255>>,
    /// Your own id of whoever holds the key: links it to that identity, which is made where it does not exist.
    #[serde(default)]
    external_id: Opt<Text<1, 255>>,
    /// Whatever should come back with each verification.
    #[serde(default)]
    meta: Opt<Meta>,
    /// Names of roles to attach; missing ones are made.
    #[serde(default)]
    roles: Opt<List<Text<1, 128>, 0, 100>>,
    /// Slugs of permissions to attach; missing ones are made.
    #[serde(default)]
    permissions: Opt<List<Slug, 0, 1000>>,
    /// Unix milliseconds after which the key is expired.
    #[serde(default)]
    expires: Opt<Int<0, EXPIRES_MAX>>,
    /// Whether the key verifies.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    enabled: Opt<bool>,
    /// How many verifications the key is good for; absent = unlimited.
    #[serde(default)]
    credits: Opt<CreditsRequest>,
    /// Rate limits of the key.
    #[serde(default)]
    ratelimits: Opt<RatelimitsRequest>,
}

/// What was taken over, and what was not.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// The keys that were made.
    migrated: Vec<Migrated>,
    /// Hashes that some key of the workspace has already, also a deleted one: nothing was changed for these.
    failed: Vec<Secret>,
}

/// A key that was made.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migrated {
    /// Its hash, as the request has it.
    hash: Secret,
    /// Its id.
    key_id: String,
}

/// keys.migrateKeys.
pub struct MigrateKeys;

impl Operation for MigrateKeys {
    const NAME: &'static str = "keys.migrateKeys";
    const SUMMARY: &'static str = "Migrate keys";
    const DESCRIPTION: &'static str = "Takes keys over from another system by their hashes, so that their holders go on \
        using them. Identities, permissions and roles that do not exist are made. A hash that some key of the workspace \
        has already is listed in `failed`, and the other keys are made all the same; anything else that is wrong refuses \
        the whole call.\n\n\
        A call is one change, which may take 32 MiB with its audit events: 10,000 keys with four roles and permissions \
        each, for instance; a larger one is refused whole. Keys of a migration by `sha256` verify at once. Others verify with \
        `migrationId` until they were presented once.";
    const ALLOWS: &'static [&'static str] = &["api.*.create_key", "api.<apiId>.create_key"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound, Code::MigrationNotFound];
    const AUDITS: &'static [&'static str] = &[
        "identity.create",
        "permission.create",
        "role.create",
        "authorization.connect_permission_and_key",
        "authorization.connect_role_and_key",
        "key.create",
    ];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::any_or_one("api", &ask.api_id, "create_key"))?;
        let api_id = ApiId::parse(&ask.api_id).ok_or_else(apis::not_found)?;
        let workspace = call.workspace();
        let migration_id = MigrationId::parse(&ask.migration_id);
        let found = call.read("API", move |storage| {
            let snapshot = storage.snapshot()?;
            let migration = match migration_id {
                Some(id) => migration::get(&snapshot, workspace, id)?.map(|row| (id, row.algorithm)),
                None => None,
            };
            Ok((api::get_live(&snapshot, workspace, api_id)?.is_some(), migration))
        });
        let (api_is_there, migration) = found.await?;
        if !api_is_there {
            return Err(apis::not_found());
        }
        let (migration, algorithm) = migration.ok_or_else(|| {
            Problem::new(Code::MigrationNotFound, "The requested Migration does not exist or has been deleted.")
        })?;
        let arrivals = arrivals(ask.keys, algorithm)?;
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            // Migrations cannot be deleted; the API may have been since.
            let api = api::get_live(change.tx, workspace, api_id)?.ok_or_else(|| Abort::Refused(apis::not_found()))?;
            let mut arriving = Arriving { api_id, api, migration, known: Known::default() };
            let mut response = Response { migrated: Vec::with_capacity(arrivals.len()), failed: Vec::new() };
            for arrival in arrivals {
                if key::find(change.tx, workspace, &arrival.digest)?.is_some() {
                    response.failed.push(Secret::new(arrival.hash));
                    continue;
                }
                let hash = Secret::new(arrival.hash.as_str());
                let key_id = arriving.make(change, arrival)?.to_string();
                response.migrated.push(Migrated { hash, key_id });
                change.refuse_too_large()?;
            }
            Ok(response)
        });
        Ok(made.await?.value)
    }
}

/// A key on its way, with everything decided that needs no look at the records.
struct Arrival {
    /// Its hash, as the request has it.
    hash: String,
    /// What it is looked up by.
    digest: KeyDigest,
    /// Whether it has to be presented before it can get a hash of its own.
    pending: bool,
    remaining: Option<u64>,
    refill: Option<Refill>,
    name: Option<String>,
    external_id: Option<String>,
    meta: Option<String>,
    roles: Vec<Text<1, 128>>,
    permissions: Vec<Slug>,
    expires: Option<u64>,
    enabled: bool,
    ratelimits: Option<RatelimitsRequest>,
}

/// Checks the keys of a call one by one and together, refills first (KEYS-MIGRATE-3, KEYS-MIGRATE-9, KEYS-MIGRATE-10).
fn arrivals<const MIN: usize, const MAX: usize>(
    items: List<Item, MIN, MAX>,
    algorithm: Algorithm,
) -> Result<Vec<Arrival>, Problem> {
    let arrivals = items.into_iter().map(|item| Arrival::new(item, algorithm)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::with_capacity(arrivals.len());
    if let Some(at) = arrivals.iter().position(|arrival| !seen.insert(arrival.digest)) {
        return Err(Problem::invalid(format!("`keys[{at}].hash` is the hash of an earlier key of this call.")));
    }
    let links: usize = arrivals.iter().map(|arrival| arrival.roles.len() + arrival.permissions.len()).sum();
    if links > LINKS_MAX {
        return Err(Problem::invalid(format!(
            "The keys of this call name {links} roles and permissions; {LINKS_MAX} can be attached in one. Split it into \
             several."
        )));
    }
    Ok(arrivals)
}

impl Arrival {
    fn new(item: Item, algorithm: Algorithm) -> Result<Arrival, Problem> {
        let (remaining, refill) = credits_of_new_key(item.credits)?;
        let hash = item.hash.expose_secret().to_owned();
        Ok(Arrival {
            digest: digest_of(algorithm, &hash),
            hash,
            pending: algorithm == Algorithm::PrefixedApiKey,
            remaining,
            refill,
            name: item.name.map(Text::into_string),
            external_id: item.external_id.map(Text::into_string),
            meta: item.meta.map(meta_text),
            roles: item.roles.map_or(Vec::new(), List::into_vec),
            permissions: item.permissions.map_or(Vec::new(), List::into_vec),
            expires: item.expires.map(Int::get_unsigned),
            enabled: item.enabled.unwrap_or(true),
            ratelimits: item.ratelimits.into(),
        })
    }
}

/// What a key is looked up by whose hash reads like this: the hash itself, where it is one of ours (KEYS-MIGRATE-4).
fn digest_of(algorithm: Algorithm, text: &str) -> KeyDigest {
    let native = match algorithm {
        Algorithm::Sha256 => STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok()).map(KeyDigest),
        Algorithm::PrefixedApiKey => None,
    };
    native.unwrap_or_else(|| migration::foreign_hash(algorithm, text))
}

/// The transaction, while keys are made one after another.
struct Arriving {
    api_id: ApiId,
    api: ApiRow,
    migration: MigrationId,
    known: Known,
}

impl Arriving {
    /// Makes a key, and what it names and does not exist yet. The caller has seen that its hash is free.
    fn make(&mut self, change: &mut Change<'_, '_>, arrival: Arrival) -> Result<KeyId, ReadError> {
        let workspace = change.workspace();
        let id = KeyId(change.new_id());
        let identity = match &arrival.external_id {
            Some(external_id) => Some(self.known.identity(change, external_id)?),
            None => None,
        };
        let permissions = self.known.permissions(change, &arrival.permissions)?;
        let roles = self.known.roles(change, &arrival.roles)?;
        let limits = arrival.ratelimits.map_or(Vec::new(), |asked| ratelimits(change, asked, &[]));
        let row = KeyRow {
            hash: change.tx.hash(&arrival.digest)?,
            api: self.api_id,
            start: String::new(),
            name: arrival.name,
            meta: arrival.meta,
            identity,
            expires: arrival.expires,
            enabled: arrival.enabled,
            limited: arrival.remaining.is_some(),
            refill: arrival.refill,
            ratelimits: limits,
            permissions: permissions.iter().map(|permission| permission.0).collect(),
            roles: roles.iter().map(|role| role.0).collect(),
            created_at: change.now(),
            updated_at: None,
            deleted_at: None,
        };
        if arrival.pending {
            migration::insert_pending(change.tx, workspace, id, &row, self.migration)?;
        } else {
            key::insert(change.tx, workspace, id, &row)?;
        }
        if let Some(remaining) = arrival.remaining {
            refill::begin(change, id, &row, remaining)?;
        }
        let key_target = target("key", id, row.name.as_deref().unwrap_or_default());
        links::tell_first(change, &key_target, permissions.iter().map(Rc::as_ref), roles.iter().map(Rc::as_ref));
        let targets = vec![key_target, api_target(self.api_id, &self.api.name)];
        change.audit("key.create", format!("Created key {id} in migration {}", self.migration), targets);
        Ok(id)
    }
}

/// What the keys of a call name, each found or made once (KEYS-MIGRATE-6, KEYS-MIGRATE-7).
#[derive(Default)]
struct Known {
    identities: HashMap<String, IdentityId>,
    permissions: HashMap<String, Rc<PermissionEntry>>,
    roles: HashMap<String, Rc<RoleEntry>>,
}

impl Known {
    fn identity(&mut self, change: &mut Change<'_, '_>, external_id: &str) -> Result<IdentityId, ReadError> {
        if let Some(id) = self.identities.get(external_id) {
            return Ok(*id);
        }
        let id = links::identity(change, external_id)?;
        self.identities.insert(external_id.to_owned(), id);
        Ok(id)
    }

    /// The permissions with these slugs, each once.
    fn permissions(
        &mut self,
        change: &mut Change<'_, '_>,
        slugs: &[Slug],
    ) -> Result<Vec<Rc<PermissionEntry>>, ReadError> {
        let mut linked: Vec<Rc<PermissionEntry>> = Vec::with_capacity(slugs.len());
        for slug in slugs {
            let named = match self.permissions.get(slug.as_str()) {
                Some(named) => Rc::clone(named),
                None => {
                    let mut found = links::permissions(change, std::slice::from_ref(slug), |_| None)?;
                    let named = Rc::new(found.remove(0));
                    self.permissions.insert(slug.as_str().to_owned(), Rc::clone(&named));
                    named
                }
            };
            if !linked.iter().any(|other| other.0 == named.0) {
                linked.push(named);
            }
        }
        Ok(linked)
    }

    /// The roles with these names, each once.
    fn roles(&mut self, change: &mut Change<'_, '_>, names: &[Text<1, 128>]) -> Result<Vec<Rc<RoleEntry>>, ReadError> {
        let mut linked: Vec<Rc<RoleEntry>> = Vec::with_capacity(names.len());
        for name in names {
            let named = match self.roles.get(name.as_str()) {
                Some(named) => Rc::clone(named),
                None => {
                    let named = Rc::new(role_named(change, name)?);
                    self.roles.insert(name.as_str().to_owned(), Rc::clone(&named));
                    named
                }
            };
            if !linked.iter().any(|other| other.0 == named.0) {
                linked.push(named);
            }
        }
        Ok(linked)
    }
}

/// The role with this name, whatever its letters' case; made without a description where there is none.
fn role_named(change: &mut Change<'_, '_>, name: &str) -> Result<RoleEntry, ReadError> {
    let workspace = change.workspace();
    if let Some(entry) = role_by_name(change.tx, workspace, name)? {
        return Ok(entry);
    }
    let row = RoleRow {
        name: name.to_owned(),
        description: None,
        permissions: Vec::new(),
        created_at: change.now(),
        updated_at: None,
    };
    let entry = (RoleId(change.new_id()), row);
    role::put_role(change.tx, workspace, entry.0, None, &entry.1);
    let mut made = role_target(&entry);
    made.meta = Some(json!({ "name": name }).to_string());
    change.audit("role.create", format!("Created role {name} ({})", entry.0), vec![made]);
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret;

    /// KEYS-MIGRATE-4, HASH-1: only the one spelling of 32 bytes that HASH-1 gives them is a hash of ours.
    #[test]
    fn a_hash_of_ours_has_one_spelling() {
        let ours = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=";
        assert_eq!(digest_of(Algorithm::Sha256, ours), secret::digest("test"));
        assert_ne!(digest_of(Algorithm::PrefixedApiKey, ours), secret::digest("test"));
        for other in [
            "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg",
            "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgh=",
            "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg=",
            " n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "abc",
        ] {
            assert_eq!(digest_of(Algorithm::Sha256, other), migration::foreign_hash(Algorithm::Sha256, other));
        }
    }
}
