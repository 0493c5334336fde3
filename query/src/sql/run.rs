//! The run: a plan is carried out on threads of its own, within bounds of memory, time, rows and bytes.
//!
//! Requests are answered on other threads, which a query never holds up: queries have the lowest priority the system
//! knows, as many threads as the settings say, and memory that is counted. The timer runs where the answer is awaited, so
//! that a query cannot delay its own end.

pub mod failure;
pub mod held;
mod line;
mod lists;
mod memory;
pub mod quota;
#[cfg(test)]
mod tests;
pub mod watch;
mod window;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use datafusion::common::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::MemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::optimizer::Optimizer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::aggregate_statistics::AggregateStatistics;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use tokio::runtime::{Handle, Runtime};
use tokio::task::{AbortHandle, JoinError};

use super::bind::Bound;
use super::json::Encoder;
use crate::error::Refusal;
use crate::priority::{self, Priority};
use line::{Line, Place};
use memory::{Pool, Total};
use watch::{Watch, WatchPlanning, WatchPlans};
use window::watch_windows;

/// Address space of a thread's stack: plans of the largest statements are walked recursively. Pages that are never touched
/// cost nothing.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Threads for reading files, beside those that compute.
const READERS: usize = 4;
/// Rows of a batch: large enough to make calls cheap, small enough for the caches and for a stop between two.
const BATCH_ROWS: NonZeroUsize = NonZeroUsize::new(8_192).expect("it is not zero");
/// A column of a batch may have this part of a query's memory, and a little in any case.
const COLUMN_PART: usize = 4;
const COLUMN_BYTES_MIN: usize = 16 * 1024 * 1024;
/// How long a query may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of the machine queries may use.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that compute.
    pub threads: usize,
    /// Queries that run at one time.
    pub concurrent: usize,
    /// Queries that may wait for their turn.
    pub waiting: usize,
    /// Bytes of memory of all queries together.
    pub memory_bytes: usize,
}

/// What one query may use (AN-RES-01, AN-LIM).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// Seconds from its turn to its answer.
    pub seconds: u32,
    /// Rows of the answer.
    pub rows: u64,
    /// Bytes of the rows as JSON text.
    pub answer_bytes: usize,
}

/// The rows of an answer.
#[derive(Debug)]
pub struct Rows {
    /// A JSON array of objects.
    pub json: Vec<u8>,
    /// How many there are.
    pub count: u64,
}

