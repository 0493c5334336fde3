//! The operator that fills.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use datafusion::arrow::compute::interleave;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::Sender;

use super::key::{Filled, Point};

/// Batches that may wait for whoever reads them.
const WAITING: usize = 2;

/// The operator: one partition in, one partition out.
#[derive(Debug)]
pub struct FillExec {
    pub input: Arc<dyn ExecutionPlan>,
    pub order: LexOrdering,
    /// Positions of the columns that make a group.
    pub prefix: Vec<usize>,
    /// Keys, with the positions of their columns.
    pub keys: Vec<(Filled, usize)>,
    pub defaults: Vec<ScalarValue>,
    /// Positions of columns that are computed from the row before.
    pub interpolated: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    pub properties: Arc<PlanProperties>,
}

impl FillExec {
    pub fn properties_of(input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
        Arc::new(PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ))
    }
}

impl DisplayAs for FillExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FillExec: {} keys", self.keys.len())
    }
}

impl ExecutionPlan for FillExec {
    fn name(&self) -> &str {
        "FillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![Some(OrderingRequirements::from(self.order.clone()))]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for (_, expr) in &self.interpolated {
            if visit(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(FillExec {
            properties: FillExec::properties_of(&input),
            input,
            order: self.order.clone(),
            prefix: self.prefix.clone(),
            keys: self.keys.clone(),
            defaults: self.defaults.clone(),
            interpolated: self.interpolated.clone(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = context.session_config().batch_size();
        let mut input = self.input.execute(partition, context)?;
        let schema = self.input.schema();
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&schema), WAITING);
        let mut filler = Filler::new(self, schema, rows, builder.tx())?;
        builder.spawn(async move {
            while let Some(batch) = input.next().await {
                filler.batch(batch?).await?;
            }
            filler.end().await
        });
        Ok(builder.build())
    }
}

/// A row of the output.
enum Row {
    /// Of the batch at hand.
    Given(usize),
    /// Added: its keys, what was computed for it, and the row whose group it belongs to.
    Added { keys: Vec<Point>, interpolated: Vec<ScalarValue>, group: Group },
}

/// A row that tells the group of an added one.
#[derive(Clone, Copy)]
enum Group {
    Given(usize),
    /// The last row of the batch before.
    Before,
}

struct Filler {
    schema: SchemaRef,
    prefix: Vec<usize>,
    keys: Vec<(Filled, usize)>,
    defaults: Vec<ArrayRef>,
    interpolated: Vec<(usize, Arc<dyn PhysicalExpr>)>,
    rows_max: usize,
    out: Sender<Result<RecordBatch>>,
    converter: Option<RowConverter>,

    /// The batch at hand.
    given: RecordBatch,
    /// Its last predecessor's last row.
    before: Option<RecordBatch>,
    /// What goes out next.
    rows: Vec<Row>,
    /// The row that goes out last, where columns are interpolated.
    last: Option<RecordBatch>,
    /// The group at hand.
    group: Option<Vec<u8>>,
    group_row: Group,
    /// Whether a row of the group was seen.
    started: bool,
    /// Whether a row was seen at all.
    seen: bool,
    /// The keys of the point at hand.
    current: Vec<Point>,
    /// Each key's next point of the grid; `None` where there is none.
    next: Vec<Option<Point>>,
}

impl Filler {
    fn new(exec: &FillExec, schema: SchemaRef, rows_max: usize, out: Sender<Result<RecordBatch>>) -> Result<Filler> {
        let defaults = exec.defaults.iter().map(ScalarValue::to_array).collect::<Result<_>>()?;
        let fields: Vec<SortField> =
            exec.prefix.iter().map(|&at| SortField::new(schema.field(at).data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Filler {
            given: RecordBatch::new_empty(Arc::clone(&schema)),
            schema,
            prefix: exec.prefix.clone(),
            keys: exec.keys.clone(),
            defaults,
            interpolated: exec.interpolated.clone(),
            rows_max,
            out,
            converter,
            before: None,
            rows: Vec::new(),
            last: None,
            group: None,
            group_row: Group::Before,
            started: false,
            seen: false,
            current: exec.keys.iter().map(|(key, _)| key.origin()).collect(),
            next: vec![None; exec.keys.len()],
        })
    }

    async fn batch(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.given = batch;
        let points =
            self.keys.iter().map(|(key, at)| key.points(self.given.column(*at))).collect::<Result<Vec<_>>>()?;
        let groups = match &mut self.converter {
            None => None,
            Some(converter) => {
                let columns: Vec<ArrayRef> = self.prefix.iter().map(|&at| Arc::clone(self.given.column(at))).collect();
                Some(converter.convert_columns(&columns)?)
            }
        };
        for row in 0..self.given.num_rows() {
            if let Some(groups) = &groups {
                let group = groups.row(row);
                if self.group.as_deref() != Some(group.as_ref()) {
                    if self.started {
                        self.group_row = row.checked_sub(1).map_or(Group::Before, Group::Given);
                        self.finish(0).await?;
                    }
                    self.group = Some(group.as_ref().to_vec());
                    self.started = false;
                }
            }
            self.group_row = Group::Given(row);
            let keys: Vec<Option<Point>> = points.iter().map(|points| points[row]).collect();
            self.row(row, &keys).await?;
        }
        // Rows that are added later belong to the last row of this batch.
        self.flush().await?;
        self.before = Some(self.given.slice(self.given.num_rows() - 1, 1));
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        self.group_row = Group::Before;
        self.given = RecordBatch::new_empty(Arc::clone(&self.schema));
        if self.started {
            self.finish(0).await?;
        } else if !self.seen {
            // The columns before the filled ones hold their defaults then.
            let bounded = self.keys.first().is_some_and(|(key, _)| key.from.is_some() && key.to.is_some());
            if bounded {
                self.point(0).await?;
            }
        }
        self.flush().await
    }

    /// A row that is there: the points before it, then itself.
    async fn row(&mut self, row: usize, keys: &[Option<Point>]) -> Result<()> {
        let mut same = self.started;
        for (level, value) in keys.iter().enumerate() {
            let key = self.keys[level].0.clone();
            let Some(value) = *value else {
                // NULL and NaN come after everything, and lie on no grid.
                if same {
                    self.finish(level).await?;
                }
                self.next[level..].fill(None);
                break;
            };
            let equal = !key.is_before(self.current[level], value) && !key.is_before(value, self.current[level]);
            if same && equal && self.next[level].is_some() {
                continue;
            }
            if same {
                self.finish(level + 1).await?;
            } else {
                self.next[level] = Some(key.from.unwrap_or(value));
            }
            while let Some(next) = self.next[level]
                && key.is_before(next, value)
                && key.to.is_none_or(|to| key.is_before(next, to))
            {
                self.current[level] = next;
                self.point(level + 1).await?;
                self.next[level] = key.after(next);
            }
            if let Some(next) = self.next[level]
                && !key.is_before(next, value)
                && !key.is_before(value, next)
            {
                self.next[level] = key.after(next);
            }
            self.current[level] = value;
            same = false;
        }
        self.started = true;
        self.seen = true;
        if !self.interpolated.is_empty() {
            self.last = Some(self.given.slice(row, 1));
        }
        self.push(Row::Given(row)).await
    }

    /// The points behind the last row, up to TO, from the innermost key to this one.
    async fn finish(&mut self, level: usize) -> Result<()> {
        for level in (level..self.keys.len()).rev() {
            let key = self.keys[level].0.clone();
            while let Some(next) = self.next[level]
                && key.to.is_some_and(|to| key.is_before(next, to))
            {
                self.current[level] = next;
                self.point(level + 1).await?;
                self.next[level] = key.after(next);
            }
        }
        Ok(())
    }

    /// A point without a row: the keys before `level` are set, the others are filled as in an empty group.
    fn point(&mut self, level: usize) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let Some((key, _)) = self.keys.get(level) else { return self.add().await };
            let key = key.clone();
            let mut next = Some(key.origin());
            let mut first = true;
            while let Some(value) = next
                && match (key.from, key.to) {
                    (Some(_), Some(to)) => key.is_before(value, to),
                    _ => first,
                }
            {
                first = false;
                self.current[level] = value;
                self.point(level + 1).await?;
                next = key.after(value);
            }
            Ok(())
        })
    }

