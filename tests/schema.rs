//! What requests may hold: bounds, patterns, unknown and repeated members, null, numbers, nesting. Each refusal names
//! the rule that was broken, by the pointer into the schema.

use serde_json::{Value, json};

use crate::authority::{ROWS, row};
use crate::harness::Workspace;
use crate::harness::world::minted;
use crate::things::World;

/// A body with one member set (or replaced) at a JSON pointer's place.
fn set(mut body: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = body.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match parent {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        _ => drop(parent.as_object_mut().unwrap().insert(name.to_owned(), value)),
    }
    body
}

fn text(length: usize) -> Value {
    "x".repeat(length).into()
}

fn many<T: Clone + Into<Value>>(count: usize, item: T) -> Value {
    Value::Array(vec![item.into(); count])
}

fn slugs(count: usize) -> Value {
    (0..count).map(|n| Value::from(format!("slug.{n}"))).collect::<Vec<_>>().into()
}

fn limits(count: usize) -> Value {
    (0..count)
        .map(|n| json!({"name": format!("limit{n}"), "limit": 1, "duration": 1000, "autoApply": false}))
        .collect::<Vec<_>>()
        .into()
}

fn properties(count: usize) -> Value {
    Value::Object((0..count).map(|n| (format!("p{n}"), n.into())).collect())
}

