//! The public tables and their columns, once: what events are stored as, what `SELECT *` gives, and what import accepts
//! (AN-TAB).

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;

use crate::sql::types::Type;

/// What kind of decision an event records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Verifications of keys.
    Verifications,
    /// Rate-limit decisions.
    Ratelimits,
}

/// How far events are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// One row per event.
    Raw,
    /// Per UTC minute.
    Minute,
    /// Per UTC hour.
    Hour,
    /// Per UTC day.
    Day,
    /// Per UTC month.
    Month,
}

/// A public table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// Of what events.
    pub family: Family,
    /// How far summed up.
    pub level: Level,
}

/// A column of a public table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, which is also its name in Parquet.
    pub name: &'static str,
    /// What a query takes it for.
    pub ty: Type,
}

impl Family {
    /// Both families.
    pub const ALL: [Family; 2] = [Family::Verifications, Family::Ratelimits];
}

impl Level {
    /// From raw events to months.
    pub const ALL: [Level; 5] = [Level::Raw, Level::Minute, Level::Hour, Level::Day, Level::Month];
}

impl Table {
    /// All ten tables.
    pub fn all() -> impl Iterator<Item = Table> {
        Family::ALL.into_iter().flat_map(|family| Level::ALL.into_iter().map(move |level| Table { family, level }))
    }

    /// The table of a family with this public name, compared byte for byte (AN-TAB-01).
    pub fn find(family: Family, name: &str) -> Option<Table> {
        Level::ALL.into_iter().map(|level| Table { family, level }).find(|table| table.name() == name)
    }

    /// Its public name.
    pub fn name(self) -> &'static str {
        match (self.family, self.level) {
            (Family::Verifications, Level::Raw) => "key_verifications_v1",
            (Family::Verifications, Level::Minute) => "key_verifications_per_minute_v1",
            (Family::Verifications, Level::Hour) => "key_verifications_per_hour_v1",
            (Family::Verifications, Level::Day) => "key_verifications_per_day_v1",
            (Family::Verifications, Level::Month) => "key_verifications_per_month_v1",
            (Family::Ratelimits, Level::Raw) => "ratelimits_v1",
            (Family::Ratelimits, Level::Minute) => "ratelimits_per_minute_v1",
            (Family::Ratelimits, Level::Hour) => "ratelimits_per_hour_v1",
            (Family::Ratelimits, Level::Day) => "ratelimits_per_day_v1",
            (Family::Ratelimits, Level::Month) => "ratelimits_per_month_v1",
        }
    }

    /// Its number in files, for ever.
    pub(crate) fn code(self) -> u8 {
        let at = |found: Option<usize>| u8::try_from(found.expect("ALL names every one")).expect("a handful");
        let family = at(Family::ALL.into_iter().position(|family| family == self.family));
        family * 16 + at(Level::ALL.into_iter().position(|level| level == self.level))
    }

    /// The table with this number.
    pub(crate) fn of_code(code: u8) -> Option<Table> {
        let family = *Family::ALL.get(usize::from(code / 16))?;
        Some(Table { family, level: *Level::ALL.get(usize::from(code % 16))? })
    }

    /// Its columns, in the order of `SELECT *` (AN-TAB-07).
    pub fn columns(self) -> Vec<Column> {
        let column = |name, ty| Column { name, ty };
        let text = |name| column(name, Type::String);
        let count = |name| column(name, Type::Int64);
        let tags = || column("tags", Type::Array(Box::new(Type::String)));
        let bucket = || match self.level {
            Level::Day | Level::Month => column("time", Type::Date),
            Level::Raw | Level::Minute | Level::Hour => column("time", Type::DateTime(None)),
        };
        match (self.family, self.level) {
            (Family::Verifications, Level::Raw) => vec![
                text("request_id"),
                count("time"),
                text("workspace_id"),
                text("key_space_id"),
                text("key_id"),
                text("identity_id"),
                text("external_id"),
                text("region"),
                text("source"),
                text("app_id"),
                text("outcome"),
                tags(),
                count("spent_credits"),
                column("latency", Type::Float64),
            ],
            (Family::Verifications, _) => vec![
                bucket(),
                text("workspace_id"),
                text("key_space_id"),
                text("identity_id"),
                text("external_id"),
                text("key_id"),
                text("outcome"),
                text("source"),
                text("app_id"),
                tags(),
                count("count"),
                count("spent_credits"),
            ],
            (Family::Ratelimits, Level::Raw) => vec![
                text("request_id"),
                text("workspace_id"),
                text("namespace_id"),
                text("identifier"),
                text("override_id"),
                count("time"),
                column("passed", Type::Bool),
                column("latency", Type::Float64),
                column("limit", Type::UInt64),
                column("remaining", Type::UInt64),
                column("reset_at", Type::Int64),
                column("tokens", Type::UInt64),
            ],
            (Family::Ratelimits, _) => vec![
                bucket(),
                text("workspace_id"),
                text("namespace_id"),
                text("identifier"),
                count("passed"),
                count("total"),
                count("total_tokens"),
                count("passed_tokens"),
            ],
        }
    }

    /// The columns as an Arrow schema, each as its type says.
    pub fn schema(self) -> SchemaRef {
        let fields: Vec<_> =
            self.columns().into_iter().map(|column| column.ty.field(column.name).with_nullable(false)).collect();
        Arc::new(Schema::new(fields))
    }

    /// The column that says whose key space or namespace a row belongs to: what a grant names (AN-PERM).
    pub fn space_column(self) -> &'static str {
        match self.family {
            Family::Verifications => "key_space_id",
            Family::Ratelimits => "namespace_id",
        }
    }
}