/// The threads and memory of all queries.
pub struct Engine {
    /// `None` once it is stopped.
    runtime: Option<Runtime>,
    handle: Handle,
    threads: usize,
    line: Line,
    /// Queries that got no turn.
    refused: AtomicU64,
    /// Queries that got one.
    begun: AtomicU64,
    memory: Arc<Total>,
    /// What queries share: the cache of files' metadata, and no temporary files.
    environment: RuntimeEnv,
}

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(options: &Options) -> io::Result<Engine> {
        watch::follow_tasks();
        let threads = options.threads.max(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(READERS)
            .thread_name("keyward-query")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(|| priority::set(Priority::Lowest))
            .enable_all()
            .build()?;
        let environment = RuntimeEnvBuilder::new()
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build()
            .map_err(io::Error::other)?;
        Ok(Engine {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            threads,
            line: Line::new(options.concurrent, options.waiting),
            refused: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            memory: Arc::new(Total::new(options.memory_bytes)),
            environment,
        })
    }

    /// What keyward itself does on these threads, such as looking at a text: quickly, and for nobody's account.
    ///
    /// # Errors
    /// A bug, or the end of the program.
    pub async fn do_briefly<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Result<R, Refusal> {
        self.handle.spawn(async move { work() }).await.map_err(|error| ended(&error))
    }

    /// Waits for a query's turn.
    ///
    /// # Errors
    /// [`Refusal::Busy`] where too many queries wait, or this one has waited too long.
    pub async fn turn(&self, workspace: u32) -> Result<Place, Refusal> {
        let place = tokio::time::timeout(PATIENCE, self.line.enter(workspace)).await.unwrap_or(Err(Refusal::Busy));
        let count = if place.is_ok() { &self.begun } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        place
    }

    /// How many queries run and how many wait.
    pub fn length(&self) -> (usize, usize) {
        self.line.length()
    }

    /// Queries that got their turn since the start, and those that were refused since too many were waiting.
    pub fn turns(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Bytes of memory that queries may reserve together.
    pub fn memory_limit(&self) -> usize {
        self.memory.limit()
    }

    /// Bytes of memory that queries have reserved.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// Plans and carries out a query. Whoever drops this future, or waits longer than the limit, stops the query.
    ///
    /// # Errors
    /// What planning says, a limit that was reached, or what the data led to.
    pub async fn run(
        &self,
        place: Place,
        limits: Limits,
        plan: impl FnOnce() -> Result<Bound, Refusal> + Send + 'static,
    ) -> Result<Rows, Refusal> {
        let watch = Arc::new(Watch::new((limits.memory_bytes / COLUMN_PART).max(COLUMN_BYTES_MIN)));
        let pool = Arc::new(Pool::new(limits.memory_bytes, &self.memory, place.workspace()));
        let session = self.session(Arc::<Pool>::clone(&pool));
        let said = Arc::clone(&watch);
        let work = async move {
            // The place is free when the work has ended, which may be later than its client has gone.
            let _place = place;
            let memory = || out_of_memory(&pool);
            carry_out(plan()?, &session, limits).await.map_err(|failure| match failure {
                Failure::Refused(refusal) => refusal,
                Failure::Engine(error) => match said.refusal() {
                    Some(refusal) if failure::is_of_files(&error) => refusal,
                    _ => failure::refusal(&error, memory),
                },
            })
        };
        let task = self.handle.spawn(watch::within(Arc::clone(&watch), work));
        let _stop = StopAtEnd { watch, task: task.abort_handle() };
        match tokio::time::timeout(Duration::from_secs(limits.seconds.into()), task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(ended(&error)),
            Err(_) => Err(Refusal::Timeout(format!(
                "The query took longer than the limit of {} seconds. Select a smaller time range, or ask a roll-up table.",
                limits.seconds
            ))),
        }
    }

    /// A session in which nothing is known but what a plan brings along.
    fn session(&self, pool: Arc<dyn MemoryPool>) -> SessionState {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.threads)
            .with_batch_size(BATCH_ROWS.get())
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(false);
        let options = config.options_mut();
        // Where its input happens to be sorted, DataFusion 55 fails on a DISTINCT that was told to stop early.
        options.optimizer.enable_distinct_aggregation_soft_limit = false;
        // A condition over constants, planned, may be less sure than it was on paper that a value is there. Nothing is
        // wrong with its rows, so that an aggregate over them need not be refused.
        options.execution.skip_physical_aggregate_schema_check = true;
        options.execution.planning_concurrency = self.threads;
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = PhysicalOptimizer::new().rules;
        // Where one aggregate without keys reads another, DataFusion 55 may take what it knows of the inner one's input for
        // the outer one's. It would spare no scan either: their counts are not known before the caller's rows are.
        rules.retain(|rule| rule.name() != AggregateStatistics::new().name());
        rules.push(Arc::new(WatchPlans));
        SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::new(RuntimeEnv { memory_pool: pool, ..self.environment.clone() }))
            .with_query_planner(super::nodes::planner())
            .with_optimizer_rules(WatchPlanning::between(Optimizer::new().rules))
            .with_physical_optimizer_rules(rules)
            .build()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Queries end at their next batch; nobody waits for them.
            runtime.shutdown_background();
        }
    }
}

/// Stops a query when nobody waits for it any more; after its end this does nothing.
struct StopAtEnd {
    watch: Arc<Watch>,
    task: AbortHandle,
}

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        self.watch.stop();
        self.task.abort();
    }
}

/// Why a query brought no rows.
enum Failure {
    Refused(Refusal),
    Engine(DataFusionError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Failure {
        Failure::Engine(error)
    }
}

async fn carry_out(bound: Bound, session: &SessionState, limits: Limits) -> Result<Rows, Failure> {
    let began = Instant::now();
    let Bound { plan, columns } = bound;
    let mut encoder = Encoder::new(&columns, limits.answer_bytes)?;
    let plan = watch_windows(plan)?;
    let physical = session.create_physical_plan(&plan).await?;
    let planned = began.elapsed();
    let mut batches = execute_stream(physical, session.task_ctx())?;
    while let Some(batch) = batches.next().await {
        encoder.push(&batch?)?;
        if encoder.rows() > limits.rows {
            return Err(Failure::Refused(Refusal::Rows(format!(
                "The answer has more rows than the limit of {}. Add a LIMIT, or select less.",
                limits.rows
            ))));
        }
    }
    let count = encoder.rows();
    tracing::debug!(rows = count, ?planned, took = ?began.elapsed(), "a query was answered");
    Ok(Rows { json: encoder.finish(), count })
}

fn out_of_memory(pool: &Pool) -> Refusal {
    Refusal::Memory(if pool.was_crowded() {
        "Other queries leave too little memory for this one. Try again in a moment, or select less.".to_owned()
    } else {
        format!(
            "The query needs more memory than the limit of {} bytes. Select a smaller time range, fewer columns or \
             fewer groups.",
            pool.limit()
        )
    })
}

/// Why a task ended without an answer.
fn ended(error: &JoinError) -> Refusal {
    if error.is_panic() {
        // The panic itself is in the log, with its place.
        failure::unforeseen()
    } else {
        Refusal::Cancelled
    }
}
