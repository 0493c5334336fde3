//! Refills, by the test clock: due at midnight UTC, once per due date, month ends, restarts.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::code;
use crate::harness::{DAY, HOUR, Key, Server, Workspace, utc};

const SECOND: i64 = 1000;

struct Refilled<'a> {
    workspace: &'a Workspace,
    key: Key,
}

impl<'a> Refilled<'a> {
    fn new(workspace: &'a Workspace, remaining: i64, refill: Value, made: i64) -> Refilled<'a> {
        let api = workspace.api();
        let key = workspace.key_at(&api, json!({"credits": {"remaining": remaining, "refill": refill}}), made);
        Refilled { workspace, key }
    }

    /// What getKey shows at that time.
    fn left(&self, at: i64) -> i64 {
        self.workspace.get_at(&self.key, at)["credits"]["remaining"].as_i64().unwrap()
    }

    /// What a verification of that cost leaves at that time.
    fn spend(&self, cost: i64, at: i64) -> i64 {
        let data = self.workspace.verify_at(&self.key, json!({"credits": {"cost": cost}}), at);
        assert_eq!(code(&data), "VALID");
        data["credits"].as_i64().unwrap()
    }

    fn update(&self, members: Value, at: i64) {
        let mut body = members;
        body["keyId"] = self.key.id.as_str().into();
        self.workspace.call("keys.updateKey", body).at(at).expect_ok();
    }
}

fn daily(amount: i64) -> Value {
    json!({"interval": "daily", "amount": amount})
}

fn monthly(amount: i64, day: i64) -> Value {
    json!({"interval": "monthly", "amount": amount, "refillDay": day})
}

/// One millisecond before midnight nothing has happened, at midnight it has; verify and getKey agree; making a key on a due
/// date does not refill it. KEYS-REFILL-1, KEYS-REFILL-2, KEYS-REFILL-5, KEYS-REFILL-6, KEYS-CREDIT-5
#[test]
fn a_daily_refill_is_due_at_midnight() {
    let workspace = Workspace::timed();
    let made = utc(2026, 3, 10) + 12 * HOUR;
    let key = Refilled::new(&workspace, 5, daily(100), made);
    assert_eq!(key.left(made), 5, "KEYS-REFILL-6: its creation does not trigger one");
    assert_eq!(key.spend(1, utc(2026, 3, 11) - 1), 4);
    assert_eq!(key.left(utc(2026, 3, 11) - 1), 4);
    assert_eq!(key.left(utc(2026, 3, 11)), 100);
    assert_eq!(key.spend(10, utc(2026, 3, 11)), 90);
    assert_eq!(key.spend(1, utc(2026, 3, 12) - 1), 89);
    assert_eq!(key.spend(1, utc(2026, 3, 12) + 1), 99, "verify sees it too, without a getKey between");
    assert_eq!(key.left(utc(2026, 3, 25)), 100, "KEYS-REFILL-5: missed dates are one refill");
}

/// A refill raises to its amount, never lowers, never adds up, and tells `updatedAt` only when it raised.
/// KEYS-REFILL-2, KEYS-GEN-37
#[test]
fn a_refill_never_lowers_a_balance() {
    let workspace = Workspace::timed();
    let made = utc(2026, 3, 10) + HOUR;
    let rich = Refilled::new(&workspace, 500, daily(100), made);
    assert_eq!(rich.left(utc(2026, 3, 14)), 500);
    assert!(workspace.get_at(&rich.key, utc(2026, 3, 14)).get("updatedAt").is_none());
    let poor = Refilled::new(&workspace, 99, daily(100), made);
    assert_eq!(poor.left(utc(2026, 3, 14)), 100);
    assert!(workspace.get_at(&poor.key, utc(2026, 3, 14))["updatedAt"].as_i64().unwrap() >= utc(2026, 3, 11));
}

/// A day that a month lacks is its last day; other days are themselves. KEYS-REFILL-1
#[test]
fn a_monthly_refill_knows_the_ends_of_months() {
    let workspace = Workspace::timed();
    let due = [
        (31, vec![(2026, 1, 31), (2026, 2, 28), (2026, 3, 31), (2026, 4, 30), (2026, 12, 31), (2028, 2, 29)]),
        (30, vec![(2026, 1, 30), (2026, 2, 28), (2026, 3, 30), (2026, 4, 30), (2028, 2, 29)]),
        (29, vec![(2026, 1, 29), (2026, 2, 28), (2026, 3, 29), (2028, 2, 29), (2100, 2, 28)]),
        (28, vec![(2026, 1, 28), (2026, 2, 28), (2028, 2, 28)]),
        (1, vec![(2026, 2, 1), (2026, 3, 1), (2027, 1, 1), (2028, 3, 1)]),
    ];
    for (day, dates) in due {
        let key = Refilled::new(&workspace, 1, monthly(10, day), utc(2026, 1, 2));
        for (index, (year, month, date)) in dates.into_iter().enumerate() {
            let midnight = utc(year, month, date);
            if index == 0 {
                assert_eq!(key.left(midnight - 1), 1, "day {day} before {year}-{month}-{date}");
            } else {
                // Whatever was due since the last date has been given; leave one credit, and see it stay until midnight.
                let before = key.left(midnight - DAY - 1);
                assert_eq!(key.spend(before - 1, midnight - DAY - 1), 1);
                assert_eq!(key.left(midnight - 1), 1, "day {day} before {year}-{month}-{date}");
            }
            assert_eq!(key.left(midnight), 10, "day {day} on {year}-{month}-{date}");
            assert_eq!(key.spend(9, midnight + 23 * HOUR), 1);
            assert_eq!(key.left(midnight + DAY - 1), 1, "once on {year}-{month}-{date}");
        }
    }
}

/// A due date counts once, also when the clock goes back or the refill is seen by another path first.
/// KEYS-REFILL-3, KEYS-REFILL-5
#[test]
fn setting_the_clock_back_does_not_refill_twice() {
    let workspace = Workspace::timed();
    let made = utc(2026, 5, 1) + HOUR;
    let key = Refilled::new(&workspace, 1, daily(10), made);
    let noon = utc(2026, 5, 3) + 12 * HOUR;
    assert_eq!(key.spend(3, noon), 7);
    assert_eq!(key.left(made), 7);
    assert_eq!(key.spend(1, utc(2026, 5, 2) + HOUR), 6);
    assert_eq!(key.left(utc(2026, 5, 3)), 6);
    assert_eq!(key.left(noon + SECOND), 6);
    assert_eq!(key.left(utc(2026, 5, 4)), 10);
}

/// A refill set or changed on a due date first fires on the next one. KEYS-REFILL-6
#[test]
fn a_refill_set_today_first_fires_on_the_next_due_date() {
    let workspace = Workspace::timed();
    let today = utc(2026, 7, 15);
    let key = Refilled::new(&workspace, 2, monthly(10, 15), today + HOUR);
    assert_eq!(key.left(today + 20 * HOUR), 2);
    assert_eq!(key.left(utc(2026, 8, 15) - 1), 2);
    assert_eq!(key.left(utc(2026, 8, 15)), 10);

    let key = Refilled::new(&workspace, 2, monthly(10, 3), utc(2026, 7, 4));
    key.update(json!({"credits": {"refill": monthly(20, 15)}}), today + HOUR);
    assert_eq!(key.left(today + 2 * HOUR), 2);
    assert_eq!(key.left(utc(2026, 8, 3)), 2, "the former day no longer counts");
    assert_eq!(key.left(utc(2026, 8, 15)), 20);
    key.update(json!({"credits": {"remaining": 1, "refill": daily(5)}}), utc(2026, 8, 15) + HOUR);
    assert_eq!(key.left(utc(2026, 8, 16) - 1), 1);
    assert_eq!(key.left(utc(2026, 8, 16)), 5);
}

/// A refill that was due before a balance is set comes first: what is set stays set. KEYS-REFILL-5, KEYS-CREDIT-5, KEYS-UPCRED-9
#[test]
fn a_balance_set_after_midnight_is_not_refilled_over() {
    let workspace = Workspace::timed();
    let key = Refilled::new(&workspace, 50, daily(10), utc(2026, 7, 1) + HOUR);
    let later = utc(2026, 7, 3) + HOUR;
    let credits = |operation: &str, value: i64| {
        let body = json!({"keyId": key.key.id, "operation": operation, "value": value});
        workspace.call("keys.updateCredits", body).at(later).expect_ok()["remaining"].as_i64().unwrap()
    };
    assert_eq!(credits("set", 2), 2);
    assert_eq!(key.left(later + HOUR), 2, "today's refill was due before");
    assert_eq!(key.left(utc(2026, 7, 4)), 10);
    let key = Refilled::new(&workspace, 0, daily(10), utc(2026, 7, 1) + HOUR);
    let body = json!({"keyId": key.key.id, "operation": "increment", "value": 5});
    assert_eq!(
        workspace.call("keys.updateCredits", body).at(later).expect_ok()["remaining"],
        15,
        "refilled to 10, then 5 more"
    );
}

/// Disabled and expired keys are refilled, deleted ones are not there; unlimited ones stay unlimited.
/// KEYS-REFILL-2, KEYS-REFILL-4, KEYS-OBJ-2
#[test]
fn disabled_keys_are_refilled_and_unlimited_ones_stay() {
    let workspace = Workspace::timed();
    let made = utc(2026, 3, 10) + HOUR;
    let key = Refilled::new(&workspace, 1, daily(10), made);
    key.update(json!({"enabled": false, "expires": made}), made);
    assert_eq!(key.left(utc(2026, 3, 11)), 10);
    let unlimited = Refilled::new(&workspace, 1, daily(10), made);
    unlimited.update(json!({"credits": {"remaining": null}}), made);
    for day in 1..40 {
        let got = workspace.get_at(&unlimited.key, made + day * DAY);
        assert!(got.get("credits").is_none(), "KEYS-REFILL-4: {got}");
    }
}

/// Once per due date across restarts, and what was spent after it is not given back. KEYS-REFILL-3, KEYS-REFILL-5, COM-RT-10
#[test]
fn a_restart_does_not_refill_again() {
    let server = Arc::new(Server::timed());
    let workspace = Workspace::on(&server);
    let made = utc(2026, 3, 10) + HOUR;
    let day = utc(2026, 3, 11);
    let (used, idle) =
        (Refilled::new(&workspace, 1, daily(10), made).key, Refilled::new(&workspace, 1, daily(10), made).key);
    let seen = |workspace: &Workspace, key: &Key, at: i64| workspace.get_at(key, at)["credits"]["remaining"].as_i64();
    assert_eq!(workspace.verify_at(&used, json!({"credits": {"cost": 4}}), day)["credits"], 6);
    assert_eq!(server.stop(), Some(0));
    let workspace = workspace.moved(server.restart());
    assert_eq!(seen(&workspace, &used, day + HOUR), Some(6));
    assert_eq!(seen(&workspace, &idle, day - 1), Some(1));
    assert_eq!(seen(&workspace, &idle, day + HOUR), Some(10));
    workspace.server.kill();
    let workspace = workspace.moved(workspace.server.restart());
    let left = seen(&workspace, &used, day + 2 * HOUR);
    assert_eq!(left, Some(6), "also across kill -9: the refill was journaled with the spends long ago");
    assert_eq!(seen(&workspace, &used, day + DAY), Some(10));
}
