//! What the run promises: answers within bounds of memory, time, rows and bytes, and threads that stop when told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::{Column, JoinType, ScalarValue};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::{array_agg, count, max, sum};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, col, lit,
};

use super::*;
use crate::sql::json::OutputColumn;
use crate::sql::types::Type;

const LIMITS: Limits = Limits { memory_bytes: 500_000_000, seconds: 60, rows: 1_000, answer_bytes: 4_194_304 };

fn engine() -> Engine {
    Engine::start(&Options { threads: 1, concurrent: 2, waiting: 4, memory_bytes: 2_000_000_000 }).expect("threads")
}

/// A table of `rows` rows: `n` counts them, `k` is one of a thousand, `one` is always 1, `t` is text.
fn table(name: &str, rows: i64) -> LogicalPlanBuilder {
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("k", DataType::Int64, false),
        Field::new("one", DataType::Int64, false),
        Field::new("t", DataType::Utf8View, false),
    ]));
    let batches = (0..rows).step_by(8_192).map(|from| {
        let rows = from..(from + 8_192).min(rows);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.clone())),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|n| n * 7_919 % 1_000))),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|_| 1))),
            Arc::new(StringViewArray::from_iter_values(rows.map(|n| format!("{}-{n:0>60}", "a".repeat(40))))),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).expect("four columns")
    });
    let table = MemTable::try_new(Arc::clone(&schema), vec![batches.collect()]).expect("one schema");
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None).expect("a plan")
}

/// The plan, its columns said to be whole numbers.
fn planned(builder: LogicalPlanBuilder) -> Bound {
    let plan = builder.build().expect("a plan");
    let columns = plan.schema().fields().iter().map(|field| OutputColumn {
        name: field.name().clone(),
        ty: match field.data_type() {
            DataType::Utf8View => Type::String,
            _ => Type::Int64,
        },
    });
    Bound { columns: columns.collect(), plan }
}

fn counted(builder: LogicalPlanBuilder) -> LogicalPlanBuilder {
    builder.aggregate(Vec::<Expr>::new(), vec![count(lit(1)).alias("c")]).expect("a plan")
}

fn of(table: &str, column: &str) -> Expr {
    Expr::Column(Column::new(Some(table), column))
}

fn over(function: Expr, frame: WindowFrame) -> Expr {
    let Expr::AggregateFunction(call) = function else { panic!("an aggregate function") };
    let window = WindowFunction::new(WindowFunctionDefinition::AggregateUDF(call.func), call.params.args);
    Expr::WindowFunction(Box::new(window))
        .order_by(vec![of("a", "n").sort(true, false)])
        .window_frame(frame)
        .build()
        .expect("a window")
}

async fn answer(engine: &Engine, limits: Limits, planned: Bound) -> Result<Rows, Refusal> {
    let place = engine.turn(1).await?;
    engine.run(place, limits, move || Ok(planned)).await
}

