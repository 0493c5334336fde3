//! Queries made to eat memory are refused before they do (AN-RES-01): each makes hundreds of megabytes of some kilobytes,
//! where nothing but the query's own limit stands between.

use std::io::Cursor;
use std::sync::Arc;

use keyward_query::events::files::RowReader;
use keyward_query::events::tables::Family;
use keyward_query::events::{Scope, Spaces};
use keyward_query::{Allowed, Limits, Query, Refusal, Select};
use keyward_storage::ids::WorkspaceId;

/// 2024-03-20T14:23:45.678Z.
use crate::store;

const NOW_MS: u64 = 1_710_944_625_678;
const ROWS: u64 = 3_000;
const KEYS: u64 = 1_000;
const WORKSPACE: &str = "ws_wwwwwwwwwwwwwwww";

/// What a query costs if nobody looks: the memory that its arrays, copied row by row, would take.
const BOMBS: &[(&str, &str)] = &[
    (
        "an array beside its own elements: 3,000 copies of 3,000 texts",
        "SELECT max(length(a)), max(length(g)) FROM (SELECT arrayJoin(g) AS a, g FROM (SELECT groupArray(request_id) AS g \
         FROM key_verifications_v1))",
    ),
    (
        "the same with ARRAY JOIN",
        "SELECT max(length(a)), max(length(g)) FROM (SELECT groupArray(request_id) AS g FROM key_verifications_v1) \
         ARRAY JOIN g AS a WHERE length(g) > 0",
    ),
    (
        "an array that a join brings to every row",
        "SELECT max(length(g)) FROM (SELECT region AS r, groupArray(request_id) AS g FROM key_verifications_v1 GROUP BY r) \
         AS a JOIN key_verifications_v1 AS b ON a.r = b.region",
    ),
    (
        "an array that a comma brings to every row",
        "SELECT max(length(g)), max(b.time) FROM (SELECT groupArray(request_id) AS g FROM key_verifications_v1) AS a, \
         key_verifications_v1 AS b",
    ),
    (
        "an array that a lambda looks into for each of its elements",
        "SELECT length(arrayFilter(x -> length(arrayFilter(y -> y > x, g)) > 5, g)) FROM (SELECT groupArray(request_id) AS \
         g FROM key_verifications_v1)",
    ),
    (
        "windows whose arrays grow from row to row",
        "SELECT max(length(g)) FROM (SELECT groupArray(request_id) OVER (ORDER BY time, request_id) AS g FROM \
         key_verifications_v1)",
    ),
    (
        "a window that keeps the long texts of all rows",
        "SELECT max(s) FROM (SELECT *, sum(c) OVER () AS s FROM (SELECT concat(key_id, request_id, request_id, request_id, \
         request_id, request_id, request_id, request_id) AS t, concat(t, t, t, t, t, t, t, t) AS u, concat(key_id, u, u, u) AS v, \
         length(v) AS c FROM key_verifications_v1)) WHERE length(v) > 0",
    ),
    (
        "texts that grow tenfold at each step",
        "WITH concat(key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id) AS a, \
         concat(a, a, a, a, a, a, a, a, a, a) AS b, concat(b, b, b, b, b, b, b, b, b, b) AS c, \
         concat(c, c, c, c, c, c, c, c, c, c) AS d SELECT max(length(d)) FROM key_verifications_v1",
    ),
    (
        "arrays that grow tenfold at each step",
        "WITH [key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id, key_id] AS a, \
         [a, a, a, a, a, a, a, a, a, a] AS b, [b, b, b, b, b, b, b, b, b, b] AS c SELECT max(length(c)) FROM \
         key_verifications_v1 WHERE length(c[2]) > 1",
    ),
];

async fn answer(query: &Query, text: &str) -> Result<String, Refusal> {
    let select = Select {
        family: Family::Verifications,
        text: text.to_owned(),
        account: 1,
        scope: Scope {
            workspace: WorkspaceId::parse(WORKSPACE).expect("an id"),
            spaces: Spaces::All,
            now_ms: NOW_MS,
            retention_days: 30,
        },
        allowed: Allowed { queries: u32::MAX, seconds: u32::MAX },
        limits: Limits { memory_bytes: 20_000_000, seconds: 3_600, rows: 1_000_000, answer_bytes: 4 << 20 },
    };
    let rows = query.select(select).await?;
    Ok(String::from_utf8(rows.json).expect("JSON is UTF-8"))
}

#[test]
fn a_query_that_would_eat_the_memory_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let events = store::open(directory.path(), NOW_MS);
    let lines: String = (0..ROWS)
        .map(|row| {
            format!(
                "{{\"request_id\":\"req_{row:020}\",\"time\":{},\"key_id\":\"key_{}\",\"region\":\"local\",\"outcome\":\
                 \"VALID\",\"latency\":1}}\n",
                NOW_MS - row,
                row % KEYS
            )
        })
        .collect();
    let rows = RowReader::ndjson(Family::Verifications, Some(WORKSPACE.to_owned()), Box::new(Cursor::new(lines)));
    assert_eq!(events.import(Family::Verifications, rows).expect("rows"), ROWS);
    let options = keyward_query::Options { threads: 2, concurrent: 1, waiting: 4, memory_bytes: 2_000_000_000 };
    let query = Query::start(Arc::clone(&events), &options).expect("threads start");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    for (what, sql) in BOMBS {
        let answered = runtime.block_on(answer(&query, sql));
        assert!(matches!(answered, Err(Refusal::Memory(_))), "{what}: {answered:?}");
    }
    // What is as large and is not copied is answered, also where its rows go through in slices.
    for (sql, wanted) in [
        ("SELECT length(groupArray(request_id)) AS n FROM key_verifications_v1", format!("[{{\"n\":{ROWS}}}]")),
        (
            "SELECT count() AS n, uniqExact(a) AS u FROM (SELECT arrayJoin(groupArray(request_id)) AS a FROM \
             key_verifications_v1)",
            format!("[{{\"n\":{ROWS},\"u\":{ROWS}}}]"),
        ),
        (
            "SELECT count() AS n, sum(length(g)) AS s FROM (SELECT key_id AS k, groupArray(request_id) AS g FROM \
             key_verifications_v1 GROUP BY k) AS a JOIN key_verifications_v1 AS b ON a.k = b.key_id",
            format!("[{{\"n\":{ROWS},\"s\":{}}}]", ROWS * (ROWS / KEYS)),
        ),
    ] {
        assert_eq!(runtime.block_on(answer(&query, sql)).expect(sql), wanted, "{sql}");
    }
    assert_eq!(query.engine().memory_used(), 0, "all of it was given back");
    events.stop();
}
