//! ASOF JOIN: each left row with the nearest right row of the same keys.
//!
//! The right side is sorted by keys and moment, and kept; where a left row belongs is found by halving. Rows are compared
//! as Arrow's row format writes them, in which the order of bytes is the order of values and no key is a part of another
//! one, so that equal keys are an equal beginning.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use datafusion::arrow::compute::{SortOptions, interleave, take};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, InputDistributionRequirements, Partitioning,
    PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::OnceCell;

use crate::sql::run::watch;

/// Which right row is the nearest: the last one before the left row, or the first one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nearest {
    /// `left >= right`.
    AtOrBefore,
    /// `left > right`.
    Before,
    /// `left <= right`.
    AtOrAfter,
    /// `left < right`.
    After,
}

/// The node, as a plan holds it. Its columns are those of the left side, then those of the right side, which are NULL where
/// there is no such row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asof {
    /// The left side.
    pub left: LogicalPlan,
    /// The right side.
    pub right: LogicalPlan,
    /// The columns, left and right, that must be equal; then those that are compared. NULL has no partner.
    pub by: Vec<(String, String)>,
    /// Which row is taken.
    pub nearest: Nearest,
    /// Whether left rows without a partner are kept.
    pub outer: bool,
    schema: DFSchemaRef,
}

impl Asof {
    /// The node of two sides.
    ///
    /// # Errors
    /// Sides that share names of columns.
    pub fn new(
        left: LogicalPlan,
        right: LogicalPlan,
        by: Vec<(String, String)>,
        nearest: Nearest,
        outer: bool,
    ) -> Result<Asof> {
        let of_right = right.schema().iter().map(|(name, field)| (name.cloned(), Arc::new(nullable(field.as_ref()))));
        let of_left = left.schema().iter().map(|(name, field)| (name.cloned(), Arc::clone(field)));
        let fields = of_left.chain(of_right).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, std::collections::HashMap::new())?);
        Ok(Asof { left, right, by, nearest, outer, schema })
    }

    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

fn nullable(field: &Field) -> Field {
    field.clone().with_nullable(true)
}

/// Nodes have no order among each other.
impl PartialOrd for Asof {
    fn partial_cmp(&self, _: &Asof) -> Option<Ordering> {
        None
    }
}

impl UserDefinedLogicalNodeCore for Asof {
    fn name(&self) -> &str {
        "Asof"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// None that a rule could rewrite: columns are found by their names.
    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asof: {:?}", self.nearest)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Asof> {
        let [left, right] = <[LogicalPlan; 2]>::try_from(inputs)
            .map_err(|_| DataFusionError::Internal("Asof has two inputs".to_owned()))?;
        Asof::new(left, right, self.by.clone(), self.nearest, self.outer)
    }
}

/// The operator. Each partition of the left side looks into the one right side, which the first of them reads.
#[derive(Debug)]
pub struct AsofExec {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    /// Positions of the columns in `by`.
    by: Vec<(usize, usize)>,
    nearest: Nearest,
    outer: bool,
    sorted: Arc<OnceCell<Arc<Sorted>>>,
    properties: Arc<PlanProperties>,
}

/// Keys and moments are sorted as the row format sorts them.
const ORDER: SortOptions = SortOptions { descending: false, nulls_first: true };

impl AsofExec {
    pub(super) fn new(
        left: Arc<dyn ExecutionPlan>,
        right: Arc<dyn ExecutionPlan>,
        by: Vec<(usize, usize)>,
        nearest: Nearest,
        outer: bool,
    ) -> AsofExec {
        let (of_left, of_right) = (left.schema(), right.schema());
        let mut fields: Vec<Field> = of_left.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(of_right.fields().iter().map(|field| nullable(field)));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::new(Schema::new(fields))),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        AsofExec {
            left,
            right,
            by,
            nearest,
            outer,
            sorted: Arc::new(OnceCell::new()),
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for AsofExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofExec: {:?}", self.nearest)
    }
}

impl ExecutionPlan for AsofExec {
    fn name(&self) -> &str {
        "AsofExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::UnspecifiedDistribution, Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let schema = self.right.schema();
        let sorts = self
            .by
            .iter()
            .map(|&(_, at)| PhysicalSortExpr::new(Arc::new(Column::new(schema.field(at).name(), at)), ORDER));
        vec![None, LexOrdering::new(sorts).map(OrderingRequirements::from)]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![true, false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.left, &self.right]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let [left, right] = <[Arc<dyn ExecutionPlan>; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("AsofExec has two inputs".to_owned()))?;
        Ok(Arc::new(AsofExec::new(left, right, self.by.clone(), self.nearest, self.outer)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let left = self.left.execute(partition, Arc::clone(&context))?;
        let right = Arc::clone(&self.right);
        let sorted = Arc::clone(&self.sorted);
        let schema = self.schema();
        let (lefts, rights): (Vec<usize>, Vec<usize>) = self.by.iter().copied().unzip();
        let (nearest, outer) = (self.nearest, self.outer);
        let reservation = MemoryConsumer::new("AsofExec").register(context.memory_pool());
        let made = Arc::clone(&schema);
        let joined = async move {
            let read = || async move {
                let sorted = Sorted::read(right.execute(0, context)?, &rights, reservation).await?;
                Ok::<_, DataFusionError>(Arc::new(sorted))
            };
            let sorted = Arc::clone(sorted.get_or_try_init(read).await?);
            Ok::<_, DataFusionError>(left.and_then(move |rows| {
                let joined = sorted.join(&rows, &lefts, nearest, outer, &made);
                async move { joined }
            }))
        };
        let stream = futures::stream::once(joined).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream.boxed())))
    }
}

