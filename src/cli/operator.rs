//! The operator's commands, executed on an open store: one function for the server behind `admin.sock` and for a command
//! that has opened the data directory itself ([`super::ask`] chooses).
//!
//! A command arrives as its name and a JSON object, whoever sends it; both are checked here. It answers with one JSON
//! object and with warnings for the operator. A plaintext key appears in the answer of the command that made it, and
//! nowhere else.

pub mod audit;
pub mod backup;
pub mod events;
pub mod pepper;
pub mod status;
pub mod vault;

use std::panic::resume_unwind;
use std::sync::Arc;

use keyward_storage::ids::{KeyId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::root_key::{self, RootKeyRow};
use keyward_storage::records::workspace::{self, WorkspaceLimits, WorkspaceRow};
use keyward_storage::{Abort, Read, ReadError, TransactError, Turn, Tx};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::permission_hints::why_useless;
use super::promote::{Promote, Promoted};
use super::root_key::{
    CreateRootKey, CreatedRootKey, ListRootKeys, OneRootKey, RevokedRootKey, RootKeyList, RootKeyShown, UpdateRootKey,
};
use super::text;
use super::values::{PERMISSIONS_MAX, Permission};
use super::vault::NoArguments;
use super::workspace::{
    CreateWorkspace, CreatedWorkspace, DeletedWorkspace, LimitsShown, ListWorkspaces, OneWorkspace, UpdateWorkspace,
    WorkspaceList, WorkspaceShown,
};
use crate::app::{Services, find_workspace};
use crate::http::admin::{AdminRequest, Answer, Dispatch, Operator, Stream};
use crate::replication;
use crate::replication::follow::Waiting;
use crate::telemetry::error_chain;
use crate::tenants::{self, By, NewRootKey};

/// Warnings of one command; what is left out is counted.
const WARNINGS_MAX: usize = 10;

/// What a command answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The command's own object: what `--output json` prints.
    pub result: Value,
    /// What the operator should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The commands of a running server, for its operator's socket.
pub fn commands(services: &Arc<Services>) -> Dispatch {
    let (answering, streaming) = (Arc::clone(services), Arc::clone(services));
    let answer: Answer = Arc::new(move |request| {
        let services = Arc::clone(&answering);
        Box::pin(async move {
            // Commands read from disk and wait for the writer; socket workers must do neither.
            match tokio::task::spawn_blocking(move || execute(&services, request)).await {
                Ok(outcome) => outcome.map(|done| json!(done)),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    Err(_) => Err("the server is stopping".to_owned()),
                },
            }
        })
    });
    let stream: Stream = Arc::new(move |request, frames| match request.command.as_str() {
        command if vault::is_streamed(command) => vault::stream(&streaming, request, frames),
        command if pepper::is_streamed(command) => pepper::stream(&streaming, request, frames),
        command if audit::is_streamed(command) => audit::stream(&streaming, request, frames),
        command if backup::is_streamed(command) => backup::stream(&streaming, request, frames),
        _ => events::stream(&streaming, request, frames),
    });
    Dispatch { answer, stream, is_streamed }
}

fn is_streamed(command: &str) -> bool {
    events::is_streamed(command)
        || vault::is_streamed(command)
        || pepper::is_streamed(command)
        || audit::is_streamed(command)
        || backup::is_streamed(command)
}

/// The commands of a node that has no records yet: each is refused, and told what is waited for.
pub fn of_a_waiting_node(waiting: &Arc<Waiting>) -> Dispatch {
    let (answering, streaming) = (Arc::clone(waiting), Arc::clone(waiting));
    Dispatch {
        answer: Arc::new(move |_| {
            let told = answering.told();
            Box::pin(async move { Err(told) })
        }),
        stream: Arc::new(move |_, _| Err(streaming.told())),
        is_streamed,
    }
}

