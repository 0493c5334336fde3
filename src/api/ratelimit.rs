//! ratelimit.*: limits counted by namespace and identifier.

pub mod create_namespace;
pub mod delete_namespace;
pub mod delete_override;
pub mod get_override;
pub mod limit;
pub mod list_namespaces;
pub mod list_overrides;
pub mod multi_limit;
mod override_object;
pub mod set_override;
#[cfg(test)]
mod trail_tests;

use std::sync::Arc;

use keyward_query::events;
use keyward_storage::hot::window::{Decision, Kind, Take};
use keyward_storage::ids::{NamespaceId, OverrideId};
use keyward_storage::records::audit::Target;
use keyward_storage::records::ratelimit::{self, NamespaceRow, NamespaceView, OverrideView};
use keyward_storage::{Abort, Lookup};
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{Call, Change, Correlate, Granted};
use super::problem::{Code, Problem};
use super::shape::{Int, Opt, Text};
use crate::metrics::recorder::Index;
use crate::rbac::Need;
use crate::tenants::target;

/// One thing to limit. `multiLimit` takes several.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name; one that does not exist is made where the caller may.
    namespace: Text<1, 512>,
    /// Whom or what to count.
    identifier: Text<1, 512>,
    /// Most cost per window.
    limit: Int<1, { i64::MAX }>,
    /// Window length in milliseconds.
    duration: Int<1000, 2_592_000_000>,
    /// What this request costs; 0 only looks.
    #[serde(default)]
    #[schemars(extend("default" = 1))]
    cost: Opt<Int<0, { i64::MAX }>>,
}

/// The namespace with this id or name, from memory or else from disk; the id wins (RL-NS-01).
async fn namespace(call: &Call, id_or_name: &str) -> Result<Option<Arc<NamespaceView>>, Problem> {
    let workspace = call.workspace();
    let found = call.storage().namespace(workspace, id_or_name);
    call.services().metrics.requests.lookup(Index::Namespaces, &found);
    match found {
        Lookup::Hot(view) => Ok(Some(view)),
        Lookup::Absent => Ok(None),
        Lookup::Unknown => {
            let text = id_or_name.to_owned();
            Box::pin(call.read("namespace", move |storage| storage.read_namespace(workspace, &text))).await
        }
    }
}

/// What making a namespace needs: also the permission to limit on it, which only the wildcard can give (RL-LIMIT-02).
const MAKE: Need<'static> =
    Need::All(&[Need::tuple("ratelimit", "*", "create_namespace"), Need::tuple("ratelimit", "*", "limit")]);

/// Makes the namespaces that do not exist yet, all in one transaction, each once whatever the concurrency (RL-NS-05).
async fn make_namespaces(granted: Granted<'_>, names: Vec<String>) -> Result<(), Problem> {
    let made = granted.transact(Correlate::IfSeveral, move |change| {
        let workspace = change.workspace();
        for name in names {
            // Another request may have made it first.
            if ratelimit::find(change.tx, workspace, &name)?.is_some() {
                continue;
            }
            make_namespace(change, name);
        }
        Ok(())
    });
    made.await.map(drop)
}

/// Makes a namespace whose name is free, and records it (RL-NS-05).
fn make_namespace(change: &mut Change<'_, '_>, name: String) -> NamespaceId {
    let id = NamespaceId(change.new_id());
    let row = NamespaceRow { name, created_at: change.now(), deleted_at: None };
    let workspace = change.workspace();
    ratelimit::put(change.tx, workspace, id, &row);
    change.audit(
        "ratelimitNamespace.create",
        format!("Created rate-limit namespace {} ({id})", row.name),
        vec![namespace_target(id, &row.name)],
    );
    id
}

/// The namespace as an audit target.
fn namespace_target(id: NamespaceId, name: &str) -> Target {
    target("ratelimitNamespace", id, name)
}

/// What a caller lacks who may not do something to a namespace, in the words it used: an id it did not name would tell more
/// of the namespace than it knew (PM-EVAL-04).
fn may_not(action: &str, name: &str) -> Problem {
    let detail = format!("Missing one of these permissions: ratelimit.*.{action} or ratelimit.{name}.{action}");
    Problem::new(Code::InsufficientPermissions, detail)
}

