//! analytics.getVerifications and analytics.getRatelimits from outside: who may ask, in which order a question is checked,
//! whose rows it sees, and what bounds it. What SQL means is tested with the query crate, against ClickHouse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::program::DataDir;
use crate::harness::world::RootKey;
use crate::harness::{Call, HOUR, Key, Options, Server, Workspace, now};

const VERIFICATIONS: &str = "analytics.getVerifications";
const RATELIMITS: &str = "analytics.getRatelimits";
const NOT_ALLOWED: &str = "unkey/authorization/insufficient_permissions";
const INVALID: &str = "user/bad_request/invalid_analytics_query";
const QUOTA: &str = "user/too_many_requests/query_quota_exceeded";
const MEMORY: &str = "user/unprocessable_entity/query_memory_limit_exceeded";

/// How long anything may take that is promised within a second, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(15);

fn query(sql: &str) -> Value {
    json!({ "query": sql })
}

/// The rows of a query with the root key that may do everything.
fn rows(workspace: &Workspace, operation: &str, sql: &str) -> Value {
    workspace.ok(operation, query(sql))
}

/// The only number of the only row.
fn number(rows: &Value) -> i64 {
    let row = rows[0].as_object().unwrap_or_else(|| panic!("no row: {rows}"));
    assert_eq!((rows.as_array().map(Vec::len), row.len()), (Some(1), 1), "{rows}");
    row.values().next().and_then(Value::as_i64).unwrap_or_else(|| panic!("no number: {rows}"))
}

