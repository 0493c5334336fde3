//! Events as columns: from the ring's values to a record batch of the raw table.
//!
//! Ids and labels repeat, so equal texts of a batch are kept once (the views share them); that halves what is journaled and
//! held. Request ids never repeat and are not looked up.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder, UInt64Builder,
};
use datafusion::arrow::datatypes::DataType;
use keyward_storage::ids::IdText;

use super::event::{Event, Ratelimit, Verification};
use super::tables::{Family, Level, Table};

/// What column `source` says of every event of this server.
const SOURCE: &str = "api";
/// Longest id with its prefix.
const ID_BYTES_MAX: usize = 24;

/// Bytes of a block of texts. Left to itself a builder doubles its blocks up to 2 MiB and stays there from batch to batch,
/// so that each few kilobytes of texts would be held in megabytes.
pub(super) const BLOCK_BYTES: u32 = 32 * 1024;

/// A column of texts.
fn texts() -> StringViewBuilder {
    StringViewBuilder::new().with_fixed_block_size(BLOCK_BYTES)
}

/// A column of texts that repeat.
fn repeating() -> StringViewBuilder {
    texts().with_deduplicate_strings()
}

/// Adds an id without an allocation.
fn put_id(column: &mut StringViewBuilder, prefix: &str, id: &IdText) {
    let mut text = [0u8; ID_BYTES_MAX];
    let length = prefix.len() + id.as_bytes().len();
    text[..prefix.len()].copy_from_slice(prefix.as_bytes());
    text[prefix.len()..length].copy_from_slice(id.as_bytes());
    column.append_value(ascii(&text[..length]));
}

/// The text of bytes that are ASCII wherever they come from; anything else reads as nothing.
fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Latest time that is kept, the end of the year 9999: calendars and dates as text end there.
pub(crate) const TIME_MAX_MS: i64 = 253_402_300_799_999;

fn time(ms: u64) -> i64 {
    signed(ms).min(TIME_MAX_MS)
}

/// Collects events of both families until they are taken as batches.
pub(crate) struct Columns {
    verifications: Verifications,
    ratelimits: Ratelimits,
}

impl Columns {
    pub fn new(region: &str) -> Columns {
        Columns { verifications: Verifications::new(region), ratelimits: Ratelimits::new() }
    }

    pub fn push(&mut self, event: Event) {
        match event {
            Event::Verification(event) => self.verifications.push(event),
            Event::Ratelimit(event) => self.ratelimits.push(&event),
        }
    }

    /// The rows of a family since the last call; `None` where there are none.
    pub fn take(&mut self, family: Family) -> Option<RecordBatch> {
        let columns = match family {
            Family::Verifications => self.verifications.take(),
            Family::Ratelimits => self.ratelimits.take(),
        }?;
        let schema = Table { family, level: Level::Raw }.schema();
        Some(RecordBatch::try_new(schema, columns).expect("the columns are made in the order and types of the table"))
    }
}

struct Verifications {
    region_label: String,
    request_id: StringViewBuilder,
    time: Int64Builder,
    workspace: StringViewBuilder,
    keyspace: StringViewBuilder,
    key: StringViewBuilder,
    identity: StringViewBuilder,
    external: StringViewBuilder,
    region: StringViewBuilder,
    source: StringViewBuilder,
    app: StringViewBuilder,
    outcome: StringViewBuilder,
    tags: ListBuilder<StringViewBuilder>,
    spent: Int64Builder,
    latency: Float64Builder,
}

impl Verifications {
    fn new(region: &str) -> Verifications {
        let item = match (Table { family: Family::Verifications, level: Level::Raw }).schema().field_with_name("tags") {
            Ok(field) => match field.data_type() {
                DataType::List(item) => Arc::clone(item),
                other => unreachable!("tags are a list, not {other}"),
            },
            Err(_) => unreachable!("verifications have tags"),
        };
        Verifications {
            region_label: region.to_owned(),
            request_id: texts(),
            time: Int64Builder::new(),
            workspace: repeating(),
            keyspace: repeating(),
            key: repeating(),
            identity: repeating(),
            external: repeating(),
            region: repeating(),
            source: texts(),
            app: texts(),
            outcome: repeating(),
            tags: ListBuilder::new(repeating()).with_field(item),
            spent: Int64Builder::new(),
            latency: Float64Builder::new(),
        }
    }

    fn push(&mut self, event: Verification) {
        self.request_id.append_value(ascii(&event.request_id));
        self.time.append_value(time(event.time));
        put_id(&mut self.workspace, "ws_", &event.workspace.0);
        put_id(&mut self.keyspace, "ks_", &event.keyspace.0);
        put_id(&mut self.key, "key_", &event.key.0);
        match &event.identity {
            Some(identity) => {
                put_id(&mut self.identity, "id_", &identity.id.0);
                self.external.append_value(&identity.external_id);
            }
            None => {
                self.identity.append_value("");
                self.external.append_value("");
            }
        }
        self.region.append_value(&self.region_label);
        self.source.append_value(SOURCE);
        self.app.append_value("");
        self.outcome.append_value(event.outcome.as_str());
        for tag in &event.tags {
            self.tags.values().append_value(tag);
        }
        self.tags.append(true);
        self.spent.append_value(signed(event.spent_credits));
        self.latency.append_value(event.latency_ms);
    }