/// Executes a command. What it changed is durable, and seen by the next request, when it returns. Blocks.
///
/// # Errors
/// A sentence for the operator; nothing was changed.
pub fn execute(services: &Services, request: AdminRequest) -> Result<Done, String> {
    let AdminRequest { command, arguments, operator } = request;
    let desk = Desk { services, by: by(services, &operator) };
    match command.as_str() {
        "workspace.create" => desk.create_workspace(read(arguments)?),
        "workspace.list" => desk.list_workspaces(read(arguments)?),
        "workspace.get" => desk.get_workspace(&read(arguments)?),
        "workspace.update" => desk.update_workspace(read(arguments)?),
        "workspace.delete" => desk.delete_workspace(read(arguments)?),
        "root-key.create" => desk.create_root_key(read(arguments)?),
        "root-key.list" => desk.list_root_keys(&read(arguments)?),
        "root-key.get" => desk.get_root_key(&read(arguments)?),
        "root-key.update" => desk.update_root_key(read(arguments)?),
        "root-key.revoke" => desk.revoke_root_key(read(arguments)?),
        "status" => {
            let NoArguments {} = read(arguments)?;
            done(status::status(services)?)
        }
        "metrics" => {
            let NoArguments {} = read(arguments)?;
            done(json!({ "exposition": crate::metrics::Metrics::exposition(services) }))
        }
        "promote" => {
            let Promote { force } = read(arguments)?;
            let term = replication::promote(services, force)?;
            done(Promoted { term: term.0, position: services.node.position().0 })
        }
        "vault.status" => {
            let NoArguments {} = read(arguments)?;
            done(vault::status(services)?)
        }
        "pepper.status" => {
            let NoArguments {} = read(arguments)?;
            done(pepper::status(services)?)
        }
        "pepper.disable" => {
            let NoArguments {} = read(arguments)?;
            done(pepper::disable(services, &desk.by)?)
        }
        "audit.heads" => done(audit::heads(services, read(arguments)?)?),
        "audit.status" => done(audit::status(services, read(arguments)?)?),
        unknown => Err(format!("there is no command `{unknown}`; is the running server an older one?")),
    }
}

/// The operating-system user as the audit log names it (AL-ACTOR-02).
fn by(services: &Services, operator: &Operator) -> By {
    let id = format!("uid:{}", operator.uid);
    let actor = tenants::system_actor(&id, operator.name.as_deref().unwrap_or(&id));
    By::new(actor, services.outside.clock.now_ms(), &services.outside.entropy)
}

fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(arguments)).map_err(|error| format!("wrong arguments: {error}"))
}

fn done(result: impl Serialize) -> Result<Done, String> {
    Ok(Done { result: json!(result), warnings: Vec::new() })
}

fn unreadable(error: &ReadError) -> String {
    format!("the records could not be read: {}", error_chain(error))
}

/// A store and who acts on it.
struct Desk<'a> {
    services: &'a Services,
    by: By,
}