/// Waits until a query's only number is this one: an event is seen within a second (AN-TAB-09).
fn wait_for(workspace: &Workspace, operation: &str, sql: &str, wanted: i64) {
    let begun = Instant::now();
    loop {
        let found = number(&rows(workspace, operation, sql));
        if found == wanted {
            return;
        }
        assert!(found < wanted && begun.elapsed() < PATIENCE, "{sql}: {found}, wanted {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Two APIs with a key each; `verifications` of the first and one of the second are recorded.
struct Traffic {
    workspace: Workspace,
    apis: [String; 2],
    keys: [Key; 2],
}

impl Traffic {
    fn on(workspace: Workspace, verifications: i64) -> Traffic {
        let apis = [workspace.api(), workspace.api()];
        let keys = apis.each_ref().map(|api| workspace.key(api, json!({})));
        for _ in 0..verifications {
            assert_eq!(workspace.code(&keys[0], json!({"tags": ["a", "b"]})), "VALID");
        }
        assert_eq!(workspace.code(&keys[1], json!({})), "VALID");
        wait_for(&workspace, VERIFICATIONS, "SELECT count() FROM key_verifications_v1", verifications + 1);
        Traffic { workspace, apis, keys }
    }

    fn call<'a>(&'a self, root: &RootKey, operation: &str, sql: &str) -> Call<'a> {
        self.workspace.server.call(operation, query(sql)).bearer(&root.secret)
    }

    /// What a root key with these permissions counts.
    fn counted_with(&self, permissions: &[&str]) -> i64 {
        let root = self.workspace.root_key(permissions);
        number(&self.call(&root, VERIFICATIONS, "SELECT count() FROM key_verifications_v1").expect_ok())
    }
}

/// A verification and a decision are seen with what the caller saw of them, in the raw table and in every roll-up.
/// AN-OP-01, AN-OP-02, AN-TAB-02, AN-TAB-09, AN-ROLL-05, AN-JSON-15
#[test]
fn what_happened_can_be_queried() {
    let traffic = Traffic::on(Workspace::new(), 3);
    let workspace = &traffic.workspace;
    let reply = workspace.call("keys.verifyKey", json!({"key": traffic.keys[0].secret, "tags": ["x=1", "x=1"]})).send();
    wait_for(workspace, VERIFICATIONS, "SELECT count() FROM key_verifications_v1", 5);
    let found = rows(workspace, VERIFICATIONS, "SELECT * FROM key_verifications_v1 WHERE has(tags, 'x=1')");
    let row = &found[0];
    assert_eq!(row["request_id"], reply.json["meta"]["requestId"]);
    assert_eq!((&row["key_id"], &row["workspace_id"]), (&json!(traffic.keys[0].id), &json!(workspace.id)));
    assert_eq!((&row["outcome"], &row["tags"]), (&json!("VALID"), &json!(["x=1", "x=1"])));
    assert!((row["time"].as_i64().unwrap() - now()).abs() < HOUR, "{row}");
    for level in ["minute", "hour", "day", "month"] {
        let sql = format!("SELECT SUM(count) FROM key_verifications_per_{level}_v1");
        wait_for(workspace, VERIFICATIONS, &sql, 5);
    }
    let hour = rows(workspace, VERIFICATIONS, "SELECT time FROM key_verifications_per_hour_v1 LIMIT 1");
    assert!(hour[0]["time"].as_str().is_some_and(|time| time.ends_with(":00:00Z")), "AN-JSON-15: {hour}");

    let limit = json!({"namespace": "n", "identifier": "ada", "limit": 1, "duration": 60_000});
    let passed =
        [workspace.call("ratelimit.limit", limit.clone()).send(), workspace.call("ratelimit.limit", limit).send()];
    wait_for(workspace, RATELIMITS, "SELECT count() FROM ratelimits_v1", 2);
    let found = rows(workspace, RATELIMITS, "SELECT request_id, identifier, passed, `limit` FROM ratelimits_v1");
    for reply in passed {
        let id = &reply.json["meta"]["requestId"];
        let row = found.as_array().unwrap().iter().find(|row| row["request_id"] == *id).expect("a row for each");
        let wanted =
            json!({"request_id": id, "identifier": "ada", "passed": reply.json["data"]["success"], "limit": 1});
        assert_eq!(*row, wanted, "AN-JSON-03");
    }
    wait_for(workspace, RATELIMITS, "SELECT SUM(total) FROM ratelimits_per_hour_v1", 2);
}

/// The wildcard sees everything, ids see their APIs, and ids of nothing see nothing rather than everything.
/// AN-PERM-01, AN-PERM-02, AN-PERM-03, AN-PERM-04, AN-PERM-05, AN-PERM-06, PM-TAB-02, PM-URN-09
#[test]
fn grants_decide_whose_rows_are_seen() {
    let traffic = Traffic::on(Workspace::new(), 3);
    let workspace = &traffic.workspace;
    let [first, second] = traffic.apis.each_ref().map(|api| format!("api.{api}.read_analytics"));
    let neighbour = workspace.neighbour();
    let foreign = format!("api.{}.read_analytics", neighbour.api());
    for (permissions, seen) in [
        (vec!["api.*.read_analytics"], 4),
        (vec!["api.*.read_analytics", &first], 4),
        (vec![&first], 3),
        (vec![&second], 1),
        (vec![&first, &second], 4),
        (vec![&first, &foreign, "api.gone.read_analytics"], 3),
        (vec![&foreign], 0),
        (vec!["api.gone.read_analytics"], 0),
        (vec!["api.not an id.read_analytics"], 0),
        (vec![&*format!("unkey:v1:{}:**#*", workspace.id)], 4),
    ] {
        assert_eq!(traffic.counted_with(&permissions), seen, "{permissions:?}");
    }
    for permissions in
        [vec![], vec!["api.*.read_key"], vec!["API.*.read_analytics"], vec!["ratelimit.*.read_analytics"]]
    {
        let root = workspace.root_key(&permissions);
        let refused = traffic.call(&root, VERIFICATIONS, "SELECT").expect_problem(403, NOT_ALLOWED);
        refused.saying("Missing permission: 'api.*.read_analytics'");
        if !permissions.contains(&"ratelimit.*.read_analytics") {
            let refused = traffic.call(&root, RATELIMITS, "SELECT").expect_problem(403, NOT_ALLOWED);
            refused.saying("Missing permission: 'ratelimit.*.read_analytics'");
        }
    }

    // Whoever may see one API asks for the other's rows and gets none.
    let space = rows(workspace, VERIFICATIONS, "SELECT DISTINCT key_space_id FROM key_verifications_v1");
    let root = workspace.root_key(&[&second]);
    let of_second =
        traffic.call(&root, VERIFICATIONS, "SELECT DISTINCT key_space_id FROM key_verifications_v1").expect_ok();
    let others = space.as_array().unwrap().iter().find(|row| **row != of_second[0]).expect("two key spaces");
    let sql = format!(
        "SELECT * FROM key_verifications_v1 WHERE key_space_id = '{}'",
        others["key_space_id"].as_str().unwrap()
    );
    assert_eq!(traffic.call(&root, VERIFICATIONS, &sql).expect_ok(), json!([]), "AN-PERM-06");
    workspace.ok("apis.deleteApi", json!({"apiId": traffic.apis[1]}));
    assert_eq!(traffic.counted_with(&[&second]), 0, "AN-PERM-04: a deleted API");

    let limit = json!({"namespace": "n", "identifier": "ada", "limit": 1, "duration": 60_000});
    workspace.ok("ratelimit.limit", limit);
    wait_for(workspace, RATELIMITS, "SELECT count() FROM ratelimits_v1", 1);
    let id = rows(workspace, RATELIMITS, "SELECT namespace_id FROM ratelimits_v1")[0]["namespace_id"].clone();
    let of_namespace = workspace.root_key(&[&format!("ratelimit.{}.read_analytics", id.as_str().unwrap())]);
    workspace.ok("ratelimit.deleteNamespace", json!({"namespace": id}));
    let strange = workspace.root_key(&["ratelimit.rlns_nowhere.read_analytics"]);
    for (root, seen) in [(of_namespace, 1), (strange, 0)] {
        let counted = traffic.call(&root, RATELIMITS, "SELECT count() FROM ratelimits_v1").expect_ok();
        assert_eq!(number(&counted), seen, "AN-PERM-05");
    }
}

/// Nothing that a query says shows another workspace's rows. AN-TAB-08, AN-SCOPE-01, AN-SCOPE-02
#[test]
fn no_text_sees_another_workspace() {
    let traffic = Traffic::on(Workspace::new(), 2);
    let other = Traffic::on(traffic.workspace.neighbour(), 5);
    let workspace = &traffic.workspace;
    for condition in [
        "1 = 1".to_owned(),
        "workspace_id != '' OR 1".to_owned(),
        format!("workspace_id = '{}' OR 1 = 1", other.workspace.id),
        "NOT (workspace_id = 'x')".to_owned(),
        "1 /* AND workspace_id */ -- AND 0".to_owned(),
    ] {
        let sql = format!("SELECT count() FROM key_verifications_v1 WHERE {condition}");
        assert_eq!(number(&rows(workspace, VERIFICATIONS, &sql)), 3, "{sql}");
    }
    for sql in [
        "SELECT count() FROM (SELECT 'x' AS workspace_id, key_id FROM key_verifications_v1)",
        "WITH all AS (SELECT * FROM key_verifications_v1) SELECT count() FROM all",
        "SELECT count() FROM key_verifications_v1 AS workspace_id",
        "SELECT sum(n) FROM (SELECT count() AS n FROM key_verifications_v1 UNION ALL SELECT 0 AS n FROM key_verifications_v1)",
    ] {
        assert_eq!(number(&rows(workspace, VERIFICATIONS, sql)), 3, "{sql}");
    }
    let ids = rows(workspace, VERIFICATIONS, "SELECT DISTINCT workspace_id FROM key_verifications_v1");
    assert_eq!(ids, json!([{"workspace_id": workspace.id}]));
    let sql = format!("SELECT * FROM key_verifications_v1 WHERE workspace_id = '{}'", other.workspace.id);
    assert_eq!(rows(workspace, VERIFICATIONS, &sql), json!([]));
}

/// The body, the credential, the permission, the text, the quota, the plan: the first that fails is what is told.
/// AN-ORD-01, AN-ORD-02, AN-ORD-03, AN-ORD-04, AN-ORD-05, AN-ORD-06, AN-ORD-08, AN-OP-01, AN-OP-04, AN-ERR-13
#[test]
fn the_first_failure_is_told() {
    let workspace = Workspace::new();
    let call = |body: Value| workspace.call(VERIFICATIONS, body);
    for body in [json!({}), json!({"query": 1}), json!({"query": null}), json!([])] {
        workspace.server.call(VERIFICATIONS, body.clone()).bearer("unkey_nobody").expect_invalid();
        call(body).expect_invalid();
    }
    let broken = query("SELEC");
    let unknown = workspace.server.call(VERIFICATIONS, broken.clone()).bearer("unkey_nobody");
    unknown.expect_problem(401, "unkey/authentication/key_not_found");
    let weak = workspace.root_key(&[]);
    workspace.server.call(VERIFICATIONS, broken.clone()).bearer(&weak.secret).expect_problem(403, NOT_ALLOWED);
    assert_eq!(call(broken).expect_problem(400, INVALID).errors, Vec::<Value>::new());
    call(query("")).expect_problem(400, INVALID);

    // Members that nobody knows are passed over (AN-OP-01).
    let mut open = query("SELECT count() FROM key_verifications_v1");
    open["format"] = json!("csv");
    assert_eq!(number(&call(open).expect_ok()), 0);

    let table = "user/bad_request/invalid_analytics_table";
    let function = "user/bad_request/invalid_analytics_function";
    call(query("SELECT sleep(1) FROM system.tables")).expect_problem(400, table).mentioning("system.tables");
    call(query("SELECT count() FROM ratelimits_v1")).expect_problem(400, table).mentioning("ratelimits_v1");
    let old = "time >= '2001-01-01'";
    let sql = format!("SELECT Sleep(1) FROM key_verifications_per_hour_v1 WHERE {old}");
    call(query(&sql)).expect_problem(400, function).mentioning("sleep");
    let sql = format!("SELECT nothing FROM key_verifications_per_hour_v1 WHERE {old}");
    let refused = call(query(&sql)).expect_problem(400, "user/bad_request/query_range_exceeds_retention");
    refused.mentioning("90 days").mentioning("2001-01-01");
    let only_select = call(query("DELETE FROM key_verifications_v1"));
    only_select.expect_problem(400, "user/bad_request/invalid_analytics_query_type").mentioning("SELECT");

    // Gate before quota, quota before plan. One query has passed the gate so far.
    workspace.change(&["--queries-per-hour", "2"]);
    let plan = query("SELECT nothing FROM key_verifications_v1");
    call(plan.clone()).expect_problem(400, INVALID).mentioning("Unknown").mentioning("nothing");
    call(plan).expect_problem(429, QUOTA);
    call(query("SELECT sleep(1) FROM key_verifications_v1")).expect_problem(400, function);
    workspace.server.call(VERIFICATIONS, query("SELECT")).bearer(&weak.secret).expect_problem(403, NOT_ALLOWED);
}

/// What passes the gate counts, over both operations and all root keys, whether or not it then fails; an hour of the clock
/// later the window is a new one. AN-RES-02, AN-RES-03, AN-RES-04, AN-ERR-11, EXT-1, EXT-2
#[test]
fn queries_have_a_quota_by_the_hour() {
    let workspace = Workspace::timed();
    let instant = now() - now() % HOUR + HOUR + 1_000;
    workspace.change(&["--queries-per-hour", "3"]);
    let other = workspace.root_key(&["api.*.read_analytics"]);
    let count = query("SELECT count() FROM key_verifications_v1");
    let ask = |at: i64| workspace.call(VERIFICATIONS, count.clone()).at(at);
    ask(instant).expect_ok();
    workspace.call(VERIFICATIONS, query("SELECT")).at(instant).expect_problem(400, INVALID);
    workspace.call(RATELIMITS, query("SELECT nothing FROM ratelimits_v1")).at(instant).expect_problem(400, INVALID);
    workspace.server.call(VERIFICATIONS, count.clone()).bearer(&other.secret).at(instant).expect_ok();
    for at in [instant, instant + HOUR - 1_001] {
        let refused = ask(at).expect_problem(429, QUOTA).mentioning("query quota of the current window");
        let refused = refused.mentioning("3 of 3 queries");
        let wait: i64 = refused.reply.header("retry-after").expect("when to come back").parse().unwrap();
        assert_eq!(wait, (instant - 1_000 + HOUR - at + 999) / 1_000, "to the window's end");
    }
    ask(instant + HOUR).expect_ok();
    workspace.neighbour().call(VERIFICATIONS, count.clone()).at(instant).expect_ok();
    workspace.change(&["--queries-per-hour", "1000", "--query-seconds-per-hour", "0"]);
    ask(instant).expect_problem(429, QUOTA).mentioning("seconds of execution");
}

/// Rows are cut where one SELECT asks for too many, and refused where the answer has more all the same; an answer that is
/// too long is refused. AN-LIM-01, AN-LIM-03, AN-LIM-04, AN-ERR-09, AN-ERR-10, AN-ORD-07, EXT-2
#[test]
fn answers_are_bounded() {
    let traffic = Traffic::on(Workspace::new(), 40);
    let workspace = &traffic.workspace;
    workspace.change(&["--query-max-rows", "3"]);
    let length = |sql: &str| rows(workspace, VERIFICATIONS, sql).as_array().map(Vec::len);
    assert_eq!(length("SELECT key_id FROM key_verifications_v1"), Some(3));
    assert_eq!(length("SELECT key_id FROM key_verifications_v1 LIMIT 2"), Some(2));
    assert_eq!(length("SELECT key_id FROM key_verifications_v1 LIMIT 0"), Some(0));
    assert_eq!(length("SELECT key_id FROM key_verifications_v1 LIMIT 1000000"), Some(3));
    let both = "SELECT key_id FROM key_verifications_v1 UNION ALL SELECT key_id FROM key_verifications_v1";
    let refused = workspace.call(VERIFICATIONS, query(both));
    refused.expect_problem(422, "user/unprocessable_entity/query_rows_limit_exceeded").mentioning("3");
    assert_eq!(number(&rows(workspace, VERIFICATIONS, "SELECT count() FROM key_verifications_v1")), 41, "AN-LIM-02");

    workspace.change(&["--query-max-rows", "1000000"]);
    let long = "SELECT a.request_id, b.request_id, c.request_id FROM key_verifications_v1 a, key_verifications_v1 b, \
                key_verifications_v1 c";
    workspace.call(VERIFICATIONS, query(long)).expect_problem(422, MEMORY).mentioning("response size");
    let one = "SELECT groupArray(concat(a.request_id, b.request_id, c.request_id)) FROM key_verifications_v1 a, \
               key_verifications_v1 b, key_verifications_v1 c";
    workspace.call(VERIFICATIONS, query(one)).expect_problem(422, MEMORY).mentioning("response size");
}

/// Every verification with every other, five times over: more than any machine counts in a minute.
const ENDLESS: &str = "SELECT count() FROM key_verifications_v1 a, key_verifications_v1 b, key_verifications_v1 c, \
                       key_verifications_v1 d, key_verifications_v1 e, key_verifications_v1 f WHERE a.latency + b.latency + \
                       c.latency + d.latency + e.latency + f.latency < 0";

/// A workspace's own limits of time and memory are the ones that hold. AN-RES-01, AN-ERR-08, AN-ERR-09, EXT-2
#[test]
fn queries_have_a_limit_of_time_and_memory() {
    let traffic = Traffic::on(Workspace::new(), 60);
    let workspace = &traffic.workspace;
    workspace.change(&["--query-max-seconds", "1"]);
    let timeout = "user/unprocessable_entity/query_execution_timeout";
    let refused = workspace.call(VERIFICATIONS, query(ENDLESS)).expect_problem(422, timeout);
    refused.mentioning("1 second");
    workspace.change(&["--query-max-seconds", "30", "--query-max-memory", "3000000"]);
    let wide = "SELECT a.request_id, b.request_id, c.request_id, count() FROM key_verifications_v1 a, key_verifications_v1 b, \
                key_verifications_v1 c GROUP BY a.request_id, b.request_id, c.request_id ORDER BY 4 LIMIT 1";
    workspace.call(VERIFICATIONS, query(wide)).expect_problem(422, MEMORY).mentioning("3000000 bytes");
}

/// What the threads of queries in a process have computed so far.
#[cfg(target_os = "linux")]
fn computed(process: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("the server runs");
    let ours =
        |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "keyward-query");
    let spent = |task: PathBuf| -> u64 {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.flatten().map(|task| task.path()).filter(ours).map(spent).sum())
}