    fn take(&mut self) -> Option<Vec<ArrayRef>> {
        use datafusion::arrow::array::ArrayBuilder;
        if self.time.is_empty() {
            return None;
        }
        Some(vec![
            Arc::new(self.request_id.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.workspace.finish()),
            Arc::new(self.keyspace.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.identity.finish()),
            Arc::new(self.external.finish()),
            Arc::new(self.region.finish()),
            Arc::new(self.source.finish()),
            Arc::new(self.app.finish()),
            Arc::new(self.outcome.finish()),
            Arc::new(self.tags.finish()),
            Arc::new(self.spent.finish()),
            Arc::new(self.latency.finish()),
        ])
    }
}

struct Ratelimits {
    request_id: StringViewBuilder,
    workspace: StringViewBuilder,
    namespace: StringViewBuilder,
    identifier: StringViewBuilder,
    override_id: StringViewBuilder,
    time: Int64Builder,
    passed: BooleanBuilder,
    latency: Float64Builder,
    limit: UInt64Builder,
    remaining: UInt64Builder,
    reset_at: Int64Builder,
    tokens: UInt64Builder,
}

impl Ratelimits {
    fn new() -> Ratelimits {
        Ratelimits {
            request_id: texts(),
            workspace: repeating(),
            namespace: repeating(),
            identifier: repeating(),
            override_id: repeating(),
            time: Int64Builder::new(),
            passed: BooleanBuilder::new(),
            latency: Float64Builder::new(),
            limit: UInt64Builder::new(),
            remaining: UInt64Builder::new(),
            reset_at: Int64Builder::new(),
            tokens: UInt64Builder::new(),
        }
    }

    fn push(&mut self, event: &Ratelimit) {
        self.request_id.append_value(ascii(&event.request_id));
        put_id(&mut self.workspace, "ws_", &event.workspace.0);
        put_id(&mut self.namespace, "rlns_", &event.namespace.0);
        self.identifier.append_value(&event.identifier);
        match &event.override_id {
            Some(id) => put_id(&mut self.override_id, "rlor_", &id.0),
            None => self.override_id.append_value(""),
        }
        self.time.append_value(time(event.time));
        self.passed.append_value(event.passed);
        self.latency.append_value(event.latency_ms);
        self.limit.append_value(event.limit);
        self.remaining.append_value(event.remaining);
        self.reset_at.append_value(signed(event.reset_at));
        self.tokens.append_value(event.tokens);
    }

    fn take(&mut self) -> Option<Vec<ArrayRef>> {
        use datafusion::arrow::array::ArrayBuilder;
        if self.time.is_empty() {
            return None;
        }
        Some(vec![
            Arc::new(self.request_id.finish()),
            Arc::new(self.workspace.finish()),
            Arc::new(self.namespace.finish()),
            Arc::new(self.identifier.finish()),
            Arc::new(self.override_id.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.passed.finish()),
            Arc::new(self.latency.finish()),
            Arc::new(self.limit.finish()),
            Arc::new(self.remaining.finish()),
            Arc::new(self.reset_at.finish()),
            Arc::new(self.tokens.finish()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::{identified, ratelimit, verification};
    use datafusion::arrow::array::AsArray;

    /// AN-TAB-02, AN-TAB-04, AN-TAB-06: an event's fields stand in the columns of its table, absent texts as ''.
    #[test]
    fn events_become_rows_of_their_tables() {
        let mut columns = Columns::new("here");
        columns.push(verification(7).into());
        columns.push(identified(8, &["a", "b", "a"]).into());
        columns.push(ratelimit(9).into());
        let rows = columns.take(Family::Verifications).unwrap();
        let text = |name: &str, row: usize| rows.column_by_name(name).unwrap().as_string_view().value(row).to_owned();
        assert_eq!(text("workspace_id", 0), "ws_wwwwwwwwwwwwwwww");
        assert_eq!((text("identity_id", 0), text("external_id", 0)), (String::new(), String::new()));
        assert_eq!((text("identity_id", 1), text("external_id", 1)), ("id_iiiiiiiiiiiiiiii".into(), "user-1".into()));
        assert_eq!((text("region", 1), text("source", 1), text("app_id", 1)), ("here".into(), "api".into(), "".into()));
        let tags = rows.column_by_name("tags").unwrap().as_list::<i32>();
        assert_eq!((tags.value(0).len(), tags.value(1).len()), (0, 3), "order and duplicates are kept");
        let decisions = columns.take(Family::Ratelimits).unwrap();
        assert_eq!(decisions.num_rows(), 1);
        assert!(decisions.column_by_name("override_id").unwrap().as_string_view().value(0).is_empty());
        assert!(columns.take(Family::Verifications).is_none(), "rows are taken once");
    }
}
