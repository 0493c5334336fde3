//! analytics.*: SQL over recorded verifications and rate-limit decisions.
//!
//! The order is the contract's (AN-ORD): permission, whether there are analytics at all, and only then the text.

pub mod get_ratelimits;
pub mod get_verifications;

use keyward_query::events::tables::Family;
use keyward_query::events::{Scope, Spaces};
use keyward_query::{Allowed, Limits, Refusal, Select};
use keyward_storage::ids::ApiId;
use keyward_storage::records::{api, workspace};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::call::Call;
use super::operation::{Reply, ReplySchema, envelope};
use super::problem::{Code, Problem};
use crate::otlp::trace::{self, Work};
use crate::rbac::Need;

/// Bytes of a whole answer (AN-LIM-04).
const ANSWER_BYTES_MAX: usize = 4_194_304;
/// What is done with events.
const ACTION: &str = "read_analytics";

/// What both operations may answer with.
pub const FAILS: &[Code] = &[
    Code::InvalidAnalyticsQuery,
    Code::InvalidAnalyticsQueryType,
    Code::InvalidAnalyticsTable,
    Code::InvalidAnalyticsFunction,
    Code::QueryRangeExceedsRetention,
    Code::AnalyticsNotConfigured,
    Code::QueryExecutionTimeout,
    Code::QueryMemoryLimitExceeded,
    Code::QueryRowsLimitExceeded,
    Code::QueryQuotaExceeded,
    Code::AnalyticsConnectionFailed,
];

/// A query.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// One SELECT in ClickHouse's dialect, up to 16,384 bytes.
    #[schemars(extend("x-keyward-long-text" = true))]
    query: String,
}

/// The rows, encoded already.
pub struct Rows(Vec<u8>);

impl Reply for Rows {
    fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(&self.0);
        Ok(())
    }

    fn schema() -> ReplySchema {
        let row = json!({
            "type": "object",
            "additionalProperties": true,
            "description": "A row: the names of the result's columns with their values.",
        });
        ReplySchema { data: Some(json!({"type": "array", "items": row})), paged: false, more: Vec::new() }
    }
}

/// Answers a query of a caller whose grants are `<kind>.<id>.read_analytics`.
async fn answer(call: Call, family: Family, ask: Request) -> Result<Rows, Problem> {
    let spaces = spaces(&call, family).await?;
    let Some(query) = &call.services().query else {
        let detail = "Analytics are switched off on this server (its setting is analytics.enabled).";
        return Err(Problem::new(Code::AnalyticsNotConfigured, detail));
    };
    let no = call.workspace();
    let row = call.read("workspace", move |storage| workspace::get(&storage.snapshot()?, no)).await?;
    let row = row.ok_or_else(|| Problem::new(Code::WorkspaceNotFound, "The requested workspace does not exist."))?;
    let around = envelope(&Rows(Vec::new()), call.request_id)?.len();
    let select = Select {
        family,
        text: ask.query,
        account: no.0,
        scope: Scope {
            workspace: call.workspace_id(),
            spaces,
            now_ms: call.now,
            retention_days: row.limits.logs_retention_days,
        },
        allowed: Allowed { queries: row.limits.queries_per_hour, seconds: row.limits.query_seconds_per_hour },
        limits: Limits {
            memory_bytes: usize::try_from(row.limits.query_max_memory).unwrap_or(usize::MAX),
            seconds: row.limits.query_max_seconds,
            rows: row.limits.query_max_rows,
            answer_bytes: ANSWER_BYTES_MAX - around,
        },
    };
    let _step = trace::step(Work::Query);
    let rows = query.select(select).await.map_err(problem)?;
    Ok(Rows(rows.json))
}

/// Whose rows the caller may see: everything, or what the ids in its grants stand for (AN-PERM).
async fn spaces(call: &Call, family: Family) -> Result<Spaces, Problem> {
    let kind = match family {
        Family::Verifications => "api",
        Family::Ratelimits => "ratelimit",
    };
    let whole = Need::tuple(kind, "*", ACTION);
    if call.may(&whole).is_some() {
        return Ok(Spaces::All);
    }
    let ids: Vec<String> = call.ids(kind, ACTION).map(str::to_owned).collect();
    if ids.is_empty() {
        drop(call.authorize(&whole)?);
    }
    match family {
        // Namespaces are known by the ids that grants name; what a deleted one has recorded can still be read.
        Family::Ratelimits => Ok(Spaces::These(ids)),
        Family::Verifications => {
            let workspace = call.workspace();
            let found = call.read("APIs", move |storage| {
                let snapshot = storage.snapshot()?;
                let apis = ids.iter().filter_map(|id| ApiId::parse(id));
                let rows = apis.filter_map(|id| api::get_live(&snapshot, workspace, id).transpose());
                rows.map(|row| row.map(|row| row.keyspace.to_string())).collect::<Result<Vec<_>, _>>()
            });
            // None at all is no rows, and not no filter (AN-PERM-04).
            Ok(Spaces::These(found.await?))
        }
    }
}

/// A refusal with its code (AN-ERR).
fn problem(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Query(text) => Problem::new(Code::InvalidAnalyticsQuery, text),
        Refusal::NotSelect(text) => Problem::new(Code::InvalidAnalyticsQueryType, text),
        Refusal::Table(text) => Problem::new(Code::InvalidAnalyticsTable, text),
        Refusal::Function(text) => Problem::new(Code::InvalidAnalyticsFunction, text),
        Refusal::Range(text) => Problem::new(Code::QueryRangeExceedsRetention, text),
        Refusal::Timeout(text) => Problem::new(Code::QueryExecutionTimeout, text),
        Refusal::Memory(text) => Problem::new(Code::QueryMemoryLimitExceeded, text),
        Refusal::Rows(text) => Problem::new(Code::QueryRowsLimitExceeded, text),
        Refusal::Quota { text, retry_after_s } => {
            Problem::new(Code::QueryQuotaExceeded, text).retry_after(retry_after_s)
        }
        Refusal::Busy => {
            let detail = "Too many queries are running on this server. Please try again in a moment.";
            Problem::new(Code::AnalyticsConnectionFailed, detail).retry_after(1)
        }
        Refusal::Unavailable => {
            let detail = "The recorded events cannot be read at the moment. Please tell the operator of this server.";
            Problem::new(Code::AnalyticsConnectionFailed, detail).retry_after(1)
        }
        // Whoever waits for an answer hears this only from a server that stops.
        Refusal::Cancelled => {
            let detail = "The server is stopping. Please try again in a moment.";
            Problem::new(Code::AnalyticsConnectionFailed, detail).retry_after(1)
        }
    }
}
