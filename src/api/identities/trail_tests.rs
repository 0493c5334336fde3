//! What identities.* leaves in the audit trail, and what it lists where there are very many.

use keyward_storage::Abort;
use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity::{self, IdentityRow};
use serde_json::{Value, json};

use crate::api::testing::{Kit, Told, names, on, text, tied};
use crate::tenants::draw_id;

fn limit(name: &str, limit: u64, duration: u64, auto: bool) -> Value {
    json!({"name": name, "limit": limit, "duration": duration, "autoApply": auto})
}

/// The ids of an identity's limits, in order.
fn limit_ids(kit: &Kit, identity: &str) -> Vec<String> {
    let got = kit.ok("identities.getIdentity", json!({"identity": identity}));
    got["ratelimits"].as_array().into_iter().flatten().map(|limit| text(&limit["id"])).collect()
}

/// The name of the limit that an event is about; the identity comes first.
fn about<'t>(told: &'t Told, identity: &str) -> &'t str {
    assert_eq!(told.targets[0], on("identity", identity, "tenant"), "{told:?}");
    assert_eq!((told.targets.len(), told.targets[1].0.as_str()), (2, "ratelimit"), "{told:?}");
    assert!(told.description.contains(&told.targets[1].1) && told.description.contains(identity), "{told:?}");
    &told.targets[1].2
}

