//! The audit trail on an open store: verification, heads, export and the state of live exports.
//!
//! Verification and export may take long and move much, so over the socket they are streams: kept heads go in, lines come
//! out, a frame at a time.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

use keyward_storage::Snapshot;
use keyward_storage::ids::{WorkspaceId, WorkspaceNo};
use keyward_storage::records::audit::verify::{Finding, Verified, verify as verify_chain};
use keyward_storage::records::audit::{self, ChainPoint, OPERATOR};
use keyward_storage::records::workspace;
use serde_json::{Map, Value, json};

use super::super::audit::{
    AuditExported, AuditStatus, AuditVerified, ChainHead, ChainHeads, ExportAudit, ExportShown, FindingShown, KeptHead,
    ListHeads, RefusedShown, ShowStatus, VerifyAudit,
};
use super::{live_workspace, read, unreadable};
use crate::api::audit_event;
use crate::app::Services;
use crate::http::admin::AdminRequest;
use crate::http::admin::stream::{Frame, Frames};
use crate::telemetry::error_chain;

/// Findings in one answer, so that it fits its line; more are counted.
const FINDINGS_MAX: usize = 1000;
/// Kept heads in one verification.
const KEPT_MAX: usize = 1_000_000;
/// Events read at a time for an export, and their bytes.
const PAGE_EVENTS: usize = 1024;
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of lines in one frame, roughly.
const FRAME_BYTES: usize = 64 << 10;

/// Whether a command is one of these that move frames.
pub fn is_streamed(command: &str) -> bool {
    matches!(command, "audit.verify" | "audit.export")
}

/// Executes such a command on its connection. Blocks.
///
/// # Errors
/// A sentence for the operator.
pub fn stream(services: &Services, request: AdminRequest, frames: &mut Frames) -> Result<Value, String> {
    let AdminRequest { command, arguments, .. } = request;
    match command.as_str() {
        "audit.verify" => serve_verify(services, arguments, frames),
        "audit.export" => serve_export(services, arguments, frames),
        unknown => Err(format!("there is no command `{unknown}` that moves frames")),
    }
}

fn serve_verify(services: &Services, arguments: Map<String, Value>, frames: &mut Frames) -> Result<Value, String> {
    let ask: VerifyAudit = read(arguments)?;
    frames.go(&json!({})).map_err(|error| gone(&error))?;
    let mut kept = Vec::new();
    loop {
        match frames.receive().map_err(|error| gone(&error))? {
            Frame::Bytes(lines) => {
                let lines: Vec<KeptHead> =
                    serde_json::from_slice(&lines).map_err(|error| format!("kept heads: {error}"))?;
                kept.extend(lines);
            }
            Frame::End => break,
            Frame::Aborted => return Err("the sender gave up".to_owned()),
        }
        if kept.len() > KEPT_MAX {
            return Err(format!("at most {KEPT_MAX} kept heads are compared at a time"));
        }
    }
    // The client waits for a sign of life now and then.
    let mut lost = None;
    let verified = verify(services, &ask, &kept, &mut |events| {
        lost = frames.send(events.to_string().as_bytes()).err();
    })?;
    match lost {
        Some(error) => Err(gone(&error)),
        None => {
            frames.end().map_err(|error| gone(&error))?;
            Ok(json!(verified))
        }
    }
}

fn serve_export(services: &Services, arguments: Map<String, Value>, frames: &mut Frames) -> Result<Value, String> {
    let ask: ExportAudit = read(arguments)?;
    frames.go(&json!({})).map_err(|error| gone(&error))?;
    match export(services, &ask, &mut |lines| lines.chunks(FRAME_BYTES).try_for_each(|part| frames.send(part))) {
        Ok(exported) => {
            frames.end().map_err(|error| gone(&error))?;
            Ok(json!(exported))
        }
        Err(NotExported::Store(reason)) => {
            let _ = frames.abort();
            Err(reason)
        }
        Err(NotExported::Out(error)) => Err(gone(&error)),
    }
}

fn gone(error: &io::Error) -> String {
    format!("the connection ended: {}", error_chain(error))
}

/// What a chain is called: its workspace's id, or the word for the operator's own. `None` for one whose workspace is not there.
fn name(snapshot: &Snapshot, no: WorkspaceNo) -> Result<Option<String>, String> {
    if no == OPERATOR {
        return Ok(Some(audit_event::spell(None)));
    }
    let row = workspace::get(snapshot, no).map_err(|error| unreadable(&error))?;
    Ok(row.map(|row| audit_event::spell(Some(row.id))))
}

/// The chains that are asked for: one, deleted workspaces' included, or all.
fn chosen(services: &Services, asked: Option<&str>) -> Result<Vec<(WorkspaceNo, Option<String>)>, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let chains: Vec<WorkspaceNo> = match asked {
        None => audit::chains(&snapshot).map_err(|error| unreadable(&error))?.into_iter().collect(),
        Some(text) => vec![chain_of(&snapshot, text)?],
    };
    chains.into_iter().map(|no| Ok((no, name(&snapshot, no)?))).collect()
}

fn chain_of(snapshot: &Snapshot, text: &str) -> Result<WorkspaceNo, String> {
    if text == audit_event::OPERATOR {
        return Ok(OPERATOR);
    }
    // The trail outlives its workspace.
    let by_id = WorkspaceId::parse(text).map(|id| workspace::find(snapshot, id)).transpose();
    match by_id.map_err(|error| unreadable(&error))?.flatten() {
        Some(no) => Ok(no),
        None => live_workspace(snapshot, text).map_err(|error| unreadable(&error))?.map(|(no, _)| no),
    }
}

