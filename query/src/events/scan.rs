//! A public table as a query sees it: the rows of one workspace, of the spaces the caller may see, within retention.
//!
//! A scan cannot give another workspace's rows whatever the query says: sealed rows come from the workspace's own directory,
//! each file of which is checked to hold no other workspace's (`parts`); unsealed rows are picked by the column. The days
//! before the cut of retention (AN-RET-01) are whole files, too; spaces are a filter on every row.
//!
//! A roll-up's group keys come once each (AN-ROLL-04): a day that is one part is read as it is; of any other day the parts
//! and the roll-up of unsealed rows are merged while they are read (`MergeExec`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, DataFusionError, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfigBuilder, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::parquet::arrow::arrow_reader::ArrowReaderOptions;
use datafusion::parquet::arrow::async_reader::AsyncFileReader;
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::physical_expr::expressions::{Column, in_list, lit};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use keyward_storage::ids::WorkspaceId;

use super::core::Core;
use super::live::{Live, Unsealed};
use super::merge::{Input, Merge};
use super::parts::{Part, PartFile, Parts};
use super::retention::first_visible_day;
use super::rollup::{LEVELS, month_of};
use super::tables::{Level, Table};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// An unsealed batch over more days than this is asked which ones it really has.
const DAYS_GUESSED_MAX: i64 = 64;

/// Whose rows a scan gives. Nothing a query says can widen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The caller's workspace (AN-TAB-08).
    pub workspace: WorkspaceId,
    /// The key spaces or namespaces the caller may see (AN-PERM).
    pub spaces: Spaces,
    /// The query's now, unix ms.
    pub now_ms: u64,
    /// Days of retention, N of AN-RET-01; 0 = no limit.
    pub retention_days: u32,
}

/// Which key spaces or namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spaces {
    /// All of the workspace.
    All,
    /// These ids; none of them = no rows (AN-PERM-04).
    These(Vec<String>),
}

/// A table in a scope.
pub(crate) struct EventTable {
    core: Arc<Core>,
    table: Table,
    scope: Scope,
    schema: SchemaRef,
}

impl fmt::Debug for EventTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTable").field("table", &self.table.name()).finish_non_exhaustive()
    }
}

impl EventTable {
    pub fn new(core: Arc<Core>, table: Table, scope: Scope) -> EventTable {
        EventTable { core, table, scope, schema: table.schema() }
    }

    /// The first day whose rows are visible.
    fn cut(&self) -> Option<i64> {
        first_visible_day(self.scope.now_ms, self.scope.retention_days)
    }

    /// The live parts that may hold rows of the scope and within the bounds of `time`.
    fn parts(&self, live: &Live, bounds: &Bounds) -> Vec<Arc<Part>> {
        let parts = live.parts(self.table, self.scope.workspace).iter();
        let visible = parts.filter(|part| self.cut().is_none_or(|cut| i64::from(part.info.day) >= cut));
        visible.filter(|part| bounds.meet(part.info.least_time, part.info.greatest_time)).cloned().collect()
    }