/// Each of these members, set to each of these values, breaks the rule at that pointer of the schema.
/// COM-VAL-02, COM-VAL-08, COM-BODY-04, KEYS-GEN-4, KEYS-GEN-13, KEYS-GEN-15, KEYS-GEN-16, KEYS-GEN-18, KEYS-OBJ-4,
/// KEYS-OBJ-5, KEYS-OBJ-6, KEYS-CREATE-1, KEYS-CREATE-12, KEYS-UPDATE-1, KEYS-VERIFY-1, KEYS-GET-1, KEYS-GET-5,
/// KEYS-WHOAMI-1, KEYS-REROLL-1, KEYS-MIGRATE-1, KEYS-MIGRATE-2, APIS-LIST-1, EXT-13, KEYS-UPCRED-1, KEYS-DELETE-1,
/// KEYS-PERMQ-3, APIS-CREATE-1, APIS-CREATE-7, APIS-GET-1, APIS-DELETE-1,
/// APIS-DELETE-9, RL-LIMIT-07, RL-LIMIT-08, RL-MULTI-01, RL-MULTI-14, KEYFMT-3, KEYFMT-4, PM-QRY-06, HASH-10, COM-PAG-04,
/// COM-PAG-05, COM-PAG-08, EXT-10, EXT-11, RB-SLUG-01, RB-CP-04, RB-GP-02, RB-LP-03, RB-LR-02, RB-CR-08, RB-CR-09, RB-GR-02,
/// RB-SR-01, RB-SR-06, RB-SR-08, KEYS-PERM-1, KEYS-PERM-9, KEYS-ROLE-1, KEYS-ROLE-10
/// COM-PAG-05, COM-PAG-08, EXT-10, EXT-11, ID-RES-06, ID-CREATE-08, ID-GET-05, ID-LIST-05, ID-UPDATE-03, ID-UPDATE-04,
/// ID-UPDATE-12, EXT-12, EXT-14, RL-SETOV-05, RL-GETOV-06, RL-LISTOV-05, RL-DELOV-04
#[test]
fn bounds_are_kept_and_named() {
    let limit = json!([{"name": "abc", "limit": 1, "duration": 1000, "autoApply": true}]);
    let refill = json!({"remaining": 1, "refill": {"interval": "monthly", "amount": 1, "refillDay": 1}});
    // operation, members set before, member, values, the rule's pointer
    type Case = (&'static str, Value, &'static str, Vec<Value>, &'static str);
    let none = || json!({});
    let cases: Vec<Case> = vec![
        ("apis.createApi", none(), "/name", vec![text(0), text(2)], "/properties/name/minLength"),
        ("apis.createApi", none(), "/name", vec![text(257)], "/properties/name/maxLength"),
        ("apis.createApi", none(), "/name", vec![json!(1), json!(null), json!(["abc"])], "/properties/name/type"),
        ("apis.listApis", none(), "/limit", vec![json!(0), json!(-1)], "/properties/limit/minimum"),
        ("apis.listApis", none(), "/limit", vec![json!(101), json!(1000)], "/properties/limit/maximum"),
        ("apis.listApis", none(), "/limit", vec![json!("1"), json!(null)], "/properties/limit/type"),
        ("apis.listApis", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("apis.listApis", none(), "/search", vec![text(257)], "/properties/search/maxLength"),
        ("apis.updateApi", none(), "/defaultPrefix", vec![text(17)], "/properties/defaultPrefix/maxLength"),
        ("apis.updateApi", none(), "/defaultPrefix", vec![json!("a-b")], "/properties/defaultPrefix/pattern"),
        ("apis.updateApi", none(), "/defaultBytes", vec![json!(15)], "/properties/defaultBytes/minimum"),
        ("apis.updateApi", none(), "/defaultBytes", vec![json!(256)], "/properties/defaultBytes/maximum"),
        ("apis.updateApi", none(), "/ipWhitelist", vec![many(101, "::1")], "/properties/ipWhitelist/maxItems"),
        ("apis.updateApi", none(), "/deleteProtection", vec![json!(null)], "/properties/deleteProtection/type"),
        ("apis.getApi", none(), "/apiId", vec![text(0), text(7)], "/properties/apiId/minLength"),
        ("apis.getApi", none(), "/apiId", vec![text(256)], "/properties/apiId/maxLength"),
        ("apis.getApi", none(), "/apiId", vec![json!("api-1234"), json!("äpi_1234")], "/properties/apiId/pattern"),
        ("apis.deleteApi", none(), "/apiId", vec![text(0), text(7)], "/properties/apiId/minLength"),
        ("apis.deleteApi", none(), "/apiId", vec![text(256)], "/properties/apiId/maxLength"),
        ("identities.createIdentity", none(), "/externalId", vec![text(0)], "/properties/externalId/minLength"),
        ("identities.createIdentity", none(), "/externalId", vec![text(256)], "/properties/externalId/maxLength"),
        (
            "identities.createIdentity",
            none(),
            "/externalId",
            vec![json!("a b"), json!("a@b"), json!("ü")],
            "/properties/externalId/pattern",
        ),
        (
            "identities.createIdentity",
            none(),
            "/meta",
            vec![properties(101), properties(2000)],
            "/properties/meta/maxProperties",
        ),
        ("identities.createIdentity", none(), "/meta", vec![json!(null), json!([])], "/properties/meta/type"),
        ("identities.createIdentity", none(), "/ratelimits", vec![limits(51)], "/properties/ratelimits/maxItems"),
        (
            "identities.createIdentity",
            none(),
            "/ratelimits",
            vec![json!([{"limit": 1, "duration": 1000, "autoApply": true}])],
            "/properties/ratelimits/items/required",
        ),
        (
            "identities.createIdentity",
            limit.clone(),
            "/ratelimits/0/limit",
            vec![json!(0), json!(-10)],
            "/properties/ratelimits/items/properties/limit/minimum",
        ),
        (
            "identities.createIdentity",
            limit.clone(),
            "/ratelimits/0/duration",
            vec![json!(999)],
            "/properties/ratelimits/items/properties/duration/minimum",
        ),
        (
            "identities.createIdentity",
            limit.clone(),
            "/ratelimits/0/name",
            vec![text(129)],
            "/properties/ratelimits/items/properties/name/maxLength",
        ),
        (
            "identities.updateIdentity",
            limit.clone(),
            "/ratelimits/0/name",
            vec![text(2)],
            "/properties/ratelimits/items/properties/name/minLength",
        ),
        (
            "identities.updateIdentity",
            limit.clone(),
            "/ratelimits/0/autoApply",
            vec![json!(null), json!("true")],
            "/properties/ratelimits/items/properties/autoApply/type",
        ),
        ("identities.updateIdentity", none(), "/identity", vec![text(0)], "/properties/identity/minLength"),
        ("identities.updateIdentity", none(), "/meta", vec![json!(null)], "/properties/meta/type"),
        ("identities.updateIdentity", none(), "/meta", vec![properties(101)], "/properties/meta/maxProperties"),
        ("identities.updateIdentity", none(), "/ratelimits", vec![json!(null)], "/properties/ratelimits/type"),
        ("identities.updateIdentity", none(), "/ratelimits", vec![limits(51)], "/properties/ratelimits/maxItems"),
        ("identities.getIdentity", none(), "/identity", vec![text(0)], "/properties/identity/minLength"),
        ("identities.getIdentity", none(), "/identity", vec![json!(7), json!(null)], "/properties/identity/type"),
        ("identities.deleteIdentity", none(), "/identity", vec![text(0)], "/properties/identity/minLength"),
        ("identities.listIdentities", none(), "/limit", vec![json!(0), json!(-1)], "/properties/limit/minimum"),
        (
            "identities.listIdentities",
            none(),
            "/limit",
            vec![json!(101), json!(200), json!(1000)],
            "/properties/limit/maximum",
        ),
        ("identities.listIdentities", none(), "/search", vec![text(257)], "/properties/search/maxLength"),
        ("identities.listIdentities", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("keys.createKey", none(), "/apiId", vec![text(0), text(2)], "/properties/apiId/minLength"),
        ("keys.createKey", none(), "/apiId", vec![text(256)], "/properties/apiId/maxLength"),
        ("keys.createKey", none(), "/apiId", vec![json!("api 1")], "/properties/apiId/pattern"),
        ("keys.createKey", none(), "/prefix", vec![text(0)], "/properties/prefix/minLength"),
        ("keys.createKey", none(), "/prefix", vec![text(17)], "/properties/prefix/maxLength"),
        ("keys.createKey", none(), "/prefix", vec![json!("a-b"), json!("a b")], "/properties/prefix/pattern"),
        ("keys.createKey", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("keys.createKey", none(), "/name", vec![text(256)], "/properties/name/maxLength"),
        ("keys.createKey", none(), "/byteLength", vec![json!(15), json!(-1)], "/properties/byteLength/minimum"),
        ("keys.createKey", none(), "/byteLength", vec![json!(256)], "/properties/byteLength/maximum"),
        ("keys.createKey", none(), "/byteLength", vec![json!("16"), json!(16.5)], "/properties/byteLength/type"),
        ("keys.createKey", none(), "/externalId", vec![text(0)], "/properties/externalId/minLength"),
        ("keys.createKey", none(), "/externalId", vec![text(256)], "/properties/externalId/maxLength"),
        ("keys.createKey", none(), "/externalId", vec![json!("a b"), json!("a@b")], "/properties/externalId/pattern"),
        ("keys.createKey", none(), "/meta", vec![properties(101)], "/properties/meta/maxProperties"),
        ("keys.createKey", none(), "/meta", vec![json!([]), json!("x"), json!(null)], "/properties/meta/type"),
        ("keys.createKey", none(), "/roles", vec![many(101, "r")], "/properties/roles/maxItems"),
        ("keys.createKey", none(), "/roles", vec![json!([""])], "/properties/roles/items/minLength"),
        ("keys.createKey", none(), "/roles", vec![many(1, text(129))], "/properties/roles/items/maxLength"),
        ("keys.createKey", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        ("keys.createKey", none(), "/permissions", vec![json!([""])], "/properties/permissions/items/minLength"),
        ("keys.createKey", none(), "/permissions", vec![many(1, text(129))], "/properties/permissions/items/maxLength"),
        (
            "keys.createKey",
            none(),
            "/permissions",
            vec![json!(["a/b"]), json!(["a b"])],
            "/properties/permissions/items/pattern",
        ),
        ("keys.createKey", none(), "/permissions", vec![json!("a"), json!({})], "/properties/permissions/type"),
        ("keys.createKey", none(), "/expires", vec![json!(-1)], "/properties/expires/minimum"),
        ("keys.createKey", none(), "/expires", vec![json!(4_102_444_800_001_i64)], "/properties/expires/maximum"),
        ("keys.createKey", none(), "/credits", vec![json!({})], "/properties/credits/required"),
        (
            "keys.createKey",
            none(),
            "/credits",
            vec![json!({"remaining": 1, "x": 1})],
            "/properties/credits/additionalProperties",
        ),
        (
            "keys.createKey",
            refill.clone(),
            "/credits/remaining",
            vec![json!(-1)],
            "/properties/credits/properties/remaining/minimum",
        ),
        (
            "keys.createKey",
            refill.clone(),
            "/credits/refill/amount",
            vec![json!(0)],
            "/properties/credits/properties/refill/properties/amount/minimum",
        ),
        (
            "keys.createKey",
            refill.clone(),
            "/credits/refill/interval",
            vec![json!("weekly"), json!("Daily")],
            "/properties/credits/properties/refill/properties/interval/enum",
        ),
        (
            "keys.createKey",
            refill.clone(),
            "/credits/refill/refillDay",
            vec![json!(0)],
            "/properties/credits/properties/refill/properties/refillDay/minimum",
        ),
        (
            "keys.createKey",
            refill,
            "/credits/refill/refillDay",
            vec![json!(32)],
            "/properties/credits/properties/refill/properties/refillDay/maximum",
        ),
        ("keys.createKey", none(), "/ratelimits", vec![limits(51)], "/properties/ratelimits/maxItems"),
        (
            "keys.createKey",
            none(),
            "/ratelimits",
            vec![json!([{"name": "abc", "limit": 1, "duration": 1000}])],
            "/properties/ratelimits/items/required",
        ),
        (
            "keys.createKey",
            limit.clone(),
            "/ratelimits/0/name",
            vec![text(2)],
            "/properties/ratelimits/items/properties/name/minLength",
        ),
        (
            "keys.createKey",
            limit.clone(),
            "/ratelimits/0/name",
            vec![text(129)],
            "/properties/ratelimits/items/properties/name/maxLength",
        ),
        (
            "keys.createKey",
            limit.clone(),
            "/ratelimits/0/limit",
            vec![json!(0)],
            "/properties/ratelimits/items/properties/limit/minimum",
        ),
        (
            "keys.createKey",
            limit,
            "/ratelimits/0/duration",
            vec![json!(999)],
            "/properties/ratelimits/items/properties/duration/minimum",
        ),
        ("keys.createKey", none(), "/enabled", vec![json!(1), json!("true"), json!(null)], "/properties/enabled/type"),
        ("keys.createKey", none(), "/recoverable", vec![json!("no")], "/properties/recoverable/type"),
        ("apis.listKeys", none(), "/apiId", vec![text(0)], "/properties/apiId/minLength"),
        ("apis.listKeys", none(), "/limit", vec![json!(0), json!(-1)], "/properties/limit/minimum"),
        ("apis.listKeys", none(), "/limit", vec![json!(101), json!(1000)], "/properties/limit/maximum"),
        ("apis.listKeys", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("apis.listKeys", none(), "/externalId", vec![text(0)], "/properties/externalId/minLength"),
        ("apis.listKeys", none(), "/decrypt", vec![json!("no"), json!(null)], "/properties/decrypt/type"),
        ("apis.listKeys", none(), "/revalidateKeysCache", vec![json!(1)], "/properties/revalidateKeysCache/type"),
        ("keys.rerollKey", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.rerollKey", none(), "/keyId", vec![text(256)], "/properties/keyId/maxLength"),
        ("keys.rerollKey", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("keys.rerollKey", none(), "/expiration", vec![json!(-1)], "/properties/expiration/minimum"),
        ("keys.rerollKey", none(), "/expiration", vec![json!(4_102_444_800_001_i64)], "/properties/expiration/maximum"),
        ("keys.rerollKey", none(), "/expiration", vec![json!(null)], "/properties/expiration/type"),
        ("keys.migrateKeys", none(), "/migrationId", vec![text(2)], "/properties/migrationId/minLength"),
        ("keys.migrateKeys", none(), "/migrationId", vec![text(256)], "/properties/migrationId/maxLength"),
        ("keys.migrateKeys", none(), "/apiId", vec![text(2)], "/properties/apiId/minLength"),
        ("keys.migrateKeys", none(), "/apiId", vec![text(256)], "/properties/apiId/maxLength"),
        ("keys.migrateKeys", none(), "/keys", vec![json!([])], "/properties/keys/minItems"),
        ("keys.migrateKeys", none(), "/keys", vec![many(10_001, json!({"hash": "abc"}))], "/properties/keys/maxItems"),
        ("keys.migrateKeys", none(), "/keys", vec![json!([{"name": "x"}])], "/properties/keys/items/required"),
        ("keys.migrateKeys", none(), "/keys/0/hash", vec![text(2)], "/properties/keys/items/properties/hash/minLength"),
        (
            "keys.migrateKeys",
            none(),
            "/keys/0/hash",
            vec![text(257)],
            "/properties/keys/items/properties/hash/maxLength",
        ),
        (
            "keys.migrateKeys",
            none(),
            "/keys/0/hash",
            vec![json!({"value": "abc", "variant": "sha256_hex"})],
            "/properties/keys/items/properties/hash/type",
        ),
        (
            "keys.migrateKeys",
            none(),
            "/keys/0/externalId",
            vec![text(256)],
            "/properties/keys/items/properties/externalId/maxLength",
        ),
        (
            "keys.migrateKeys",
            none(),
            "/keys/0/roles",
            vec![many(101, "r")],
            "/properties/keys/items/properties/roles/maxItems",
        ),
        ("keys.migrateKeys", none(), "/keys/0/prefix", vec![text(3)], "/properties/keys/items/additionalProperties"),
        ("migrations.createMigration", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("migrations.createMigration", none(), "/name", vec![text(256)], "/properties/name/maxLength"),
        ("migrations.createMigration", none(), "/algorithm", vec![json!("md5")], "/properties/algorithm/enum"),
        ("migrations.listMigrations", none(), "/limit", vec![json!(0)], "/properties/limit/minimum"),
        ("migrations.listMigrations", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("keys.getKey", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.getKey", none(), "/keyId", vec![text(256)], "/properties/keyId/maxLength"),
        ("keys.getKey", none(), "/keyId", vec![json!("key-1"), json!("key 1")], "/properties/keyId/pattern"),
        ("keys.getKey", none(), "/decrypt", vec![json!("yes"), json!(null)], "/properties/decrypt/type"),
        ("keys.whoami", none(), "/key", vec![text(0)], "/properties/key/minLength"),
        ("keys.whoami", none(), "/key", vec![text(513)], "/properties/key/maxLength"),
        ("keys.deleteKey", none(), "/keyId", vec![text(2)], "/properties/keyId/minLength"),
        ("keys.deleteKey", none(), "/permanent", vec![json!(0), json!(null)], "/properties/permanent/type"),
        ("keys.updateCredits", none(), "/keyId", vec![text(2)], "/properties/keyId/minLength"),
        ("keys.updateCredits", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("keys.updateCredits", none(), "/operation", vec![json!("add"), json!("")], "/properties/operation/enum"),
        ("keys.updateCredits", none(), "/value", vec![json!(-1)], "/properties/value/minimum"),
        ("keys.updateKey", none(), "/keyId", vec![text(2)], "/properties/keyId/minLength"),
        ("keys.updateKey", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("keys.updateKey", none(), "/name", vec![text(256)], "/properties/name/maxLength"),
        ("keys.updateKey", none(), "/externalId", vec![json!("a b")], "/properties/externalId/pattern"),
        ("keys.updateKey", none(), "/meta", vec![properties(101)], "/properties/meta/maxProperties"),
        ("keys.updateKey", none(), "/expires", vec![json!(4_102_444_800_001_i64)], "/properties/expires/maximum"),
        ("keys.updateKey", none(), "/ratelimits", vec![json!(null)], "/properties/ratelimits/type"),
        ("keys.updateKey", none(), "/permissions", vec![json!(null)], "/properties/permissions/type"),
        ("keys.updateKey", none(), "/roles", vec![json!(null)], "/properties/roles/type"),
        ("keys.updateKey", none(), "/enabled", vec![json!(null)], "/properties/enabled/type"),
        ("keys.updateKey", none(), "/ratelimits", vec![limits(51)], "/properties/ratelimits/maxItems"),
        ("keys.verifyKey", none(), "/key", vec![text(0)], "/properties/key/minLength"),
        ("keys.verifyKey", none(), "/key", vec![text(513)], "/properties/key/maxLength"),
        ("keys.verifyKey", none(), "/tags", vec![many(21, "t")], "/properties/tags/maxItems"),
        ("keys.verifyKey", none(), "/tags", vec![json!([""])], "/properties/tags/items/minLength"),
        ("keys.verifyKey", none(), "/tags", vec![many(1, text(513))], "/properties/tags/items/maxLength"),
        ("keys.verifyKey", none(), "/permissions", vec![text(0)], "/properties/permissions/minLength"),
        ("keys.verifyKey", none(), "/permissions", vec![text(1001)], "/properties/permissions/maxLength"),
        ("keys.verifyKey", none(), "/credits", vec![json!({})], "/properties/credits/required"),
        (
            "keys.verifyKey",
            none(),
            "/credits",
            vec![json!({"cost": -1})],
            "/properties/credits/properties/cost/minimum",
        ),
        (
            "keys.verifyKey",
            none(),
            "/credits",
            vec![json!({"cost": 1_000_000_000_001_i64})],
            "/properties/credits/properties/cost/maximum",
        ),
        ("keys.verifyKey", none(), "/ratelimits", vec![json!([{}])], "/properties/ratelimits/items/required"),
        (
            "keys.verifyKey",
            none(),
            "/ratelimits",
            vec![json!([{"name": "ab"}])],
            "/properties/ratelimits/items/properties/name/minLength",
        ),
        (
            "keys.verifyKey",
            none(),
            "/ratelimits",
            vec![json!([{"name": "abc", "cost": -1}])],
            "/properties/ratelimits/items/properties/cost/minimum",
        ),
        (
            "keys.verifyKey",
            none(),
            "/ratelimits",
            vec![many(51, json!({"name": "abc"}))],
            "/properties/ratelimits/maxItems",
        ),
        ("keys.verifyKey", none(), "/migrationId", vec![text(257)], "/properties/migrationId/maxLength"),
        ("keys.addPermissions", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.addPermissions", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("keys.addPermissions", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        ("keys.addPermissions", none(), "/permissions", vec![json!("a"), json!(null)], "/properties/permissions/type"),
        ("keys.addPermissions", none(), "/permissions", vec![json!([""])], "/properties/permissions/items/minLength"),
        ("keys.addPermissions", none(), "/permissions", vec![json!(["a b"])], "/properties/permissions/items/pattern"),
        ("keys.addPermissions", none(), "/permissions", vec![json!([])], "/properties/permissions/minItems"),
        ("keys.removePermissions", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.removePermissions", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("keys.removePermissions", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        (
            "keys.removePermissions",
            none(),
            "/permissions",
            vec![json!("a"), json!(null)],
            "/properties/permissions/type",
        ),
        (
            "keys.removePermissions",
            none(),
            "/permissions",
            vec![json!([""])],
            "/properties/permissions/items/minLength",
        ),
        (
            "keys.removePermissions",
            none(),
            "/permissions",
            vec![json!(["a b"])],
            "/properties/permissions/items/pattern",
        ),
        ("keys.removePermissions", none(), "/permissions", vec![json!([])], "/properties/permissions/minItems"),
        ("keys.setPermissions", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.setPermissions", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("keys.setPermissions", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        ("keys.setPermissions", none(), "/permissions", vec![json!("a"), json!(null)], "/properties/permissions/type"),
        ("keys.setPermissions", none(), "/permissions", vec![json!([""])], "/properties/permissions/items/minLength"),
        ("keys.setPermissions", none(), "/permissions", vec![json!(["a b"])], "/properties/permissions/items/pattern"),
        ("keys.addRoles", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.addRoles", none(), "/roles", vec![many(101, "r")], "/properties/roles/maxItems"),
        ("keys.addRoles", none(), "/roles", vec![json!("r"), json!(null)], "/properties/roles/type"),
        ("keys.addRoles", none(), "/roles", vec![json!([""])], "/properties/roles/items/minLength"),
        ("keys.addRoles", none(), "/roles", vec![many(1, text(129))], "/properties/roles/items/maxLength"),
        ("keys.addRoles", none(), "/roles", vec![json!([])], "/properties/roles/minItems"),
        ("keys.removeRoles", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.removeRoles", none(), "/roles", vec![many(101, "r")], "/properties/roles/maxItems"),
        ("keys.removeRoles", none(), "/roles", vec![json!("r"), json!(null)], "/properties/roles/type"),
        ("keys.removeRoles", none(), "/roles", vec![json!([""])], "/properties/roles/items/minLength"),
        ("keys.removeRoles", none(), "/roles", vec![many(1, text(129))], "/properties/roles/items/maxLength"),
        ("keys.removeRoles", none(), "/roles", vec![json!([])], "/properties/roles/minItems"),
        ("keys.setRoles", none(), "/keyId", vec![text(0), text(2)], "/properties/keyId/minLength"),
        ("keys.setRoles", none(), "/roles", vec![many(101, "r")], "/properties/roles/maxItems"),
        ("keys.setRoles", none(), "/roles", vec![json!("r"), json!(null)], "/properties/roles/type"),
        ("keys.setRoles", none(), "/roles", vec![json!([""])], "/properties/roles/items/minLength"),
        ("keys.setRoles", none(), "/roles", vec![many(1, text(129))], "/properties/roles/items/maxLength"),
        ("permissions.createPermission", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("permissions.createPermission", none(), "/name", vec![text(513)], "/properties/name/maxLength"),
        ("permissions.createPermission", none(), "/slug", vec![text(0)], "/properties/slug/minLength"),
        ("permissions.createPermission", none(), "/slug", vec![text(129)], "/properties/slug/maxLength"),
        (
            "permissions.createPermission",
            none(),
            "/slug",
            vec![json!("a b"), json!("a/b"), json!("ä")],
            "/properties/slug/pattern",
        ),
        ("permissions.createPermission", none(), "/description", vec![text(513)], "/properties/description/maxLength"),
        ("permissions.createPermission", none(), "/description", vec![json!(null)], "/properties/description/type"),
        ("permissions.getPermission", none(), "/permission", vec![text(0)], "/properties/permission/minLength"),
        ("permissions.getPermission", none(), "/permission", vec![text(129)], "/properties/permission/maxLength"),
        ("permissions.getPermission", none(), "/permission", vec![json!("a b")], "/properties/permission/pattern"),
        ("permissions.deletePermission", none(), "/permission", vec![text(0)], "/properties/permission/minLength"),
        ("permissions.deletePermission", none(), "/permission", vec![text(129)], "/properties/permission/maxLength"),
        ("permissions.deletePermission", none(), "/permission", vec![json!("a b")], "/properties/permission/pattern"),
        ("permissions.updatePermission", none(), "/permission", vec![text(0)], "/properties/permission/minLength"),
        ("permissions.updatePermission", none(), "/permission", vec![text(129)], "/properties/permission/maxLength"),
        ("permissions.updatePermission", none(), "/permission", vec![json!("a b")], "/properties/permission/pattern"),
        ("permissions.getRole", none(), "/role", vec![text(0)], "/properties/role/minLength"),
        ("permissions.getRole", none(), "/role", vec![text(129)], "/properties/role/maxLength"),
        ("permissions.deleteRole", none(), "/role", vec![text(0)], "/properties/role/minLength"),
        ("permissions.deleteRole", none(), "/role", vec![text(129)], "/properties/role/maxLength"),
        ("permissions.updateRole", none(), "/role", vec![text(0)], "/properties/role/minLength"),
        ("permissions.updateRole", none(), "/role", vec![text(129)], "/properties/role/maxLength"),
        ("permissions.updatePermission", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("permissions.updatePermission", none(), "/slug", vec![json!("a b")], "/properties/slug/pattern"),
        ("permissions.updatePermission", none(), "/slug", vec![json!(null)], "/properties/slug/type"),
        ("permissions.updatePermission", none(), "/description", vec![text(513)], "/properties/description/maxLength"),
        ("permissions.updateRole", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("permissions.updateRole", none(), "/name", vec![text(129)], "/properties/name/maxLength"),
        ("permissions.updateRole", none(), "/description", vec![text(513)], "/properties/description/maxLength"),
        ("permissions.createRole", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("permissions.createRole", none(), "/name", vec![text(129)], "/properties/name/maxLength"),
        ("permissions.createRole", none(), "/description", vec![text(513)], "/properties/description/maxLength"),
        ("permissions.createRole", none(), "/permissions", vec![json!(null)], "/properties/permissions/type"),
        (
            "permissions.createRole",
            none(),
            "/permissions",
            vec![json!([""])],
            "/properties/permissions/items/minLength",
        ),
        ("permissions.createRole", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        ("permissions.setRolePermissions", none(), "/roleId", vec![json!("role_nowhere")], "/oneOf"),
        ("permissions.setRolePermissions", none(), "/roleId", vec![text(2)], "/properties/roleId/minLength"),
        ("permissions.setRolePermissions", none(), "/roleId", vec![text(256)], "/properties/roleId/maxLength"),
        ("permissions.setRolePermissions", none(), "/roleId", vec![json!("a role")], "/properties/roleId/pattern"),
        ("permissions.setRolePermissions", none(), "/role", vec![text(0)], "/properties/role/minLength"),
        ("permissions.setRolePermissions", none(), "/role", vec![text(129)], "/properties/role/maxLength"),
        (
            "permissions.setRolePermissions",
            none(),
            "/permissions",
            vec![json!([""])],
            "/properties/permissions/items/minLength",
        ),
        (
            "permissions.setRolePermissions",
            none(),
            "/permissions",
            vec![slugs(1001)],
            "/properties/permissions/maxItems",
        ),
        ("permissions.listPermissions", none(), "/limit", vec![json!(0)], "/properties/limit/minimum"),
        ("permissions.listPermissions", none(), "/limit", vec![json!(101)], "/properties/limit/maximum"),
        ("permissions.listPermissions", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("permissions.listPermissions", none(), "/cursor", vec![text(1025)], "/properties/cursor/maxLength"),
        ("permissions.listPermissions", none(), "/search", vec![text(257)], "/properties/search/maxLength"),
        ("permissions.listRoles", none(), "/limit", vec![json!(0)], "/properties/limit/minimum"),
        ("permissions.listRoles", none(), "/limit", vec![json!(101)], "/properties/limit/maximum"),
        ("permissions.listRoles", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("permissions.listRoles", none(), "/cursor", vec![text(1025)], "/properties/cursor/maxLength"),
        ("permissions.listRoles", none(), "/search", vec![text(257)], "/properties/search/maxLength"),
        ("ratelimit.limit", none(), "/namespace", vec![text(0)], "/properties/namespace/minLength"),
        ("ratelimit.limit", none(), "/namespace", vec![text(513)], "/properties/namespace/maxLength"),
        ("ratelimit.limit", none(), "/identifier", vec![text(0)], "/properties/identifier/minLength"),
        ("ratelimit.limit", none(), "/identifier", vec![text(513)], "/properties/identifier/maxLength"),
        ("ratelimit.limit", none(), "/limit", vec![json!(0), json!(-1)], "/properties/limit/minimum"),
        ("ratelimit.limit", none(), "/duration", vec![json!(999)], "/properties/duration/minimum"),
        ("ratelimit.limit", none(), "/duration", vec![json!(2_592_000_001_i64)], "/properties/duration/maximum"),
        ("ratelimit.limit", none(), "/cost", vec![json!(-1)], "/properties/cost/minimum"),
        ("ratelimit.limit", none(), "/cost", vec![json!(null), json!("1")], "/properties/cost/type"),
        ("ratelimit.multiLimit", none(), "/0/cost", vec![json!(-1)], "/items/properties/cost/minimum"),
        ("ratelimit.multiLimit", none(), "/0/duration", vec![json!(999)], "/items/properties/duration/minimum"),
        ("ratelimit.multiLimit", none(), "/0/limit", vec![json!(0)], "/items/properties/limit/minimum"),
        ("ratelimit.multiLimit", none(), "/0/identifier", vec![text(513)], "/items/properties/identifier/maxLength"),
        ("ratelimit.multiLimit", none(), "/0", vec![json!({})], "/items/required"),
        ("ratelimit.multiLimit", none(), "/0", vec![json!(1)], "/items/type"),
        ("ratelimit.setOverride", none(), "/namespace", vec![text(0)], "/properties/namespace/minLength"),
        ("ratelimit.setOverride", none(), "/namespace", vec![text(513)], "/properties/namespace/maxLength"),
        ("ratelimit.setOverride", none(), "/identifier", vec![text(0)], "/properties/identifier/minLength"),
        ("ratelimit.setOverride", none(), "/identifier", vec![text(513)], "/properties/identifier/maxLength"),
        ("ratelimit.setOverride", none(), "/limit", vec![json!(-1)], "/properties/limit/minimum"),
        ("ratelimit.setOverride", none(), "/limit", vec![json!(null), json!("1")], "/properties/limit/type"),
        ("ratelimit.setOverride", none(), "/duration", vec![json!(999), json!(-1)], "/properties/duration/minimum"),
        ("ratelimit.getOverride", none(), "/namespace", vec![text(0)], "/properties/namespace/minLength"),
        ("ratelimit.getOverride", none(), "/identifier", vec![text(0)], "/properties/identifier/minLength"),
        ("ratelimit.getOverride", none(), "/identifier", vec![text(513)], "/properties/identifier/maxLength"),
        ("ratelimit.deleteOverride", none(), "/namespace", vec![text(513)], "/properties/namespace/maxLength"),
        ("ratelimit.deleteOverride", none(), "/identifier", vec![text(0)], "/properties/identifier/minLength"),
        ("ratelimit.deleteOverride", none(), "/identifier", vec![text(513)], "/properties/identifier/maxLength"),
        ("ratelimit.listOverrides", none(), "/namespace", vec![text(0)], "/properties/namespace/minLength"),
        ("ratelimit.listOverrides", none(), "/limit", vec![json!(0)], "/properties/limit/minimum"),
        ("ratelimit.listOverrides", none(), "/limit", vec![json!(101)], "/properties/limit/maximum"),
        ("ratelimit.listOverrides", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("ratelimit.createNamespace", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("ratelimit.createNamespace", none(), "/name", vec![text(513)], "/properties/name/maxLength"),
        ("ratelimit.deleteNamespace", none(), "/namespace", vec![text(0)], "/properties/namespace/minLength"),
        ("ratelimit.listNamespaces", none(), "/limit", vec![json!(0)], "/properties/limit/minimum"),
        ("ratelimit.listNamespaces", none(), "/search", vec![text(257)], "/properties/search/maxLength"),
        ("rootKeys.createKey", none(), "/permissions", vec![slugs(1001)], "/properties/permissions/maxItems"),
        ("rootKeys.createKey", none(), "/permissions", vec![json!([""])], "/properties/permissions/items/minLength"),
        (
            "rootKeys.createKey",
            none(),
            "/permissions",
            vec![many(1, text(513))],
            "/properties/permissions/items/maxLength",
        ),
        ("rootKeys.createKey", none(), "/permissions", vec![json!(null)], "/properties/permissions/type"),
        ("rootKeys.createKey", none(), "/name", vec![text(0)], "/properties/name/minLength"),
        ("rootKeys.createKey", none(), "/name", vec![text(256)], "/properties/name/maxLength"),
        ("rootKeys.createKey", none(), "/name", vec![json!(null)], "/properties/name/type"),
        ("rootKeys.createKey", none(), "/expires", vec![json!(-1)], "/properties/expires/minimum"),
        ("rootKeys.createKey", none(), "/expires", vec![json!(253_402_300_800_000_i64)], "/properties/expires/maximum"),
        ("rootKeys.listKeys", none(), "/limit", vec![json!(101)], "/properties/limit/maximum"),
        ("rootKeys.listKeys", none(), "/cursor", vec![json!(null)], "/properties/cursor/type"),
        ("rootKeys.updateKey", none(), "/keyId", vec![text(2)], "/properties/keyId/minLength"),
        ("rootKeys.updateKey", none(), "/keyId", vec![json!("key 1")], "/properties/keyId/pattern"),
        ("rootKeys.updateKey", none(), "/permissions", vec![json!(null)], "/properties/permissions/type"),
        ("rootKeys.updateKey", none(), "/enabled", vec![json!(null), json!(0)], "/properties/enabled/type"),
        ("rootKeys.rerollKey", none(), "/expiration", vec![json!(-1)], "/properties/expiration/minimum"),
        (
            "rootKeys.rerollKey",
            none(),
            "/expiration",
            vec![json!(4_102_444_800_001_i64)],
            "/properties/expiration/maximum",
        ),
        ("rootKeys.deleteKey", none(), "/keyId", vec![text(256)], "/properties/keyId/maxLength"),
    ];
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    for (operation, before, member, values, location) in cases {
        for value in values {
            let mut body = (row(operation).body)(&world);
            if before.is_array() {
                body["ratelimits"] = before.clone();
            } else if before.is_object() && before != json!({}) {
                body["credits"] = before.clone();
            }
            let body = set(body, member, value);
            let problem = workspace.call(operation, body).expect_invalid().at(location);
            let entry = problem.errors.iter().find(|entry| entry["location"] == location).unwrap();
            assert!(
                !entry["message"].as_str().unwrap().is_empty() && entry.get("fix").is_none(),
                "COM-VAL-02: {entry}"
            );
        }
    }
}

/// The largest and oddest values that are still allowed, and lengths counted in code points.
/// COM-BODY-04, KEYS-GEN-13, KEYS-CREATE-1, KEYS-VERIFY-1, APIS-CREATE-1, APIS-GEN-3, KEYS-OBJ-5, RL-LIMIT-08, KEYFMT-7
#[test]
fn values_at_their_bounds_are_taken() {
    let workspace = Workspace::new();
    for name in
        ["abc", &"ü".repeat(256), &"\u{1f511}".repeat(256), " \" ' \\ \u{0} \n", "550e8400-e29b-41d4-a716-446655440000"]
    {
        let api = workspace.ok("apis.createApi", json!({"name": name}));
        let got = workspace.ok("apis.getApi", json!({"apiId": api["apiId"]}));
        assert_eq!(got["name"], *name, "APIS-GEN-3");
    }
    workspace.call("apis.createApi", json!({"name": "\u{1f511}".repeat(257)})).expect_invalid();
    let api = workspace.api();
    let full = json!({
        "apiId": api, "prefix": "a".repeat(16), "name": "\u{1f511}".repeat(255), "byteLength": 255,
        "externalId": format!("{}._-", "x".repeat(252)), "meta": properties(100), "permissions": slugs(1000),
        "expires": 4_102_444_800_000_i64, "credits": {"remaining": i64::MAX}, "ratelimits": limits(50),
        "enabled": true, "recoverable": false, "roles": [],
    });
    let key = minted(&workspace.ok("keys.createKey", full));
    let got = workspace.get(&key);
    assert_eq!(got["permissions"].as_array().unwrap().len(), 1000);
    assert_eq!(got["ratelimits"].as_array().unwrap().len(), 50);
    assert_eq!(got["credits"], json!({"remaining": i64::MAX}));
    let tags: Vec<String> = (0..20).map(|n| format!(" {n}&=?/\u{1f600}{}", "x".repeat(500))).collect();
    let asked = json!({"tags": tags, "permissions": format!("slug.0{}", " ".repeat(994)), "credits": {"cost": 1_000_000_000_000_i64},
        "migrationId": "", "ratelimits": limits(50).as_array().unwrap().iter().map(|limit| json!({"name": limit["name"]})).collect::<Vec<_>>()});
    assert_eq!(workspace.code(&key, asked), "VALID");
    for secret in ["x".repeat(512), "\u{1f511}".repeat(512), " ".to_owned(), "\u{0}".to_owned()] {
        assert_eq!(workspace.ok("keys.verifyKey", json!({"key": secret}))["code"], "NOT_FOUND");
    }
    let limit = json!({"namespace": "n".repeat(512), "identifier": "ü".repeat(512), "limit": i64::MAX,
        "duration": 2_592_000_000_i64, "cost": i64::MAX});
    workspace.ok("ratelimit.limit", limit);
}

/// Operations whose body takes members that nobody declared (ID-CREATE-01, KEYS-REROLL-1).
const OPEN: &[&str] =
    &["analytics.getRatelimits", "analytics.getVerifications", "identities.createIdentity", "keys.rerollKey"];

/// Members that nobody declared are refused, at every level but those that are open.
/// ID-CREATE-01, COM-BODY-07, KEYS-GEN-11, KEYS-REROLL-1, KEYS-OBJ-4, KEYS-OBJ-5, KEYS-VERIFY-1, APIS-CREATE-1, RL-LIMIT-08
#[test]
fn unknown_members_are_refused_where_objects_are_closed() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    for row in ROWS {
        let body = (row.body)(&world);
        let (member, location) = if body.is_array() {
            ("/0/surprise", "/items/additionalProperties")
        } else {
            ("/surprise", "/additionalProperties")
        };
        let call = workspace.call(row.name, set(body, member, json!(1)));
        if OPEN.contains(&row.name) {
            call.expect_ok();
            continue;
        }
        let problem = call.expect_invalid().at(location);
        assert!(problem.errors[0]["message"].as_str().unwrap().contains("surprise"), "COM-VAL-02: {}", problem.body);
    }
    let key = row("keys.createKey");
    let limit = json!({"name": "abc", "limit": 1, "duration": 1000, "autoApply": true, "surprise": 1});
    workspace.ok(key.name, set((key.body)(&world), "/ratelimits", json!([limit])));
    workspace.ok("keys.updateKey", json!({"keyId": world.key.id, "ratelimits": [limit]}));
    workspace.ok("keys.verifyKey", json!({"key": world.key.secret, "ratelimits": [{"name": "abc", "surprise": {}}]}));
    let refill = json!({"remaining": 1, "refill": {"interval": "daily", "amount": 1, "surprise": 1}});
    workspace.call(key.name, set((key.body)(&world), "/credits", refill)).expect_invalid();
    workspace.call("keys.updateKey", json!({"keyId": world.key.id, "credits": {"surprise": 1}})).expect_invalid();
    workspace.call("keys.verifyKey", json!({"key": "x", "credits": {"cost": 1, "surprise": 1}})).expect_invalid();
}

/// What is required is missed by name; several faults are several entries. COM-VAL-02, KEYS-VERIFY-1, RL-LIMIT-07,
/// RB-CP-04, RB-GP-02, RB-CR-08, RB-GR-02, RB-SR-06, KEYS-PERM-9, KEYS-ROLE-10
/// What is required is missed by name; several faults are several entries. COM-VAL-02, KEYS-VERIFY-1, RL-LIMIT-07, RL-SETOV-05,
/// RL-GETOV-06, RL-LISTOV-05, RL-DELOV-04
#[test]
fn missing_members_are_named_and_all_faults_listed() {
    let workspace = Workspace::new();
    let required: &[(&str, &[&str])] = &[
        ("apis.createApi", &["name"]),
        ("apis.getApi", &["apiId"]),
        ("apis.deleteApi", &["apiId"]),
        ("identities.createIdentity", &["externalId"]),
        ("identities.getIdentity", &["identity"]),
        ("identities.updateIdentity", &["identity"]),
        ("identities.deleteIdentity", &["identity"]),
        ("keys.createKey", &["apiId"]),
        ("keys.getKey", &["keyId"]),
        ("keys.updateKey", &["keyId"]),
        ("keys.deleteKey", &["keyId"]),
        ("keys.updateCredits", &["keyId", "operation"]),
        ("keys.verifyKey", &["key"]),
        ("keys.whoami", &["key"]),
        ("ratelimit.limit", &["namespace", "identifier", "limit", "duration"]),
        ("keys.addPermissions", &["keyId", "permissions"]),
        ("keys.removePermissions", &["keyId", "permissions"]),
        ("keys.setPermissions", &["keyId", "permissions"]),
        ("keys.addRoles", &["keyId", "roles"]),
        ("keys.removeRoles", &["keyId", "roles"]),
        ("keys.setRoles", &["keyId", "roles"]),
        ("permissions.createPermission", &["name", "slug"]),
        ("permissions.getPermission", &["permission"]),
        ("permissions.updatePermission", &["permission"]),
        ("permissions.deletePermission", &["permission"]),
        ("permissions.createRole", &["name"]),
        ("permissions.getRole", &["role"]),
        ("permissions.updateRole", &["role"]),
        ("permissions.deleteRole", &["role"]),
        ("permissions.setRolePermissions", &["roleId", "role", "permissions"]),
        ("ratelimit.setOverride", &["namespace", "identifier", "limit", "duration"]),
        ("ratelimit.getOverride", &["namespace", "identifier"]),
        ("ratelimit.listOverrides", &["namespace"]),
        ("ratelimit.deleteOverride", &["namespace", "identifier"]),
        ("ratelimit.createNamespace", &["name"]),
        ("ratelimit.deleteNamespace", &["namespace"]),
        ("rootKeys.createKey", &["permissions"]),
        ("rootKeys.updateKey", &["keyId"]),
        ("rootKeys.rerollKey", &["keyId", "expiration"]),
        ("rootKeys.deleteKey", &["keyId"]),
    ];
    for (operation, names) in required {
        let problem = workspace.call(operation, json!({})).expect_invalid().at("/required");
        for name in *names {
            assert!(
                problem.errors.iter().any(|entry| entry["message"].as_str().unwrap().contains(name)),
                "{name}: {}",
                problem.body
            );
        }
    }
    let body = json!({"apiId": "a", "name": "", "byteLength": 1, "enabled": "x", "surprise": 1});
    let problem = workspace.call("keys.createKey", body).expect_invalid();
    let problem = problem.at("/properties/apiId/minLength").at("/properties/name/minLength");
    problem.at("/properties/byteLength/minimum").at("/properties/enabled/type").at("/additionalProperties");
    for body in
        [json!([]), json!({}), many(101, json!({"namespace": "n", "identifier": "i", "limit": 1, "duration": 1000}))]
    {
        workspace.call("ratelimit.multiLimit", body).expect_invalid();
    }
}

/// A repeated member counts as its last. COM-BODY-07
#[test]
fn of_repeated_members_the_last_counts() {
    let workspace = Workspace::new();
    let body = r#"{"name":1,"name":"ab","name":"the last one"}"#;
    let api = workspace.call("apis.createApi", json!({})).raw(body).expect_ok();
    assert_eq!(workspace.ok("apis.getApi", json!({"apiId": api["apiId"]}))["name"], "the last one");
    workspace.call("apis.createApi", json!({})).raw(r#"{"name":"long enough","name":"x"}"#).expect_invalid();
    let body = r#"{"namespace":"n","identifier":"i","limit":5,"duration":60000,"cost":null,"cost":2,"limit":9}"#;
    let data = workspace.call("ratelimit.limit", json!({})).raw(body).expect_ok();
    assert_eq!((data["limit"].as_i64(), data["remaining"].as_i64()), (Some(9), Some(7)));
}

/// Integers are written as integers, in 64 bits. COM-BODY-06, KEYS-GEN-14, COM-ENV-07
#[test]
fn integers_are_whole_and_fit_64_bits() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let bodies = |number: &str| {
        let (api, key) = (&world.api, &world.key);
        [
            ("keys.createKey", format!(r#"{{"apiId":"{api}","expires":{number}}}"#)),
            ("keys.createKey", format!(r#"{{"apiId":"{api}","credits":{{"remaining":{number}}}}}"#)),
            ("keys.updateKey", format!(r#"{{"keyId":"{}","expires":{number}}}"#, key.id)),
            ("keys.updateCredits", format!(r#"{{"keyId":"{}","operation":"set","value":{number}}}"#, key.id)),
            ("keys.verifyKey", format!(r#"{{"key":"{}","credits":{{"cost":{number}}}}}"#, key.secret)),
            (
                "identities.createIdentity",
                format!(
                    r#"{{"externalId":"e","ratelimits":[{{"name":"abc","limit":1,"duration":{number},"autoApply":true}}]}}"#
                ),
            ),
            ("ratelimit.limit", format!(r#"{{"namespace":"n","identifier":"i","limit":{number},"duration":60000}}"#)),
            (
                "ratelimit.multiLimit",
                format!(r#"[{{"namespace":"n","identifier":"i","limit":{number},"duration":60000}}]"#),
            ),
        ]
    };
    for number in [
        "10.0",
        "1e1",
        "1.5",
        "9223372036854775808",
        "-9223372036854775809",
        "1e400",
        "1e-1",
        "99999999999999999999999999",
    ] {
        for (operation, body) in bodies(number) {
            workspace.call(operation, json!({})).raw(body).expect_invalid();
        }
    }
    for number in ["NaN", "Infinity", "01", "0x10", "+1", ".5", "1."] {
        for (operation, body) in bodies(number) {
            workspace.call(operation, json!({})).raw(body).expect_invalid().at("requestBody");
        }
    }
    assert_eq!(workspace.get(&world.key)["credits"]["remaining"], 10, "nothing was changed");
}

/// `null` is refused wherever a member is not declared nullable. COM-BODY-05, KEYS-GEN-12
#[test]
fn null_is_refused_where_it_means_nothing() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let members: &[(&str, &[&str])] = &[
        ("apis.createApi", &["name"]),
        ("apis.getApi", &["apiId"]),
        ("apis.deleteApi", &["apiId"]),
        ("identities.createIdentity", &["externalId", "meta", "ratelimits"]),
        ("identities.getIdentity", &["identity"]),
        ("identities.listIdentities", &["limit", "cursor", "search"]),
        ("identities.updateIdentity", &["identity", "meta", "ratelimits"]),
        ("identities.deleteIdentity", &["identity"]),
        (
            "keys.createKey",
            &[
                "apiId",
                "prefix",
                "name",
                "byteLength",
                "externalId",
                "meta",
                "roles",
                "permissions",
                "expires",
                "credits",
                "ratelimits",
                "enabled",
                "recoverable",
            ],
        ),
        ("keys.getKey", &["keyId", "decrypt"]),
        ("keys.whoami", &["key"]),
        ("keys.updateKey", &["keyId", "ratelimits", "permissions", "roles", "enabled"]),
        ("keys.updateCredits", &["keyId", "operation"]),
        ("keys.deleteKey", &["keyId", "permanent"]),
        ("keys.verifyKey", &["key", "tags", "permissions", "credits", "ratelimits", "migrationId"]),
        ("ratelimit.limit", &["namespace", "identifier", "limit", "duration", "cost"]),
    ];
    for (operation, names) in members {
        for name in *names {
            let body = set((row(operation).body)(&world), &format!("/{name}"), json!(null));
            workspace.call(operation, body).expect_invalid();
        }
    }
    assert!(workspace.get(&world.key)["enabled"].as_bool().unwrap());
}

/// Deep nesting is bounded, cheap to refuse, and moderate nesting is kept as it came. COM-BODY-10, KEYS-GEN-18
#[test]
fn deep_json_is_refused_and_moderate_kept() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for row in ROWS {
        for bomb in [
            "[".repeat(1_000_000),
            "{\"a\":".repeat(500_000),
            format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        ] {
            workspace.call(row.name, json!({})).raw(bomb).expect_invalid();
        }
    }
    let create = |depth: usize| {
        let body = format!(r#"{{"apiId":"{}","meta":{}}}"#, world.api, nested(depth));
        workspace.call("keys.createKey", json!({})).raw(body)
    };
    let key = minted(&create(40).expect_ok());
    assert_eq!(workspace.get(&key)["meta"].to_string(), nested(40));
    create(200).expect_invalid();
}

/// Metadata comes back exactly: big integers, Unicode, empty and nested values; over 64 KiB is refused.
/// KEYS-GEN-18, HASH-10, KEYS-GET-5, KEYS-GEN-21
#[test]
fn metadata_comes_back_as_given() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let meta = json!({"big": 9_007_199_254_740_993_i64, "huge": u64::MAX, "small": -0.5, "e": 1.5e300, "null": null,
        "text": "\u{0}\u{1f511}ü\"\\", "": {"empty": [], "object": {}}, "list": [1, [2, [3]]], "true": true});
    let key = workspace.key(&api, json!({"meta": meta}));
    assert_eq!(workspace.get(&key)["meta"], meta);
    assert_eq!(workspace.verify(&key, json!({}))["meta"], meta);
    let reply = workspace.call("keys.getKey", json!({"keyId": key.id})).send();
    assert!(
        reply.text().contains("9007199254740993") && reply.text().contains("18446744073709551615"),
        "KEYS-GEN-18: exact"
    );
    let body = format!(r#"{{"apiId":"{api}","meta":{{"n":123456789012345678901234567890,"x":1.10}}}}"#);
    let key = minted(&workspace.call("keys.createKey", json!({})).raw(body).expect_ok());
    let text = workspace.call("keys.getKey", json!({"keyId": key.id})).send().text();
    assert!(text.contains("123456789012345678901234567890"), "KEYS-GEN-18: exact beyond 64 bits: {text}");

    let sized = |bytes: usize| json!({"apiId": api, "meta": {"a": "x".repeat(bytes)}});
    workspace.ok("keys.createKey", sized(65_536 - 8));
    for operation in ["keys.createKey", "keys.updateKey"] {
        let mut body = sized(65_536);
        if operation == "keys.updateKey" {
            body = json!({"keyId": key.id, "meta": body["meta"]});
        }
        workspace.call(operation, body).expect_problem(400, "unkey/application/invalid_input");
    }
}
