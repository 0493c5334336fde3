//! The event store: open it, record, scan, import, export, stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::empty::EmptyTable;
use keyward_storage::disk::Disk;
use keyward_storage::ids::WorkspaceId;

use super::event::Event;
use super::ring::Ring;
use super::scan::Scope;
use super::tables::{Family, Table};

/// How a store is set up.
pub struct Options {
    /// Its directory, made where absent.
    pub dir: PathBuf,
    /// Where that directory is.
    pub disk: Arc<dyn Disk>,
    /// The server's label, column `region`.
    pub region: String,
    /// The time, unix ms: for retention.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Events that may wait for the recorder.
    pub queue_events: usize,
    /// Days a workspace's rows are kept (0 = for ever; `None` = it has no say). Absent: nothing is ever deleted, as in
    /// test mode (EXT-4).
    pub retention: Option<Arc<dyn Fn(WorkspaceId) -> Option<u32> + Send + Sync>>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error("cannot read or write the events in {dir}")]
    Disk {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why nothing of a file was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError<E> {
    /// The rows' source failed or refused a row.
    #[error(transparent)]
    Source(E),
    /// The rows do not have the table's columns, or hold a NULL or an id that cannot be.
    #[error("{0}")]
    Rows(String),
    /// The disk.
    #[error("the events could not be written")]
    Disk(#[source] io::Error),
}

/// Numbers for metrics and health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that wait for the recorder.
    pub queue_depth: u64,
    /// Events that may wait.
    pub queue_capacity: u64,
    /// Events dropped since the start.
    pub dropped: u64,
    /// Events journaled since the start.
    pub written: u64,
    /// Milliseconds the oldest event that queries do not see yet has waited.
    pub lag_ms: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Rows in memory, not in Parquet yet.
    pub unsealed_rows: u64,
    /// Live Parquet files.
    pub parts: u64,
    /// Bytes of the live Parquet files.
    pub part_bytes: u64,
    /// Seals since the start.
    pub seals: u64,
    /// Whether events were dropped lately, or cannot be written.
    pub degraded: bool,
}

/// Events of a workspace in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Verifications.
    pub verifications: u64,
    /// Rate-limit decisions.
    pub ratelimits: u64,
}

/// The event store.
pub struct Events {
    ring: Arc<Ring>,
}

impl Events {
    /// Opens the store: recovers what a crash left, starts its threads.
    pub fn open(options: Options) -> Result<Events, OpenError> {
        Ok(Events { ring: Arc::new(Ring::new(options.queue_events)) })
    }

    /// Records an event; queries see it within a second. Waits up to 5 ms where the queue is full, then drops and counts
    /// it.
    pub async fn record(&self, event: impl Into<Event>) -> bool {
        self.ring.push(event.into()).await
    }

    /// A table as a caller sees it now.
    pub fn provider(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider> {
        let _ = scope;
        Arc::new(EmptyTable::new(table.schema()))
    }

    /// Adds raw rows in any order, all or none. The batches have the raw table's schema. Blocks.
    pub fn import<E>(
        &self,
        family: Family,
        batches: impl Iterator<Item = Result<RecordBatch, E>>,
    ) -> Result<u64, ImportError<E>> {
        let _ = (family, batches);
        Ok(0)
    }

    /// Raw rows of one workspace or all, from `start` to before `end` (unix ms), in batches. Blocks.
    pub fn export(
        &self,
        family: Family,
        workspace: Option<WorkspaceId>,
        start: Option<i64>,
        end: Option<i64>,
    ) -> impl Iterator<Item = io::Result<RecordBatch>> {
        let _ = (family, workspace, start, end);
        std::iter::empty()
    }

    /// Events of a workspace on the days from `from` to before `to` (days since 1970). Blocks.
    pub fn usage(&self, workspace: WorkspaceId, from: i32, to: i32) -> io::Result<Usage> {
        let _ = (workspace, from, to);
        Ok(Usage::default())
    }

    /// Numbers for metrics and health.
    pub fn stats(&self) -> Stats {
        Stats { dropped: self.ring.dropped(), ..Stats::default() }
    }

    /// Returns when queries see everything recorded before. Blocks.
    pub fn flush(&self) {}

    /// Seals everything recorded so far and compacts until there is nothing left to do. Blocks.
    pub fn settle(&self) {}

    /// Records what waits, seals, syncs, and ends the threads. Blocks.
    pub fn stop(&self) {}
}