    /// Unsealed batches that may hold rows of the scope.
    fn unsealed<'l>(&self, live: &'l Live) -> impl Iterator<Item = &'l Arc<Unsealed>> {
        let (workspace, cut) = (self.scope.workspace, self.cut());
        live.unsealed(self.table.family).iter().filter(move |batch| {
            batch.only.is_none_or(|only| only == workspace)
                && cut.is_none_or(|cut| batch.times.1.div_euclid(DAY_MS) >= cut)
        })
    }

    fn raw(&self, live: &Live, bounds: &Bounds) -> Result<Sources> {
        let mut rows = Vec::new();
        for batch in self.unsealed(live).filter(|batch| bounds.meet(batch.times.0, batch.times.1)) {
            rows.extend(visible_rows(batch, self.scope.workspace, self.cut())?);
        }
        Ok(Sources { single: self.parts(live, bounds), rows, merged: Vec::new() })
    }

    fn rolled(&self, live: &Live, bounds: &Bounds) -> Result<Sources> {
        let mut days: BTreeMap<i32, Day> = BTreeMap::new();
        // Bounds prune whole days only: of a day that is merged every part is needed.
        for part in self.parts(live, &Bounds::default()) {
            days.entry(part.info.day).or_default().parts.push(part);
        }
        for batch in self.unsealed(live) {
            for day in self.days_of(batch)? {
                days.entry(day).or_default().unsealed.push(Arc::clone(batch));
            }
        }
        let mut sources = Sources::default();
        for (number, mut day) in days {
            if self.cut().is_some_and(|cut| i64::from(number) < cut) {
                continue;
            }
            let meets = |part: &Arc<Part>| bounds.meet(part.info.least_time, part.info.greatest_time);
            if day.unsealed.is_empty() && !day.parts.iter().any(meets) {
                continue;
            }
            if day.parts.len() == 1 && day.unsealed.is_empty() {
                sources.single.append(&mut day.parts);
            } else {
                day.number = number;
                sources.merged.push(day);
            }
        }
        Ok(sources)
    }

    /// The directory days that a batch may have rows on.
    fn days_of(&self, batch: &Unsealed) -> Result<BTreeSet<i32>> {
        let (first, last) = (batch.times.0.div_euclid(DAY_MS), batch.times.1.div_euclid(DAY_MS));
        if last - first > DAYS_GUESSED_MAX {
            let rolled = batch.rolled().map_err(|error| DataFusionError::External(Box::new(error)))?;
            let slices = rolled[level_at(self.table.level)].slices.iter();
            return Ok(slices.filter(|slice| slice.workspace == self.scope.workspace).map(|slice| slice.day).collect());
        }
        let day = |day: i64| match self.table.level {
            Level::Month => month_of(day),
            _ => day,
        };
        Ok((first..=last).filter_map(|number| i32::try_from(day(number)).ok()).collect())
    }

    fn plan(&self, sources: Sources, columns: &[usize], partitions: usize, selective: bool) -> Result<Plan> {
        let mut plans: Vec<Plan> = Vec::new();
        if !sources.single.is_empty() {
            plans.push(self.files(&sources.single, columns, partitions, selective)?);
        }
        if !sources.rows.is_empty() {
            let mut groups: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions.min(sources.rows.len())];
            let count = groups.len();
            for (at, rows) in sources.rows.into_iter().enumerate() {
                groups[at % count].push(rows);
            }
            plans.push(MemorySourceConfig::try_new_exec(&groups, Arc::clone(&self.schema), Some(columns.to_vec()))?);
        }
        if !sources.merged.is_empty() {
            plans.push(Arc::new(MergeExec::new(self, sources.merged, columns, partitions)?));
        }
        match plans.is_empty() {
            true => Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(columns)?)))),
            false => UnionExec::try_new(plans),
        }
    }

    /// Reads parts with DataFusion's Parquet source.
    fn files(&self, parts: &[Arc<Part>], columns: &[usize], partitions: usize, selective: bool) -> Result<Plan> {
        let readers = Readers { parts: Arc::clone(&self.core.parts) };
        let source = ParquetSource::new(Arc::clone(&self.schema))
            .with_parquet_file_reader_factory(Arc::new(readers))
            .with_enable_page_index(true)
            .with_bloom_filter_on_read(true)
            // Rows that a filter drops are not decoded then; only worth its trouble where it drops nearly all.
            .with_pushdown_filters(selective)
            .with_reorder_filters(selective);
        let mut sorted: Vec<&Arc<Part>> = parts.iter().collect();
        sorted.sort_by_key(|part| std::cmp::Reverse(part.info.bytes));
        let mut groups: Vec<(u64, Vec<&Arc<Part>>)> = vec![(0, Vec::new()); partitions.clamp(1, parts.len())];
        for part in sorted {
            if let Some(group) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
                group.0 += part.info.bytes;
                group.1.push(part);
            }
        }
        let groups = groups.into_iter().map(|(_, mut parts)| {
            parts.sort_by_key(|part| (part.info.day, part.info.no));
            let statistics = self.statistics_of(parts.iter().copied());
            FileGroup::new(parts.into_iter().map(|part| self.file(part)).collect())
                .with_statistics(Arc::new(statistics))
        });
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups.collect())
            .with_statistics(self.statistics_of(parts.iter()))
            .with_projection_indices(Some(columns.to_vec()))?
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn file(&self, part: &Arc<Part>) -> PartitionedFile {
        let path = part.path.to_string_lossy().into_owned();
        PartitionedFile::new(path, part.info.bytes)
            .with_arrow_schema(Arc::clone(&self.schema))
            .with_statistics(Arc::new(self.statistics_of(std::iter::once(part))))
            .with_extension(Arc::clone(part))
    }

    /// What the manifest knows exactly of some parts: rows, no NULLs, the bounds of `time`.
    fn statistics_of<'p>(&self, parts: impl Iterator<Item = &'p Arc<Part>> + Clone) -> Statistics {
        let rows: u64 = parts.clone().map(|part| part.info.rows).sum();
        let least = parts.clone().map(|part| part.info.least_time).min();
        let greatest = parts.clone().map(|part| part.info.greatest_time).max();
        let bound = |bound: Option<i64>| bound.map_or(Precision::Absent, |at| Precision::Exact(self.time_value(at)));
        let columns = self.schema.fields().iter().map(|field| {
            let known = ColumnStatistics::new_unknown().with_null_count(Precision::Exact(0));
            match field.name() == "time" {
                true => known.with_min_value(bound(least)).with_max_value(bound(greatest)),
                false => known,
            }
        });
        Statistics {
            num_rows: Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX)),
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        }
    }

    fn time_value(&self, at: i64) -> ScalarValue {
        match self.table.level {
            Level::Raw => ScalarValue::Int64(Some(at)),
            Level::Minute | Level::Hour => ScalarValue::TimestampSecond(Some(at), None),
            Level::Day | Level::Month => ScalarValue::Date32(i32::try_from(at).ok()),
        }
    }
}