/// An identity tells of itself first, then of each limit: made in the request's order; on an update those that went, those
/// that really changed with old and new values, those that came; all tied together, also a single one. What is refused tells
/// nothing. ID-CREATE-03, ID-CREATE-06, ID-DELETE-03, ID-DELETE-04, ID-DELETE-07, ID-UPDATE-05, ID-UPDATE-09, AL-EV-02, AL-EV-03, AL-EV-04,
/// AL-EV-06, AL-EV-09, AL-NAME-01, AL-OP-01, AL-OP-02
#[test]
fn an_identity_tells_its_life() {
    let kit = Kit::new();
    let limits = json!([limit("zeta", 1, 1000, true), limit("beta", 2, 2000, false), limit("gone", 3, 3000, true)]);
    let made = json!({"externalId": "tenant", "meta": {"secret": "s3cret"}, "ratelimits": limits});
    let id = text(&kit.ok("identities.createIdentity", made.clone())["identityId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["identity.create", "ratelimit.create", "ratelimit.create", "ratelimit.create"]);
    assert_eq!(told[0].description, format!("Created identity {id}"));
    assert_eq!(told[0].targets, [on("identity", &id, "tenant")]);
    let ids = limit_ids(&kit, &id);
    for (event, (name, limit_id)) in told[1..].iter().zip(["zeta", "beta", "gone"].iter().zip(&ids)) {
        assert_eq!((about(event, &id), &event.targets[1].1), (*name, limit_id));
    }
    tied(&told);
    let first = told[0].correlation.clone();
    kit.refused("identities.createIdentity", made, 409);
    kit.refused("identities.createIdentity", json!({"externalId": "b", "ratelimits": [limits[0], limits[0]]}), 400);
    kit.refused("identities.createIdentity", json!({"externalId": "b", "meta": {"a": "x".repeat(1 << 20)}}), 400);

    let limits = json!([
        limit("new2", 1, 1000, true),
        limit("zeta", 9, 1000, false),
        limit("new1", 1, 1000, true),
        limit("beta", 2, 2000, false)
    ]);
    let update = json!({"identity": "tenant", "meta": {"secret": "0ther"}, "ratelimits": limits});
    kit.ok("identities.updateIdentity", update.clone());
    let told = kit.told();
    assert_eq!(
        names(&told),
        ["identity.update", "ratelimit.delete", "ratelimit.update", "ratelimit.create", "ratelimit.create"]
    );
    assert_eq!(told[0].targets, [on("identity", &id, "tenant")]);
    assert_eq!(told[0].meta, [json!({"changes": {"meta": "changed"}})], "AL-EV-09: not the contents");
    let of: Vec<&str> = told[1..].iter().map(|event| about(event, &id)).collect();
    assert_eq!(of, ["gone", "zeta", "new2", "new1"], "beta did not change");
    assert_eq!(told[1].targets[1].1, ids[2]);
    assert_eq!(
        told[2].meta[1],
        json!({"changes": {"limit": {"old": 1, "new": 9}, "autoApply": {"old": true, "new": false}}})
    );
    tied(&told);
    assert_ne!(told[0].correlation, first, "AL-EV-04: another request, another id");
    assert!(!format!("{told:?}").contains("0ther"));

    for body in [update, json!({"identity": id})] {
        kit.ok("identities.updateIdentity", body);
        let told = kit.told();
        assert_eq!((names(&told), &told[0].meta[..]), (vec!["identity.update"], &[Value::Null][..]), "ID-UPDATE-05");
        tied(&told);
    }
    kit.refused("identities.updateIdentity", json!({"identity": "nobody"}), 404);

    let ids = limit_ids(&kit, &id);
    kit.ok("identities.deleteIdentity", json!({"identity": "tenant"}));
    let told = kit.told();
    assert_eq!(names(&told)[0], "identity.delete");
    assert_eq!(told[0].targets, [on("identity", &id, "tenant")]);
    assert!(names(&told)[1..].iter().all(|name| *name == "ratelimit.delete"));
    assert_eq!(told[1..].iter().map(|event| event.targets[1].1.as_str()).collect::<Vec<_>>(), ids);
    tied(&told);
    kit.refused("identities.deleteIdentity", json!({"identity": id}), 404);

    text(&kit.ok("identities.createIdentity", json!({"externalId": "tenant"}))["identityId"]);
    kit.ok("identities.deleteIdentity", json!({"identity": "tenant"}));
    let told = kit.told();
    assert_eq!(names(&told), ["identity.create", "identity.delete"]);
    told.iter().for_each(|event| tied(std::slice::from_ref(event)));
}

/// Among many identities a list finds what it should: without a search, one hit, scattered hits, everything, nothing; each
/// once, by id, page after page. External ids may hold any characters, and deleted identities are not there.
/// ID-LIST-02, ID-LIST-07, ID-RES-05
#[test]
fn many_identities_are_searched() {
    const MANY: usize = 20_000;
    let kit = Kit::new();
    let mut rows: Vec<(String, String)> = Vec::with_capacity(MANY);
    let put: Vec<(IdentityId, IdentityRow)> = (0..MANY)
        .map(|n| {
            let id = IdentityId(draw_id(&kit.services.outside.entropy));
            let external_id = match n {
                7 => "größe \u{1f511} 'ßest' ÄRGER".to_owned(),
                _ if n % 2_000 == 3 => format!("scattered.{n}"),
                _ => format!("user {n}"),
            };
            let deleted_at = (n % 5 == 4).then_some(1);
            if deleted_at.is_none() {
                rows.push((id.to_string(), external_id.clone()));
            }
            let row = IdentityRow {
                external_id,
                meta: None,
                ratelimits: Vec::new(),
                created_at: 1,
                updated_at: None,
                deleted_at,
            };
            (id, row)
        })
        .collect();
    rows.sort();
    let workspace = kit.workspace;
    let made = kit.services.transact_blocking(keyward_storage::Turn::FIRST, 1, move |tx| {
        put.iter().for_each(|(id, row)| identity::put(tx, workspace, *id, row));
        Ok::<_, Abort<std::convert::Infallible>>(())
    });
    made.expect("made");
    let list = |search: &str, limit: usize, pages: usize| {
        let mut found: Vec<(String, String)> = Vec::new();
        let mut cursor = String::new();
        for _ in 0..pages {
            let body = json!({"limit": limit, "search": search, "cursor": cursor});
            let (status, reply) = kit.call("identities.listIdentities", &body);
            assert_eq!(status, 200, "{reply}");
            let page = reply["data"].as_array().expect("a list");
            found.extend(page.iter().map(|row| (text(&row["id"]), text(&row["externalId"]))));
            match reply["pagination"]["cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return (found, false),
            }
        }
        (found, true)
    };
    let holding = |part: &str| rows.iter().filter(|(_, external_id)| external_id.contains(part)).cloned().collect();
    assert_eq!(list("", 100, 3), (rows[..300].to_vec(), true));
    assert_eq!(list("E", 100, 3), (rows[..300].to_vec(), true), "everything holds an e");
    assert_eq!(list("scattered", 3, 9), (holding("scattered"), false));
    assert_eq!(list("SCATTERED.2003", 100, 1), (holding("scattered.2003"), false));
    for one in ["Größe", "\u{1f511}", "ärger", "SSEST"] {
        let found = if one == "SSEST" { Vec::new() } else { holding("größe") };
        assert_eq!(list(one, 100, 1), (found, false), "{one}");
    }
    assert_eq!(list("user 2004", 100, 1).0, holding("user 2004"), "deleted ones are not there");
    assert_eq!(list("no such identity", 100, 1), (Vec::new(), false));
    let (id, external_id) = &rows[rows.len() / 2];
    assert_eq!(list(id, 1, 1), (vec![(id.clone(), external_id.clone())], false));
}