impl Desk<'_> {
    fn create_workspace(self, ask: CreateWorkspace) -> Result<Done, String> {
        let by = self.by.clone().correlated();
        let id = WorkspaceId(tenants::draw_id(&by.entropy));
        let key_name = Some("first root key".to_owned());
        let key = NewRootKey::generate(key_name, vec![tenants::administrator(id)], None, &by.entropy);
        let answer = CreatedWorkspace { workspace_id: id.to_string(), root_key: key.minted.plaintext.to_string() };
        let (name, slug) = (ask.name.into_text(), ask.slug.map(|slug| slug.into_text()));
        self.transact(move |tx| {
            if let Some(slug) = &slug
                && let Some(holder) = workspace::find_slug(tx, slug)?
            {
                let holder = workspace::get(tx, holder)?.map_or_else(String::new, |row| row.id.to_string());
                return Err(Abort::Refused(format!("the slug `{slug}` is taken by workspace {holder}")));
            }
            let no = tenants::create_workspace(tx, id, &name, slug, &by)?;
            tenants::create_root_key(tx, no, key, &by)?;
            Ok(())
        })?;
        done(answer)
    }

    fn list_workspaces(self, _: ListWorkspaces) -> Result<Done, String> {
        let workspaces = self.look(workspace::list)?;
        let live = workspaces.iter().map(|(_, row)| row).filter(|row| row.deleted_at.is_none());
        done(WorkspaceList { workspaces: live.map(shown_workspace).collect() })
    }

    fn get_workspace(self, ask: &OneWorkspace) -> Result<Done, String> {
        let (_, row) = self.look(|read| live_workspace(read, &ask.workspace))??;
        done(shown_workspace(&row))
    }

    fn update_workspace(self, ask: UpdateWorkspace) -> Result<Done, String> {
        let by = self.by.clone();
        let row = self.transact(move |tx| {
            let (no, before) = live_workspace(tx, &ask.workspace)?.map_err(Abort::Refused)?;
            let after = changed_workspace(&before, ask);
            if let Some(changes) = changes(shown_workspace(&before).changeable(), shown_workspace(&after).changeable())
            {
                tenants::update_workspace(tx, no, &before, &after, changes, &by);
            }
            Ok(after)
        })?;
        done(shown_workspace(&row))
    }

    fn delete_workspace(self, ask: OneWorkspace) -> Result<Done, String> {
        let by = self.by.clone();
        let deleted_at = by.now;
        let workspace_id = self.transact(move |tx| {
            let (no, before) = live_workspace(tx, &ask.workspace)?.map_err(Abort::Refused)?;
            tenants::delete_workspace(tx, no, &before, &by);
            Ok(before.id.to_string())
        })?;
        done(DeletedWorkspace { workspace_id, deleted_at })
    }

    fn create_root_key(self, ask: CreateRootKey) -> Result<Done, String> {
        let by = self.by.clone();
        let permissions = permission_texts(ask.permissions)?;
        let (expires, now) = (ask.expires.map(|at| at.get()), by.now);
        let key = NewRootKey::generate(Some(ask.name.into_text()), permissions.clone(), expires, &by.entropy);
        let answer = CreatedRootKey { key_id: key.id.to_string(), key: key.minted.plaintext.to_string() };
        let workspace = self.transact(move |tx| {
            let (no, row) = live_workspace(tx, &ask.workspace)?.map_err(Abort::Refused)?;
            tenants::create_root_key(tx, no, key, &by)?;
            Ok(row.id)
        })?;
        let mut warnings = useless(&permissions, workspace);
        warnings.extend(expired(expires, now));
        Ok(Done { result: json!(answer), warnings })
    }

    fn list_root_keys(self, ask: &ListRootKeys) -> Result<Done, String> {
        let root_keys = self.look(|read| {
            let (no, workspace) = match live_workspace(read, &ask.workspace)? {
                Ok(found) => found,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let mut keys = root_key::list(read, no)?;
            keys.sort_by_key(|(id, row)| (row.created_at, *id));
            Ok(Ok(keys.iter().map(|(id, row)| shown_root_key(*id, row, workspace.id)).collect()))
        })??;
        done(RootKeyList { root_keys })
    }

    fn get_root_key(self, ask: &OneRootKey) -> Result<Done, String> {
        let (id, row, workspace) = self.look(|read| live_root_key(read, &ask.key_id, ask.workspace.as_deref()))??;
        done(shown_root_key(id, &row, workspace))
    }

    fn update_root_key(self, ask: UpdateRootKey) -> Result<Done, String> {
        let by = self.by.clone();
        let ways = [!ask.permissions.is_empty(), !ask.add_permissions.is_empty(), ask.clear_permissions];
        if ways.iter().filter(|way| **way).count() > 1 {
            return Err("permissions are either cleared, added or given, not several of these".to_owned());
        }
        let is_replaced = ways[0] || ways[2];
        let added = permission_texts(ask.add_permissions)?;
        let permissions = permission_texts(ask.permissions)?;
        let given = [&permissions[..], &added[..]].concat();
        let (asked_expiry, now) = (ask.expires.and_then(|at| at.0).map(|at| at.get()), by.now);
        let (id, row, workspace) = self.transact(move |tx| {
            let (id, before, workspace) =
                live_root_key(tx, &ask.key_id, ask.workspace.as_deref())?.map_err(Abort::Refused)?;
            let mut after = before.clone();
            if let Some(name) = ask.name {
                after.name = Some(name.into_text());
            }
            if is_replaced {
                after.permissions = permissions;
            } else if !added.is_empty() {
                after.permissions =
                    sorted_permissions([&before.permissions[..], &added[..]].concat()).map_err(Abort::Refused)?;
            }
            if let Some(enabled) = ask.enabled {
                after.enabled = enabled;
            }
            if let Some(expires) = ask.expires {
                after.expires = expires.0.map(|at| at.get());
            }
            let shown = |row| shown_root_key(id, row, workspace).changeable();
            if let Some(changes) = changes(shown(&before), shown(&after)) {
                after.updated_at = Some(by.now);
                tenants::update_root_key(tx, id, &after, changes, &by)?;
            }
            Ok((id, after, workspace))
        })?;
        let mut warnings = useless(&given, workspace);
        warnings.extend(expired(asked_expiry, now));
        Ok(Done { result: json!(shown_root_key(id, &row, workspace)), warnings })
    }

    fn revoke_root_key(self, ask: OneRootKey) -> Result<Done, String> {
        let by = self.by.clone();
        let revoked_at = by.now;
        let key_id = self.transact(move |tx| {
            let (id, before, _) = live_root_key(tx, &ask.key_id, ask.workspace.as_deref())?.map_err(Abort::Refused)?;
            tenants::revoke_root_key(tx, id, &before, &by)?;
            Ok(id.to_string())
        })?;
        done(RevokedRootKey { key_id, revoked_at })
    }

    /// Reads a consistent view of the records.
    fn look<R>(&self, read: impl FnOnce(&keyward_storage::Snapshot) -> Result<R, ReadError>) -> Result<R, String> {
        let snapshot = self.services.storage.snapshot().map_err(|error| unreadable(&error))?;
        read(&snapshot).map_err(|error| unreadable(&error))
    }

    /// Runs a transaction to its end, before whatever the tenants have waiting.
    fn transact<R: Send + 'static>(
        &self,
        run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<String>> + Send + 'static,
    ) -> Result<R, String> {
        match self.services.transact_blocking(Turn::FIRST, self.by.now, run) {
            Ok(committed) => Ok(committed.value),
            Err(TransactError::Refused(refusal)) => Err(refusal),
            Err(TransactError::Unavailable(why)) => Err(why.to_string()),
            Err(TransactError::Read(error)) => Err(unreadable(&error)),
        }
    }
}