    async fn add(&mut self) -> Result<()> {
        let mut interpolated = Vec::with_capacity(self.interpolated.len());
        if !self.interpolated.is_empty() {
            // Before the first point there is a row of defaults.
            let before = match &self.last {
                Some(last) => last.clone(),
                None => RecordBatch::try_new(Arc::clone(&self.schema), self.defaults.clone())?,
            };
            for (_, expr) in &self.interpolated {
                interpolated.push(ScalarValue::try_from_array(&expr.evaluate(&before)?.into_array(1)?, 0)?);
            }
        }
        let row = Row::Added { keys: self.current.clone(), interpolated, group: self.group_row };
        if !self.interpolated.is_empty() {
            self.last = Some(self.built(std::slice::from_ref(&row))?);
        }
        self.push(row).await
    }

    async fn push(&mut self, row: Row) -> Result<()> {
        self.rows.push(row);
        if self.rows.len() >= self.rows_max { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let batch = self.built(&rows);
        let gone = |_| DataFusionError::External(Box::new(crate::error::Refusal::Cancelled));
        self.out.send(batch).await.map_err(gone)
    }

    /// Rows as a batch.
    fn built(&self, rows: &[Row]) -> Result<RecordBatch> {
        const GIVEN: usize = 0;
        const BEFORE: usize = 1;
        const ADDED: usize = 2;
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for at in 0..self.schema.fields().len() {
            let key = self.keys.iter().position(|(_, column)| *column == at);
            let computed = self.interpolated.iter().position(|(column, _)| *column == at);
            let group = self.prefix.contains(&at);
            let mut points = Vec::new();
            let mut scalars = Vec::new();
            let mut places = Vec::with_capacity(rows.len());
            for row in rows {
                places.push(match row {
                    Row::Given(row) => (GIVEN, *row),
                    Row::Added { keys, interpolated, group: of } => match (key, computed) {
                        (Some(key), _) => {
                            points.push(keys[key]);
                            (ADDED, points.len() - 1)
                        }
                        (None, Some(computed)) => {
                            scalars.push(interpolated[computed].clone());
                            (ADDED, scalars.len() - 1)
                        }
                        (None, None) if group => match of {
                            Group::Given(row) => (GIVEN, *row),
                            Group::Before if self.before.is_some() => (BEFORE, 0),
                            Group::Before => (ADDED, 0),
                        },
                        (None, None) => (ADDED, 0),
                    },
                });
            }
            let empty = || new_empty_array(self.schema.field(at).data_type());
            let added = match (key, computed) {
                (Some(key), _) => self.keys[key].0.column_of(&points)?,
                (None, Some(_)) if scalars.is_empty() => empty(),
                (None, Some(_)) => ScalarValue::iter_to_array(scalars)?,
                (None, None) => Arc::clone(&self.defaults[at]),
            };
            let before = self.before.as_ref().map_or_else(empty, |before| Arc::clone(before.column(at)));
            columns.push(interleave(&[self.given.column(at).as_ref(), before.as_ref(), added.as_ref()], &places)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}