/// The right side in its order.
struct Sorted {
    /// Its columns, batch by batch, and after them a NULL of each.
    columns: Vec<Vec<ArrayRef>>,
    /// Keys and moments of those rows that have all of them.
    rows: Rows,
    /// Where these rows stand: batch, and row in it.
    places: Vec<(u32, u32)>,
    whole: RowConverter,
    keys: RowConverter,
    _memory: MemoryReservation,
}

impl fmt::Debug for Sorted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.places.len())
    }
}

impl Sorted {
    async fn read(mut input: SendableRecordBatchStream, by: &[usize], memory: MemoryReservation) -> Result<Sorted> {
        let schema = input.schema();
        let fields: Vec<SortField> =
            by.iter().map(|&at| SortField::new_with_options(schema.field(at).data_type().clone(), ORDER)).collect();
        let keys = RowConverter::new(fields[..fields.len() - 1].to_vec())?;
        let whole = RowConverter::new(fields)?;
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.fields().len()];
        let mut rows = whole.empty_rows(0, 0);
        let mut places = Vec::new();
        let mut at = 0_u32;
        while let Some(batch) = input.next().await {
            let batch = batch?;
            let compared = picked(&batch, by);
            let kept = complete(&compared, batch.num_rows());
            let compared = compared.iter().map(|column| take(column, &kept, None)).collect::<Result<Vec<_>, _>>()?;
            let before = rows.size();
            whole.append(&mut rows, &compared)?;
            places.extend(kept.values().iter().map(|&row| (at, row)));
            memory.try_grow(
                batch.get_array_memory_size() + (rows.size() - before) + kept.len() * size_of::<(u32, u32)>(),
            )?;
            for (all, column) in columns.iter_mut().zip(batch.columns()) {
                all.push(Arc::clone(column));
            }
            at += 1;
        }
        for (all, field) in columns.iter_mut().zip(schema.fields()) {
            all.push(new_null_array(field.data_type(), 1));
        }
        Ok(Sorted { columns, rows, places, whole, keys, _memory: memory })
    }

    /// Rows of the left side, each with its partner.
    fn join(
        &self,
        left: &RecordBatch,
        by: &[usize],
        nearest: Nearest,
        outer: bool,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        watch::check()?;
        let compared = picked(left, by);
        let complete = complete(&compared, left.num_rows());
        let wholes = self.whole.convert_columns(&compared)?;
        let keys = self.keys.convert_columns(&compared[..compared.len() - 1])?;
        let mut partners: Vec<Option<usize>> = vec![None; left.num_rows()];
        for &row in complete.values() {
            let row = row as usize;
            let (whole, key) = (wholes.row(row), keys.row(row));
            let found = match nearest {
                Nearest::AtOrBefore => self.first_where(|other| other > whole.as_ref()).checked_sub(1),
                Nearest::Before => self.first_where(|other| other >= whole.as_ref()).checked_sub(1),
                Nearest::AtOrAfter => Some(self.first_where(|other| other >= whole.as_ref())),
                Nearest::After => Some(self.first_where(|other| other > whole.as_ref())),
            };
            partners[row] =
                found.filter(|&at| at < self.places.len() && self.rows.row(at).as_ref().starts_with(key.as_ref()));
        }
        let kept: Vec<usize> = (0..left.num_rows()).filter(|&row| outer || partners[row].is_some()).collect();
        let nothing = (self.columns.first().map_or(0, |chunks| chunks.len() - 1), 0);
        let places: Vec<(usize, usize)> = kept
            .iter()
            .map(|&row| partners[row].map_or(nothing, |at| (self.places[at].0 as usize, self.places[at].1 as usize)))
            .collect();
        let taken = UInt32Array::from_iter_values(kept.iter().map(|&row| row as u32));
        let mut columns =
            left.columns().iter().map(|column| take(column, &taken, None)).collect::<Result<Vec<_>, _>>()?;
        for chunks in &self.columns {
            let chunks: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
            columns.push(match places.is_empty() {
                true => chunks[chunks.len() - 1].slice(0, 0),
                false => interleave(&chunks, &places)?,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }

    /// The first row, in their order, for which this holds, and with it for all that follow; or how many there are.
    fn first_where(&self, holds: impl Fn(&[u8]) -> bool) -> usize {
        let (mut from, mut to) = (0, self.places.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if holds(self.rows.row(middle).as_ref()) {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        from
    }
}

fn picked(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|&at| Arc::clone(rows.column(at))).collect()
}

/// The rows that have a value in each of these columns.
fn complete(columns: &[ArrayRef], rows: usize) -> UInt32Array {
    let has_all = |row: &usize| columns.iter().all(|column| column.is_valid(*row));
    UInt32Array::from_iter_values((0..rows).filter(has_all).map(|row| row as u32))
}