/// The workspace of an id or slug, unless it is deleted; the refusal otherwise.
fn live_workspace(read: &impl Read, text: &str) -> Result<Result<(WorkspaceNo, WorkspaceRow), String>, ReadError> {
    Ok(find_workspace(read, text)?.ok_or_else(|| format!("there is no workspace `{text}`")))
}

/// The root key of an id, unless it or its workspace is gone or it belongs to another workspace than the one named.
fn live_root_key(
    read: &impl Read,
    key_id: &str,
    workspace: Option<&str>,
) -> Result<Result<(KeyId, RootKeyRow, WorkspaceId), String>, ReadError> {
    let named = match workspace {
        Some(text) => match live_workspace(read, text)? {
            Ok((no, _)) => Some(no),
            Err(refusal) => return Ok(Err(refusal)),
        },
        None => None,
    };
    let absent =
        || Err(format!("there is no root key `{key_id}`{}", if named.is_some() { " in this workspace" } else { "" }));
    let Some(id) = KeyId::parse(key_id) else { return Ok(absent()) };
    let Some(row) = root_key::get(read, id)?.filter(|row| row.deleted_at.is_none()) else { return Ok(absent()) };
    match workspace::get(read, row.workspace)?.filter(|owner| owner.deleted_at.is_none()) {
        Some(owner) if named.is_none_or(|no| no == row.workspace) => Ok(Ok((id, row, owner.id))),
        _ => Ok(absent()),
    }
}

