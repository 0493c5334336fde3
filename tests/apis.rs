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