/// Plans that compute for a long time without bringing anything.
fn nasty() -> Vec<(&'static str, LogicalPlanBuilder)> {
    let (a, b) = (|rows| table("a", rows), |rows| table("b", rows).build().expect("a plan"));
    let unbounded = |units| {
        WindowFrame::new_bounds(
            units,
            WindowFrameBound::CurrentRow,
            WindowFrameBound::Following(ScalarValue::UInt64(None)),
        )
    };
    let wide = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(1_000_000))),
        WindowFrameBound::CurrentRow,
    );
    let window = |frame: WindowFrame, function: Expr| {
        let windowed = a(400_000).window(vec![over(function, frame).alias("w")]).expect("a plan");
        windowed.aggregate(Vec::<Expr>::new(), vec![max(col("w")).alias("m")]).expect("a plan")
    };
    let on_one = (vec![Column::from_qualified_name("a.one")], vec![Column::from_qualified_name("b.one")]);
    vec![
        ("cross join", counted(a(400_000).cross_join(b(400_000)).expect("a plan"))),
        (
            "filtered cross join",
            counted(
                a(400_000)
                    .cross_join(b(400_000))
                    .expect("a plan")
                    .filter((of("a", "n") + of("b", "n")).lt(lit(0)))
                    .expect("a plan"),
            ),
        ),
        (
            "join on a comparison that nothing meets",
            counted(
                a(400_000)
                    .join_on(b(400_000), JoinType::Left, [(of("a", "n") + of("b", "n")).lt(lit(0))])
                    .expect("a plan"),
            ),
        ),
        (
            "join on one value",
            counted(a(100_000).join(b(100_000), JoinType::Inner, on_one.clone(), None).expect("a plan")),
        ),
        (
            "join on one value and a comparison that nothing meets",
            counted(
                a(100_000)
                    .join(b(100_000), JoinType::Inner, on_one, Some((of("a", "n") + of("b", "n")).lt(lit(0))))
                    .expect("a plan"),
            ),
        ),
        ("window to the end", window(unbounded(WindowFrameUnits::Rows), sum(of("a", "n")))),
        ("window of many rows", window(wide, sum(of("a", "n")))),
        (
            "many groups",
            a(1_000_000)
                .aggregate(vec![col("t"), col("n")], vec![count(col("k")).alias("c"), sum(col("k")).alias("s")])
                .expect("a plan")
                .aggregate(Vec::<Expr>::new(), vec![max(col("c")).alias("m")])
                .expect("a plan"),
        ),
        (
            "many arrays",
            counted(
                a(1_000_000).aggregate(vec![col("n") / lit(2)], vec![array_agg(col("t")).alias("l")]).expect("a plan"),
            ),
        ),
        (
            "a long sort",
            a(1_000_000)
                .sort(vec![col("k").sort(true, false), col("t").sort(false, false)])
                .expect("a plan")
                .limit(900_000, Some(1))
                .expect("a plan"),
        ),
        (
            "long texts compared",
            counted(
                a(400_000)
                    .cross_join(b(1_000))
                    .expect("a plan")
                    .filter(of("a", "t").like(lit("%a%a%a%a%a%a%a%a%a%a%a%b%")))
                    .expect("a plan"),
            ),
        ),
    ]
}

/// The computing time that the engine's thread has used so far.
async fn computing_time(engine: &Engine) -> impl Fn() -> Duration + use<> {
    let thread =
        engine.do_briefly(|| std::fs::read_link("/proc/thread-self").expect("Linux tells a thread its number"));
    let file = std::path::Path::new("/proc").join(thread.await.expect("it is short")).join("schedstat");
    move || {
        let text = std::fs::read_to_string(&file).expect("the thread lives");
        let nanoseconds = text.split_whitespace().next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanoseconds.expect("its first number is computing time"))
    }
}

/// A query that nobody waits for stops computing, whatever its plan. The bound is for a build without optimisation, in
/// which a batch takes some ten times as long as in a release.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_query_stops_computing() {
    for (name, plan) in nasty() {
        let engine = engine();
        let computing_time = computing_time(&engine).await;
        let before = computing_time();
        let mut running = Box::pin(answer(&engine, LIMITS, planned(plan)));
        // On a busy machine its thread, which yields to everything else, may not have begun yet.
        let ended = loop {
            match tokio::time::timeout(Duration::from_millis(400), &mut running).await {
                Ok(_) => break true,
                Err(_) if computing_time() > before => break false,
                Err(_) => {}
            }
        };
        drop(running);
        if ended {
            // This machine is fast: there was nothing to stop.
            continue;
        }
        let stopped = Instant::now();
        let mut last = computing_time();
        let quiet_after = loop {
            let since = stopped.elapsed();
            assert!(since < Duration::from_secs(60), "{name} goes on, or keeps its place or memory");
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = computing_time();
            let left = engine.length() == (0, 0) && engine.memory_used() == 0;
            // A thread that others keep from the processor is quiet as well, but its query has not left.
            if left && now - last < Duration::from_millis(1) {
                break since;
            }
            last = now;
        };
        // Seen with `--nocapture`; what it must be is a bench's business.
        println!("{name}: quiet after {quiet_after:?}");
    }
}

