//! Roll-ups: raw rows summed up per UTC minute, hour, day and month, exactly (AN-ROLL).
//!
//! A *series* is a distinct combination of the group columns without time (AN-ROLL-02, AN-ROLL-03). Rows are first mapped to
//! series by hash, and minutes are summed per (series, minute). They are sorted by (workspace, day of the directory, series,
//! bucket), which is the order parts are kept in and merged by; in it the minutes of an hour are neighbours, and so are the
//! hours of a day, so that each coarser level is one pass over the finer one.

use std::sync::Arc;

use datafusion::arrow::array::MAX_INLINE_VIEW_LEN;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampSecondArray, UInt32Array, UInt64Array,
};
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use hashbrown::HashTable;
use keyward_storage::ids::WorkspaceId;

use super::constant::is_constant;
use super::event::workspace_of;
use super::tables::{Family, Level, Table};

/// Milliseconds of a minute.
const MINUTE_MS: i64 = 60_000;
/// Most sums a family has.
const SUMS_MAX: usize = 4;

/// The levels that are derived, from fine to coarse.
pub(crate) const LEVELS: [Level; 4] = [Level::Minute, Level::Hour, Level::Day, Level::Month];

/// The group columns but time, in the order roll-ups are sorted by.
pub(crate) fn group_columns(family: Family) -> &'static [&'static str] {
    match family {
        Family::Verifications => &[
            "workspace_id",
            "key_space_id",
            "key_id",
            "identity_id",
            "external_id",
            "outcome",
            "source",
            "app_id",
            "tags",
        ],
        Family::Ratelimits => &["workspace_id", "namespace_id", "identifier"],
    }
}

/// The columns that are sums.
pub(crate) fn sum_columns(family: Family) -> &'static [&'static str] {
    match family {
        Family::Verifications => &["count", "spent_credits"],
        Family::Ratelimits => &["passed", "total", "total_tokens", "passed_tokens"],
    }
}

/// Rows of a table, sorted, with where each workspace's days are in them.
#[derive(Debug, Clone)]
pub(crate) struct Rolled {
    pub rows: RecordBatch,
    pub slices: Vec<Slice>,
}

/// The rows of one workspace and directory day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub workspace: WorkspaceId,
    pub day: i32,
    pub start: usize,
    pub length: usize,
}

impl Rolled {
    /// The rows of a slice.
    pub fn slice(&self, slice: Slice) -> RecordBatch {
        self.rows.slice(slice.start, slice.length)
    }
}

/// The first day of the month that a day is in, both as days since 1970.
pub(crate) fn month_of(day: i64) -> i64 {
    use chrono::Datelike;
    let date = chrono::DateTime::from_timestamp(day.saturating_mul(86_400), 0).unwrap_or_default().date_naive();
    day - i64::from(date.day0())
}

#[derive(Clone, Copy)]
struct Group {
    series: u32,
    bucket: i64,
    sums: [i64; SUMS_MAX],
}

impl Group {
    fn add(&mut self, sums: [i64; SUMS_MAX]) {
        // Sums wrap as ClickHouse's do (AN-SEM-08).
        self.sums.iter_mut().zip(sums).for_each(|(held, more)| *held = held.wrapping_add(more));
    }
}

/// Sums raw rows of one family up, one result per level of [`LEVELS`]. The batches are read where they lie: put together
/// first, they would take as much memory once more.
pub(crate) fn roll_up(family: Family, raw: &[RecordBatch]) -> Result<[Rolled; 4], ArrowError> {
    let keys: Vec<Vec<ArrayRef>> = raw
        .iter()
        .map(|rows| group_columns(family).iter().map(|name| column(rows, name)).collect())
        .collect::<Result<_, _>>()?;
    let (series_of, first_rows) = series(&keys)?;
    let mut minutes = Groups::new();
    for (rows, series_of) in raw.iter().zip(&series_of) {
        let time = column(rows, "time")?;
        let time = time.as_primitive::<Int64Type>();
        let minute = |row| time.value(row).div_euclid(MINUTE_MS);
        match family {
            Family::Verifications => {
                let spent = column(rows, "spent_credits")?;
                let spent = spent.as_primitive::<Int64Type>();
                for (row, series) in series_of.iter().enumerate() {
                    minutes.add(*series, minute(row), [1, spent.value(row), 0, 0]);
                }
            }
            Family::Ratelimits => {
                let (passed, tokens) = (column(rows, "passed")?, column(rows, "tokens")?);
                let passed: &BooleanArray = passed.as_boolean();
                let tokens: &UInt64Array = tokens.as_primitive::<UInt64Type>();
                for (row, series) in series_of.iter().enumerate() {
                    let (passed, tokens) = (passed.value(row), tokens.value(row).cast_signed());
                    let when = |value: i64| if passed { value } else { 0 };
                    minutes.add(*series, minute(row), [when(1), 1, tokens, when(tokens)]);
                }
            }
        }
    }
    let distinct: Vec<ArrayRef> = (0..group_columns(family).len())
        .map(|at| {
            let columns: Vec<&dyn Array> = keys.iter().map(|keys| keys[at].as_ref()).collect();
            interleave(&columns, &first_rows)
        })
        .collect::<Result<_, _>>()?;
    let order = SeriesOrder::of(&distinct)?;
    let table = |level| Table { family, level };
    let minutes = Sorted::of(Level::Minute, minutes.groups, &order);
    let hours = minutes.coarser(Level::Hour, &order, |minute| minute.div_euclid(60));
    let days = hours.coarser(Level::Day, &order, |hour| hour.div_euclid(24));
    let months = days.coarser(Level::Month, &order, month_of);
    let minutes = rolled(table(Level::Minute), &distinct, &order, &minutes, None)?;
    let hours = rolled(table(Level::Hour), &distinct, &order, &hours, Some(&minutes))?;
    let days = rolled(table(Level::Day), &distinct, &order, &days, Some(&hours))?;
    let months = rolled(table(Level::Month), &distinct, &order, &months, Some(&days))?;
    Ok([minutes.0, hours.0, days.0, months.0])
}

