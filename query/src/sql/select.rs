//! One SELECT, from its text to the rows of the answer: the four doors in order.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::bind::{self, Surroundings};
use super::gate::{self, Rules};
use super::run::quota::{Allowed, Quotas};
use super::run::{self, Engine, Limits, Rows};
use crate::error::Refusal;
use crate::events::tables::Family;
use crate::events::{Events, Scope};

/// A SELECT, who asks it, and what it may use.
#[derive(Debug)]
pub struct Select {
    /// Which tables there are.
    pub family: Family,
    /// The SELECT.
    pub text: String,
    /// Whose quota it counts against, and whose turn it is.
    pub account: u32,
    /// Which rows there are.
    pub scope: Scope,
    /// What may be used in an hour.
    pub allowed: Allowed,
    /// What it may use itself.
    pub limits: Limits,
}

/// Answers SELECTs over the events of a store.
pub struct Query {
    events: Arc<Events>,
    engine: Engine,
    quotas: Quotas,
}

impl Query {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(events: Arc<Events>, options: &run::Options) -> io::Result<Query> {
        Ok(Query { events, engine: Engine::start(options)?, quotas: Quotas::default() })
    }

    /// The threads and memory that queries use, for metrics.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Answers a SELECT. Whoever drops the future stops the query.
    ///
    /// # Errors
    /// What is wrong with the text, or which limit was reached; the doors are passed in the contract's order (AN-ORD).
    pub async fn select(&self, select: Select) -> Result<Rows, Refusal> {
        let Select { family, text, account, scope, allowed, limits } = select;
        let now_ms = i64::try_from(scope.now_ms).unwrap_or(i64::MAX);
        let rules = Rules { family, now_ms, retention_days: scope.retention_days };
        let statement = self.engine.do_briefly(move || gate::check(&text, &rules)).await??;
        self.quotas.begin(account, allowed, now_ms)?;
        let place = self.engine.turn(account).await?;
        let counted = Counted { quotas: &self.quotas, account, now_ms, began: Instant::now() };
        let events = Arc::clone(&self.events);
        let rows = self.engine.run(place, limits, move || {
            let scan = |table| Ok(events.provider(table, &scope));
            bind::bind(&statement, &Surroundings { family, now_ms, rows_max: limits.rows, scan: &scan })
        });
        let rows = rows.await;
        drop(counted);
        rows
    }
}

/// Adds the time of a query to its quota, however it ends.
struct Counted<'a> {
    quotas: &'a Quotas,
    account: u32,
    now_ms: i64,
    began: Instant,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.quotas.add(self.account, self.now_ms, self.began.elapsed());
    }
}
