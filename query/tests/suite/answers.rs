//! Every stored query with its answer, through gate, binder, DataFusion and encoding: the answers are ClickHouse's.

use std::path::Path;
use std::sync::Arc;

use keyward_query::Refusal;
use keyward_query::events::tables::Family;
use keyward_query::sql::bind::{self, Surroundings};
use keyward_query::sql::gate;
use keyward_query::sql::run::{Engine, Limits, Options};
use serde_json::Value;

use crate::compare::Rules;
use crate::tables::{Caller, Events};

/// 2024-03-20T14:23:45.678Z.
const NOW_MS: i64 = 1_710_944_625_678;

struct Asked {
    family: Family,
    sql: String,
    caller: Caller,
}

fn ask(
    engine: &Engine,
    runtime: &tokio::runtime::Runtime,
    events: &Arc<Events>,
    asked: Asked,
) -> Result<Vec<Value>, Refusal> {
    let events = Arc::clone(events);
    let limits = Limits { memory_bytes: 1_000_000_000, seconds: 60, rows: 10_000_000, answer_bytes: 4_194_304 };
    let rows = runtime.block_on(async {
        let place = engine.turn(1).await?;
        let plan = move || {
            let Asked { family, sql, caller } = asked;
            let rules = gate::Rules { family, now_ms: caller.now_ms, retention_days: caller.retention_days };
            let statement = gate::check(&sql, &rules)?;
            let scan = |table| Ok(events.table(table, &caller));
            let surroundings = Surroundings { family, now_ms: caller.now_ms, rows_max: 10_000_000, scan: &scan };
            bind::bind(&statement, &surroundings)
        };
        engine.run(place, limits, plan).await
    })?;
    Ok(serde_json::from_slice(&rows.json).expect("an answer is JSON"))
}

/// The last part of a refusal's error code.
fn code(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Query(_) => "invalid_analytics_query",
        Refusal::NotSelect(_) => "invalid_analytics_query_type",
        Refusal::Table(_) => "invalid_analytics_table",
        Refusal::Function(_) => "invalid_analytics_function",
        Refusal::Range(_) => "query_range_exceeds_retention",
        Refusal::Timeout(_) => "query_execution_timeout",
        Refusal::Memory(_) => "query_memory_limit_exceeded",
        Refusal::Rows(_) => "query_rows_limit_exceeded",
        Refusal::Quota { .. } => "query_quota_exceeded",
        _ => "none",
    }
}

fn judge(case: &Value, answer: Result<Vec<Value>, Refusal>) -> Result<(), String> {
    match (case["rows"].as_array(), answer) {
        (Some(wanted), Ok(got)) => Rules::of(case).compare(wanted, &got),
        (Some(_), Err(refusal)) => Err(format!("refused: {} {refusal}", code(&refusal))),
        (None, Ok(_)) => Err(format!("answered, not refused with {}", case["code"])),
        (None, Err(refusal)) => {
            let codes = case["codes"].as_array().cloned().unwrap_or_else(|| vec![case["code"].clone()]);
            if !codes.iter().any(|wanted| wanted == code(&refusal)) && case["code"] != code(&refusal) {
                return Err(format!("refused with {} ({refusal}), not {}", code(&refusal), case["code"]));
            }
            match case["detail"].as_str() {
                Some(detail) if !refusal.to_string().contains(detail) => Err(format!("{refusal:?} lacks {detail:?}")),
                _ => Ok(()),
            }
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "SQL_CASE names one case, for whoever works on it")]
fn stored_queries_have_the_answers_that_clickhouse_gives() {
    let only = std::env::var("SQL_CASE").unwrap_or_default();
    let events = Arc::new(Events::load());
    let engine = Engine::start(&Options { threads: 2, concurrent: 1, waiting: 1, memory_bytes: 2_000_000_000 })
        .expect("threads start");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the cases are stored")
        .map(|entry| entry.expect("a directory can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let (mut asked, mut failures) = (0, Vec::new());
    for file in files {
        let theme = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("cases can be read");
        let cases: Vec<Value> = serde_json::from_str(&text).expect("cases are a JSON array");
        for case in cases {
            let name = format!("{theme}/{}", case["id"].as_str().expect("a case has an id"));
            if !name.contains(&only) {
                continue;
            }
            let family = match case["endpoint"].as_str() {
                Some("ratelimits") => Family::Ratelimits,
                _ => Family::Verifications,
            };
            let spaces = case[if family == Family::Ratelimits { "namespaces" } else { "key_spaces" }].as_array();
            let caller = Caller {
                workspace: "ws_main".to_owned(),
                spaces: spaces.map(|all| all.iter().map(|one| one.as_str().expect("an id").to_owned()).collect()),
                retention_days: case["retention_days"]
                    .as_u64()
                    .map_or(90, |days| u32::try_from(days).expect("few days")),
                now_ms: NOW_MS,
            };
            let sql = case["sql"].as_str().expect("a case has a query").to_owned();
            asked += 1;
            if let Err(difference) =
                judge(&case, ask(&engine, &runtime, &events, Asked { family, sql: sql.clone(), caller }))
            {
                failures.push(format!("{name}: {difference}\n    {}", sql.chars().take(400).collect::<String>()));
            }
        }
    }
    assert!(asked > 0, "there are cases");
    assert!(failures.is_empty(), "{} of {asked} differ:\n{}", failures.len(), failures.join("\n"));
}
