//! ratelimit.limit: may this identifier go on?

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::{MAKE, Request, event, exhausted, gone, make_namespaces, may_not, namespace, resolve, vanished};
use crate::api::call::{Call, latency_ms};
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;

/// The decision. The status is 200 for both outcomes.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Whether the request may go on.
    success: bool,
    /// The limit that was applied.
    limit: u64,
    /// What is left in the window.
    remaining: u64,
    /// Unix milliseconds at which the present window ends.
    reset: u64,
    /// The override that was applied, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    override_id: Option<String>,
}

/// ratelimit.limit.
pub struct Limit;

impl Operation for Limit {
    const NAME: &'static str = "ratelimit.limit";
    const SUMMARY: &'static str = "Limit an identifier";
    const DESCRIPTION: &'static str = "Counts a request of an identifier in a namespace and says whether it is within \
        the limit (a sliding window over two fixed ones). A refused request counts nothing.";
    const ON_FOLLOWER: OnFollower = OnFollower::Limit;
    const ALLOWS: &'static [&'static str] = &[
        "ratelimit.*.limit",
        "ratelimit.<namespaceId>.limit",
        "ratelimit.*.create_namespace (for a namespace that does not exist)",
    ];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceGone];
    const AUDITS: &'static [&'static str] = &["ratelimitNamespace.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let begun = Instant::now();
        let view = match namespace(&call, &ask.namespace).await? {
            Some(view) => view,
            None => {
                let granted = call.authorize(&MAKE)?;
                Box::pin(make_namespaces(granted, vec![ask.namespace.to_string()])).await?;
                Box::pin(namespace(&call, &ask.namespace)).await?.ok_or_else(vanished)?
            }
        };
        // Before 410, so that nobody learns of a deletion who may not even ask (RL-LIMIT-02).
        let id = view.id.spell();
        let need = Need::any_or_one("ratelimit", &id, "limit");
        let _granted = call.may(&need).ok_or_else(|| may_not("limit", &ask.namespace))?;
        if view.deleted {
            return Err(gone(&ask.namespace));
        }
        call.may_count()?;
        let resolved = resolve(&call, &view, &ask).await?;
        let decision = call.storage().hot().windows.take(&resolved.take, call.now).map_err(|_| exhausted())?;
        call.services().metrics.requests.decision(decision.passed);
        // The one operation that lets its caller choose (COM-HDR-04).
        if !call.metrics_disabled {
            let identifier = ask.identifier.into_string();
            let event = event(&call, view.id, identifier, &resolved, &decision, latency_ms(begun, 1));
            call.record(event).await;
        }
        Ok(Response {
            success: decision.passed,
            limit: resolved.take.limit,
            remaining: decision.remaining,
            reset: decision.reset_ms,
            override_id: resolved.override_id.map(|id| id.to_string()),
        })
    }
}