/// Verifies chains against themselves and against kept heads; `seen` is told how many events were read in all, now and then.
/// Blocks.
///
/// # Errors
/// A sentence for the operator: nothing can be said.
pub fn verify(
    services: &Services,
    ask: &VerifyAudit,
    kept: &[KeptHead],
    seen: &mut dyn FnMut(u64),
) -> Result<AuditVerified, String> {
    let mut answer = AuditVerified::default();
    let chains = chosen(services, ask.workspace.as_deref())?;
    let mut points: HashMap<&str, Vec<ChainPoint>> = HashMap::new();
    for head in kept {
        points.entry(&head.workspace).or_default().push(head.point);
    }
    for (no, name) in chains {
        let points = name.as_deref().and_then(|name| points.remove(name)).unwrap_or_default();
        let before = answer.events;
        let mut read = 0;
        let verified = verify_chain(&|| services.storage.snapshot(), no, &points, &mut |more| {
            read += more;
            seen(before + read);
        });
        let Verified { events, kept_met, kept_expired, findings, more, .. } =
            verified.map_err(|error| unreadable(&error))?;
        answer.events += events;
        answer.chains += 1;
        answer.kept_met += kept_met;
        answer.kept_expired += kept_expired;
        answer.more_findings += more;
        let workspace_id = name.unwrap_or_else(|| format!("#{}", no.0));
        for Finding { sequence, event, fault } in findings {
            answer.add(FindingShown {
                workspace_id: workspace_id.clone(),
                sequence,
                event_id: event.map(|id| id.to_string()),
                kind: fault.kind().to_owned(),
                message: fault.to_string(),
            });
        }
    }
    // Where only one chain was asked for, the others' heads were not looked at.
    let mut nowhere: Vec<_> = points.into_iter().filter(|_| ask.workspace.is_none()).collect();
    nowhere.sort_unstable();
    for (workspace, points) in nowhere {
        for point in points {
            answer.add(FindingShown {
                workspace_id: workspace.to_owned(),
                sequence: point.sequence,
                event_id: None,
                kind: "no_workspace".to_owned(),
                message: "a kept head is of a workspace that is not there".to_owned(),
            });
        }
    }
    Ok(answer)
}

impl AuditExported {
    fn add_damaged(&mut self, workspace: &str, sequence: u64) {
        self.damaged += 1;
        if self.damaged_events.len() < FINDINGS_MAX {
            self.damaged_events.push(format!("{workspace}:{sequence}"));
        }
    }
}

impl AuditVerified {
    fn add(&mut self, finding: FindingShown) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// Where the chains end.
///
/// # Errors
/// A sentence for the operator.
pub fn heads(services: &Services, ask: ListHeads) -> Result<ChainHeads, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let only = ask.workspace.map(|text| chain_of(&snapshot, &text)).transpose()?;
    let mut heads = Vec::new();
    for (no, point) in audit::heads(&snapshot).map_err(|error| unreadable(&error))? {
        if only.is_none_or(|only| only == no)
            && let Some(workspace) = name(&snapshot, no)?
        {
            heads.push(ChainHead::from(KeptHead { workspace, point }));
        }
    }
    Ok(ChainHeads { heads })
}

/// How live exports and refused root keys stand.
///
/// # Errors
/// A sentence for the operator.
pub fn status(services: &Services, _: ShowStatus) -> Result<AuditStatus, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let mut exports = Vec::new();
    for export in &services.exports {
        let lag = export.lag(&snapshot).map_err(|error| unreadable(&error))?;
        let (name, target) = (export.name.to_owned(), export.place.clone());
        exports.push(ExportShown {
            name,
            target,
            lag_events: lag.events,
            lag_since: lag.since,
            trouble: export.trouble(),
        });
    }
    let counts = services.guesses.counts();
    let refused = RefusedShown { attempts: counts.attempts, slowed: counts.slowed, unslowed: counts.unslowed };
    Ok(AuditStatus { exports, refused_root_keys: refused })
}

/// Why an export is not whole.
pub enum NotExported {
    /// The store; a sentence for the operator.
    Store(String),
    /// What takes the lines.
    Out(io::Error),
}

/// Hands the lines of events to `out`, workspace by workspace and oldest first, a bounded number of bytes at a time; how many
/// events that were. A damaged one is passed over, and named. Blocks.
///
/// # Errors
/// See [`NotExported`].
pub fn export(
    services: &Services,
    ask: &ExportAudit,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<AuditExported, NotExported> {
    let mut exported = AuditExported::default();
    let is_asked =
        |time: u64| ask.since.is_none_or(|since| time >= since) && ask.until.is_none_or(|until| time < until);
    for (no, name) in chosen(services, ask.workspace.as_deref()).map_err(NotExported::Store)? {
        let name = name.unwrap_or_else(|| format!("#{}", no.0));
        let (mut from, mut lines) = (0, Vec::new());
        loop {
            // A view of its own for each page: an export may take long, and what a view shows cannot be given back.
            let page = services
                .storage
                .snapshot()
                .and_then(|snapshot| audit::page_with_damage(&snapshot, no, from, PAGE_EVENTS, PAGE_BYTES))
                .map_err(|error| NotExported::Store(unreadable(&error)))?;
            let Some((last, _)) = page.last() else { break };
            from = last + 1;
            for (sequence, row) in &page {
                match row {
                    Some(row) if is_asked(row.event.time) => {
                        audit_event::write_line(&name, &row.event, &mut lines);
                        exported.events += 1;
                    }
                    Some(_) => {}
                    None => exported.add_damaged(&name, *sequence),
                }
            }
            if !lines.is_empty() {
                out(&lines).map_err(NotExported::Out)?;
                lines.clear();
            }
        }
    }
    if exported.damaged > 0 {
        services.metrics.damaged_reads.fetch_add(exported.damaged, Ordering::Relaxed);
    }
    Ok(exported)
}
