//! ratelimit.createNamespace, listNamespaces, deleteNamespace, and limits on what was deleted.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{MINUTE, Workspace, members, now};

const GONE: &str = "unkey/data/ratelimit_namespace_gone";
const TAKEN: &str = "unkey/data/ratelimit_namespace_already_exists";
const NO_NAMESPACE: &str = "unkey/data/ratelimit_namespace_not_found";
const DENIED: &str = "unkey/authorization/insufficient_permissions";

fn make(workspace: &Workspace, name: &str) -> String {
    let made = workspace.ok("ratelimit.createNamespace", json!({"name": name}));
    assert_eq!(members(&made), ["namespaceId"]);
    let id = made["namespaceId"].as_str().unwrap();
    assert!(id.starts_with("rlns_"), "RL-NS-01: {id}");
    id.to_owned()
}

fn ask(namespace: &str) -> Value {
    json!({"namespace": namespace, "identifier": "ada", "limit": 10, "duration": MINUTE})
}

fn delete(workspace: &Workspace, namespace: &str) {
    assert_eq!(workspace.ok("ratelimit.deleteNamespace", json!({"namespace": namespace})), json!({}));
}

/// A namespace that was made is the one that limits find, by id and by name; one that a limit made is listed like it.
/// EXT-14, RL-NS-01, RL-NS-02, RL-NS-04, RL-LIMIT-03, COM-CON-01
#[test]
fn a_made_namespace_is_the_one_that_limits_use() {
    let workspace = Workspace::new();
    let limits_only = workspace.root_key(&["ratelimit.*.limit"]);
    for name in
        ["plain", "  spaces kept ", "ünïcödé \u{1f680}\t\u{1}", "a:b/c", "x", "rlns_looks_like_an_id", &"n".repeat(512)]
    {
        let id = make(&workspace, name);
        let limit = |namespace: &str| {
            let call = workspace.server.call("ratelimit.limit", ask(namespace)).bearer(&limits_only.secret);
            call.expect_ok()["remaining"].as_i64().unwrap()
        };
        assert_eq!((limit(name), limit(&id)), (9, 8), "RL-LIMIT-03: {name:?}");
        workspace.call("ratelimit.createNamespace", json!({"name": name})).expect_problem(409, TAKEN);
        workspace.call("ratelimit.createNamespace", json!({"name": id})).expect_problem(409, TAKEN);
    }
    workspace.ok("ratelimit.limit", ask("made by a limit"));
    workspace.call("ratelimit.createNamespace", json!({"name": "made by a limit"})).expect_problem(409, TAKEN);
    let names: Vec<Value> =
        workspace.all("ratelimit.listNamespaces", json!({}), 3).into_iter().map(|mut row| row["name"].take()).collect();
    assert!(names.len() == 8 && names.contains(&json!("made by a limit")) && names.contains(&json!("  spaces kept ")));
    make(&workspace.neighbour(), "plain");
}

/// Pages of namespaces hold every live one once, by id, with a search before the pages; another workspace's are not there.
/// EXT-14, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05, COM-PAG-07, COM-PAG-08, COM-RK-09
#[test]
fn namespaces_are_listed_page_by_page() {
    let workspace = Workspace::new();
    assert_eq!(workspace.call("ratelimit.listNamespaces", json!({})).expect_page(), (vec![], None));
    make(&workspace.neighbour(), "theirs");
    let mut made: Vec<(String, String)> = (0..7)
        .map(|number| {
            let name = format!("{} {number}_{}%", if number < 3 { "Logins" } else { "mails" }, number * 7);
            (make(&workspace, &name), name)
        })
        .collect();
    let dropped = make(&workspace, "Logins dropped");
    delete(&workspace, &dropped);
    made.sort();
    for limit in [1, 3, 7, 100] {
        let rows = workspace.all("ratelimit.listNamespaces", json!({}), limit);
        assert!(rows.iter().all(|row| members(row) == ["createdAt", "id", "name"]), "{rows:?}");
        assert!(rows.iter().all(|row| (now() - row["createdAt"].as_i64().unwrap()).abs() < 10 * MINUTE), "{rows:?}");
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows: Vec<_> = rows.iter().map(|row| (text(row, "id"), text(row, "name"))).collect();
        assert_eq!(rows, made, "{limit} a page");
    }
    for (search, found) in [("lOGINS", 3), ("  mails ", 4), ("", 7), ("_14%", 1), ("gins_", 0), (&made[2].0[5..], 1)] {
        let rows = workspace.all("ratelimit.listNamespaces", json!({"search": search}), 2);
        assert_eq!(rows.len(), found, "COM-PAG-08: {search}");
    }
}

