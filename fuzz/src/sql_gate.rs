//! A text as an analytics query: the gate on whatever stack there is, then the binder over tables that are told apart from
//! all others.

use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::{MemTable, source_as_provider};
use datafusion::logical_expr::LogicalPlan;
use keyward_query::Refusal;
use keyward_query::events::tables::{Family, Table};
use keyward_query::sql::bind::{self, Surroundings};
use keyward_query::sql::gate::{self, Rules, Statement};

use crate::Verdict;

/// See [`crate::Target`].
pub const DICTIONARY: &[&[u8]] = &[
    b"SELECT ",
    b" FROM key_verifications_v1 ",
    b" FROM ratelimits_per_day_v1 ",
    b"system.tables",
    b"(SELECT count() FROM key_verifications_v1)",
    b"WITH a AS (SELECT 1 AS x) ",
    b" UNION ALL ",
    b" EXCEPT ",
    b" WHERE time >= now() - INTERVAL 7 DAY ",
    b" GROUP BY ALL WITH ROLLUP ",
    b" ORDER BY 1 WITH FILL FROM 1 TO 9 STEP 2 ",
    b" LIMIT 3 BY outcome LIMIT 1, 2 ",
    b" LEFT JOIN key_verifications_per_hour_v1 AS b USING (key_id) ",
    b" ARRAY JOIN tags AS tag ",
    b"arrayFilter(x -> x != '', tags)",
    b"arrayJoin(tags)",
    b"quantile(0.95)(latency)",
    b"sum(count) OVER (PARTITION BY outcome ORDER BY time ROWS 2 PRECEDING)",
    b" IN (SELECT key_id FROM key_verifications_v1) ",
    b"CASE WHEN 1 THEN 2 END",
    b"((((((((((((((((",
    b"NOT NOT NOT NOT ",
    b"- - - - - -",
    b" SETTINGS max_threads = 1",
    b"'\\x00\\\\''",
    b"`a``b`",
    b"18446744073709551616",
    b"1e999",
    b"0x",
    b"::Array(Nullable(DateTime64(9, 'Asia/Tokyo')))",
    b"/*",
    b"--",
    b";",
];

/// A stack for the binder, as the threads of queries have.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// 2024-03-20T14:23:45.678Z.
const NOW_MS: i64 = 1_710_944_625_678;

/// Takes a text through the gate, for both operations, and what passes through the binder. Accepted: one of them lets it
/// pass.
///
/// # Panics
///
/// When a plan reads anything but the tables that the binder was handed, when it writes, or when a text that is longer than
/// allowed, or nested deeper, passes.
pub fn run(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    let mut verdict = Verdict::Refused;
    for family in Family::ALL {
        let Ok(statement) = gate::check(text, &Rules { family, now_ms: NOW_MS, retention_days: 30 }) else { continue };
        verdict = Verdict::Accepted;
        assert!(text.len() <= gate::BYTES_MAX, "longer than allowed, and yet it passed");
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let binder = builder.spawn_scoped(scope, || bound(&statement, family)).expect("a thread starts");
            if let Err(panic) = binder.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
    verdict
}

fn bound(statement: &Statement, family: Family) {
    let handed: Mutex<Vec<Arc<dyn TableProvider>>> = Mutex::new(Vec::new());
    let scan = |table: Table| -> Result<Arc<dyn TableProvider>, Refusal> {
        assert_eq!(table.family, family, "a table of the other operation");
        let provider = MemTable::try_new(table.schema(), vec![vec![]]).expect("an empty table");
        let provider: Arc<dyn TableProvider> = Arc::new(provider);
        handed.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&provider));
        Ok(provider)
    };
    let surroundings = Surroundings { family, now_ms: NOW_MS, rows_max: 1_000, scan: &scan };
    let Ok(bound) = bind::bind(statement, &surroundings) else { return };
    let handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
    bound
        .plan
        .apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => {
                    let read = source_as_provider(&scan.source).expect("a table in memory");
                    assert!(handed.iter().any(|table| Arc::ptr_eq(table, &read)), "a table that nobody handed in");
                }
                LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Window(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Sort(_)
                | LogicalPlan::Join(_)
                | LogicalPlan::Union(_)
                | LogicalPlan::EmptyRelation(_)
                | LogicalPlan::Subquery(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Limit(_)
                | LogicalPlan::Distinct(_)
                | LogicalPlan::Unnest(_)
                | LogicalPlan::Extension(_) => {}
                other => panic!("a plan that does more than a SELECT: {other}"),
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .expect("a plan can be walked");
    assert_eq!(bound.plan.schema().fields().len(), bound.columns.len(), "a column without a name");
}
