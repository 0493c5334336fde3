//! Promises that hold for whatever is set and in whatever order: settings come back as they were given, permissions and
//! roles add up as in a plain model, and lists neither lose nor repeat rows. Seeds are fixed; sizes are bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Map, Value, json};

use crate::harness::world::minted;
use crate::harness::{Dice, Key, Workspace};

/// 2040-01-01: later than any run of these tests.
const LATER: i64 = 2_208_988_800_000;

/// Runs a property over this many cases from a fixed seed.
fn check<S: Strategy>(cases: u32, seed: u64, strategy: S, property: impl Fn(S::Value)) {
    let config = Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    // A failing property panics; the runner shrinks what made it do so.
    TestRunner::new(config)
        .run(&strategy, |value| {
            property(value);
            Ok(())
        })
        .unwrap();
}

// Settings

/// Everything of a key that can be set, as members of a request.
#[derive(Clone, Debug)]
struct Settings {
    name: Option<String>,
    external_id: Option<String>,
    meta: Option<Value>,
    expires: Option<i64>,
    credits: Option<(i64, Option<Value>)>,
    ratelimits: Vec<Value>,
    permissions: Vec<String>,
    roles: Vec<String>,
    enabled: bool,
}

fn any_text(longest: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 1..=longest).prop_map(String::from_iter)
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_text(12).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any_text(6), inner, 0..4).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

fn meta() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(any_text(8), json_value(), 0..5).prop_map(|map| Value::Object(Map::from_iter(map)))
}

fn refill() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1..i64::MAX).prop_map(|amount| json!({"interval": "daily", "amount": amount})),
        (1..i64::MAX, 1..=31)
            .prop_map(|(amount, day)| json!({"interval": "monthly", "amount": amount, "refillDay": day})),
    ]
}

fn ratelimits() -> impl Strategy<Value = Vec<Value>> {
    let limit = (1_000..i64::MAX / 4, 1_000..1_000_000_000_000_i64, any::<bool>());
    prop::collection::btree_map("[ -~]{3,12}|☃{3}", limit, 0..4).prop_map(|limits| {
        let one = |(name, (limit, duration, auto))| json!({"name": name, "limit": limit, "duration": duration, "autoApply": auto});
        limits.into_iter().map(one).collect()
    })
}

/// Some of a few names.
fn some_of(names: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::sample::subsequence(names, 0..=names.len())
        .prop_shuffle()
        .prop_map(|names| names.into_iter().map(str::to_owned).collect())
}

const SLUGS: &[&str] = &["a.read", "a.write", "B.*", "c:d-e_f"];
const ROLES: &[&str] = &["Editor", "viewer of things", "Ünser"];

fn settings() -> impl Strategy<Value = Settings> {
    let first = (
        prop::option::of(any_text(40)),
        prop::option::of("[a-zA-Z0-9_.-]{1,20}"),
        prop::option::of(meta()),
        prop::option::of(LATER..4_102_444_800_000_i64),
        prop::option::of((0..i64::MAX, prop::option::of(refill()))),
    );
    let second = (ratelimits(), some_of(SLUGS), some_of(ROLES), any::<bool>());
    (first, second).prop_map(
        |((name, external_id, meta, expires, credits), (ratelimits, permissions, roles, enabled))| Settings {
            name,
            external_id,
            meta,
            expires,
            credits,
            ratelimits,
            permissions,
            roles,
            enabled,
        },
    )
}

impl Settings {
    /// As createKey takes them: what has no value is absent.
    fn create(&self) -> Value {
        let mut body = self.update();
        body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        if let Some(credits) = body.get_mut("credits").and_then(Value::as_object_mut) {
            credits.retain(|_, value| !value.is_null());
        }
        body
    }

    /// As updateKey takes them to replace all others: what has no value is null, or an empty list.
    fn update(&self) -> Value {
        let credits =
            self.credits.as_ref().map(|(remaining, refill)| json!({"remaining": remaining, "refill": refill}));
        json!({
            "name": self.name, "externalId": self.external_id, "meta": self.meta, "expires": self.expires,
            "credits": credits, "ratelimits": self.ratelimits, "permissions": self.permissions, "roles": self.roles,
            "enabled": self.enabled,
        })
    }

