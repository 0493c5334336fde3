//! A traced request: what it took time for, and how it ended. Nothing here waits.
//!
//! Whoever takes time for a request says so with [`step`], which costs one look at the task while nothing is traced. What it
//! is part of is known by the task that the request runs in ([`within`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::futures::TaskLocalFuture;

use super::Counts;
use super::context::{self, Parent, SpanId, TraceId};
use crate::api::problem::Code;
use crate::api::wire::RequestId;
use crate::outside::Entropy;

/// Steps of one request that are noted; of further ones there is only the number.
const STEPS_MAX: usize = 32;

/// What a request can take time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Records that are not in memory are read from the disk.
    ReadRecords,
    /// A change waits for the writer, and for its sync.
    WriteRecords,
    /// Recorded events are read.
    ReadEvents,
    /// A query waits for its turn and is computed.
    Query,
}

impl Work {
    /// As a span is called.
    pub fn name(self) -> &'static str {
        match self {
            Work::ReadRecords => "read records",
            Work::WriteRecords => "write records",
            Work::ReadEvents => "read events",
            Work::Query => "run query",
        }
    }
}

/// A step that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// What it was.
    pub work: Work,
    /// Since the request's begin.
    pub after: Duration,
    /// How long it took.
    pub took: Duration,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ending {
    /// The number of its operation in the table.
    pub operation: usize,
    /// Its method, where HTTP knows it.
    pub method: Option<&'static str>,
    /// The status of the reply; 499 where the client had gone.
    pub status: u16,
    /// The code of the error.
    pub code: Option<Code>,
    /// Its name in the reply and in the log.
    pub request_id: RequestId,
}

/// A request that has ended, as it is exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The caller's, where it said.
    pub parent: Option<SpanId>,
    /// When it began, Unix ms.
    pub began_ms: u64,
    /// How long it took.
    pub took: Duration,
    /// What it took time for.
    pub steps: Vec<Done>,
    /// Steps that are not among them.
    pub left_out: u32,
    /// How it ended.
    pub ending: Ending,
}

/// What the exporter is handed.
#[derive(Debug)]
pub enum Item {
    /// A request.
    Span(Box<Span>),
    /// Nothing: it should look up.
    Wake,
}

/// Begins traces.
#[derive(Debug)]
pub struct Tracer {
    /// See [`context::threshold`].
    threshold: AtomicU64,
    queue: SyncSender<Item>,
    entropy: Entropy,
    counts: Arc<Counts>,
}

impl Tracer {
    /// One that chooses this part of the requests whose callers do not say, and hands them to a queue.
    pub fn new(ratio: f64, queue: SyncSender<Item>, entropy: Entropy, counts: Arc<Counts>) -> Tracer {
        Tracer { threshold: AtomicU64::new(context::threshold(ratio)), queue, entropy, counts }
    }

    /// Chooses this part from now on.
    pub fn set_ratio(&self, ratio: f64) {
        self.threshold.store(context::threshold(ratio), Ordering::Relaxed);
    }

    /// Begins a trace, or goes on with the caller's, where this request is traced: as its caller says, else by chance.
    /// `began_ms` is the time of day at `began`, Unix ms.
    pub fn begin(self: &Arc<Self>, traceparent: Option<&str>, began: Instant, began_ms: u64) -> Option<Arc<Trace>> {
        let parent = traceparent.and_then(Parent::parse);
        let id = match parent {
            Some(parent) if !parent.is_sampled => return None,
            Some(parent) => parent.trace,
            None => {
                let id = context::draw(&self.entropy);
                if !context::is_chosen(&id, self.threshold.load(Ordering::Relaxed)) {
                    return None;
                }
                id
            }
        };
        Some(Arc::new(Trace {
            tracer: Arc::clone(self),
            id,
            span: context::draw(&self.entropy),
            parent: parent.map(|parent| parent.span),
            began,
            began_ms,
            steps: Mutex::default(),
        }))
    }
}

/// A request that is being traced.
#[derive(Debug)]
pub struct Trace {
    tracer: Arc<Tracer>,
    id: TraceId,
    span: SpanId,
    parent: Option<SpanId>,
    began: Instant,
    began_ms: u64,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    done: Vec<Done>,
    left_out: u32,
}

impl Trace {
    /// The id of the trace, as logs write it.
    pub fn spelled_id(&self) -> String {
        context::spell(&self.id)
    }

    /// Hands the request over. Where there is no room it is dropped, and counted. What it may still do after this - a change
    /// whose client did not wait - is not noted any more.
    pub fn end(&self, ending: Ending) {
        let steps = std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner));
        let span = Span {
            trace: self.id,
            id: self.span,
            parent: self.parent,
            began_ms: self.began_ms,
            took: self.began.elapsed(),
            steps: steps.done,
            left_out: steps.left_out,
            ending,
        };
        // Where nobody takes spans any more the server is stopping.
        if let Err(TrySendError::Full(_)) = self.tracer.queue.try_send(Item::Span(Box::new(span))) {
            self.tracer.counts.spans_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, done: Done) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if steps.done.len() < STEPS_MAX {
            steps.done.push(done);
        } else {
            steps.left_out += 1;
        }
    }
}

tokio::task_local! {
    /// The request that the task works for.
    static CURRENT: Arc<Trace>;
}

/// Work that belongs to a traced request.
pub fn within<F: Future>(trace: Arc<Trace>, work: F) -> TaskLocalFuture<Arc<Trace>, F> {
    CURRENT.scope(trace, work)
}

/// Begins a step of the request that this task works for, where it is traced. The step ends when it is dropped.
pub fn step(work: Work) -> Option<Step> {
    let trace = CURRENT.try_with(Arc::clone).ok()?;
    Some(Step { trace, work, began: Instant::now() })
}

/// A step that goes on.
#[must_use = "a step ends when it is dropped"]
#[derive(Debug)]
pub struct Step {
    trace: Arc<Trace>,
    work: Work,
    began: Instant,
}

impl Drop for Step {
    fn drop(&mut self) {
        let after = self.began.saturating_duration_since(self.trace.began);
        self.trace.note(Done { work: self.work, after, took: self.began.elapsed() });
    }
}
