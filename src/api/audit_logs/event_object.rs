//! An audit event as clients see it (AL-EV-01): members are named as the contract names them, with underscores.

use keyward_storage::ids::WorkspaceId;
use keyward_storage::records::audit;
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::shape::{Verbatim, shown_meta};

/// An audit event.
#[derive(Serialize, JsonSchema)]
pub struct Event {
    /// Its id.
    event_id: String,
    /// Unix milliseconds at which it was recorded.
    time: u64,
    /// The workspace the change belongs to.
    workspace_id: String,
    /// Always `unkey_mutations`.
    bucket: &'static str,
    /// Always `platform`.
    source: &'static str,
    /// What happened, as `key.create`.
    event: String,
    /// One line for people.
    description: String,
    /// Who did it.
    actor: Actor,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<String>,
    /// The client's program, as it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    /// What it was done to, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Target>,
    /// Ties the events of one action together.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
}

/// Who did it.
#[derive(Serialize, JsonSchema)]
struct Actor {
    /// `rootkey`, `system`, `portalEndUser` or `user`.
    #[serde(rename = "type")]
    kind: String,
    /// Its id.
    id: String,
    /// Its name at that time.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
}

/// What it was done to.
#[derive(Serialize, JsonSchema)]
struct Target {
    /// `key`, `api`, …
    #[serde(rename = "type")]
    kind: String,
    /// Its id.
    id: String,
    /// Its name at that time.
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Verbatim<String>>,
}

/// What is left out when it is empty (AL-EV-02).
fn unless_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

impl Event {
    /// A stored event of that workspace.
    pub fn new(workspace: WorkspaceId, event: audit::AuditEvent) -> Event {
        let target = |target: audit::Target| Target {
            kind: target.kind,
            id: target.id,
            name: target.name,
            meta: shown_meta(target.meta.as_deref()).map(|meta| Verbatim(meta.to_owned())),
        };
        Event {
            event_id: event.id.to_string(),
            time: event.time,
            workspace_id: workspace.to_string(),
            bucket: "unkey_mutations",
            source: "platform",
            event: event.event,
            description: event.description,
            actor: Actor { kind: event.actor.kind, id: event.actor.id, name: event.actor.name },
            remote_ip: unless_empty(event.remote_ip),
            user_agent: unless_empty(event.user_agent),
            targets: event.targets.into_iter().map(target).collect(),
            correlation_id: event.correlation.map(|id| id.to_string()),
        }
    }
}