    /// As keys.getKey and apis.listKeys must show them (KEYS-OBJ-1), without what the server chose.
    fn shown(&self) -> Value {
        let mut shown = self.create();
        let members = shown.as_object_mut().unwrap();
        if let Some(external) = members.remove("externalId") {
            members.insert("identity".to_owned(), json!({"externalId": external}));
        }
        for sorted in ["permissions", "roles"] {
            let mut names: Vec<String> = serde_json::from_value(members[sorted].clone()).unwrap();
            names.sort();
            members.insert(sorted.to_owned(), names.into());
        }
        // KEYS-GEN-21: what is empty is left out.
        members.retain(|_, value| *value != json!([]) && *value != json!({}));
        shown
    }
}

/// A key as it is shown, without what the server chose.
fn stripped(mut key: Value) -> Value {
    let members = key.as_object_mut().unwrap();
    for chosen in ["keyId", "start", "createdAt", "updatedAt", "lastUsedAt"] {
        members.remove(chosen);
    }
    if let Some(identity) = members.get_mut("identity") {
        assert!(identity.as_object_mut().unwrap().remove("id").is_some_and(|id| id.is_string()));
    }
    for limit in members.get_mut("ratelimits").and_then(Value::as_array_mut).into_iter().flatten() {
        assert!(limit.as_object_mut().unwrap().remove("id").is_some_and(|id| id.is_string()));
    }
    key
}

