//! Aggregates as plans of DataFusion's, split over partitions and small batches, so that states are merged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::types::{Float64Type, Int64Type, UInt64Type};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringViewArray,
    StringViewBuilder,
};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, WindowFunction, WindowFunctionParams,
};
use datafusion::logical_expr::{
    Expr, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, ident,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;

use super::super::operators::{self, render};
use super::*;

const CONTEXT: Context = Context { now_ms: 0 };

fn column(name: &str, ty: Type) -> Typed {
    Typed::new(ident(name), ty)
}

fn call(arguments: Vec<Typed>) -> Call {
    Call { parameters: Vec::new(), arguments, distinct: false }
}

fn build(name: &str, call: Call) -> Result<Aggregated, Refusal> {
    (find(name).expect("an aggregate").build)(&CONTEXT, call)
}

fn aggregate(aggregated: &Aggregated) -> Expr {
    Expr::AggregateFunction(AggregateFunction {
        func: Arc::clone(&aggregated.function),
        params: AggregateFunctionParams {
            args: aggregated.arguments.clone(),
            distinct: aggregated.distinct,
            filter: aggregated.filter.clone().map(Box::new),
            order_by: Vec::new(),
            null_treatment: None,
        },
    })
}

/// Runs in batches of so many rows over three partitions.
fn collect(
    batch: &RecordBatch,
    rows: usize,
    plan: impl Fn(datafusion::dataframe::DataFrame) -> datafusion::common::Result<datafusion::dataframe::DataFrame>,
) -> RecordBatch {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let config = SessionConfig::new().with_target_partitions(3).with_batch_size(rows.max(1));
        let context = SessionContext::new_with_config(config);
        let mut partitions = vec![Vec::new(); 3];
        for (at, from) in (0..batch.num_rows()).step_by(rows.max(1)).enumerate() {
            partitions[at % 3].push(batch.slice(from, rows.min(batch.num_rows() - from)));
        }
        let table = MemTable::try_new(batch.schema(), partitions).expect("a table");
        let frame = plan(context.read_table(Arc::new(table)).expect("a scan")).expect("a plan");
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.collect().await.expect("an answer");
        concat_batches(&schema, &batches).expect("one batch")
    })
}

/// Results by group (`None` without groups), after what `empty` says.
fn by_group(batch: &RecordBatch, rows: usize, aggregated: &Aggregated, grouped: bool) -> BTreeMap<i64, ScalarValue> {
    let groups = if grouped { vec![ident("g")] } else { Vec::new() };
    let answer = collect(batch, rows, |frame| frame.aggregate(groups.clone(), vec![aggregate(aggregated).alias("a")]));
    let values = answer.column_by_name("a").expect("the aggregate");
    assert_eq!(*values.data_type(), aggregated.ty.arrow(), "the plan's type is what the aggregate says");
    (0..answer.num_rows())
        .map(|row| {
            let group = if grouped { answer.column(0).as_primitive::<Int64Type>().value(row) } else { 0 };
            let value = ScalarValue::try_from_array(values, row).expect("a value");
            let value = match &aggregated.empty {
                Some(empty) if value.is_null() => empty.clone(),
                _ => value,
            };
            (group, value)
        })
        .collect()
}

fn shown(value: &ScalarValue, ty: &Type) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let column = value.to_array().expect("a column");
    let text = render::text(&column, ty).expect("text");
    text.as_string_view().value(0).to_owned()
}

