//! ratelimit.multiLimit: several limits, all or none.

use std::sync::Arc;
use std::time::Instant;

use keyward_storage::hot::window::Take;
use keyward_storage::records::ratelimit::NamespaceView;
use schemars::JsonSchema;
use serde::Serialize;

use super::{MAKE, Request as Entry, event, exhausted, gone, make_namespaces, may_not, namespace, resolve, vanished};
use crate::api::call::{Call, latency_ms};
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::List;
use crate::rbac::Need;

/// The decision on all entries.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Whether every entry passed; only then anything was counted.
    passed: bool,
    /// One item per entry, in order.
    limits: Vec<Item>,
}

/// The decision on one entry.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The namespace as the entry names it.
    namespace: String,
    /// The identifier.
    identifier: String,
    /// The limit that was applied.
    limit: u64,
    /// What is left in the window.
    remaining: u64,
    /// Unix milliseconds at which the present window ends.
    reset: u64,
    /// Whether this entry is within its limit.
    passed: bool,
    /// The override that was applied, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    override_id: Option<String>,
}

/// ratelimit.multiLimit.
pub struct MultiLimit;

impl Operation for MultiLimit {
    const NAME: &'static str = "ratelimit.multiLimit";
    const SUMMARY: &'static str = "Check several limits at once";
    const DESCRIPTION: &'static str = "Counts a request against several limits, all or none: if any entry is over its \
        limit nothing is counted anywhere. Entries are judged in order and see the ones before them.";
    const ON_FOLLOWER: OnFollower = OnFollower::Limit;
    const ALLOWS: &'static [&'static str] = &[
        "ratelimit.*.limit",
        "ratelimit.<namespaceId>.limit (of every namespace)",
        "ratelimit.*.create_namespace (for namespaces that do not exist)",
    ];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceGone];
    const AUDITS: &'static [&'static str] = &["ratelimitNamespace.create"];
    type Request = List<Entry, 1, 100>;
    type Response = Response;

    async fn run(call: Call, ask: List<Entry, 1, 100>) -> Result<Response, Problem> {
        let begun = Instant::now();
        let views = namespaces(&call, &ask).await?;
        let ids: Vec<_> = views.iter().map(|view| view.id.spell()).collect();
        let own: Vec<Need<'_>> = ids.iter().map(|id| Need::tuple("ratelimit", id, "limit")).collect();
        let need = Need::Any(&[Need::tuple("ratelimit", "*", "limit"), Need::All(&own)]);
        let _granted = call.may(&need).ok_or_else(|| {
            let lacking = own.iter().position(|need| call.may(need).is_none()).unwrap_or(0);
            may_not("limit", &ask[lacking].namespace)
        })?;
        if let Some((entry, _)) = ask.iter().zip(&views).find(|(_, view)| view.deleted) {
            return Err(gone(&entry.namespace));
        }
        call.may_count()?;
        let mut resolved = Vec::with_capacity(ask.len());
        for (entry, view) in ask.iter().zip(&views) {
            resolved.push(resolve(&call, view, entry).await?);
        }
        let takes: Vec<Take> = resolved.iter().map(|resolved| resolved.take).collect();
        let mut decisions = Vec::with_capacity(takes.len());
        // One time for the whole decision (RL-TIME-04).
        let windows = &call.storage().hot().windows;
        let passed = windows.take_all(&takes, call.now, &mut decisions).map_err(|_| exhausted())?;
        // One row per entry with its own result, also of a batch that failed (RL-MULTI-12).
        let latency = latency_ms(begun, decisions.len());
        decisions.iter().for_each(|decision| call.services().metrics.requests.decision(decision.passed));
        let mut patient = true;
        for (((entry, view), resolved), decision) in ask.iter().zip(&views).zip(&resolved).zip(&decisions) {
            let identifier = entry.identifier.as_str().to_owned();
            let event = event(&call, view.id, identifier, resolved, decision, latency);
            // A request waits once for a full queue, however many rows it writes.
            match patient {
                true => patient = call.record(event).await,
                false => call.record_or_drop(event),
            }
        }
        let items = ask.into_iter().zip(resolved).zip(decisions);
        Ok(Response {
            passed,
            limits: items
                .map(|((entry, resolved), decision)| Item {
                    namespace: entry.namespace.into_string(),
                    identifier: entry.identifier.into_string(),
                    limit: resolved.take.limit,
                    remaining: decision.remaining,
                    reset: decision.reset_ms,
                    passed: decision.passed,
                    override_id: resolved.override_id.map(|id| id.to_string()),
                })
                .collect(),
        })
    }
}

/// The namespace of each entry; missing ones are made, all at once or none (RL-MULTI-03).
async fn namespaces(call: &Call, entries: &[Entry]) -> Result<Vec<Arc<NamespaceView>>, Problem> {
    let mut views = Vec::with_capacity(entries.len());
    let mut missing: Vec<String> = Vec::new();
    for entry in entries {
        let view = namespace(call, &entry.namespace).await?;
        if view.is_none() && !missing.iter().any(|name| **name == *entry.namespace) {
            missing.push(entry.namespace.to_string());
        }
        views.push(view);
    }
    if !missing.is_empty() {
        make_namespaces(call.authorize(&MAKE)?, missing).await?;
    }
    let mut found = Vec::with_capacity(entries.len());
    for (entry, view) in entries.iter().zip(views) {
        found.push(match view {
            Some(view) => view,
            None => namespace(call, &entry.namespace).await?.ok_or_else(vanished)?,
        });
    }
    Ok(found)
}