/// What a verification shows of a key's settings, in the form of [`Settings::shown`].
fn verified(workspace: &Workspace, key: &Key, wanted: &Settings) {
    let mut data = workspace.verify(key, json!({"credits": {"cost": 0}}));
    let code = if wanted.enabled { "VALID" } else { "DISABLED" };
    assert_eq!(data["code"], code, "{data} of {wanted:?}");
    let mut shown = wanted.shown();
    let members = shown.as_object_mut().unwrap();
    // Credits are a number here, and limits are those that this call has checked (KEYS-VERIFY-6).
    if let Some(credits) = members.remove("credits") {
        members.insert("credits".to_owned(), credits["remaining"].clone());
    }
    members.remove("ratelimits");
    let checked = data.as_object_mut().unwrap().remove("ratelimits").unwrap_or(json!([]));
    let names = |limits: &[Value]| {
        limits.iter().map(|limit| limit["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    let auto: Vec<Value> = wanted.ratelimits.iter().filter(|limit| limit["autoApply"] == true).cloned().collect();
    let due = if wanted.enabled { names(&auto) } else { BTreeSet::new() };
    assert_eq!(names(checked.as_array().unwrap()), due, "{data} of {wanted:?}");
    for name in ["valid", "code", "keyspaceId"] {
        data.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(stripped(data), shown, "verified");
}

/// KEYS-CREATE-1, KEYS-UPDATE-1, KEYS-OBJ-1, KEYS-GEN-13, KEYS-GEN-18, KEYS-GEN-21, KEYS-GEN-23, KEYS-GEN-34, KEYS-VERIFY-6,
/// KEYS-VERIFY-8, KEYS-REROLL-3, APIS-LIST-9: whatever is set through createKey or updateKey comes back from getKey,
/// listKeys, whoami and verifyKey as it was given, is replaced as a whole by the next update, and goes over to a rerolled
/// key.
#[test]
fn settings_come_back_as_they_were_given() {
    let workspace = Workspace::new();
    for role in ROLES {
        workspace.ok("permissions.createRole", json!({"name": role}));
    }
    check(24, 1, (settings(), settings(), settings()), |three| {
        let all = [three.0, three.1, three.2];
        let api = workspace.api();
        let see = |key: &Key, wanted: &Settings| {
            assert_eq!(stripped(workspace.get(key)), wanted.shown(), "getKey");
            assert_eq!(stripped(workspace.ok("keys.whoami", json!({"key": key.secret}))), wanted.shown(), "whoami");
            verified(&workspace, key, wanted);
            let listed = workspace.all("apis.listKeys", json!({"apiId": api}), 100);
            let listed = listed.into_iter().find(|listed| listed["keyId"] == key.id.as_str()).expect("listed");
            assert_eq!(stripped(listed), wanted.shown(), "listKeys");
        };
        let key = workspace.key(&api, all[0].create());
        see(&key, &all[0]);
        for next in &all[1..] {
            workspace.update(&key, next.update());
            see(&key, next);
            // Nothing named, nothing changed (KEYS-UPDATE-7).
            workspace.update(&key, json!({}));
            see(&key, next);
        }
        let rolled = minted(&workspace.ok("keys.rerollKey", json!({"keyId": key.id, "expiration": 0})));
        see(&rolled, &all[2]);
    });
}

// Permissions and roles

/// What a customer does with permissions, roles, keys and identities. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Deed {
    CreatePermission(String),
    DeletePermission(usize),
    CreateRole(String, Vec<String>),
    SetRolePermissions(usize, Vec<String>),
    DeleteRole(usize),
    CreateKey(Vec<String>, Vec<String>, Option<String>),
    UpdateKey(usize, Option<Vec<String>>, Option<Vec<String>>, Option<Option<String>>),
    Permissions(usize, &'static str, Vec<String>),
    Roles(usize, &'static str, Vec<String>),
    RerollKey(usize),
    DeleteKey(usize, bool),
    CreateIdentity(String),
    DeleteIdentity(usize),
}

/// Slugs that meet each other, some only but for the case of their letters (RB-SLUG-02).
const POOL: &[&str] = &["p.one", "P.One", "p.two", "p.three", "P.THREE", "p:four", "p.five"];
/// Names of roles; `Chief` and `chief` are one role (RB-ROLE-02).
const TITLES: &[&str] = &["Chief", "chief", "Clerk", "Émile", "émile", "Nobody"];
const PEOPLE: &[&str] = &["ada", "Ada", "bob"];

fn deed() -> impl Strategy<Value = Deed> {
    let one = |names: &'static [&'static str]| prop::sample::select(names).prop_map(str::to_owned);
    let slugs = || prop::collection::vec(one(POOL), 0..4);
    let titles = || prop::collection::vec(one(TITLES), 0..3);
    let which = || 0..8_usize;
    let verb = || prop::sample::select(&["add", "remove", "set"][..]);
    prop_oneof![
        2 => one(POOL).prop_map(Deed::CreatePermission),
        2 => which().prop_map(Deed::DeletePermission),
        3 => (one(TITLES), slugs()).prop_map(|(name, slugs)| Deed::CreateRole(name, slugs)),
        3 => (which(), slugs()).prop_map(|(role, slugs)| Deed::SetRolePermissions(role, slugs)),
        1 => which().prop_map(Deed::DeleteRole),
        3 => (slugs(), titles(), prop::option::of(one(PEOPLE))).prop_map(|(slugs, roles, who)| Deed::CreateKey(slugs, roles, who)),
        2 => (which(), prop::option::of(slugs()), prop::option::of(titles()), prop::option::of(prop::option::of(one(PEOPLE))))
            .prop_map(|(key, slugs, roles, who)| Deed::UpdateKey(key, slugs, roles, who)),
        4 => (which(), verb(), slugs()).prop_map(|(key, verb, slugs)| Deed::Permissions(key, verb, slugs)),
        4 => (which(), verb(), titles()).prop_map(|(key, verb, roles)| Deed::Roles(key, verb, roles)),
        1 => which().prop_map(Deed::RerollKey),
        1 => (which(), any::<bool>()).prop_map(|(key, permanent)| Deed::DeleteKey(key, permanent)),
        1 => one(PEOPLE).prop_map(Deed::CreateIdentity),
        1 => which().prop_map(Deed::DeleteIdentity),
    ]
}

/// A key of the model; what it is linked to by number.
#[derive(Clone, Debug)]
struct Held {
    key: Key,
    permissions: BTreeSet<u32>,
    roles: BTreeSet<u32>,
    identity: Option<u32>,
    is_deleted: bool,
}

/// The plain model: everything by a number that never recurs.
#[derive(Default)]
struct Model {
    next: u32,
    /// Number to stored slug.
    permissions: BTreeMap<u32, String>,
    /// Number to stored name and permissions.
    roles: BTreeMap<u32, (String, BTreeSet<u32>)>,
    /// Number to external id.
    identities: BTreeMap<u32, String>,
    keys: Vec<Held>,
}

impl Model {
    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn permission(&self, slug: &str) -> Option<u32> {
        let same = |(number, stored): (&u32, &String)| stored.eq_ignore_ascii_case(slug).then_some(*number);
        self.permissions.iter().find_map(same)
    }

    /// The numbers of these slugs, those that are missing made with the spelling first asked for.
    fn permissions_of(&mut self, slugs: &[String]) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for slug in slugs {
            let number = self.permission(slug).unwrap_or_else(|| {
                let number = self.number();
                self.permissions.insert(number, slug.clone());
                number
            });
            found.insert(number);
        }
        found
    }

    fn role(&self, name: &str) -> Option<u32> {
        let same =
            |(number, role): (&u32, &(String, _))| (role.0.to_lowercase() == name.to_lowercase()).then_some(*number);
        self.roles.iter().find_map(same)
    }

    /// The numbers of these roles; `None` where one is missing.
    fn roles_of(&self, names: &[String]) -> Option<BTreeSet<u32>> {
        names.iter().map(|name| self.role(name)).collect()
    }

    /// The number of an identity, made where it is missing (KEYS-OBJ-6).
    fn identity(&mut self, external: &str) -> u32 {
        let found = self.identities.iter().find(|(_, stored)| *stored == external).map(|(number, _)| *number);
        found.unwrap_or_else(|| {
            let number = self.number();
            self.identities.insert(number, external.to_owned());
            number
        })
    }

    fn slugs(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
        let slugs: BTreeSet<&String> = numbers.into_iter().filter_map(|number| self.permissions.get(&number)).collect();
        slugs.into_iter().cloned().collect()
    }

    /// All that a key has, its own and through its roles; and the names of its roles.
    fn of_key(&self, held: &Held) -> (Vec<String>, Vec<String>) {
        let roles: Vec<&(String, BTreeSet<u32>)> =
            held.roles.iter().filter_map(|number| self.roles.get(number)).collect();
        let through = roles.iter().flat_map(|(_, permissions)| permissions.iter().copied());
        let slugs = self.slugs(held.permissions.iter().copied().chain(through));
        let names: BTreeSet<String> = roles.iter().map(|(name, _)| name.clone()).collect();
        (slugs, names.into_iter().collect())
    }
}

/// One customer: a workspace, and the model of what is in it.
struct Customer<'a> {
    workspace: &'a Workspace,
    api: String,
    model: Model,
}

/// The `number`th of some things, counted round; `None` where there are none.
fn nth<T: Copy>(mut things: impl ExactSizeIterator<Item = T>, number: usize) -> Option<T> {
    let count = things.len();
    things.nth(number.checked_rem(count)?)
}

impl Customer<'_> {
    /// Calls, and demands this status.
    fn call(&self, operation: &str, body: Value, status: u16) -> Value {
        let reply = self.workspace.call(operation, body.clone()).send();
        assert_eq!(reply.status, status, "{operation} {body}: {}", reply.text());
        reply.json["data"].clone()
    }

    /// Does it, in the program and in the model.
    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::CreatePermission(slug) => {
                let is_taken = self.model.permission(&slug).is_some();
                let status = if is_taken { 409 } else { 200 };
                self.call("permissions.createPermission", json!({"name": "a permission", "slug": slug}), status);
                self.model.permissions_of(&[slug]);
            }
            Deed::DeletePermission(which) => {
                let Some(number) = nth(self.model.permissions.keys().copied(), which) else { return };
                let slug = self.model.permissions.remove(&number).unwrap();
                self.call("permissions.deletePermission", json!({"permission": slug}), 200);
                self.call("permissions.deletePermission", json!({"permission": slug}), 404);
            }
            Deed::CreateRole(name, slugs) => {
                let body = json!({"name": name, "permissions": slugs});
                if self.model.role(&name).is_some() {
                    // And no permission came to be (RB-CR-05): the lists are compared below.
                    self.call("permissions.createRole", body, 409);
                    return;
                }
                self.call("permissions.createRole", body, 200);
                let permissions = self.model.permissions_of(&slugs);
                let number = self.model.number();
                self.model.roles.insert(number, (name, permissions));
            }
            Deed::SetRolePermissions(which, slugs) => {
                let Some(number) = nth(self.model.roles.keys().copied(), which) else { return };
                let name = self.model.roles[&number].0.clone();
                let answered =
                    self.call("permissions.setRolePermissions", json!({"role": name, "permissions": slugs}), 200);
                let permissions = self.model.permissions_of(&slugs);
                assert_eq!(slugs_in(&answered), self.model.slugs(permissions.iter().copied()));
                self.model.roles.get_mut(&number).unwrap().1 = permissions;
            }
            Deed::DeleteRole(which) => {
                let Some(number) = nth(self.model.roles.keys().copied(), which) else { return };
                let (name, _) = self.model.roles.remove(&number).unwrap();
                self.call("permissions.deleteRole", json!({"role": name.to_uppercase()}), 200);
                self.call("permissions.deleteRole", json!({"role": name}), 404);
            }
            Deed::CreateKey(slugs, roles, who) => self.creates_key(&slugs, &roles, who),
            Deed::UpdateKey(which, slugs, roles, who) => self.updates_key(which, slugs, roles, who),
            Deed::Permissions(which, verb, slugs) => self.changes_permissions(which, verb, &slugs),
            Deed::Roles(which, verb, roles) => self.changes_roles(which, verb, &roles),
            Deed::RerollKey(which) => {
                let Some(index) = self.live(which) else { return };
                let held = self.model.keys[index].clone();
                let key = minted(&self.call("keys.rerollKey", json!({"keyId": held.key.id, "expiration": 0}), 200));
                self.model.keys.push(Held { key, ..held });
            }
            Deed::DeleteKey(which, permanent) => {
                let Some(index) = self.live(which) else { return };
                let id = self.model.keys[index].key.id.clone();
                self.call("keys.deleteKey", json!({"keyId": id, "permanent": permanent}), 200);
                self.model.keys[index].is_deleted = true;
            }
            Deed::CreateIdentity(external) => {
                let is_taken = self.model.identities.values().any(|stored| *stored == external);
                let status = if is_taken { 409 } else { 200 };
                self.call("identities.createIdentity", json!({"externalId": external}), status);
                self.model.identity(&external);
            }
            Deed::DeleteIdentity(which) => {
                let Some(number) = nth(self.model.identities.keys().copied(), which) else { return };
                let external = self.model.identities.remove(&number).unwrap();
                self.call("identities.deleteIdentity", json!({"identity": external}), 200);
                self.call("identities.deleteIdentity", json!({"identity": external}), 404);
            }
        }
    }

    /// The place of a key that is not deleted.
    fn live(&self, which: usize) -> Option<usize> {
        let live: Vec<usize> = (0..self.model.keys.len()).filter(|index| !self.model.keys[*index].is_deleted).collect();
        nth(live.into_iter(), which)
    }

    fn creates_key(&mut self, slugs: &[String], roles: &[String], who: Option<String>) {
        let mut body = json!({"apiId": self.api, "permissions": slugs, "roles": roles});
        if let Some(who) = &who {
            body["externalId"] = who.as_str().into();
        }
        let Some(roles) = self.model.roles_of(roles) else {
            // And nothing came to be (KEYS-CREATE-3): the lists are compared below.
            self.call("keys.createKey", body, 404);
            return;
        };
        let key = minted(&self.call("keys.createKey", body, 200));
        let permissions = self.model.permissions_of(slugs);
        let identity = who.map(|who| self.model.identity(&who));
        self.model.keys.push(Held { key, permissions, roles, identity, is_deleted: false });
    }

    fn updates_key(
        &mut self,
        which: usize,
        slugs: Option<Vec<String>>,
        roles: Option<Vec<String>>,
        who: Option<Option<String>>,
    ) {
        let Some(index) = self.live(which) else { return };
        let mut body = json!({"keyId": self.model.keys[index].key.id});
        if let Some(slugs) = &slugs {
            body["permissions"] = slugs.clone().into();
        }
        if let Some(roles) = &roles {
            body["roles"] = roles.clone().into();
        }
        if let Some(who) = &who {
            body["externalId"] = json!(who);
        }
        let known = roles.as_ref().map(|roles| self.model.roles_of(roles));
        if known == Some(None) {
            self.call("keys.updateKey", body, 404);
            return;
        }
        self.call("keys.updateKey", body, 200);
        if let Some(slugs) = slugs {
            self.model.keys[index].permissions = self.model.permissions_of(&slugs);
        }
        if let Some(Some(roles)) = known {
            self.model.keys[index].roles = roles;
        }
        if let Some(who) = who {
            self.model.keys[index].identity = who.map(|who| self.model.identity(&who));
        }
    }

    fn changes_permissions(&mut self, which: usize, verb: &str, slugs: &[String]) {
        let operation = format!("keys.{verb}Permissions");
        let Some(index) = self.live(which) else { return };
        let body = json!({"keyId": self.model.keys[index].key.id, "permissions": slugs});
        let is_known = slugs.iter().all(|slug| self.model.permission(slug).is_some());
        if slugs.is_empty() && verb != "set" {
            self.call(&operation, body, 400);
            return;
        }
        if verb == "remove" && !is_known {
            self.call(&operation, body, 404);
            return;
        }
        let answered = self.call(&operation, body, 200);
        let numbers = self.model.permissions_of(slugs);
        let held = &mut self.model.keys[index].permissions;
        match verb {
            "add" => held.extend(numbers),
            "remove" => held.retain(|number| !numbers.contains(number)),
            _ => *held = numbers,
        }
        // KEYS-PERM-4, KEYS-PERM-5: the key's own, sorted.
        assert_eq!(slugs_in(&answered), self.model.slugs(self.model.keys[index].permissions.iter().copied()));
    }

    fn changes_roles(&mut self, which: usize, verb: &str, roles: &[String]) {
        let operation = format!("keys.{verb}Roles");
        let Some(index) = self.live(which) else { return };
        let body = json!({"keyId": self.model.keys[index].key.id, "roles": roles});
        if roles.is_empty() && verb != "set" {
            self.call(&operation, body, 400);
            return;
        }
        let Some(numbers) = self.model.roles_of(roles) else {
            self.call(&operation, body, 404);
            return;
        };
        let answered = self.call(&operation, body, 200);
        let held = &mut self.model.keys[index].roles;
        match verb {
            "add" => held.extend(numbers),
            "remove" => held.retain(|number| !numbers.contains(number)),
            _ => *held = numbers,
        }
        let (_, names) = self.model.of_key(&self.model.keys[index]);
        assert_eq!(texts(&answered, "name"), names);
    }

    /// Compares everything that can be seen with the model.
    fn sees_what_the_model_has(&self) {
        let model = &self.model;
        for held in &model.keys {
            let data = self.workspace.verify(&held.key, json!({}));
            if held.is_deleted {
                assert_eq!(data, json!({"valid": false, "code": "NOT_FOUND"}));
                continue;
            }
            let (slugs, names) = model.of_key(held);
            let external = held.identity.and_then(|number| model.identities.get(&number));
            // A rerolled key has expired, and shows the same (KEYS-VERIFY-8).
            for shown in [&data, &self.workspace.get(&held.key)] {
                let list = |name: &str| shown.get(name).cloned().unwrap_or(json!([]));
                assert_eq!((list("permissions"), list("roles")), (json!(slugs), json!(names)), "{held:?}: {shown}");
                assert_eq!(shown["identity"]["externalId"].as_str(), external.map(String::as_str), "{held:?}: {shown}");
            }
            if data["valid"] == true {
                let asked = slugs.first().map_or("nothing.of.that", String::as_str);
                let query = json!({"permissions": format!("{asked} AND ({asked} OR no.such)")});
                let code = if slugs.is_empty() { "INSUFFICIENT_PERMISSIONS" } else { "VALID" };
                assert_eq!(self.workspace.code(&held.key, query), code, "PM-QRY-07 {held:?}");
            }
        }
        let listed = self.workspace.all("permissions.listPermissions", json!({}), 3);
        assert_eq!(texts(&listed.into(), "slug"), model.slugs(model.permissions.keys().copied()));
        let listed = self.workspace.all("permissions.listRoles", json!({}), 2);
        let seen: BTreeMap<String, Vec<String>> = listed
            .iter()
            .map(|role| (role["name"].as_str().unwrap().to_owned(), slugs_in(&role["permissions"])))
            .collect();
        let wanted = model.roles.values().map(|(name, numbers)| (name.clone(), model.slugs(numbers.iter().copied())));
        assert_eq!(seen, wanted.collect());
        assert_eq!(listed.len(), model.roles.len());
        let listed = self.workspace.all("identities.listIdentities", json!({}), 2);
        let mut wanted: Vec<String> = model.identities.values().cloned().collect();
        wanted.sort();
        assert_eq!(texts(&listed.into(), "externalId"), wanted);
    }
}