/// The namespace that an override operation names: one that is absent, another workspace's or deleted is the same 404
/// (RL-SETOV-01, RL-LISTOV-04).
async fn live_namespace(call: &Call, id_or_name: &str) -> Result<Arc<NamespaceView>, Problem> {
    namespace(call, id_or_name).await?.filter(|view| !view.deleted).ok_or_else(namespace_not_found)
}

/// The row of a namespace inside a transaction: it may have been deleted since the handler looked.
fn still_live(change: &Change<'_, '_>, id: NamespaceId) -> Result<NamespaceRow, Abort<Problem>> {
    let row = ratelimit::get_live(change.tx, change.workspace(), id)?;
    row.ok_or_else(|| Abort::Refused(namespace_not_found()))
}

fn namespace_not_found() -> Problem {
    Problem::new(Code::RatelimitNamespaceNotFound, "The requested namespace does not exist or has been deleted.")
}

/// One answer for an override that is not there and for one that the caller may not see (RL-GETOV-02).
fn override_not_found() -> Problem {
    Problem::new(Code::RatelimitOverrideNotFound, "The requested override does not exist.")
}

fn gone(name: &str) -> Problem {
    Problem::new(Code::RatelimitNamespaceGone, format!("The namespace '{name}' was deleted."))
}

/// A namespace that was just made and is not there: it was never durable, so the request is as well tried again.
fn vanished() -> Problem {
    Problem::no_capacity("The namespace could not be loaded. Please try again.")
}

fn exhausted() -> Problem {
    Problem::no_capacity("The server has no room to count another identifier. Please tell its operator.")
}

/// The override that acts on an identifier, and what it was set for: the identifier's own, else the pattern that matches it
/// best (RL-OVR-02). It is in memory; only of more overrides than fit there one that was not used lately is read.
async fn override_for<'a>(
    call: &Call,
    view: &'a NamespaceView,
    identifier: &'a str,
) -> Result<Option<(&'a str, OverrideView)>, Problem> {
    let (workspace, namespace) = (call.workspace(), view.id);
    let found = call.storage().override_of(workspace, namespace, identifier);
    call.services().metrics.requests.lookup(Index::Overrides, &found);
    let own = match found {
        Lookup::Hot(own) => Some(own),
        Lookup::Absent => None,
        Lookup::Unknown => {
            let text = identifier.to_owned();
            let read = call.read("override", move |storage| storage.read_override_of(workspace, namespace, &text));
            Box::pin(read).await?
        }
    };
    Ok(match own {
        Some(own) => Some((identifier, *own)),
        None => view.pattern_for(identifier).map(|pattern| (pattern.identifier(), pattern.says)),
    })
}

/// What a request takes of which limit: its own numbers, or those of the override that acts on its identifier.
struct Resolved {
    take: Take,
    override_id: Option<OverrideId>,
}

/// What a decision leaves behind (RL-EVT-01).
fn event(
    call: &Call,
    namespace: NamespaceId,
    identifier: String,
    resolved: &Resolved,
    decision: &Decision,
    latency_ms: f64,
) -> events::Ratelimit {
    events::Ratelimit {
        request_id: *call.request_id.as_bytes(),
        time: call.now,
        workspace: call.workspace_id(),
        namespace,
        identifier,
        override_id: resolved.override_id,
        passed: decision.passed,
        latency_ms,
        limit: resolved.take.limit,
        remaining: decision.remaining,
        reset_at: decision.reset_ms,
        tokens: resolved.take.cost,
    }
}

async fn resolve(call: &Call, view: &NamespaceView, ask: &Request) -> Result<Resolved, Problem> {
    let over = override_for(call, view, &ask.identifier).await?.map(|(_, over)| over);
    let (limit, duration) = match over {
        Some(over) => (over.limit, over.duration),
        None => (ask.limit.get_unsigned(), ask.duration.get_unsigned()),
    };
    let subject = call.storage().hot().windows.subject(
        Kind::Namespace,
        call.workspace().0,
        view.id.as_bytes(),
        ask.identifier.as_bytes(),
        duration,
    );
    let cost = ask.cost.0.map_or(1, Int::get_unsigned);
    Ok(Resolved { take: Take { subject, duration_ms: duration, limit, cost }, override_id: over.map(|over| over.id) })
}
