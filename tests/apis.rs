//! apis.createApi, apis.getApi, apis.deleteApi.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Workspace, members};

/// An API is made, found at once, and told by id and name only; making it twice makes two.
/// APIS-CREATE-3, APIS-CREATE-4, APIS-CREATE-5, APIS-CREATE-8, APIS-GET-1, APIS-GET-4, APIS-GET-5, APIS-GET-6, APIS-GEN-1,
/// APIS-GEN-3, IDS-1, IDS-2, IDS-3, COM-CON-01, COM-CON-03
#[test]
fn an_api_is_made_and_found_at_once() {
    let workspace = Workspace::new();
    let mut ids = Vec::new();
    for name in
        ["payments", "payments", "  payments  ", "zahlung-ß \u{1f511}", "'; DROP TABLE apis; --", &"long ".repeat(51)]
    {
        let made = workspace.ok("apis.createApi", json!({"name": name}));
        assert_eq!(members(&made), ["apiId"]);
        let id = made["apiId"].as_str().unwrap().to_owned();
        let random = id.strip_prefix("api_").unwrap_or_else(|| panic!("IDS-3: {id}"));
        assert!(random.len() >= 12 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "IDS-1: {id}");
        assert_eq!(workspace.ok("apis.getApi", json!({"apiId": id})), json!({"id": id, "name": name}));
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "APIS-CREATE-8");
    let other_case: String =
        ids[0].chars().map(|sign| if sign.is_lowercase() { sign.to_ascii_uppercase() } else { sign }).collect();
    workspace.call("apis.getApi", json!({"apiId": other_case})).expect_problem(404, "unkey/data/api_not_found");
}

/// A deleted API is gone for every operation with the next request, and its keys with it; deleting again is 404.
/// APIS-DELETE-2, APIS-DELETE-4, APIS-DELETE-5, APIS-DELETE-6, APIS-DELETE-7, APIS-DELETE-9, APIS-GET-2, APIS-GET-5,
/// KEYS-CREATE-4, KEYS-GEN-24, KEYS-GEN-34, KEYS-VERIFY-2, COM-CON-03
#[test]
fn a_deleted_api_takes_its_keys_along() {
    let workspace = Workspace::new();
    let (api, kept) = (workspace.api(), workspace.api());
    let key = workspace.key(&api, json!({"enabled": false}));
    let used = workspace.key(&api, json!({"credits": {"remaining": 5}}));
    let other = workspace.key(&kept, json!({}));
    assert_eq!(workspace.code(&used, json!({})), "VALID");
    assert_eq!(workspace.ok("apis.deleteApi", json!({"apiId": api})), json!({}));

    let gone =
        |operation: &str, body: Value, code: &str| drop(workspace.call(operation, body).expect_problem(404, code));
    for key in [&key, &used] {
        assert_eq!(workspace.verify(key, json!({})), json!({"valid": false, "code": "NOT_FOUND"}));
        gone("keys.getKey", json!({"keyId": key.id}), "unkey/data/key_not_found");
        gone("keys.whoami", json!({"key": key.secret}), "unkey/data/key_not_found");
        gone("keys.updateKey", json!({"keyId": key.id, "name": "x"}), "unkey/data/key_not_found");
        gone(
            "keys.updateCredits",
            json!({"keyId": key.id, "operation": "set", "value": 1}),
            "unkey/data/key_not_found",
        );
        gone("keys.deleteKey", json!({"keyId": key.id, "permanent": true}), "unkey/data/key_not_found");
    }
    gone("apis.getApi", json!({"apiId": api}), "unkey/data/api_not_found");
    gone("keys.createKey", json!({"apiId": api}), "unkey/data/api_not_found");
    for _ in 0..3 {
        let again =
            workspace.call("apis.deleteApi", json!({"apiId": api})).expect_problem(404, "unkey/data/api_not_found");
        again.saying("The requested API does not exist or has been deleted.");
    }
    assert_eq!(workspace.code(&other, json!({})), "VALID", "another API's keys are untouched");
    workspace.ok("apis.getApi", json!({"apiId": kept}));
}

/// Odd ids are not found, not refused, by deleteApi, which knows no pattern. APIS-DELETE-1, APIS-DELETE-9, IDS-4
#[test]
fn delete_takes_any_string_of_the_right_length() {
    let workspace = Workspace::new();
    for id in ["no such api", "api-with-dashes", "üüüüüüüü", &"x".repeat(255)] {
        workspace.call("apis.deleteApi", json!({"apiId": id})).expect_problem(404, "unkey/data/api_not_found");
    }
}

/// An API without keys, with keys, and just made can be deleted; of many deletes at once exactly one succeeds.
/// APIS-DELETE-7, APIS-DELETE-9, COM-CON-04
#[test]
fn of_concurrent_deletes_one_wins() {
    let workspace = Arc::new(Workspace::new());
    for _ in 0..5 {
        let api = workspace.api();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (workspace, api) = (Arc::clone(&workspace), api.clone());
                std::thread::spawn(move || workspace.call("apis.deleteApi", json!({"apiId": api})).send().status)
            })
            .collect();
        let mut statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404, 404, 404, 404, 404]);
    }
}