/// The slugs of a list of permissions, in its order; none for no list.
fn slugs_in(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|row| row["slug"].as_str().unwrap().to_owned()).collect()
}

/// A member of each row, sorted.
fn texts(rows: &Value, name: &str) -> Vec<String> {
    let mut texts: Vec<String> =
        rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect();
    texts.sort();
    texts
}

/// RB-SLUG-02, RB-ROLE-02, RB-ROLE-03, RB-DEL-01, RB-CR-01, RB-CR-05, RB-SR-01, RB-SR-03, KEYS-GEN-17, KEYS-GEN-19, KEYS-GEN-23,
/// KEYS-GEN-32, KEYS-GEN-35, KEYS-CREATE-7, KEYS-PERM-3, KEYS-PERM-4, KEYS-PERM-5, KEYS-PERM-8, KEYS-ROLE-2, KEYS-ROLE-4,
/// KEYS-ROLE-5, KEYS-ROLE-8, KEYS-OBJ-6, ID-RES-03, ID-RES-08, ID-DELETE-06, PM-EVAL-06, COM-CON-01: whatever is done with
/// permissions, roles, keys and identities, in whatever order, everything that can be seen is what a plain model says: no
/// slug twice, no link to what is gone, nothing left behind by a refusal.
#[test]
fn permissions_and_roles_add_up_as_in_a_plain_model() {
    let probe = Workspace::new();
    check(12, 2, prop::collection::vec(deed(), 60), |deeds| {
        let workspace = probe.neighbour();
        let api = workspace.api();
        let mut customer = Customer { workspace: &workspace, api, model: Model::default() };
        for (number, deed) in deeds.into_iter().enumerate() {
            customer.does(deed);
            if number % 12 == 11 {
                customer.sees_what_the_model_has();
            }
        }
    });
}

