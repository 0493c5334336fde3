//! ratelimit.*: limits counted by namespace and identifier.

pub mod limit;
pub mod multi_limit;

use std::sync::Arc;

use keyward_storage::Lookup;
use keyward_storage::hot::window::{Kind, Take};
use keyward_storage::ids::NamespaceId;
use keyward_storage::records::ratelimit::{self, NamespaceRow, NamespaceView};
use schemars::JsonSchema;
use serde::Deserialize;

use super::call::{Call, Correlate, Granted};
use super::problem::{Code, Problem};
use super::shape::{Int, Opt, Text};
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
    match call.storage().namespace(workspace, id_or_name) {
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
        let (workspace, now) = (change.workspace(), change.now());
        for name in names {
            // Another request may have made it first.
            if ratelimit::find(change.tx, workspace, &name)?.is_some() {
                continue;
            }
            let id = NamespaceId(change.new_id());
            let row = NamespaceRow { name, created_at: now, deleted_at: None };
            ratelimit::put(change.tx, workspace, id, &row);
            change.audit(
                "ratelimitNamespace.create",
                format!("Created rate-limit namespace {} ({id})", row.name),
                vec![target("ratelimitNamespace", id, &row.name)],
            );
        }
        Ok(())
    });
    made.await.map(drop)
}

/// What a caller lacks who may not limit on a namespace, in the words it used: an id it did not name would tell that the
/// namespace exists (PM-EVAL-04).
fn may_not_limit(name: &str) -> Problem {
    let detail = format!("Missing one of these permissions: ratelimit.*.limit or ratelimit.{name}.limit");
    Problem::new(Code::InsufficientPermissions, detail)
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

/// What a request takes of which limit: its own numbers, or those of the override that acts on its identifier.
struct Resolved {
    take: Take,
    override_id: Option<String>,
}

fn resolve(call: &Call, view: &NamespaceView, ask: &Request) -> Resolved {
    let over = view.override_for(&ask.identifier);
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
    Resolved {
        take: Take { subject, duration_ms: duration, limit, cost },
        override_id: over.map(|over| over.id.to_string()),
    }
}