/// AN-RES-01: the limits of time and memory are told apart, and the memory is free again afterwards.
#[tokio::test]
async fn limits_are_told_apart() {
    let engine = engine();
    let mut nasty = nasty();
    let cross = nasty.swap_remove(0).1;
    let refused = answer(&engine, Limits { seconds: 0, ..LIMITS }, planned(cross)).await.expect_err("it takes longer");
    assert!(matches!(&refused, Refusal::Timeout(text) if text.contains("0 seconds")), "{refused:?}");

    let groups = |rows| table("a", rows).aggregate(vec![col("t")], vec![count(col("n")).alias("c")]).expect("a plan");
    let tight = Limits { memory_bytes: 2_000_000, ..LIMITS };
    let refused = answer(&engine, tight, planned(groups(100_000))).await.expect_err("too many groups");
    assert!(matches!(&refused, Refusal::Memory(text) if text.contains("2000000 bytes")), "{refused:?}");
    let sort = table("a", 100_000).sort(vec![col("t").sort(true, false)]).expect("a plan");
    let refused = answer(&engine, tight, planned(sort)).await.expect_err("too many rows to sort");
    assert!(matches!(&refused, Refusal::Memory(_)), "{refused:?}");

    let refused = answer(&engine, LIMITS, planned(table("a", 1_001))).await.expect_err("more rows than allowed");
    assert!(matches!(&refused, Refusal::Rows(text) if text.contains("1000")), "{refused:?}");
    let short = Limits { answer_bytes: 1_000, ..LIMITS };
    let refused = answer(&engine, short, planned(table("a", 100))).await.expect_err("a longer answer than allowed");
    assert!(matches!(&refused, Refusal::Memory(text) if text.contains("response size")), "{refused:?}");

    let rows = answer(&engine, LIMITS, planned(groups(1_000))).await.expect("within all limits");
    assert_eq!(rows.count, 1_000);
    // Tasks end a moment after their last batch.
    while engine.memory_used() > 0 || engine.length() != (0, 0) {
        tokio::task::yield_now().await;
    }
}

/// A query that panics, or whose plan cannot be carried out, is refused in general words, and the next one is answered.
#[tokio::test]
async fn a_bug_costs_one_query() {
    let engine = engine();
    let place = engine.turn(1).await.expect("a place");
    let refused = engine.run(place, LIMITS, || panic!("a bug")).await.expect_err("it panics");
    assert_eq!(refused, failure::unforeseen());
    let place = engine.turn(1).await.expect("a place");
    let refused = engine.run(place, LIMITS, || Err(Refusal::query("no such column"))).await.expect_err("it is refused");
    assert_eq!(refused, Refusal::query("no such column"));
    assert_eq!(
        answer(&engine, LIMITS, planned(counted(table("a", 10)))).await.expect("a number").json,
        br#"[{"c":10}]"#
    );
}

/// OR over all of them, as flat as it can be.
fn any_of(conditions: &[Expr]) -> Expr {
    match conditions {
        [one] => one.clone(),
        several => {
            let (front, back) = several.split_at(several.len() / 2);
            any_of(front).or(any_of(back))
        }
    }
}

/// Statements as deep as the gate lets them be are planned on the stack that there is.
#[tokio::test]
async fn deep_plans_fit_the_stack() {
    let engine = engine();
    let wide = || {
        let sum = (0..100).fold(col("n"), |sum, _| sum + lit(1_i64));
        let either = any_of(&(0..600).map(|n| (col("n") + lit(0_i64)).eq(lit(n * 3))).collect::<Vec<_>>());
        planned(table("a", 10).filter(either).expect("a plan").project(vec![sum.alias("s")]).expect("a plan"))
    };
    let deep = || {
        let mut deep = table("a", 10);
        for level in 0..30 {
            deep = deep.alias(format!("q{level}")).expect("a plan").filter(col("n").gt_eq(lit(0_i64))).expect("a plan");
            deep = deep.project(vec![(col("n") + lit(1_i64)).alias("n")]).expect("a plan");
        }
        planned(deep)
    };
    let place = engine.turn(1).await.expect("a place");
    assert_eq!(engine.run(place, LIMITS, move || Ok(wide())).await.expect("rows").count, 4);
    let place = engine.turn(1).await.expect("a place");
    assert_eq!(engine.run(place, LIMITS, move || Ok(deep())).await.expect("rows").count, 10);
}
