//! How a query is stopped, and what a query's code may know of the query it runs for.
//!
//! DataFusion stops where a stream is dropped, once the task that drives it yields. Some plans do not yield for seconds: a
//! join makes thousands of batches out of one, a filter rejects them all. So every operator of a plan is wrapped in
//! `WatchExec`, which looks between two batches whether anybody still waits, and conditions of joins look each time they
//! are computed. Kernels that may take long for one batch call [`check`] themselves.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, Statistics};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use tokio::task::coop;

use super::held::{Holding, Kept};
use super::lists::Copies;
use crate::error::Refusal;

/// A running query, as its code sees it.
#[derive(Debug)]
pub struct Watch {
    /// Whether somebody waits for the answer.
    wanted: AtomicBool,
    /// Bytes that a single column of a batch may have: what a kernel makes is in no operator's reservation.
    column_bytes_max: usize,
    /// Bytes of arrays that windows have computed.
    array_bytes: AtomicUsize,
    /// The first thing that a kernel refused.
    refusal: OnceLock<Refusal>,
}

tokio::task_local! {
    static CURRENT: Arc<Watch>;
}

impl Watch {
    /// Of a query that somebody waits for.
    pub fn new(column_bytes_max: usize) -> Watch {
        Watch {
            wanted: AtomicBool::new(true),
            column_bytes_max,
            array_bytes: AtomicUsize::new(0),
            refusal: OnceLock::new(),
        }
    }

    /// Nobody waits any more.
    pub fn stop(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// What a kernel refused, if one has.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().cloned()
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.wanted.load(Ordering::Relaxed) { Ok(()) } else { Err(Refusal::Cancelled) }
    }
}

/// Runs a query's code as that query's. Tasks that DataFusion starts from it belong to it, too.
pub async fn within<F: Future>(watch: Arc<Watch>, work: F) -> F::Output {
    CURRENT.scope(watch, work).await
}

/// Makes the tasks that DataFusion starts belong to the query that starts them; once for the process.
pub fn follow_tasks() {
    // It fails where it was done before.
    let _ = set_join_set_tracer(&Follow);
}

/// Whether to go on: for loops that take longer than some milliseconds. Outside of a query there is nothing to stop.
///
/// # Errors
/// [`Refusal::Cancelled`] once nobody waits for the answer.
pub fn check() -> Result<(), Refusal> {
    CURRENT.try_with(|watch| watch.check()).unwrap_or(Ok(()))
}

/// Remembers what a kernel refused: where it runs inside a scan, DataFusion makes a text of its error.
pub fn remember(error: &DataFusionError) {
    if let DataFusionError::External(cause) = error
        && let Some(refusal) = cause.downcast_ref::<Refusal>()
    {
        // Outside of a query there is nobody to tell, and the first refusal is enough.
        let _ = CURRENT.try_with(|watch| watch.refusal.set(refusal.clone()));
    }
}

/// Whether a column of a batch may have that many bytes: for kernels whose result can be far larger than their arguments.
///
/// # Errors
/// [`Refusal::Memory`] where it may not.
pub fn check_bytes(bytes: usize) -> Result<(), Refusal> {
    let max = CURRENT.try_with(|watch| watch.column_bytes_max).unwrap_or(usize::MAX);
    if bytes <= max {
        return Ok(());
    }
    Err(Refusal::Memory(format!(
        "An expression of the query makes values that need more than {max} bytes for some thousand rows. Make them shorter."
    )))
}

/// Counts an array that a window has computed for a row. All of them together may have as many bytes as a column: a frame that
/// grows from row to row makes arrays that grow with the square of the rows.
///
/// # Errors
/// [`Refusal::Memory`] where they have more.
pub fn count_array(bytes: usize) -> Result<(), Refusal> {
    CURRENT.try_with(|watch| {
        let before = watch.array_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= watch.column_bytes_max {
            return Ok(());
        }
        Err(Refusal::Memory(format!(
            "The arrays that the query's windows make need more than {} bytes. Use a shorter frame, or groupArray(n) to keep \
             a few values.",
            watch.column_bytes_max
        )))
    })
    .unwrap_or(Ok(()))
}

struct Follow;

impl JoinSetTracer for Follow {
    fn trace_future(
        &self,
        work: BoxFuture<'static, Box<dyn std::any::Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn std::any::Any + Send>> {
        match CURRENT.try_with(Arc::clone) {
            Ok(watch) => CURRENT.scope(watch, work).boxed(),
            Err(_) => work,
        }
    }

    fn trace_block(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn std::any::Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn std::any::Any + Send> + Send> {
        match CURRENT.try_with(Arc::clone) {
            Ok(watch) => Box::new(move || CURRENT.sync_scope(watch, work)),
            Err(_) => work,
        }
    }
}

/// Looks whether to go on between two rules of the optimizer: what is long and deep can take seconds to plan.
#[derive(Debug)]
pub struct WatchPlanning;

impl WatchPlanning {
    /// The rules with a look before each.
    pub fn between(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
        let look: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(WatchPlanning);
        rules.into_iter().flat_map(|rule| [Arc::clone(&look), rule]).collect()
    }
}

impl OptimizerRule for WatchPlanning {
    fn name(&self) -> &str {
        "watch"
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check()?;
        Ok(Transformed::no(plan))
    }
}

/// Wraps every operator of a plan, and the conditions of its joins. It comes last: no rule looks at a plan after it.
#[derive(Debug)]
pub struct WatchPlans;

impl PhysicalOptimizerRule for WatchPlans {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let watched = plan.transform_up(|plan| {
            let plan = match watched_join(&plan)? {
                Some(join) => join,
                None => plan,
            };
            let plan = sliced(plan)?;
            let watched = match Kept::of(&plan) {
                Some(kept) => counted(&plan, &Arc::new(kept))?,
                None => WatchExec::new(plan),
            };
            Ok(Transformed::yes(Arc::new(watched) as Arc<dyn ExecutionPlan>))
        })?;
        Ok(watched.data)
    }

