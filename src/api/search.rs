//! What operations share that answer from the search index: how they ask it, and how they say what it may be missing.

use std::sync::Arc;

use keyward_query::search::{Freshness, Search, SearchError};
use keyward_storage::Storage;
use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::operation::{Page, Reply, ReplySchema};
use super::problem::Problem;
use super::shape;

/// How much of the workspace an answer was searched in.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Index {
    /// What may be missing.
    state: State,
    /// Milliseconds; only with `behind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind_ms: Option<u64>,
}

/// What may be missing from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum State {
    /// Nothing that is older than two seconds.
    Current,
    /// What changed lately.
    Behind,
    /// Anything: the index is being made anew.
    Partial,
}

/// A page of what a search found.
pub struct Searched<T> {
    page: Page<T>,
    index: Index,
}

impl<T> Searched<T> {
    /// The page, and how much was searched for it.
    pub fn new(page: Page<T>, freshness: Freshness) -> Searched<T> {
        let (state, behind_ms) = match freshness {
            Freshness::Current => (State::Current, None),
            Freshness::Behind(ms) => (State::Behind, Some(ms)),
            Freshness::Partial => (State::Partial, None),
        };
        Searched { page, index: Index { state, behind_ms } }
    }
}

impl<T: Serialize + JsonSchema + Send> Reply for Searched<T> {
    fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        self.page.write(out)?;
        out.extend_from_slice(br#","index":"#);
        serde_json::to_writer(out, &self.index)
    }

    fn schema() -> ReplySchema {
        let mut schema = Page::<T>::schema();
        schema.more.push(("index", shape::response_schema::<Index>()));
        schema
    }
}

/// Asks the index and the records, on a thread that may block. `what` completes "We could not load the requested …".
///
/// # Errors
/// 503 while there is no index, and what reading says.
pub async fn ask<R: Send + 'static>(
    call: &Call,
    what: &str,
    run: impl FnOnce(&Search, &Storage) -> Result<R, SearchError> + Send + 'static,
) -> Result<R, Problem> {
    let search = call.services().search.as_ref().map(Arc::clone).ok_or_else(unavailable)?;
    let done = call.read(what, move |storage| match run(&search, storage) {
        Ok(found) => Ok(Some(found)),
        Err(SearchError::Unavailable) => Ok(None),
        Err(SearchError::Records(error)) => Err(error),
    });
    done.await?.ok_or_else(unavailable)
}

fn unavailable() -> Problem {
    Problem::no_capacity(
        "The search index cannot be read at the moment, and is being made anew. Please try again shortly; if this lasts, the \
         server's log says why.",
    )
}