fn small() -> RecordBatch {
    let tags: ListArray = {
        let mut built = datafusion::arrow::array::ListBuilder::new(StringViewBuilder::new());
        for row in [vec!["b"], vec!["a", "x"], vec![], vec!["a"], vec!["a"], vec!["c"]] {
            row.iter().for_each(|tag| built.values().append_value(tag));
            built.append(true);
        }
        built.finish()
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("g", Arc::new(Int64Array::from(vec![1, 1, 1, 1, 2, 2]))),
        ("i", Arc::new(Int64Array::from(vec![3, 1, 2, 2, i64::MAX, 1]))),
        ("f", Arc::new(Float64Array::from(vec![1.5, -f64::NAN, 0.5, f64::NAN, f64::NAN, -f64::NAN]))),
        ("s", Arc::new(StringViewArray::from(vec!["b", "B", "a", "b", "a rather long piece of text", "z"]))),
        ("n", Arc::new(Int64Array::from(vec![Some(4), None, Some(6), None, None, None]))),
        ("b", Arc::new(BooleanArray::from(vec![true, false, true, true, false, false]))),
        ("t", Arc::new(tags)),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
}

fn typed(name: &str) -> Typed {
    let ty = match name {
        "i" | "g" => Type::Int64,
        "f" => Type::Float64,
        "s" => Type::String,
        "n" => Type::Int64.nullable(),
        "b" => Type::Bool,
        "t" => Type::Array(Box::new(Type::String)),
        number => return operators::number(number).expect("a number"),
    };
    column(name, ty)
}

/// Each line: the call, its type, its value in group 1, in group 2, and over nothing; as ClickHouse 26 answers.
const TABLE: &str = "
    count() | UInt64 | 4 | 2 | 0
    count(n) | UInt64 | 2 | 0 | 0
    count(DISTINCT s) | UInt64 | 3 | 2 | 0
    count(DISTINCT n) | UInt64 | 2 | 0 | 0
    count(DISTINCT i,b) | UInt64 | 3 | 2 | 0
    countIf(b) | UInt64 | 3 | 0 | 0
    countIf(n,b) | UInt64 | 2 | 0 | 0
    countIf(DISTINCT s,b) | UInt64 | 2 | 0 | 0
    sum(i) | Int64 | 8 | -9223372036854775808 | 0
    sum(DISTINCT i) | Int64 | 6 | -9223372036854775808 | 0
    sum(b) | UInt64 | 3 | 0 | 0
    sum(n) | Nullable(Int64) | 10 | NULL | NULL
    sum(f) | Float64 | nan | nan | 0
    sumIf(i,b) | Int64 | 7 | 0 | 0
    sumIf(n,b) | Nullable(Int64) | 10 | NULL | NULL
    avg(i) | Float64 | 2 | 4611686018427388000 | nan
    avg(DISTINCT i) | Float64 | 2 | 4611686018427388000 | nan
    avg(b) | Float64 | 0.75 | 0 | nan
    avg(n) | Nullable(Float64) | 5 | NULL | NULL
    min(i) | Int64 | 1 | 1 | 0
    max(i) | Int64 | 3 | 9223372036854775807 | 0
    min(f) | Float64 | 0.5 | nan | 0
    max(f) | Float64 | 1.5 | nan | 0
    min(s) | String | B | a rather long piece of text |
    max(s) | String | b | z |
    min(b) | Bool | false | false | false
    max(b) | Bool | true | false | false
    min(t) | Array(String) | [] | ['a'] | []
    max(t) | Array(String) | ['b'] | ['c'] | []
    min(n) | Nullable(Int64) | 4 | NULL | NULL
    uniq(s) | UInt64 | 3 | 2 | 0
    uniq(n) | UInt64 | 2 | 0 | 0
    uniq(i,s) | UInt64 | 4 | 2 | 0
    uniqExact(t) | UInt64 | 4 | 2 | 0
    uniqExact(b) | UInt64 | 2 | 1 | 0
    uniqExact(i,s) | UInt64 | 4 | 2 | 0
    quantile(i) | Float64 | 2 | 4611686018427388000 | nan
    quantile(0.9)(i) | Float64 | 2.7 | 8301034833169298000 | nan
    quantile(1)(i) | Float64 | 3 | 9223372036854776000 | nan
    quantile(f) | Float64 | 1 | nan | nan
    quantile(n) | Nullable(Float64) | 5 | NULL | NULL
";

fn parse(text: &str) -> Result<Aggregated, Refusal> {
    let (name, rest) = text.split_once('(').expect("a call");
    let (parameters, arguments) =
        rest.trim_end_matches(')').split_once(")(").unwrap_or(("", rest.trim_end_matches(')')));
    let (distinct, arguments) = match arguments.strip_prefix("DISTINCT ") {
        Some(arguments) => (true, arguments),
        None => (false, arguments),
    };
    let list = |text: &str| text.split(',').filter(|name| !name.is_empty()).map(typed).collect();
    build(name, Call { parameters: list(parameters), arguments: list(arguments), distinct })
}

#[test]
fn aggregates_mean_what_clickhouse_means() {
    let batch = small();
    let mut wrong = Vec::new();
    for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let aggregated = parse(cells[0]).unwrap_or_else(|refusal| panic!("{}: {refusal}", cells[0]));
        for rows in [1, 2, 8] {
            let groups = by_group(&batch, rows, &aggregated, true);
            let nothing = by_group(&batch.slice(0, 0), rows, &aggregated, false);
            let values = [&groups[&1], &groups[&2], &nothing[&0]].map(|value| shown(value, &aggregated.ty));
            let found = [aggregated.ty.to_string(), values.join(" | ")].join(" | ");
            if found.trim() != cells[1..].join(" | ").trim() {
                wrong.push(format!("{} in batches of {rows} gives {found}", cells[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_an_aggregate_does_not_take_is_refused() {
    for text in [
        "sum(s)",
        "sum(t)",
        "avg(s)",
        "avg(t)",
        "sum()",
        "sum(i,i)",
        "count(i,i)",
        "min(i,i)",
        "any(i,i)",
        "groupArray(i,i)",
        "groupArray(0)(i)",
        "groupArray(-1)(i)",
        "groupArray(1.5)(i)",
        "groupArray(1,2)(i)",
        "groupUniqArray(0)(i)",
        "uniq()",
        "uniq(12)(i)",
        "quantile(1.5)(i)",
        "quantile(-0.1)(i)",
        "quantile(0.5,0.9)(i)",
        "quantile(s)",
        "quantile(i,i)",
        "countIf(i)",
        "countIf()",
        "countIf(f)",
        "countIf(s)",
        "sumIf(i,i)",
        "sumIf(i)",
        "sumIf(s,b)",
        "count(5)(i)",
        "sum(5)(i)",
        "countIf(DISTINCT b)",
        "count(DISTINCT )",
    ] {
        assert!(matches!(parse(text), Err(Refusal::Query(_))), "{text}");
    }
}

/// The elements of an array, sorted.
fn elements(value: &ScalarValue) -> Vec<String> {
    let ScalarValue::List(list) = value else { panic!("an array: {value:?}") };
    let texts = list.values().as_string_view();
    let mut elements: Vec<String> = texts.iter().flatten().map(str::to_owned).collect();
    elements.sort();
    elements
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However rows are cut into batches and partitions, the states come together to the same.
    #[test]
    fn states_merge_to_the_same_whatever_the_batches(
        rows in proptest::collection::vec((0i64..5, proptest::option::of(0u8..40), 0i64..100), 1..120),
        size in 1usize..40,
        limit in 1usize..6,
    ) {
        let text = |value: u8| if value.is_multiple_of(2) { format!("{value}") } else { format!("a text that is longer {value}") };
        let texts: StringViewArray = rows.iter().map(|(_, value, _)| value.map(text)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(texts),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2 as f64))),
        ];
        let names = ["g", "s", "f"];
        let fields: Vec<Field> =
            names.iter().zip(&columns).map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
        let mut model: BTreeMap<i64, (Vec<String>, Vec<i64>)> = BTreeMap::new();
        for (group, value, number) in &rows {
            let entry = model.entry(*group).or_default();
            entry.0.extend(value.map(text));
            entry.1.push(*number);
        }
        let s = || column("s", Type::String.nullable());
        let limited = Call { parameters: vec![operators::number(&limit.to_string())?], arguments: vec![s()], distinct: false };
        let all = by_group(&batch, size, &build("groupArray", call(vec![s()]))?, true);
        let unique = by_group(&batch, size, &build("groupUniqArray", call(vec![s()]))?, true);
        let some = by_group(&batch, size, &build("groupArray", limited)?, true);
        let exact = by_group(&batch, size, &build("uniqExact", call(vec![s()]))?, true);
        let sampled = by_group(&batch, size, &build("uniq", call(vec![s()]))?, true);
        let any = by_group(&batch, size, &build("any", call(vec![s()]))?, true);
        let middle = by_group(&batch, size, &build("quantile", call(vec![column("f", Type::Float64)]))?, true);
        for (group, (mut texts, mut numbers)) in model {
            texts.sort();
            let set: BTreeSet<String> = texts.iter().cloned().collect();
            prop_assert_eq!(elements(&all[&group]), texts.clone());
            prop_assert_eq!(elements(&unique[&group]), set.iter().cloned().collect::<Vec<_>>());
            let kept = elements(&some[&group]);
            prop_assert_eq!(kept.len(), limit.min(texts.len()));
            prop_assert!(kept.iter().all(|text| set.contains(text)));
            prop_assert_eq!(&exact[&group], &ScalarValue::UInt64(Some(set.len() as u64)));
            prop_assert_eq!(&sampled[&group], &ScalarValue::UInt64(Some(set.len() as u64)));
            match &any[&group] {
                ScalarValue::Utf8View(Some(text)) => prop_assert!(set.contains(text)),
                other => prop_assert!(other.is_null() && set.is_empty()),
            }
            numbers.sort_unstable();
            let middle_at = 0.5 * (numbers.len() - 1) as f64;
            let (low, high) = (numbers[middle_at.floor() as usize], numbers[middle_at.ceil() as usize]);
            prop_assert_eq!(&middle[&group], &ScalarValue::Float64(Some((low + high) as f64 / 2.0)));
        }
    }

    /// Frames that move give what the rows in them give.
    #[test]
    fn frames_that_move_are_aggregated_anew(
        numbers in proptest::collection::vec(proptest::option::of(0i64..9), 1..60),
        before in 0u64..4,
        after in 0u64..3,
        size in 1usize..20,
    ) {
        let order = Int64Array::from_iter_values(0..numbers.len() as i64);
        let columns: Vec<ArrayRef> = vec![Arc::new(order), Arc::new(Int64Array::from(numbers.clone()))];
        let fields = vec![
            Field::new("g", columns[0].data_type().clone(), true),
            Field::new("n", columns[1].data_type().clone(), true),
        ];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch");
        let n = || column("n", Type::Int64.nullable());
        let frame = WindowFrame::new_bounds(
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(before))),
            WindowFrameBound::Following(ScalarValue::UInt64(Some(after))),
        );
        let names = ["count", "uniqExact", "uniq", "any", "sum", "max", "quantile", "groupArray"];
        let windows: Vec<Expr> = names
            .iter()
            .map(|name| {
                let aggregated = build(name, call(vec![n()])).expect("an aggregate");
                Expr::from(WindowFunction {
                    fun: WindowFunctionDefinition::AggregateUDF(aggregated.function),
                    params: WindowFunctionParams {
                        args: aggregated.arguments,
                        partition_by: Vec::new(),
                        order_by: vec![ident("g").sort(true, false)],
                        window_frame: frame.clone(),
                        filter: None,
                        null_treatment: None,
                        distinct: false,
                    },
                })
                .alias(*name)
            })
            .collect();
        let answer = collect(&batch, size, |frame| {
            frame.window(windows.clone())?.sort(vec![ident("g").sort(true, false)])
        });
        let at = |name: &str| Arc::clone(answer.column_by_name(name).expect("a column"));
        for row in 0..numbers.len() {
            let from = row.saturating_sub(before as usize);
            let to = (row + after as usize + 1).min(numbers.len());
            let inside: Vec<i64> = numbers[from..to].iter().flatten().copied().collect();
            let different = inside.iter().collect::<HashSet<_>>().len() as u64;
            let unsigned = |name: &str| at(name).as_primitive::<UInt64Type>().value(row);
            let signed = |name: &str| {
                let values = at(name);
                values.is_valid(row).then(|| values.as_primitive::<Int64Type>().value(row))
            };
            prop_assert_eq!(unsigned("count"), inside.len() as u64);
            prop_assert_eq!(unsigned("uniqExact"), different);
            prop_assert_eq!(unsigned("uniq"), different);
            prop_assert_eq!(signed("any"), inside.first().copied());
            prop_assert_eq!(signed("sum"), (!inside.is_empty()).then(|| inside.iter().sum()));
            prop_assert_eq!(signed("max"), inside.iter().max().copied());
            let gathered = at("groupArray").as_list::<i32>().value(row);
            prop_assert_eq!(gathered.as_primitive::<Int64Type>().values().to_vec(), inside.clone());
            let middle = at("quantile");
            let mut sorted = inside;
            sorted.sort_unstable();
            let expected = sorted.len().checked_sub(1).map(|last| {
                let rank = last as f64 / 2.0;
                (sorted[rank.floor() as usize] + sorted[rank.ceil() as usize]) as f64 / 2.0
            });
            prop_assert_eq!(middle.is_valid(row).then(|| middle.as_primitive::<Float64Type>().value(row)), expected);
        }
    }
}

fn numbers(name: &str, values: impl Iterator<Item = i64>) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
    let schema = Schema::new(vec![Field::new(name, values.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![values]).expect("a batch")
}

/// AN-SEM-18: beyond its sample `uniq` stays within 2 %.
#[test]
fn uniq_stays_within_two_percent() {
    for count in [100_000i64, 200_000, 700_000] {
        let batch = numbers("i", 0..count);
        let estimate = by_group(&batch, 8_192, &build("uniq", call(vec![typed("i")])).expect("uniq"), false);
        let ScalarValue::UInt64(Some(estimate)) = estimate[&0] else { panic!("a count") };
        assert!((estimate as f64 / count as f64 - 1.0).abs() < 0.02, "{estimate} of {count}");
    }
}

/// AN-SEM-19: beyond its sample `quantile` stays within 0.02 of the rank.
#[test]
fn a_quantile_stays_near_its_rank() {
    let count = 400_000i64;
    // Every number below the count once, in another order.
    let batch = numbers("i", (0..count).map(|at| at * 290_249 % count));
    for level in ["0", "0.01", "0.5", "0.95", "0.99"] {
        let parameters = vec![operators::number(level).expect("a level")];
        let call = Call { parameters, arguments: vec![typed("i")], distinct: false };
        let value = by_group(&batch, 8_192, &build("quantile", call).expect("a quantile"), false);
        let ScalarValue::Float64(Some(value)) = value[&0] else { panic!("a float") };
        let rank = value / count as f64;
        let wanted: f64 = level.parse().expect("a float");
        assert!((rank - wanted).abs() < 0.02, "{rank} for {wanted}");
    }
}