    fn name(&self) -> &str {
        "watch"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// An operator whose inputs come in slices where it copies arrays.
fn sliced(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let copies = Copies::of(&plan);
    if copies.iter().all(Option::is_none) {
        return Ok(plan);
    }
    let inputs = plan.children().into_iter().zip(copies).map(|(input, copies)| {
        Arc::new(WatchExec { copies, ..WatchExec::new(Arc::clone(input)) }) as Arc<dyn ExecutionPlan>
    });
    let inputs = inputs.collect();
    plan.replace_children(inputs, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// A window between two watches that count what it holds.
fn counted(window: &Arc<dyn ExecutionPlan>, kept: &Arc<Kept>) -> Result<WatchExec> {
    let inputs = window.children().into_iter().map(|input| {
        let count = Some((Arc::clone(kept), Side::Into));
        Arc::new(WatchExec { count, ..WatchExec::new(Arc::clone(input)) }) as Arc<dyn ExecutionPlan>
    });
    let window = Arc::clone(window)
        .replace_children(inputs.collect(), ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))?;
    Ok(WatchExec { count: Some((Arc::clone(kept), Side::OutOf)), ..WatchExec::new(window) })
}

/// The join with a condition that looks whether to go on; `None` for whatever is no such join.
fn watched_join(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let join = NestedLoopJoinExec::try_new(
            Arc::clone(join.left()),
            Arc::clone(join.right()),
            Some(watched_filter(filter)),
            join.join_type(),
            join.projection().as_ref().map(|projection| projection.to_vec()),
        )?;
        return Ok(Some(Arc::new(join)));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        let filter = watched_filter(filter);
        return Ok(Some(Arc::new(join.builder().with_filter(Some(filter)).build()?)));
    }
    Ok(None)
}

fn watched_filter(filter: &JoinFilter) -> JoinFilter {
    let condition = Arc::new(Watched(Arc::clone(filter.expression())));
    JoinFilter::new(condition, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// An expression that looks whether to go on before it is computed.
#[derive(Debug, Eq)]
struct Watched(Arc<dyn PhysicalExpr>);

impl PartialEq for Watched {
    fn eq(&self, other: &Watched) -> bool {
        self.0.eq(&other.0)
    }
}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PhysicalExpr for Watched {
    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.0.return_field(input)
    }

    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.0.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.0.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        check()?;
        self.0.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.0]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.0));
        Ok(Arc::new(Watched(inner)))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt_sql(f)
    }
}

/// An operator whose batches are handed on only while somebody waits for the answer. After some of them the thread goes to
/// whatever else runs on it.
#[derive(Debug)]
struct WatchExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    /// The window whose rows it counts.
    count: Option<(Arc<Kept>, Side)>,
    /// How the operator that reads the batches copies their rows.
    copies: Option<Copies>,
}

/// Whether batches go into a window or come out of it.
#[derive(Debug, Clone, Copy)]
enum Side {
    Into,
    OutOf,
}

impl WatchExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> WatchExec {
        WatchExec { properties: Arc::clone(input.properties()), input, count: None, copies: None }
    }
}

impl DisplayAs for WatchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for WatchExec {
    fn name(&self) -> &str {
        "WatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(WatchExec { count: self.count.clone(), copies: self.copies, ..WatchExec::new(input) }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let count = self.count.as_ref().map(|(kept, side)| (kept.partition(partition, &context), *side));
        let inner = self.input.execute(partition, context)?;
        let watch = CURRENT.try_with(Arc::clone).ok();
        let copies = self.copies;
        Ok(Box::pin(WatchStream { schema: inner.schema(), inner, watch, count, copies, rest: None }))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(Arc::clone(&inputs[0]))
    }
}

struct WatchStream {
    inner: SendableRecordBatchStream,
    schema: SchemaRef,
    watch: Option<Arc<Watch>>,
    count: Option<(Arc<Holding>, Side)>,
    copies: Option<Copies>,
    /// Rows of a batch that are to come, from this one on.
    rest: Option<(RecordBatch, usize)>,
}

impl WatchStream {
    /// So many rows of a batch as may be copied together.
    fn slice(&mut self, rows: RecordBatch, from: usize) -> Result<RecordBatch> {
        let Some(copies) = self.copies else { return Ok(rows) };
        let length = copies.slice(&rows, from)?;
        let slice = rows.slice(from, length);
        if from + length < rows.num_rows() {
            self.rest = Some((rows, from + length));
        }
        Ok(slice)
    }
}

impl Stream for WatchStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(Err(refusal)) = self.watch.as_ref().map(|watch| watch.check()) {
            return Poll::Ready(Some(Err(refusal.into())));
        }
        let turn = ready!(coop::poll_proceed(context));
        if let Some((rows, from)) = self.rest.take() {
            turn.made_progress();
            return Poll::Ready(Some(self.slice(rows, from)));
        }
        let next = self.inner.as_mut().poll_next(context);
        if next.is_ready() {
            turn.made_progress();
        }
        if let (Poll::Ready(Some(Ok(rows))), Some((holding, side))) = (&next, &self.count) {
            match side {
                Side::Into => {
                    if let Err(error) = holding.takes(rows) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Side::OutOf => holding.gives(rows),
            }
        }
        match next {
            Poll::Ready(Some(Ok(rows))) => Poll::Ready(Some(self.slice(rows, 0))),
            other => other,
        }
    }
}

impl RecordBatchStream for WatchStream {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}