type Plan = Arc<dyn ExecutionPlan>;

fn level_at(level: Level) -> usize {
    LEVELS.into_iter().position(|other| other == level).unwrap_or(0)
}

/// Where a scan's rows come from.
#[derive(Default)]
struct Sources {
    /// Parts that are read as they are.
    single: Vec<Arc<Part>>,
    /// Raw rows in memory.
    rows: Vec<RecordBatch>,
    /// Days that are merged.
    merged: Vec<Day>,
}

/// A day (of months, a month) of a roll-up that is in more than one place.
#[derive(Debug, Default, Clone)]
struct Day {
    number: i32,
    parts: Vec<Arc<Part>>,
    unsealed: Vec<Arc<Unsealed>>,
}

/// The rows of a batch that a scope sees, but for spaces.
fn visible_rows(batch: &Unsealed, workspace: WorkspaceId, cut: Option<i64>) -> Result<Option<RecordBatch>> {
    let cut = cut.and_then(|cut| cut.checked_mul(DAY_MS)).filter(|cut| batch.times.0 < *cut);
    if batch.only == Some(workspace) && cut.is_none() {
        return Ok(Some(batch.rows.clone()));
    }
    let (Some(names), Some(times)) = (batch.rows.column_by_name("workspace_id"), batch.rows.column_by_name("time"))
    else {
        return Ok(None);
    };
    let (names, times) = (names.as_string_view(), times.as_primitive::<Int64Type>());
    let workspace = workspace.to_string();
    let seen = |row: usize| names.value(row) == workspace && cut.is_none_or(|cut| times.value(row) >= cut);
    let seen: BooleanArray = (0..names.len()).map(|row| Some(seen(row))).collect();
    let rows = filter_record_batch(&batch.rows, &seen)?;
    Ok((rows.num_rows() > 0).then_some(rows))
}