fn column(rows: &RecordBatch, name: &str) -> Result<ArrayRef, ArrowError> {
    let column = rows.column_by_name(name);
    column.cloned().ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
}

/// Batch and row in it.
type At = (usize, usize);

/// The series of every row of every batch, numbered as they come, and the first row of each.
fn series(batches: &[Vec<ArrayRef>]) -> Result<(Vec<Vec<u32>>, Vec<At>), ArrowError> {
    // What is the same everywhere tells no rows apart. One column stays, for its length.
    let all = batches.first().map_or(0, Vec::len);
    let mut telling: Vec<usize> = (0..all).filter(|at| !is_constant(batches.iter().map(|keys| &keys[*at]))).collect();
    if telling.is_empty() {
        telling.extend((0..all).take(1));
    }
    let batches = batches.iter().map(|keys| telling.iter().map(|at| Arc::clone(&keys[*at])).collect());
    let batches: Vec<Vec<ArrayRef>> = batches.collect();
    let columns: Vec<Vec<Key<'_>>> = batches.iter().map(|keys| keys.iter().map(Key::of).collect()).collect();
    let same = |one: At, other: At| {
        let keys = columns[one.0].iter().zip(&columns[other.0]);
        keys.into_iter().all(|(of_one, of_other)| of_one.same(one.1, of_other, other.1))
    };
    let mut table: HashTable<(u64, u32)> = HashTable::new();
    let mut firsts: Vec<At> = Vec::new();
    // Rows are compared with the latest of a series: equal texts of one batch are the same text.
    let mut latest: Vec<At> = Vec::new();
    let mut of_rows = Vec::with_capacity(batches.len());
    let mut hashes = Vec::new();
    for (batch, keys) in batches.iter().enumerate() {
        hashes.clear();
        hashes.resize(keys.first().map_or(0, |key| key.len()), 0);
        create_hashes(keys, &RandomState::default(), &mut hashes)
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
        let of_row = hashes.iter().enumerate().map(|(row, hash)| {
            let alike = |(other, series): &(u64, u32)| other == hash && same(latest[*series as usize], (batch, row));
            if let Some((_, series)) = table.find(*hash, alike) {
                latest[*series as usize] = (batch, row);
                return Ok(*series);
            }
            let series = u32::try_from(firsts.len()).map_err(|error| ArrowError::ExternalError(Box::new(error)))?;
            firsts.push((batch, row));
            latest.push((batch, row));
            table.insert_unique(*hash, (*hash, series), |(hash, _)| *hash);
            Ok(series)
        });
        of_rows.push(of_row.collect::<Result<_, ArrowError>>()?);
    }
    Ok((of_rows, firsts))
}

/// A group column, ready to compare two of its rows.
enum Key<'a> {
    Text(&'a StringViewArray),
    Texts { offsets: &'a [i32], texts: &'a StringViewArray },
}

