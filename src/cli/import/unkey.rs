//! From Unkey's API, or another keyward: permissions, roles, identities, keys, overrides, in this order.
//!
//! The API tells no hashes. A key can be taken over where the source keeps its plaintext (`recoverable`) and the root key
//! may decrypt it; its hash is made here, and the plaintext is wiped. All other keys are named, so that somebody can issue
//! them anew or take their hashes over from a file.

use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::batches::{Batches, Migrations};
use super::remote::{Remote, Repeat, Trouble};
use super::rows::{Row, check};
use super::tally::{Complaints, Tally};
use crate::api::migrations::Algorithm;
use crate::cli::events::progress::Progress;
use crate::config::Secret;
use crate::secret;

/// Rows of a page.
const PAGE: u64 = 100;

/// What is to be imported.
pub struct Wanted {
    /// APIs whose keys are imported, by their ids at the source.
    pub apis: Vec<String>,
    /// Rate-limit namespaces whose overrides are imported, by their names.
    pub namespaces: Vec<String>,
    /// Nothing is written.
    pub dry_run: bool,
}

/// What became of it.
#[derive(Default)]
pub struct Outcome {
    pub permissions: Tally,
    pub roles: Tally,
    pub identities: Tally,
    pub keys: Tally,
    pub overrides: Tally,
    /// The APIs' ids: at the source, and here.
    pub apis: BTreeMap<String, String>,
    pub migrations: Migrations,
    pub complaints: Complaints,
}

