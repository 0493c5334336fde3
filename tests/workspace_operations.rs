//! workspace.getLimits, workspace.getUsage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::call::{judge, problem};
use crate::harness::{Ask, Server, Workspace};

fn limits(per_minute: Value, logs: u64, audit: u64) -> Value {
    json!({
        "apiBillableOperationsCountMaxPerMonth": {"limit": null},
        "apiRequestsCountMaxPerMinute": {"limit": per_minute},
        "logsRetentionDaysMax": {"limit": logs},
        "logsAuditRetentionDaysMax": {"limit": audit},
        "logdrainsMax": {"limit": 0, "current": 0},
    })
}

/// The limits are those that the operator set, at once, and the caller's own workspace's. EXT-19, EXT-2, COM-RK-09
#[test]
fn the_limits_are_the_operators() {
    let workspace = Workspace::new();
    assert_eq!(workspace.ok("workspace.getLimits", json!({})), limits(json!(null), 90, 365));
    workspace.change(&[
        "--api-requests-per-minute",
        "6000",
        "--logs-retention-days",
        "7",
        "--audit-retention-days",
        "400",
    ]);
    assert_eq!(workspace.ok("workspace.getLimits", json!({})), limits(json!(6000), 7, 400));
    assert_eq!(workspace.neighbour().ok("workspace.getLimits", json!({})), limits(json!(null), 90, 365));
    let foreign = workspace.root_key(&[&format!("workspace.{}.read_workspace", workspace.neighbour().id)]);
    let call = workspace.server.call("workspace.getLimits", json!({})).bearer(&foreign.secret);
    call.expect_problem(403, "unkey/authorization/insufficient_permissions").mentioning("workspace.*.read_workspace");
}