impl<'a> Key<'a> {
    fn of(array: &'a ArrayRef) -> Key<'a> {
        match array.as_string_view_opt() {
            Some(text) => Key::Text(text),
            None => {
                let list = array.as_list::<i32>();
                Key::Texts { offsets: list.value_offsets(), texts: list.values().as_string_view() }
            }
        }
    }

    /// Whether its value in row `one` is that of the same column of another batch in row `other`.
    fn same(&self, one: usize, of_other: &Key<'_>, other: usize) -> bool {
        match (self, of_other) {
            (Key::Text(texts), Key::Text(others)) => same_text(texts, one, others, other),
            (Key::Texts { offsets, texts }, Key::Texts { offsets: of_others, texts: others }) => {
                let range = |offsets: &[i32], row: usize| offsets[row] as usize..offsets[row + 1] as usize;
                let (one, other) = (range(offsets, one), range(of_others, other));
                one.len() == other.len() && one.zip(other).all(|(one, other)| same_text(texts, one, others, other))
            }
            _ => false,
        }
    }
}

fn same_text(texts: &StringViewArray, one: usize, others: &StringViewArray, other: usize) -> bool {
    let (a, b) = (texts.views()[one], others.views()[other]);
    // A view begins with the length and four bytes of the text, or is all of a short one.
    if a as u32 <= MAX_INLINE_VIEW_LEN || (a == b && std::ptr::eq(texts, others)) {
        return a == b;
    }
    a as u64 == b as u64 && texts.value(one) == others.value(other)
}

/// Sums by (series, bucket).
struct Groups {
    table: HashTable<u32>,
    groups: Vec<Group>,
}

fn group_hash(series: u32, bucket: i64) -> u64 {
    // Fibonacci hashing of both, folded so that high and low bits are mixed (Knuth, TAOCP volume 3, 6.4).
    let mixed = (u64::from(series) << 32 ^ bucket.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

impl Groups {
    fn new() -> Groups {
        Groups { table: HashTable::new(), groups: Vec::new() }
    }

    fn add(&mut self, series: u32, bucket: i64, sums: [i64; SUMS_MAX]) {
        let Groups { table, groups } = self;
        let found = table.find(group_hash(series, bucket), |&at| {
            let group = &groups[at as usize];
            group.series == series && group.bucket == bucket
        });
        match found {
            Some(&at) => groups[at as usize].add(sums),
            None => {
                let at = u32::try_from(groups.len()).expect("no more groups than rows");
                groups.push(Group { series, bucket, sums });
                table.insert_unique(group_hash(series, bucket), at, |&at| {
                    let group = &groups[at as usize];
                    group_hash(group.series, group.bucket)
                });
            }
        }
    }
}

/// The groups of a level in the order of its parts.
struct Sorted {
    level: Level,
    groups: Vec<Group>,
}

impl Sorted {
    fn of(level: Level, mut groups: Vec<Group>, order: &SeriesOrder) -> Sorted {
        groups.sort_unstable_by_key(|group| order.place(level, group));
        Sorted { level, groups }
    }

    /// The next coarser level: neighbours that fall into one bucket are one group.
    fn coarser(&self, level: Level, order: &SeriesOrder, bucket: impl Fn(i64) -> i64) -> Sorted {
        let mut coarse: Vec<Group> = Vec::with_capacity(self.groups.len());
        let finer = self.groups.iter().map(|group| Group { bucket: bucket(group.bucket), ..*group });
        finer.for_each(|group| add_to_last(&mut coarse, group));
        // The days of a month lie apart, each with all its series.
        if !coarse.is_sorted_by_key(|group| order.place(level, group)) {
            let finer = Sorted::of(level, std::mem::take(&mut coarse), order).groups;
            finer.into_iter().for_each(|group| add_to_last(&mut coarse, group));
        }
        Sorted { level, groups: coarse }
    }
}

/// Adds a group to the last one where both are of one series and bucket, else behind it.
fn add_to_last(groups: &mut Vec<Group>, group: Group) {
    match groups.last_mut() {
        Some(last) if (last.series, last.bucket) == (group.series, group.bucket) => last.add(group.sums),
        _ => groups.push(group),
    }
}

/// Where each series stands among all.
struct SeriesOrder {
    rank: Vec<u32>,
    /// Rank of the series' workspace, and the workspace.
    workspace: Vec<u32>,
    workspaces: Vec<String>,
}

impl SeriesOrder {
    fn of(distinct: &[ArrayRef]) -> Result<SeriesOrder, ArrowError> {
        let fields = distinct.iter().map(|key| SortField::new(key.data_type().clone())).collect();
        let rows = RowConverter::new(fields)?.convert_columns(distinct)?;
        let mut sorted: Vec<u32> = (0..u32::try_from(rows.num_rows()).expect("no more series than rows")).collect();
        sorted.sort_unstable_by(|&one, &other| rows.row(one as usize).cmp(&rows.row(other as usize)));
        let names = distinct[0].as_string_view();
        let mut order =
            SeriesOrder { rank: vec![0; sorted.len()], workspace: vec![0; sorted.len()], workspaces: Vec::new() };
        for (rank, &series) in (0u32..).zip(&sorted) {
            let name = names.value(series as usize);
            if order.workspaces.last().is_none_or(|last| last != name) {
                order.workspaces.push(name.to_owned());
            }
            order.rank[series as usize] = rank;
            order.workspace[series as usize] = u32::try_from(order.workspaces.len() - 1).expect("fewer than series");
        }
        Ok(order)
    }

    /// What the groups of a level are sorted by.
    fn place(&self, level: Level, group: &Group) -> (u32, i32, u32, i64) {
        let series = group.series as usize;
        (self.workspace[series], directory_day(level, group.bucket), self.rank[series], group.bucket)
    }
}

/// The day whose directory a bucket belongs to.
fn directory_day(level: Level, bucket: i64) -> i32 {
    let day = match level {
        Level::Raw | Level::Minute => bucket.div_euclid(24 * 60),
        Level::Hour => bucket.div_euclid(24),
        Level::Day | Level::Month => bucket,
    };
    i32::try_from(day).expect("times are bounded when rows are taken")
}

/// A level as rows, and its group columns. Where the `finer` level has a row for each of its rows, the columns are the same.
fn rolled(
    table: Table,
    distinct: &[ArrayRef],
    order: &SeriesOrder,
    sorted: &Sorted,
    finer: Option<&(Rolled, Vec<ArrayRef>)>,
) -> Result<(Rolled, Vec<ArrayRef>), ArrowError> {
    let groups = &sorted.groups;
    let mut slices: Vec<Slice> = Vec::new();
    let mut slice_of = None;
    for (at, group) in groups.iter().enumerate() {
        let (workspace, day, ..) = order.place(sorted.level, group);
        if slice_of != Some((workspace, day)) {
            slice_of = Some((workspace, day));
            let name = &order.workspaces[workspace as usize];
            let workspace = workspace_of(name)
                .ok_or_else(|| ArrowError::InvalidArgumentError(format!("`{name}` is no workspace id")))?;
            slices.push(Slice { workspace, day, start: at, length: 0 });
        }
        if let Some(slice) = slices.last_mut() {
            slice.length += 1;
        }
    }
    let keys: Vec<ArrayRef> = match finer {
        // One group of each is one of the other, in the same order, unless days were brought together.
        Some((finer, keys)) if finer.rows.num_rows() == groups.len() && finer.slices.len() == slices.len() => {
            keys.clone()
        }
        _ => {
            let firsts: UInt32Array = groups.iter().map(|group| group.series).collect();
            distinct.iter().map(|key| take(key, &firsts, None)).collect::<Result<_, _>>()?
        }
    };
    let buckets = groups.iter().map(|group| group.bucket);
    let days = |day: i64| i32::try_from(day).expect("times are bounded when rows are taken");
    let time: ArrayRef = match table.level {
        Level::Raw | Level::Minute => Arc::new(TimestampSecondArray::from_iter_values(buckets.map(|at| at * 60))),
        Level::Hour => Arc::new(TimestampSecondArray::from_iter_values(buckets.map(|at| at * 3_600))),
        Level::Day | Level::Month => Arc::new(Date32Array::from_iter_values(buckets.map(days))),
    };
    let sum = |at: usize| -> ArrayRef { Arc::new(Int64Array::from_iter_values(groups.iter().map(|it| it.sums[at]))) };
    let rows = assemble(table, time, &keys, sum)?;
    Ok((Rolled { rows, slices }, keys))
}

/// Puts the columns of a roll-up into the order of the table.
fn assemble(
    table: Table,
    time: ArrayRef,
    keys: &[ArrayRef],
    sum: impl Fn(usize) -> ArrayRef,
) -> Result<RecordBatch, ArrowError> {
    let schema: SchemaRef = table.schema();
    let columns = schema.fields().iter().map(|field| {
        let name = field.name().as_str();
        if let Some(at) = group_columns(table.family).iter().position(|key| *key == name) {
            return Ok(Arc::clone(&keys[at]));
        }
        if let Some(at) = sum_columns(table.family).iter().position(|column| *column == name) {
            return Ok(sum(at));
        }
        if name == "time" {
            return Ok(Arc::clone(&time));
        }
        Err(ArrowError::SchemaError(format!("a roll-up has no column {name}")))
    });
    let columns = columns.collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema, columns)
}

/// The bounds of column `time` of a batch, in its own unit; `None` for no rows.
pub(crate) fn time_bounds(rows: &RecordBatch) -> Option<(i64, i64)> {
    use datafusion::arrow::array::types::{Date32Type, TimestampSecondType};
    use datafusion::arrow::compute::{max, min};
    use datafusion::arrow::datatypes::DataType;
    let time = rows.column_by_name("time")?;
    Some(match time.data_type() {
        DataType::Int64 => {
            let time = time.as_primitive::<Int64Type>();
            (min(time)?, max(time)?)
        }
        DataType::Date32 => {
            let time = time.as_primitive::<Date32Type>();
            (min(time)?.into(), max(time)?.into())
        }
        _ => {
            let time = time.as_primitive::<TimestampSecondType>();
            (min(time)?, max(time)?)
        }
    })
}
