//! What an audit event looks like in JSON (AL-EV-01), to whoever reads or is sent one.

use keyward_storage::ids::WorkspaceId;
use keyward_storage::records::audit::{AuditEvent, Target};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::printable::printable_json;

/// What stands for a workspace's id in events that belong to none: refused root keys, for instance.
pub const OPERATOR: &str = "operator";
/// Changes are all there is so far.
const BUCKET: &str = "unkey_mutations";
const SOURCE: &str = "platform";

/// An event's members, in the contract's order. What is empty is left out (AL-EV-02).
#[derive(Serialize)]
struct Object<'a> {
    event_id: String,
    time: u64,
    workspace_id: &'a str,
    bucket: &'static str,
    source: &'static str,
    event: &'a str,
    description: &'a str,
    actor: Party<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_ip: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    targets: Vec<Party<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    /// Only where members were left out because a transport is too narrow.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// An actor or a target.
#[derive(Serialize)]
struct Party<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

impl<'a> From<&'a Target> for Party<'a> {
    fn from(target: &'a Target) -> Party<'a> {
        // It was JSON when it was written; an event is readable whatever became of it.
        let meta = target.meta.as_deref().and_then(|meta| serde_json::from_str(meta).ok());
        Party { kind: &target.kind, id: &target.id, name: &target.name, meta }
    }
}

/// How a workspace is called in its events; `None` is the operator's own.
pub fn spell(workspace: Option<WorkspaceId>) -> String {
    workspace.map_or_else(|| OPERATOR.to_owned(), |id| id.to_string())
}

/// Appends an event as one line of JSON, its end included.
pub fn write_line(workspace: &str, event: &AuditEvent, out: &mut Vec<u8>) {
    write(&object(workspace, event), out);
}

/// The same for a transport that does not take the whole event: what names it, who and what it was, and `truncated`.
pub fn write_short_line(workspace: &str, event: &AuditEvent, out: &mut Vec<u8>) {
    write(
        &Object { description: "", user_agent: None, targets: Vec::new(), truncated: true, ..object(workspace, event) },
        out,
    );
}

fn object<'a>(workspace: &'a str, event: &'a AuditEvent) -> Object<'a> {
    Object {
        event_id: event.id.to_string(),
        time: event.time,
        workspace_id: workspace,
        bucket: BUCKET,
        source: SOURCE,
        event: &event.event,
        description: &event.description,
        actor: Party { kind: &event.actor.kind, id: &event.actor.id, name: &event.actor.name, meta: None },
        remote_ip: event.remote_ip.as_deref().filter(|text| !text.is_empty()),
        user_agent: event.user_agent.as_deref().filter(|text| !text.is_empty()),
        targets: event.targets.iter().map(Party::from).collect(),
        correlation_id: event.correlation.map(|id| id.to_string()),
        truncated: false,
    }
}

fn write(object: &Object<'_>, out: &mut Vec<u8>) {
    let line = serde_json::to_string(object).expect("texts and numbers serialize");
    // Lines end up on terminals and in other programs' logs.
    out.extend_from_slice(printable_json(&line).as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use keyward_storage::ids::{CorrelationId, EventId, IdText};
    use keyward_storage::records::audit::Actor;

    use super::*;

    /// AL-EV-01, AL-EV-02: every member under its name, empty ones left out, metadata as JSON.
    #[test]
    fn an_event_is_a_line_of_json() {
        let mut draw = (b'a'..=b'z').cycle();
        let mut id = || IdText::draw(|| draw.next().unwrap());
        let target = |name: &str, meta: Option<&str>| Target {
            kind: "key".into(),
            id: "key_1".into(),
            name: name.into(),
            meta: meta.map(str::to_owned),
        };
        let full = AuditEvent {
            id: EventId(id()),
            time: 5,
            event: "key.update".into(),
            description: "a \"line\"\n".into(),
            actor: Actor { kind: "rootkey".into(), id: "key_0".into(), name: String::new() },
            remote_ip: Some("::1".into()),
            user_agent: Some("curl".into()),
            targets: vec![target("a", Some(r#"{"n":9007199254740993}"#)), target("", Some("{,")), target("", None)],
            correlation: Some(CorrelationId(id())),
        };
        let mut out = Vec::new();
        write_line("ws_1", &full, &mut out);
        let (event_id, correlation) = (full.id, full.correlation.unwrap());
        let wanted = format!(
            concat!(
                r#"{{"event_id":"{}","time":5,"workspace_id":"ws_1","bucket":"unkey_mutations","source":"platform","#,
                r#""event":"key.update","description":"a \"line\"\n","actor":{{"type":"rootkey","id":"key_0"}},"#,
                r#""remote_ip":"::1","user_agent":"curl","targets":[{{"type":"key","id":"key_1","name":"a","#,
                r#""meta":{{"n":9007199254740993}}}},{{"type":"key","id":"key_1"}},{{"type":"key","id":"key_1"}}],"#,
                r#""correlation_id":"{}"}}"#,
                "\n"
            ),
            event_id, correlation
        );
        assert_eq!(String::from_utf8(out).unwrap(), wanted);

        let bare = AuditEvent {
            remote_ip: Some(String::new()),
            user_agent: None,
            targets: Vec::new(),
            correlation: None,
            ..full
        };
        let mut out = Vec::new();
        write_line(OPERATOR, &bare, &mut out);
        let text = String::from_utf8(out).unwrap();
        for absent in ["remote_ip", "user_agent", "targets", "correlation_id", "truncated", "\"meta\""] {
            assert!(!text.contains(absent), "{absent}: {text}");
        }
    }
}