fn changed_workspace(before: &WorkspaceRow, ask: UpdateWorkspace) -> WorkspaceRow {
    let mut after = before.clone();
    let WorkspaceLimits {
        api_requests_per_minute,
        logs_retention_days,
        audit_retention_days,
        queries_per_hour,
        query_seconds_per_hour,
        query_max_memory,
        query_max_seconds,
        query_max_rows,
    } = &mut after.limits;
    fn set<T>(slot: &mut T, asked: Option<T>) {
        if let Some(value) = asked {
            *slot = value;
        }
    }
    set(api_requests_per_minute, ask.api_requests_per_minute.map(|limit| limit.0.map(|limit| limit.get())));
    set(logs_retention_days, ask.logs_retention_days.map(|days| days.small()));
    set(audit_retention_days, ask.audit_retention_days.map(|days| days.small()));
    set(queries_per_hour, ask.queries_per_hour.map(|count| count.small()));
    set(query_seconds_per_hour, ask.query_seconds_per_hour.map(|seconds| seconds.small()));
    set(query_max_memory, ask.query_max_memory.map(|bytes| bytes.get()));
    set(query_max_seconds, ask.query_max_seconds.map(|seconds| seconds.small()));
    set(query_max_rows, ask.query_max_rows.map(|rows| rows.get()));
    set(&mut after.name, ask.name.map(|name| name.into_text()));
    set(&mut after.enabled, ask.enabled);
    after
}

fn permission_texts(permissions: Vec<Permission>) -> Result<Vec<String>, String> {
    sorted_permissions(permissions.into_iter().map(Permission::into_text).collect())
}

/// Each once, in order, and not too many.
fn sorted_permissions(mut texts: Vec<String>) -> Result<Vec<String>, String> {
    texts.sort();
    texts.dedup();
    if texts.len() > PERMISSIONS_MAX {
        return Err(format!("a root key has at most {PERMISSIONS_MAX} permissions"));
    }
    Ok(texts)
}

fn useless(permissions: &[String], workspace: WorkspaceId) -> Vec<String> {
    let mut warnings: Vec<String> = permissions
        .iter()
        .filter_map(|permission| {
            why_useless(permission, workspace).map(|why| format!("the permission `{permission}` opens nothing: {why}"))
        })
        .collect();
    if warnings.len() > WARNINGS_MAX {
        let more = warnings.split_off(WARNINGS_MAX).len();
        warnings.push(format!("{more} more permissions open nothing"));
    }
    warnings
}

/// A remark on an expiry, Unix ms, that is over already: legal, but mostly a time in seconds.
fn expired(expires: Option<u64>, now: u64) -> Option<String> {
    let at = expires.filter(|&at| now > at)?;
    Some(format!("this root key is expired already: {at} ms is {}", text::time(at)))
}

/// What changed, for the audit event: `{"changes": {"<field>": {"old": …, "new": …}}}` (AL-EV-09). `None` where nothing did.
fn changes(before: Map<String, Value>, after: Map<String, Value>) -> Option<String> {
    let mut changed = Map::new();
    for ((field, old), (_, new)) in before.into_iter().zip(after) {
        if old != new {
            changed.insert(field, json!({ "old": old, "new": new }));
        }
    }
    (!changed.is_empty()).then(|| json!({ "changes": changed }).to_string())
}

fn shown_workspace(row: &WorkspaceRow) -> WorkspaceShown {
    let limits = &row.limits;
    WorkspaceShown {
        workspace_id: row.id.to_string(),
        name: row.name.clone(),
        slug: row.slug.clone(),
        enabled: row.enabled,
        created_at: row.created_at,
        limits: LimitsShown {
            api_requests_per_minute: limits.api_requests_per_minute,
            logs_retention_days: limits.logs_retention_days,
            audit_retention_days: limits.audit_retention_days,
            queries_per_hour: limits.queries_per_hour,
            query_seconds_per_hour: limits.query_seconds_per_hour,
            query_max_memory: limits.query_max_memory,
            query_max_seconds: limits.query_max_seconds,
            query_max_rows: limits.query_max_rows,
        },
    }
}

fn shown_root_key(id: KeyId, row: &RootKeyRow, workspace: WorkspaceId) -> RootKeyShown {
    RootKeyShown {
        key_id: id.to_string(),
        workspace_id: workspace.to_string(),
        name: row.name.clone(),
        start: row.start.clone(),
        end: row.end.clone(),
        permissions: row.permissions.clone(),
        enabled: row.enabled,
        expires: row.expires,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

#[cfg(test)]
mod tests;