#[async_trait]
impl TableProvider for EventTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They prune here and are applied to the rows that are left by whoever asked.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let nothing = || -> Result<Plan> { Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?)))) };
        let spaces = match &self.scope.spaces {
            Spaces::All => None,
            Spaces::These(ids) if ids.is_empty() => return nothing(),
            Spaces::These(ids) => Some(ids),
        };
        let live = self.core.view.load();
        let bounds = Bounds::of(filters, self.table);
        let sources = match self.table.level {
            Level::Raw => self.raw(&live, &bounds)?,
            _ => self.rolled(&live, &bounds)?,
        };
        let partitions = state.config().target_partitions().max(1);
        let selective = filters.iter().any(is_selective);
        let Some(ids) = spaces else { return self.plan(sources, &wanted, partitions, selective) };

        // The column of spaces is read whether or not the query wants it.
        let space = self.schema.index_of(self.table.space_column())?;
        let mut columns = wanted.clone();
        let space = match columns.iter().position(|column| *column == space) {
            Some(at) => at,
            None => {
                columns.push(space);
                columns.len() - 1
            }
        };
        let plan = self.plan(sources, &columns, partitions, selective)?;
        let schema = plan.schema();
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(space).name(), space));
        let ids = ids.iter().map(|id| lit(ScalarValue::Utf8View(Some(id.clone())))).collect();
        let filtered: Plan = Arc::new(FilterExec::try_new(in_list(column, ids, &false, &schema)?, plan)?);
        if columns.len() == wanted.len() {
            return Ok(filtered);
        }
        let kept = schema.fields().iter().take(wanted.len()).enumerate().map(|(at, field)| ProjectionExpr {
            expr: Arc::new(Column::new(field.name(), at)),
            alias: field.name().clone(),
        });
        Ok(Arc::new(ProjectionExec::try_new(kept.collect::<Vec<_>>(), filtered)?))
    }
}

/// Whether a filter keeps few rows: it names a value of a column that has very many.
fn is_selective(filter: &Expr) -> bool {
    let many = |expr: &Expr| {
        matches!(expr, Expr::Column(column) if matches!(
            column.name.as_str(),
            "request_id" | "key_id" | "external_id" | "identity_id" | "identifier" | "override_id"
        ))
    };
    let literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            (many(left) && literal(right)) || (literal(left) && many(right))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => is_selective(left) || is_selective(right),
        Expr::InList(list) => !list.negated && many(&list.expr) && list.list.iter().all(literal),
        _ => false,
    }
}

/// Bounds that filters put on `time`, both included, in the column's unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    least: Option<i64>,
    greatest: Option<i64>,
}

impl Bounds {
    fn of(filters: &[Expr], table: Table) -> Bounds {
        let mut bounds = Bounds::default();
        filters.iter().for_each(|filter| bounds.narrow(filter, table));
        bounds
    }

    fn meet(&self, least: i64, greatest: i64) -> bool {
        self.least.is_none_or(|bound| greatest >= bound) && self.greatest.is_none_or(|bound| least <= bound)
    }

    fn at_least(&mut self, bound: i64) {
        self.least = Some(self.least.map_or(bound, |known| known.max(bound)));
    }

    fn at_most(&mut self, bound: i64) {
        self.greatest = Some(self.greatest.map_or(bound, |known| known.min(bound)));
    }

    fn narrow(&mut self, filter: &Expr, table: Table) {
        let time = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == "time");
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                self.narrow(left, table);
                self.narrow(right, table);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (op, value) = match (time(left), time(right)) {
                    (true, false) => (*op, value_of(right, table)),
                    (false, true) => (op.swap().unwrap_or(Operator::NotEq), value_of(left, table)),
                    _ => return,
                };
                let Some(value) = value else { return };
                match op {
                    Operator::Eq => {
                        self.at_least(value);
                        self.at_most(value);
                    }
                    // Strict bounds are taken for the others: a part too many costs little.
                    Operator::Gt | Operator::GtEq => self.at_least(value),
                    Operator::Lt | Operator::LtEq => self.at_most(value),
                    _ => {}
                }
            }
            Expr::Between(between) if !between.negated && time(&between.expr) => {
                if let Some(low) = value_of(&between.low, table) {
                    self.at_least(low);
                }
                if let Some(high) = value_of(&between.high, table) {
                    self.at_most(high);
                }
            }
            _ => {}
        }
    }
}

/// A literal of the type of `time`.
fn value_of(expr: &Expr, table: Table) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    match (table.level, value) {
        (Level::Raw, ScalarValue::Int64(value)) => *value,
        (Level::Minute | Level::Hour, ScalarValue::TimestampSecond(value, None)) => *value,
        (Level::Day | Level::Month, ScalarValue::Date32(value)) => value.map(i64::from),
        _ => None,
    }
}

/// Gives DataFusion's Parquet source the parts' bytes through the disk seam, and their footers parsed once.
#[derive(Debug)]
struct Readers {
    parts: Arc<Parts>,
}

