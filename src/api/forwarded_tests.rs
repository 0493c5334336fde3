//! Changes that another node hands on: made once, however often they come.

use std::cell::Cell;

use keyward_storage::records::change;
use keyward_storage::{Abort, Turn};
use serde_json::{Value, json};

use super::OPERATIONS;
use super::operation::{OnFollower, Pace};
use super::testing::{Kit, NOW, text};

/// A change whose reply was lost with the node that made it is not made again. Where the reply is always the same its repeat gets
/// it; else it hears that it was made, with a status that clients do not try again by themselves.
#[test]
fn a_repeat_changes_nothing() {
    let kit = Kit::new();
    let api = kit.api();
    let names = Cell::new(0);
    let stays = |kit: &Kit, operation: &str, body: Value, again: (u16, &str)| {
        names.set(names.get() + 1);
        kit.change.set(Some(change::id(NOW, [names.get(); 10])));
        let (status, first) = kit.call(operation, &body);
        assert_eq!(status, 200, "{operation}: {first}");
        assert!(!kit.told().is_empty(), "{operation} leaves an event");
        let (status, second) = kit.call(operation, &body);
        assert_eq!(status, again.0, "{operation}: {second}");
        assert!(second.to_string().contains(again.1), "{operation}: {second}");
        assert_eq!(kit.told(), [], "{operation}: nothing is told twice");
        kit.change.set(None);
        first["data"].clone()
    };
    let made = stays(&kit, "keys.createKey", json!({"apiId": api}), (408, "was made"));
    let id = text(&made["keyId"]);
    let credits = json!({"keyId": id, "operation": "set", "value": 10});
    stays(&kit, "keys.updateKey", json!({"keyId": id, "credits": {"remaining": 5}}), (200, "\"data\":{}"));
    stays(&kit, "keys.updateCredits", credits, (408, "was made"));
    stays(&kit, "keys.deleteKey", json!({"keyId": id}), (200, "\"data\":{}"));
    let (status, gone) = kit.call("keys.deleteKey", &json!({"keyId": id}));
    assert_eq!(status, 404, "it was deleted: {gone}");
    assert_eq!(kit.ok("apis.listKeys", json!({"apiId": api})), json!([]), "one key was made");
}

/// A change that was refused may come again, and one that is repeated beside itself is made once.
#[test]
fn refusals_leave_no_name() {
    let kit = Kit::new();
    kit.change.set(Some(change::id(NOW, [9; 10])));
    let body = json!({"apiId": "api_aaaaaaaaaaaaaaaa"});
    assert_eq!([kit.call("apis.deleteApi", &body).0, kit.call("apis.deleteApi", &body).0], [404, 404]);
    let twins =
        kit.call_at_once(&[("apis.createApi", json!({"name": "twin"})), ("apis.createApi", json!({"name": "twin"}))]);
    let mut statuses: Vec<u16> = twins.iter().map(|(status, _)| *status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 408]);
    assert_eq!(kit.told().len(), 1);
}

/// The id of somebody else's change, and of another operation's, is no name of one's own: the request is carried out for itself, and
/// hears nothing of the other.
#[test]
fn a_name_is_of_who_sent_it() {
    let kit = Kit::new();
    kit.change.set(Some(change::id(NOW, [9; 10])));
    let body = json!({"name": "an api"});
    let made = text(&kit.ok("apis.createApi", body.clone())["apiId"]);
    assert_eq!(kit.call("apis.createApi", &body).0, 408, "its repeat");
    kit.ok("permissions.createRole", json!({"name": "a role"}));
    kit.change_root_key();
    let others = text(&kit.ok("apis.createApi", body.clone())["apiId"]);
    assert_ne!(made, others);
    assert_eq!(kit.call("apis.createApi", &body).0, 408, "the repeat of that one");
}

/// Names go when nobody repeats their changes any more, and not before, a bounded number at a time.
#[test]
fn names_are_swept_in_time() {
    let kit = Kit::new();
    for number in 0..5 {
        kit.change.set(Some(change::id(NOW, [number; 10])));
        kit.ok("apis.createApi", json!({"name": "an api"}));
    }
    let sweep = |now: u64, most: usize| {
        let mut from = None;
        let mut removed = Vec::new();
        loop {
            let swept = kit.services.transact_blocking(Turn::FIRST, now, move |tx| {
                change::sweep(tx, now, from, most).map_err(Abort::<std::convert::Infallible>::Read)
            });
            let (count, next) = swept.expect("swept").value;
            removed.push(count);
            from = next;
            if from.is_none() {
                return removed;
            }
        }
    };
    assert_eq!(sweep(NOW + 89_999, 2), [0, 0, 0], "the deadline and a minute");
    assert_eq!(sweep(NOW + 90_000, 2), [2, 2, 1]);
    assert_eq!(sweep(NOW + 90_000, 2), [0]);
}

/// What a follower answers by itself changes nothing, but for what counts; what changes something is the leader's.
#[test]
fn every_operation_says_how_a_follower_answers_it() {
    for entry in OPERATIONS {
        let writes = !entry.audits.is_empty();
        match entry.on_follower {
            // A reading that decrypts is told, by the leader.
            OnFollower::Local => {
                let tells = ["keys.getKey", "keys.whoami", "apis.listKeys"].contains(&entry.name);
                assert!(!writes || tells, "{}", entry.name);
            }
            OnFollower::Verify => assert_eq!(entry.name, "keys.verifyKey"),
            OnFollower::Limit => assert!(entry.name.ends_with("imit"), "{}", entry.name),
            OnFollower::Leader => {
                let reads_events = entry.pace == Pace::Stops || entry.name == "workspace.getUsage";
                assert!(writes || reads_events, "{} could be answered by a follower", entry.name);
            }
        }
    }
}
