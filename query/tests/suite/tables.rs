//! Events in memory, their roll-ups computed in the plainest way, and what a caller may see of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, ListBuilder, RecordBatch, StringViewArray,
    StringViewBuilder, TimestampSecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::Field;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use keyward_query::events::tables::{Family, Level, Table};
use keyward_query::sql::types::Type;
use serde_json::{Map, Value, json};

const DAY_MS: i64 = 86_400_000;

/// A row by column.
pub type Row = Map<String, Value>;

/// Events of both kinds.
pub struct Events {
    pub verifications: Vec<Row>,
    pub ratelimits: Vec<Row>,
}

/// Who asks.
#[derive(Clone)]
pub struct Caller {
    pub workspace: String,
    /// `None`: all key spaces or namespaces.
    pub spaces: Option<Vec<String>>,
    pub retention_days: u32,
    pub now_ms: i64,
}

impl Events {
    /// The stored ones.
    pub fn load() -> Events {
        let read = |table: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{table}.ndjson"));
            let text = std::fs::read_to_string(path).expect("the events are stored");
            text.lines().map(|line| serde_json::from_str(line).expect("each line is an event")).collect()
        };
        Events { verifications: read("key_verifications_v1"), ratelimits: read("ratelimits_v1") }
    }

    /// What a caller sees of a table.
    pub fn table(&self, table: Table, caller: &Caller) -> Arc<dyn TableProvider> {
        let rows = self.rows(table, caller);
        let schema = table.schema();
        let columns: Vec<ArrayRef> =
            table.columns().iter().map(|column| array(&rows, column.name, &column.ty)).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns are as the schema says");
        // Several partitions of several batches, so that nothing rests on one order.
        let mut partitions = vec![Vec::new(), Vec::new()];
        let mut at = 0;
        while at < batch.num_rows() {
            let length = 700.min(batch.num_rows() - at);
            partitions[at / 700 % 2].push(batch.slice(at, length));
            at += length;
        }
        Arc::new(MemTable::try_new(schema, partitions).expect("the batches are of the schema"))
    }

    fn rows(&self, table: Table, caller: &Caller) -> Vec<Row> {
        let events = match table.family {
            Family::Verifications => &self.verifications,
            Family::Ratelimits => &self.ratelimits,
        };
        let first_day = if caller.retention_days == 0 {
            i64::MIN
        } else {
            (caller.now_ms - i64::from(caller.retention_days) * DAY_MS).div_euclid(DAY_MS)
        };
        let mine = events.iter().filter(|event| {
            let space = event[table.space_column()].as_str().expect("a text");
            event["workspace_id"] == caller.workspace
                && caller.spaces.as_ref().is_none_or(|spaces| spaces.iter().any(|one| one == space))
        });
        if table.level == Level::Raw {
            return mine.filter(|event| time(event).div_euclid(DAY_MS) >= first_day).cloned().collect();
        }
        let mut groups: BTreeMap<String, Row> = BTreeMap::new();
        for event in mine {
            let bucket = bucket(table.level, time(event));
            let visible = match table.level {
                Level::Minute | Level::Hour => bucket.div_euclid(86_400) >= first_day,
                _ => bucket >= first_day,
            };
            if !visible {
                continue;
            }
            let mut key = Row::new();
            let mut sums = Vec::new();
            key.insert("time".to_owned(), json!(bucket));
            for column in table.columns().iter().skip(1) {
                let passed = event.get("passed") == Some(&json!(true));
                let tokens = event.get("tokens").and_then(Value::as_i64).unwrap_or(0);
                let sum = match column.name {
                    "count" | "total" => 1,
                    "spent_credits" => event["spent_credits"].as_i64().expect("a number"),
                    "passed" => i64::from(passed),
                    "total_tokens" => tokens,
                    "passed_tokens" if passed => tokens,
                    "passed_tokens" => 0,
                    name => {
                        key.insert(name.to_owned(), event[name].clone());
                        continue;
                    }
                };
                sums.push((column.name, sum));
            }
            let group = groups.entry(Value::from(key.clone()).to_string()).or_insert(key);
            for (name, sum) in sums {
                let before = group.get(name).and_then(Value::as_i64).unwrap_or(0);
                group.insert(name.to_owned(), json!(before + sum));
            }
        }
        groups.into_values().collect()
    }
}

fn time(event: &Row) -> i64 {
    event["time"].as_i64().expect("a number")
}

/// The start of the bucket: seconds, or days.
fn bucket(level: Level, time_ms: i64) -> i64 {
    let day = time_ms.div_euclid(DAY_MS);
    match level {
        Level::Raw => time_ms,
        Level::Minute => time_ms.div_euclid(60_000) * 60,
        Level::Hour => time_ms.div_euclid(3_600_000) * 3_600,
        Level::Day => day,
        Level::Month => {
            use chrono::{DateTime, Datelike};
            let date = DateTime::from_timestamp_millis(time_ms).expect("a time").date_naive();
            day - i64::from(date.day0())
        }
    }
}

fn array(rows: &[Row], name: &str, ty: &Type) -> ArrayRef {
    let whole = || rows.iter().map(|row| row[name].as_i64().expect("a whole number"));
    match ty {
        Type::Int64 => Arc::new(Int64Array::from_iter_values(whole())),
        Type::UInt64 => {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row[name].as_u64().expect("a whole number"))))
        }
        Type::Float64 => {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row[name].as_f64().expect("a number"))))
        }
        Type::Bool => Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row[name].as_bool()))),
        Type::String => {
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row[name].as_str().expect("a text"))))
        }
        Type::Date => Arc::new(Date32Array::from_iter_values(whole().map(|day| i32::try_from(day).expect("a day")))),
        Type::DateTime(_) => Arc::new(TimestampSecondArray::from_iter_values(whole())),
        Type::Array(element) => {
            let field = Field::new("item", element.arrow(), true);
            let mut lists = ListBuilder::new(StringViewBuilder::new()).with_field(field);
            for row in rows {
                for tag in row[name].as_array().expect("an array") {
                    lists.values().append_value(tag.as_str().expect("a text"));
                }
                lists.append(true);
            }
            Arc::new(lists.finish())
        }
        other => panic!("no table has a column of {other}"),
    }
}