impl ParquetFileReaderFactory for Readers {
    fn create_reader(
        &self,
        _partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let part = file.extension::<Arc<Part>>().cloned();
        let part = part.ok_or_else(|| DataFusionError::Internal("a file that is no part".to_owned()))?;
        let opened = self.parts.open(&part).map_err(DataFusionError::IoError)?;
        Ok(Box::new(Reader { parts: Arc::clone(&self.parts), part, file: opened }))
    }
}

/// Reads one part. It blocks: a query's threads are its own.
struct Reader {
    parts: Arc<Parts>,
    /// Holding the part keeps its file from being removed.
    part: Arc<Part>,
    file: PartFile,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        let bytes = self.file.bytes(range).map_err(ParquetError::from);
        futures::future::ready(bytes).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        futures::future::ready(self.parts.footer(&self.part, &self.file)).boxed()
    }
}

/// Merges the days of a roll-up that are in more than one place, so that each group key comes once.
struct MergeExec {
    merger: Merger,
    /// By partition.
    days: Vec<Vec<Day>>,
    properties: Arc<PlanProperties>,
}

/// What merging a day takes.
#[derive(Clone)]
struct Merger {
    parts: Arc<Parts>,
    table: Table,
    workspace: WorkspaceId,
    columns: Vec<usize>,
}

impl fmt::Debug for MergeExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeExec").field("days", &self.days).finish_non_exhaustive()
    }
}

impl fmt::Debug for Unsealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsealed").field("numbers", &self.numbers).finish_non_exhaustive()
    }
}

impl MergeExec {
    fn new(of: &EventTable, days: Vec<Day>, columns: &[usize], partitions: usize) -> Result<MergeExec> {
        let mut groups: Vec<Vec<Day>> = vec![Vec::new(); partitions.clamp(1, days.len().max(1))];
        let count = groups.len();
        for (at, day) in days.into_iter().enumerate() {
            groups[at % count].push(day);
        }
        let schema = Arc::new(of.schema.project(columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(count),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let merger = Merger {
            parts: Arc::clone(&of.core.parts),
            table: of.table,
            workspace: of.scope.workspace,
            columns: columns.to_vec(),
        };
        Ok(MergeExec { merger, days: groups, properties: Arc::new(properties) })
    }
}

impl Merger {
    fn begin(&self, day: &Day) -> io::Result<Merge> {
        let mut inputs: Vec<Input> = Vec::with_capacity(day.parts.len() + day.unsealed.len());
        for part in &day.parts {
            inputs.push(Box::new(self.parts.read(part, None)?));
        }
        for batch in &day.unsealed {
            let rolled = batch.rolled().map_err(io::Error::other)?;
            let rolled = &rolled[level_at(self.table.level)];
            let slices = rolled.slices.iter();
            for slice in slices.filter(|slice| slice.day == day.number && slice.workspace == self.workspace) {
                inputs.push(Box::new(std::iter::once(Ok(rolled.slice(*slice)))));
            }
        }
        Merge::new(self.table, inputs)
    }
}

impl DisplayAs for MergeExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "MergeExec: table={}, days={}",
            self.merger.table.name(),
            self.days.iter().map(Vec::len).sum::<usize>()
        )
    }
}

impl ExecutionPlan for MergeExec {
    fn name(&self) -> &str {
        "MergeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let days = self.days.get(partition).cloned().unwrap_or_default();
        let merger = self.merger.clone();
        let mut days = days.into_iter();
        let mut merging: Option<(Merge, Day)> = None;
        let mut failed = false;
        let batches = std::iter::from_fn(move || {
            while !failed {
                if let Some((merge, _)) = &mut merging {
                    match merge.next() {
                        Some(batch) => {
                            failed = batch.is_err();
                            let batch = batch.map_err(DataFusionError::IoError);
                            return Some(batch.and_then(|batch| Ok(batch.project(&merger.columns)?)));
                        }
                        None => merging = None,
                    }
                }
                let day = days.next()?;
                match merger.begin(&day) {
                    Ok(merge) => merging = Some((merge, day)),
                    Err(error) => {
                        failed = true;
                        return Some(Err(DataFusionError::IoError(error)));
                    }
                }
            }
            None
        });
        let stream = RecordBatchStreamAdapter::new(self.schema(), futures::stream::iter(batches));
        Ok(Box::pin(cooperative(stream)))
    }
}