#[derive(Deserialize)]
struct Permission {
    name: String,
    slug: String,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    description: Option<String>,
    #[serde(default)]
    permissions: Vec<Permission>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    external_id: String,
    meta: Option<Value>,
    ratelimits: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Api {
    id: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MadeApi {
    api_id: String,
}

#[derive(Deserialize)]
struct Override {
    identifier: String,
    limit: Value,
    duration: Value,
}

/// A key as lists show it (KEYS-OBJ-1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key_id: String,
    #[serde(default)]
    start: String,
    enabled: bool,
    name: Option<String>,
    meta: Option<Value>,
    expires: Option<Value>,
    #[serde(default)]
    permissions: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
    credits: Option<Value>,
    identity: Option<KeyIdentity>,
    ratelimits: Option<Vec<Value>>,
    plaintext: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyIdentity {
    external_id: String,
}

/// Imports.
///
/// # Errors
/// A server cannot be asked, or refuses what is needed. What was imported until then stays, and is found there when the
/// command is run again.
pub fn run(source: &Remote, target: &Remote, wanted: &Wanted, outcome: &mut Outcome) -> Result<(), Trouble> {
    permissions(source, target, wanted, outcome)?;
    let granted = roles(source, target, wanted, outcome)?;
    identities(source, target, wanted, outcome)?;
    for api in &wanted.apis {
        keys(source, target, wanted, &granted, api, outcome)?;
    }
    for namespace in &wanted.namespaces {
        overrides(source, target, wanted, namespace, outcome)?;
    }
    Ok(())
}

fn permissions(source: &Remote, target: &Remote, wanted: &Wanted, outcome: &mut Outcome) -> Result<(), Trouble> {
    let Outcome { permissions: tally, complaints, .. } = outcome;
    source.list("permissions.listPermissions", json!({"limit": PAGE}), |permission: Permission| {
        tally.read += 1;
        let mut body = json!({"name": permission.name, "slug": permission.slug});
        put(&mut body, "description", permission.description.map(Value::from));
        let place = format!("the permission {}", permission.slug);
        make(target, "permissions.createPermission", &body, wanted.dry_run, tally, complaints, &place)
    })
}

/// Imports the roles; which permissions each grants.
fn roles(
    source: &Remote,
    target: &Remote,
    wanted: &Wanted,
    outcome: &mut Outcome,
) -> Result<BTreeMap<String, Vec<String>>, Trouble> {
    let Outcome { roles: tally, complaints, .. } = outcome;
    let mut granted = BTreeMap::new();
    source.list("permissions.listRoles", json!({"limit": PAGE}), |role: Role| {
        tally.read += 1;
        let slugs: Vec<String> = role.permissions.into_iter().map(|permission| permission.slug).collect();
        let mut body = json!({"name": role.name, "permissions": slugs});
        put(&mut body, "description", role.description.map(Value::from));
        granted.insert(role.name.clone(), slugs);
        make(
            target,
            "permissions.createRole",
            &body,
            wanted.dry_run,
            tally,
            complaints,
            &format!("the role {}", role.name),
        )
    })?;
    Ok(granted)
}

fn identities(source: &Remote, target: &Remote, wanted: &Wanted, outcome: &mut Outcome) -> Result<(), Trouble> {
    let Outcome { identities: tally, complaints, .. } = outcome;
    source.list("identities.listIdentities", json!({"limit": PAGE}), |identity: Identity| {
        tally.read += 1;
        let mut body = json!({"externalId": identity.external_id});
        put(&mut body, "meta", identity.meta);
        put(&mut body, "ratelimits", identity.ratelimits.map(limits));
        let place = format!("the identity {}", identity.external_id);
        make(target, "identities.createIdentity", &body, wanted.dry_run, tally, complaints, &place)
    })
}

/// Makes a thing with a unique name. One that is refused for what it is costs itself alone.
fn make(
    target: &Remote,
    operation: &str,
    body: &Value,
    dry_run: bool,
    tally: &mut Tally,
    complaints: &mut Complaints,
    place: &str,
) -> Result<(), Trouble> {
    if dry_run {
        return Ok(());
    }
    match target.make(operation, body) {
        Ok(made) => tally.count(made),
        Err(Trouble::Refused(refused)) if refused.status == 400 => {
            tally.refused += 1;
            complaints.add(place, &format!("is refused: {}", refused.detail));
        }
        Err(other) => return Err(other),
    }
    Ok(())
}

fn keys(
    source: &Remote,
    target: &Remote,
    wanted: &Wanted,
    granted: &BTreeMap<String, Vec<String>>,
    api: &str,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    let theirs = source.call::<Api>("apis.getApi", &json!({"apiId": api}), Repeat::Harmless)?.data;
    let ours = if wanted.dry_run { String::new() } else { api_named(target, &theirs.name)? };
    if !wanted.dry_run {
        outcome.apis.insert(api.to_owned(), ours.clone());
    }
    let Outcome { keys: tally, migrations, complaints, .. } = outcome;
    let body = json!({"apiId": api, "limit": PAGE, "decrypt": true});
    // Where plaintexts cannot be read, the keys are listed all the same, so that each is named.
    let decrypt = match source.call::<Vec<Value>>("apis.listKeys", &body, Repeat::Harmless) {
        Ok(_) => true,
        Err(Trouble::Refused(refused)) if matches!(refused.status, 403 | 412) => {
            complaints.add(&format!("the API {api}:"), &format!("no plaintext can be read: {}", refused.detail));
            false
        }
        Err(other) => return Err(other),
    };
    let mut progress = Progress::new(None);
    let (mut read, mut refused) = (0, 0);
    // The two borrow the same counters by turns.
    let mut given_up = Vec::new();
    let mut batches = Batches::new(target, ours, migrations, tally, complaints);
    let body = json!({"apiId": api, "limit": PAGE, "decrypt": decrypt});
    source.list("apis.listKeys", body, |key: Key| {
        read += 1;
        progress.show(read, 0);
        let place = format!("the key {} ({}…)", key.key_id, key.start);
        match row(key, granted) {
            Ok(row) if wanted.dry_run => drop(row),
            Ok(row) => batches.add(place, row)?,
            Err(why) => {
                refused += 1;
                // What is told of these is bounded; so is what is kept of them.
                if given_up.len() < 1000 {
                    given_up.push((place, why));
                }
            }
        }
        Ok(())
    })?;
    batches.finish()?;
    progress.end();
    tally.read += read;
    tally.refused += refused;
    given_up.iter().for_each(|(place, why)| complaints.add(place, why));
    Ok(())
}

/// The API of this name, which is made where there is none.
fn api_named(target: &Remote, name: &str) -> Result<String, Trouble> {
    let mut found = None;
    target.list("apis.listApis", json!({"search": name.trim(), "limit": PAGE}), |api: Api| {
        if api.name == name && found.is_none() {
            found = Some(api.id);
        }
        Ok(())
    })?;
    match found {
        Some(id) => Ok(id),
        None => {
            let made = target.call::<MadeApi>("apis.createApi", &json!({"name": name}), Repeat::Harmful)?;
            Ok(made.data.api_id)
        }
    }
}

/// A key as it is taken over.
///
/// # Errors
/// It cannot be, and why.
fn row(key: Key, granted: &BTreeMap<String, Vec<String>>) -> Result<Row, String> {
    let plaintext = key.plaintext.as_ref().map(Secret::expose).filter(|text| !text.is_empty());
    let Some(plaintext) = plaintext else {
        return Err("cannot be taken over: its plaintext is not kept at the source, which tells no hashes".to_owned());
    };
    let hash = STANDARD.encode(secret::digest(plaintext).0);
    // What lists show is what the key's roles grant, too; attached twice, it would stay when the role loses it.
    let by_roles: HashSet<&String> = key.roles.iter().filter_map(|role| granted.get(role)).flatten().collect();
    let direct: Vec<&String> = key.permissions.iter().filter(|slug| !by_roles.contains(slug)).collect();
    let links = direct.len() + key.roles.len();
    let mut item = json!({"hash": hash, "enabled": key.enabled});
    put(&mut item, "name", key.name.map(Value::from));
    put(&mut item, "externalId", key.identity.map(|identity| identity.external_id.into()));
    put(&mut item, "meta", key.meta);
    put(&mut item, "permissions", (!direct.is_empty()).then(|| json!(direct)));
    put(&mut item, "roles", (!key.roles.is_empty()).then(|| json!(key.roles)));
    put(&mut item, "expires", key.expires);
    put(&mut item, "credits", key.credits);
    put(&mut item, "ratelimits", key.ratelimits.map(limits));
    check(&item)?;
    Ok(Row { algorithm: Algorithm::Sha256, hash, item, links })
}

fn overrides(
    source: &Remote,
    target: &Remote,
    wanted: &Wanted,
    namespace: &str,
    outcome: &mut Outcome,
) -> Result<(), Trouble> {
    let Outcome { overrides: tally, complaints, .. } = outcome;
    if !wanted.dry_run {
        target.make("ratelimit.createNamespace", &json!({"name": namespace}))?;
    }
    source.list("ratelimit.listOverrides", json!({"namespace": namespace, "limit": PAGE}), |one: Override| {
        tally.read += 1;
        let Override { identifier, limit, duration } = one;
        let place = format!("the override of {identifier}");
        let body = json!({"namespace": namespace, "identifier": identifier, "limit": limit, "duration": duration});
        // Setting it again sets the same.
        make(target, "ratelimit.setOverride", &body, wanted.dry_run, tally, complaints, &place)
    })
}

/// Rate limits as requests have them: without their ids.
fn limits(limits: Vec<Value>) -> Value {
    let wanted = ["name", "limit", "duration", "autoApply"];
    let of = |limit: Value| -> Map<String, Value> {
        let Value::Object(members) = limit else { return Map::new() };
        members.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect()
    };
    limits.into_iter().map(of).collect()
}

fn put(body: &mut Value, name: &str, value: Option<Value>) {
    if let Some(value) = value.filter(|value| !value.is_null()) {
        body[name] = value;
    }
}