/// Settings are changed one by one, cleared by null, listed in canonical form, and act on the very next request.
/// EXT-10, EXT-11, APIS-GEN-2, APIS-DELETE-2, APIS-DELETE-3, KEYFMT-3, KEYFMT-4, KEYS-CREATE-9, KEYS-IP-1, KEYS-IP-2, KEYS-IP-3,
/// KEYS-CREATE-2, KEYS-GEN-34
#[test]
fn settings_of_an_api_act_at_once() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let listed = || workspace.call("apis.listApis", json!({})).expect_page().0.remove(0);
    let update = |mut members: Value| {
        members["apiId"] = api.as_str().into();
        assert_eq!(workspace.ok("apis.updateApi", members), json!({}));
    };
    let fresh = listed();
    assert_eq!(
        members(&fresh),
        ["createdAt", "deleteProtection", "id", "keyspaceId", "name", "storeEncryptedKeys"],
        "APIS-GEN-2"
    );
    assert_eq!((&fresh["id"], &fresh["deleteProtection"]), (&json!(api), &json!(false)));
    assert!(fresh["keyspaceId"].as_str().unwrap().starts_with("ks_"), "APIS-GEN-1");
    let key = workspace.key(&api, json!({}));

    update(json!({"name": "renamed", "defaultPrefix": "my_app", "defaultBytes": 32}));
    assert_eq!(listed()["name"], "renamed");
    assert_eq!(workspace.ok("apis.getApi", json!({"apiId": api}))["name"], "renamed");
    let long = workspace.key(&api, json!({}));
    assert!(long.secret.starts_with("my_app_") && long.secret.len() > 40, "KEYS-CREATE-9: {}", long.secret);
    let own = workspace.key(&api, json!({"prefix": "own", "byteLength": 16}));
    assert!(own.secret.starts_with("own_") && own.secret.len() < 30, "KEYS-CREATE-9: {}", own.secret);
    update(json!({"defaultPrefix": null}));
    let bare = workspace.key(&api, json!({}));
    assert!(!bare.secret.contains('_') && bare.secret.len() > 40, "the other default stays: {}", bare.secret);
    update(json!({"defaultBytes": null}));
    assert!(workspace.key(&api, json!({})).secret.len() < 24, "KEYS-CREATE-9");

    let from = |address: &str| {
        let call = workspace.call("keys.verifyKey", json!({"key": key.secret})).header("X-Forwarded-For", address);
        crate::harness::world::code(&call.expect_ok())
    };
    update(json!({"ipWhitelist": ["123.123.123.123", "10.9.8.7/8", "::ffff:192.0.2.1", "2001:db8::/32"]}));
    assert_eq!(listed()["ipWhitelist"], json!(["123.123.123.123", "10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]));
    for (address, code) in [
        ("123.123.123.123", "VALID"),
        ("192.168.1.1", "FORBIDDEN"),
        ("10.200.0.1", "VALID"),
        ("192.0.2.1", "VALID"),
        ("192.0.2.2", "FORBIDDEN"),
        ("2001:db8:7::1", "VALID"),
        ("2001:db9::1", "FORBIDDEN"),
    ] {
        assert_eq!(from(address), code, "KEYS-IP-2: {address}");
    }
    let refused = workspace.call("apis.updateApi", json!({"apiId": api, "ipWhitelist": ["10.0.0.0/8", "a host"]}));
    refused.expect_problem(400, "unkey/application/invalid_input").mentioning("ipWhitelist[1]");
    assert_eq!(from("192.168.1.1"), "FORBIDDEN", "a refused update changes nothing");
    update(json!({"ipWhitelist": null}));
    assert_eq!(from("192.168.1.1"), "VALID", "KEYS-IP-1");
    assert!(listed().get("ipWhitelist").is_none());

    update(json!({"deleteProtection": true}));
    let protected = workspace.call("apis.deleteApi", json!({"apiId": api}));
    protected
        .expect_problem(412, "unkey/application/protected_resource")
        .saying("This API has delete protection enabled. Disable it before attempting to delete.");
    assert_eq!(from("192.168.1.1"), "VALID", "APIS-DELETE-3");
    update(json!({"deleteProtection": false}));
    workspace.ok("apis.deleteApi", json!({"apiId": api}));
    assert_eq!(workspace.call("apis.listApis", json!({})).expect_page(), (vec![], None));
}

/// Pages of APIs hold every one once, by id; a search narrows them; another workspace's are never there.
/// EXT-11, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-04, COM-PAG-05, COM-PAG-07, COM-PAG-08, COM-RK-09
#[test]
fn apis_are_listed_page_by_page() {
    let workspace = Workspace::new();
    workspace.neighbour().api();
    let name = |number: usize| format!("{} {number}_{}%", if number < 3 { "Payments" } else { "users" }, number * 7);
    let mut made: Vec<String> = (0..8)
        .map(|number| {
            workspace.ok("apis.createApi", json!({"name": name(number)}))["apiId"].as_str().unwrap().to_owned()
        })
        .collect();
    made.sort();
    let ids = |rows: Vec<Value>| rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for limit in [1, 3, 4, 8, 100] {
        assert_eq!(ids(workspace.all("apis.listApis", json!({}), limit)), made, "{limit} a page");
    }
    let list = |body: Value| workspace.call("apis.listApis", body).expect_page();
    assert_eq!(list(json!({"cursor": "", "limit": 2})).1.as_ref(), Some(&made[2]), "COM-PAG-02");
    assert_eq!(ids(list(json!({"cursor": made[5]})).0), made[5..], "COM-PAG-03");
    assert_eq!(list(json!({"cursor": "zzz"})), (vec![], None), "COM-PAG-03");
    assert_eq!(ids(list(json!({"cursor": "\u{0}"})).0), made, "COM-PAG-03");
    for (search, found) in [("pAYments", 3), ("  users ", 5), ("  ", 8), ("_7%", 1), ("a_", 0), (&made[2][4..], 1)] {
        assert_eq!(list(json!({"search": search})).0.len(), found, "COM-PAG-08: {search}");
    }
    assert_eq!(
        workspace.all("apis.listApis", json!({"search": "users"}), 2).len(),
        5,
        "the filter is before the pages"
    );
}