// Lists

/// A call that removes a row, by its number and its id.
type Removal = Box<dyn Fn(u64, &str) -> (&'static str, Value) + Sync>;

/// A list, and how its rows come and go.
struct Listing {
    operation: &'static str,
    body: Value,
    /// Member that is the row's id.
    id: &'static str,
    make: Box<dyn Fn(u64) -> (&'static str, Value) + Sync>,
    /// Member of the maker's answer that is the id.
    made: &'static str,
    remove: Removal,
}

/// Rows that stay throughout.
const STEADY: u64 = 250;

fn listings(api: &str) -> Vec<Listing> {
    let api = api.to_owned();
    let namespace = || json!("listed");
    let by = |operation: &'static str, member: &'static str| -> Removal {
        Box::new(move |_, id| (operation, json!({member: id})))
    };
    vec![
        Listing {
            operation: "apis.listKeys",
            body: json!({"apiId": api}),
            id: "keyId",
            make: Box::new(move |_| ("keys.createKey", json!({"apiId": api}))),
            made: "keyId",
            remove: by("keys.deleteKey", "keyId"),
        },
        Listing {
            operation: "apis.listApis",
            body: json!({}),
            id: "id",
            make: Box::new(|_| ("apis.createApi", json!({"name": "one of many"}))),
            made: "apiId",
            remove: by("apis.deleteApi", "apiId"),
        },
        Listing {
            operation: "identities.listIdentities",
            body: json!({}),
            id: "id",
            make: Box::new(|n| ("identities.createIdentity", json!({"externalId": format!("user_{n}")}))),
            made: "identityId",
            remove: by("identities.deleteIdentity", "identity"),
        },
        Listing {
            operation: "permissions.listPermissions",
            body: json!({}),
            id: "id",
            make: Box::new(|n| ("permissions.createPermission", json!({"name": "p", "slug": format!("p.{n}")}))),
            made: "permissionId",
            remove: by("permissions.deletePermission", "permission"),
        },
        Listing {
            operation: "permissions.listRoles",
            body: json!({}),
            id: "id",
            make: Box::new(|n| ("permissions.createRole", json!({"name": format!("role {n}")}))),
            made: "roleId",
            remove: by("permissions.deleteRole", "role"),
        },
        Listing {
            operation: "ratelimit.listOverrides",
            body: json!({"namespace": namespace()}),
            id: "overrideId",
            make: Box::new(move |n| {
                let identifier = format!("i{n}");
                let body = json!({"namespace": namespace(), "identifier": identifier, "limit": 1, "duration": 1000});
                ("ratelimit.setOverride", body)
            }),
            made: "overrideId",
            remove: Box::new(move |n, _| {
                ("ratelimit.deleteOverride", json!({"namespace": namespace(), "identifier": format!("i{n}")}))
            }),
        },
        Listing {
            operation: "ratelimit.listNamespaces",
            body: json!({}),
            id: "id",
            make: Box::new(|n| ("ratelimit.createNamespace", json!({"name": format!("namespace {n}")}))),
            made: "namespaceId",
            remove: by("ratelimit.deleteNamespace", "namespace"),
        },
        Listing {
            operation: "rootKeys.listKeys",
            body: json!({}),
            id: "keyId",
            make: Box::new(|_| ("rootKeys.createKey", json!({"permissions": ["api.*.read_key"]}))),
            made: "keyId",
            remove: by("rootKeys.deleteKey", "keyId"),
        },
    ]
}

/// A flag that is raised when this goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// COM-PAG-02, COM-PAG-03, COM-PAG-06, APIS-LIST-5, APIS-LIST-7, APIS-LIST-8, ID-LIST-02, RB-LP-02, RB-LR-01, RL-LISTOV-03: while
/// rows are added and removed, every walk through a list, in pages of changing size, goes up by id, repeats nothing, and
/// meets each of 250 rows that are there throughout.
#[test]
fn lists_lose_and_repeat_nothing_while_rows_come_and_go() {
    let workspace = Workspace::new();
    let api = workspace.api();
    workspace.ok("ratelimit.limit", json!({"namespace": "listed", "identifier": "i", "limit": 1, "duration": 1000}));
    for listing in listings(&api) {
        let make = |number: u64| {
            let (operation, body) = (listing.make)(number);
            workspace.ok(operation, body)[listing.made].as_str().unwrap().to_owned()
        };
        let steady = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (steady, make) = (&steady, &make);
                scope.spawn(move || {
                    for number in (thread..STEADY).step_by(8) {
                        let id = make(number);
                        steady.lock().unwrap().insert(id);
                    }
                });
            }
        });
        let steady = steady.into_inner().unwrap();
        let walked = AtomicBool::new(false);
        let (begins, begun) = mpsc::channel();
        std::thread::scope(|scope| {
            let (workspace, walked, make, listing) = (&workspace, &walked, &make, &listing);
            scope.spawn(move || {
                let mut passing: Vec<(u64, String)> = Vec::new();
                let mut dice = Dice::new(3);
                for number in STEADY.. {
                    passing.push((number, make(number)));
                    let _ = begins.send(());
                    if passing.len() > 5 {
                        let chosen = dice.below(passing.len() as u64);
                        let (number, id) = passing.swap_remove(usize::try_from(chosen).unwrap());
                        let (operation, body) = (listing.remove)(number, &id);
                        workspace.call(operation, body).expect_ok();
                    }
                    if walked.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            // Also when a walk fails, so that the other thread ends.
            let _end = Raised(walked);
            begun.recv().expect("rows come and go");
            for limit in [100, 7, 1 + STEADY / 5, 100] {
                let rows = workspace.all(listing.operation, listing.body.clone(), limit);
                let ids: Vec<&str> = rows.iter().map(|row| row[listing.id].as_str().unwrap()).collect();
                let is_rising = ids.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(is_rising, "COM-PAG-03: {} in pages of {limit}: {ids:?}", listing.operation);
                let seen: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
                let lost: Vec<&String> = steady.difference(&seen).collect();
                assert!(lost.is_empty(), "COM-PAG-06: {} in pages of {limit} lost {lost:?}", listing.operation);
            }
        });
    }
}
