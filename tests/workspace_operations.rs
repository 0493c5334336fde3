//! workspace.getLimits.

use serde_json::{Value, json};

use crate::harness::call::{judge, problem};
use crate::harness::{Ask, Workspace};

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

/// Numbers that nobody counts yet are not made up: the operation is not there. EXT-19
#[test]
fn usage_is_not_invented() {
    let workspace = Workspace::new();
    let call = workspace.call("workspace.getUsage", json!({}));
    call.expect_problem(404, "unkey/application/invalid_input").mentioning("workspace.getUsage");
}