/// Clients that send neither body nor content type are answered, and so are those that send `{}`; whatever else is sent is
/// judged as anywhere; without a root key there is nothing to see. EXT-19, COM-BODY-01, COM-VAL-01, COM-VAL-05, COM-SYS-02
#[test]
fn the_body_may_be_left_out() {
    let workspace = Workspace::new();
    let bare = |body: &str| {
        let ask = Ask::new("POST", "/v2/workspace.getLimits").header("Accept", "application/json");
        ask.header("Authorization", &format!("Bearer {}", workspace.root)).body(body)
    };
    let json = |ask: Ask| ask.header("Content-Type", "application/json");
    for ask in [bare(""), json(bare("")), json(bare("{}")), json(bare(" {} "))] {
        let reply = workspace.server.exchange(&ask);
        judge(&reply);
        assert_eq!((reply.status, &reply.json["data"]), (200, &limits(json!(null), 90, 365)));
    }
    for ask in [
        bare("{}"),
        bare("").header("Content-Type", "text/plain"),
        json(bare("{")),
        json(bare("null")),
        json(bare("[]")),
        json(bare(" ")),
        json(bare(r#"{"workspaceId":"ws_1"}"#)),
    ] {
        problem(workspace.server.exchange(&ask), 400, "unkey/application/invalid_input").unwrap();
    }
    let document = workspace.server.document();
    assert_eq!(document.operation("workspace.getLimits")["requestBody"]["required"], false);
    assert_eq!(document.operation("apis.listApis")["requestBody"]["required"], true);
    let nobody = Ask::new("POST", "/v2/workspace.getLimits");
    problem(workspace.server.exchange(&nobody), 400, "unkey/application/invalid_input").unwrap();
}

/// Waits until usage counts these verifications and decisions, which it must within a second of the last (AN-TAB-09).
fn await_usage(workspace: &Workspace, period: Value, verifications: u64, ratelimits: u64) -> Value {
    let wanted = json!({"verifications": verifications, "ratelimits": ratelimits});
    let begun = Instant::now();
    loop {
        let usage = workspace.ok("workspace.getUsage", period.clone());
        if usage["totals"]["api"] == wanted || begun.elapsed() > Duration::from_secs(20) {
            assert_eq!(usage["totals"]["api"], wanted);
            return usage;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Usage is counted from what was recorded: every verification of a key that was found and every decision, refused ones
/// included, each entry of a batch once; nothing of unknown keys, of 4xx, of a caller who asked not to be recorded, or of
/// another workspace. Also after the server was killed. EXT-19, KEYS-ANALYTICS-3, RL-EVT-02, RL-MULTI-12, COM-HDR-04
#[test]
fn usage_counts_what_was_decided() {
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 1}}));
    for code in ["VALID", "USAGE_EXCEEDED", "USAGE_EXCEEDED"] {
        assert_eq!(workspace.code(&key, json!({"tags": ["a", "b"]})), code);
    }
    workspace.ok("keys.verifyKey", json!({"key": "nobody_knows_it"}));
    let ask = json!({"key": key.secret, "ratelimits": [{"name": "unknown"}]});
    workspace.call("keys.verifyKey", ask).expect_problem(412, "unkey/application/precondition_failed");
    let limit = json!({"namespace": "n", "identifier": "i", "limit": 1, "duration": 60_000});
    for _ in 0..2 {
        workspace.ok("ratelimit.limit", limit.clone());
    }
    workspace.call("ratelimit.limit", limit.clone()).header("X-Unkey-Metrics", "disabled").expect_ok();
    let batch = workspace.call("ratelimit.multiLimit", json!([limit, limit]));
    batch.header("X-Unkey-Metrics", "disabled").expect_ok();
    let usage = await_usage(&workspace, json!({}), 3, 4);
    let (start, end) = (usage["period"]["start"].as_i64().unwrap(), usage["period"]["end"].as_i64().unwrap());
    assert!(start % 86_400_000 == 0 && (28..=31).contains(&((end - start) / 86_400_000)), "a calendar month: {usage}");
    assert_eq!(usage["totals"]["gateway"], json!({"activeKeys": 0}));
    assert_eq!(usage["breakdowns"], json!({"byEnvironment": [], "byApp": []}));
    await_usage(&workspace.neighbour(), json!({}), 0, 0);

    server.kill();
    let again = workspace.moved(server.restart());
    await_usage(&again, json!({}), 3, 4);
    again.code(&key, json!({}));
    await_usage(&again, json!({}), 4, 4);
    assert_eq!(again.server.stop(), Some(0));
    let again = again.moved(again.server.restart());
    await_usage(&again, json!({}), 4, 4);
}

/// A period is a month within reach; events lie in the month of the request's time. EXT-19
#[test]
fn usage_is_of_a_month() {
    const NOW: i64 = 1_709_251_200_000; // 1 March 2024, 00:00
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key_at(&api, json!({}), NOW - 2);
    workspace.verify_at(&key, json!({}), NOW - 1);
    workspace.verify_at(&key, json!({}), NOW);
    workspace.verify_at(&key, json!({}), NOW + 1);
    let usage = |period: Value, at: i64| workspace.call("workspace.getUsage", period).at(at);
    let month = |year: i64, month: i64| json!({"period": {"year": year, "month": month}});
    let begun = Instant::now();
    while usage(json!({}), NOW).expect_ok()["totals"]["api"]["verifications"] != 2 {
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    let february = usage(month(2024, 2), NOW).expect_ok();
    assert_eq!(february["totals"]["api"]["verifications"], 1);
    assert_eq!(february["period"], json!({"start": NOW - 29 * 86_400_000, "end": NOW}));
    for (period, at) in [
        (month(2024, 4), NOW),
        (month(2023, 11), NOW),
        (month(2024, 2), NOW + 91 * 86_400_000),
        (month(2024, 13), NOW),
        (month(2024, 0), NOW),
        (json!({"period": {"year": 2024}}), NOW),
        (json!({"period": null, "workspaceId": "ws_1"}), NOW),
    ] {
        usage(period, at).expect_problem(400, "unkey/application/invalid_input");
    }
    usage(month(2024, 2), NOW + 90 * 86_400_000).expect_ok();
}