/// Who hangs up, or runs out of time, leaves nothing behind that computes. AN-RES-01
#[cfg(target_os = "linux")]
#[test]
fn an_abandoned_query_stops() {
    let server = Arc::new(Server::start());
    let traffic = Traffic::on(Workspace::on(&server), 60);
    let process = server.process();
    let wait_until = |busy: bool| {
        let begun = Instant::now();
        loop {
            let before = computed(process);
            std::thread::sleep(Duration::from_millis(100));
            let computing = computed(process) - before > Duration::from_millis(5);
            if computing == busy {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "queries compute: {computing}, wanted {busy}");
        }
    };
    wait_until(false);
    let ask = traffic.workspace.call(VERIFICATIONS, query(ENDLESS)).ask().clone();
    let mut connection = Connection::open(server.addr).unwrap();
    connection.send(&ask).unwrap();
    wait_until(true);
    drop(connection);
    wait_until(false);
    traffic.workspace.change(&["--query-max-seconds", "1"]);
    traffic.workspace.call(VERIFICATIONS, query(ENDLESS)).send();
    wait_until(false);
    assert_eq!(number(&rows(&traffic.workspace, VERIFICATIONS, "SELECT count() FROM key_verifications_v1")), 61);
}

/// Texts that are meant to do harm are 400 or 422, and the server goes on. AN-GATE-01, AN-GATE-02, AN-GATE-08, AN-ERR-15, COM-ERR-10
#[test]
fn hostile_texts_are_refused() {
    let workspace = Workspace::new();
    workspace.change(&["--query-max-seconds", "5"]);
    let from = "FROM key_verifications_v1";
    let repeat = |text: &str, times: usize| text.repeat(times);
    let texts = [
        repeat("(", 8_000),
        format!("SELECT {}1{} {from}", repeat("(", 1_500), repeat(")", 1_500)),
        format!("SELECT {}1 {from}", repeat("NOT ", 3_000)),
        format!("SELECT {}1 {from}", repeat("- ", 6_000)),
        format!("SELECT {}1{} {from}", repeat("CASE WHEN 1 THEN ", 700), repeat(" END", 700)),
        format!("SELECT {} {from}", vec!["1"; 8_000].join("+")),
        format!("SELECT 1 {from} WHERE {}", vec!["1"; 3_000].join(" OR ")),
        format!("SELECT 1 {from} WHERE time IN ({})", vec!["1"; 3_000].join(",")),
        format!("SELECT {} {from}", vec!["*"; 65].join(",")),
        format!("{}SELECT 1 {from}{}", repeat("SELECT * FROM (", 500), repeat(")", 500)),
        format!("{} {from}", vec![format!("SELECT 1 {from}"); 300].join(" UNION ALL ")),
        format!("SELECT {}[1]{} {from}", repeat("[", 2_000), repeat("]", 2_000)),
        format!("SELECT lower({}'a'{}) {from}", repeat("concat(", 900), repeat(")", 900)),
        format!("SELECT 1 {from} WHERE {}1", repeat("x -> ", 2_000)),
        format!("SELECT {}1{} {from}", repeat("[", 3_000), ""),
        "SELECT 1 FROM key_verifications_v1; DROP TABLE key_verifications_v1".to_owned(),
        "/* ".to_owned(),
        "SELECT '".to_owned(),
        "SELECT `".to_owned(),
        "SELECT \u{0} FROM key_verifications_v1".to_owned(),
        "SELECT 1e999999 FROM \u{202e}key_verifications_v1".to_owned(),
        "SELECT {x:String} FROM key_verifications_v1".to_owned(),
        " ".repeat(16_385),
    ];
    for text in texts {
        let reply = workspace.call(VERIFICATIONS, query(&text)).send();
        let front: String = text.chars().take(60).collect();
        assert!([400, 422].contains(&reply.status), "{front}: {}", reply.text());
        let detail = reply.json["error"]["detail"].as_str().unwrap_or_default();
        assert!(!detail.contains("__") && !detail.contains("DataFusion"), "AN-ERR-15: {detail}");
    }
    assert_eq!(number(&rows(&workspace, VERIFICATIONS, "SELECT count() FROM key_verifications_v1")), 0);
}

/// Switched off, analytics are 412 for whoever may ask, whatever the text. AN-ERR-07, AN-ORD-03
#[test]
fn analytics_can_be_switched_off() {
    let options = Options::default().setting("KEYWARD_ANALYTICS_ENABLED", "false");
    let server = Arc::new(Server::start_with(DataDir::fresh(), options));
    let workspace = Workspace::on(&server);
    for (operation, sql) in [(VERIFICATIONS, "SELECT count() FROM key_verifications_v1"), (RATELIMITS, "SELECT")] {
        let refused = workspace.call(operation, query(sql));
        refused.expect_problem(412, "unkey/data/analytics_not_configured").mentioning("analytics.enabled");
        let weak = workspace.root_key(&[]);
        workspace.server.call(operation, query(sql)).bearer(&weak.secret).expect_problem(403, NOT_ALLOWED);
    }
    assert!(Path::new(server.dir.text()).exists());
}