/// A deleted namespace answers 410 to limits, by id and by name, and its name is gone for good; the same name in another
/// workspace, and other namespaces, do not feel it. RL-NS-03, RL-NS-07, RL-LIMIT-01, RL-MULTI-01, EXT-14, COM-CON-03
#[test]
fn a_deleted_namespace_is_gone() {
    let workspace = Workspace::new();
    let neighbour = workspace.neighbour();
    let (id, kept) = (make(&workspace, "logins"), make(&workspace, "kept"));
    make(&neighbour, "logins");
    let remaining = |namespace: &str| workspace.ok("ratelimit.limit", ask(namespace))["remaining"].as_i64().unwrap();
    assert_eq!((remaining("logins"), remaining("kept")), (9, 9));
    delete(&workspace, "logins");
    for namespace in ["logins", &id] {
        workspace.call("ratelimit.limit", ask(namespace)).expect_problem(410, GONE).mentioning("deleted");
        for batch in [json!([ask(namespace)]), json!([ask("kept"), ask(namespace), ask(&kept)])] {
            workspace.call("ratelimit.multiLimit", batch).expect_problem(410, GONE).mentioning("deleted");
        }
        workspace.call("ratelimit.deleteNamespace", json!({"namespace": namespace})).expect_problem(404, NO_NAMESPACE);
        workspace.call("ratelimit.createNamespace", json!({"name": namespace})).expect_problem(410, GONE);
    }
    assert_eq!(remaining("kept"), 8, "a refused batch takes nothing");
    neighbour.ok("ratelimit.limit", ask("logins"));
    let foreign = neighbour.call("ratelimit.deleteNamespace", json!({"namespace": id}));
    foreign.expect_problem(404, NO_NAMESPACE);
    neighbour.ok("ratelimit.limit", ask(&id));
    assert_eq!(neighbour.all("ratelimit.listNamespaces", json!({}), 100).len(), 2, "RL-NS-04: made by that name");
}

/// Who may not limit hears 403, not 410; who may not delete hears the same of what exists and of what does not.
/// RL-LIMIT-02, RL-MULTI-02, PM-EVAL-04, EXT-14, PM-TAB-01
#[test]
fn permission_comes_before_what_was_deleted() {
    let workspace = Workspace::new();
    let server = &workspace.server;
    let (gone, kept) = (make(&workspace, "gone"), make(&workspace, "kept"));
    delete(&workspace, &gone);
    let weak = workspace.root_key(&[&format!("ratelimit.{kept}.limit"), &format!("ratelimit.{kept}.read_override")]);
    server.call("ratelimit.limit", ask("gone")).bearer(&weak.secret).expect_problem(403, DENIED);
    let batch = server.call("ratelimit.multiLimit", json!([ask("kept"), ask("gone")])).bearer(&weak.secret);
    batch.expect_problem(403, DENIED).mentioning("gone");
    let named = workspace.root_key(&[&format!("ratelimit.{gone}.limit")]);
    server.call("ratelimit.limit", ask("gone")).bearer(&named.secret).expect_problem(410, GONE);
    server.call("ratelimit.multiLimit", json!([ask(&gone)])).bearer(&named.secret).expect_problem(410, GONE);

    let deletes = workspace.root_key(&[&format!("ratelimit.{kept}.delete_namespace")]);
    let other = make(&workspace, "other");
    for namespace in ["other", &other, "gone", &gone, "nowhere", "rlns_nowhere"] {
        let call = server.call("ratelimit.deleteNamespace", json!({"namespace": namespace})).bearer(&deletes.secret);
        let problem = call.expect_problem(403, DENIED);
        problem.saying(&format!(
            "Missing one of these permissions: ratelimit.*.delete_namespace or ratelimit.{namespace}.delete_namespace"
        ));
    }
    server.call("ratelimit.deleteNamespace", json!({"namespace": "kept"})).bearer(&deletes.secret).expect_ok();
    workspace.call("ratelimit.limit", ask(&kept)).expect_problem(410, GONE);
}

/// Of many who make or delete one namespace at once exactly one succeeds, and a limit that makes it is one of them.
/// RL-NS-05, COM-CON-04
#[test]
fn of_concurrent_makers_and_deleters_one_wins() {
    let workspace = Arc::new(Workspace::new());
    for round in 0..4 {
        let name = format!("round {round}");
        let together = |operation: &'static str, body: Value| {
            let threads: Vec<_> = (0..6)
                .map(|_| {
                    let (workspace, body) = (Arc::clone(&workspace), body.clone());
                    std::thread::spawn(move || workspace.call(operation, body).send().status)
                })
                .collect();
            let limits: Vec<_> = (0..2)
                .map(|_| {
                    let (workspace, name) = (Arc::clone(&workspace), name.clone());
                    std::thread::spawn(move || workspace.call("ratelimit.limit", ask(&name)).send().status)
                })
                .collect();
            let mut statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            statuses.sort_unstable();
            (statuses, limits.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
        };
        let (made, limited) = together("ratelimit.createNamespace", json!({"name": name}));
        assert!(made.iter().filter(|status| **status == 200).count() <= 1, "{made:?}");
        assert!(made.iter().all(|status| matches!(status, 200 | 409)) && limited == [200, 200], "{made:?} {limited:?}");
        let rows = workspace.all("ratelimit.listNamespaces", json!({"search": name}), 100);
        assert_eq!(rows.len(), 1, "RL-NS-05");
        let (deleted, limited) = together("ratelimit.deleteNamespace", json!({"namespace": name}));
        assert_eq!(deleted, [200, 404, 404, 404, 404, 404]);
        assert!(limited.iter().all(|status| matches!(status, 200 | 410)), "{limited:?}");
        workspace.call("ratelimit.limit", ask(&name)).expect_problem(410, GONE);
    }
}
