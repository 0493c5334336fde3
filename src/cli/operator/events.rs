//! Import and export of events on an open store (EXT-4): for the server, whose client sends frames, and for a command that
//! has opened the data directory itself.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use keyward_query::Events;
use keyward_query::events::files::frames::{Decoder, Encoder};
use keyward_query::events::files::{BadRow, Owner, owners};
use keyward_query::events::tables::Family;
use keyward_query::events::{ImportError, RecordBatch};
use keyward_storage::ids::WorkspaceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::events::{ExportEvents, ImportEvents};
use super::{WARNINGS_MAX, live_workspace, read, text, unreadable};
use crate::app::{Services, find_workspace};
use crate::http::admin::AdminRequest;
use crate::http::admin::stream::{Frame, Frames};
use crate::telemetry::error_chain;

const DAY_MS: u64 = 86_400_000;

/// Whether a command is one that moves frames.
pub fn is_streamed(command: &str) -> bool {
    matches!(command, "events.import" | "events.export")
}

/// Executes such a command on its connection. Blocks.
///
/// # Errors
/// A sentence for the operator; nothing was imported.
pub fn stream(services: &Services, request: AdminRequest, frames: &mut Frames) -> Result<Value, String> {
    let AdminRequest { command, arguments, .. } = request;
    match command.as_str() {
        "events.import" => receive(services, arguments, frames),
        "events.export" => send(services, arguments, frames),
        unknown => Err(format!("there is no command `{unknown}` that moves frames")),
    }
}

/// What the client of an import is told before it sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The id of the workspace that all rows go to, if there is one.
    pub workspace_id: Option<String>,
}

/// What the client of an import is told at the end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Imported {
    /// All rows are in.
    Added(Added),
    /// None is, because of this one.
    Refused {
        /// Its number, from 1 on.
        row: u64,
        /// The column, where one is to blame.
        column: Option<String>,
        /// What is wrong.
        reason: String,
    },
}

/// What was imported.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Added {
    /// How many rows.
    pub rows: u64,
    /// What the operator should know besides.
    pub warnings: Vec<String>,
}

/// Why rows were not imported.
#[derive(Debug)]
pub enum NotImported<E> {
    /// One of them cannot be.
    Bad(BadRow),
    /// They did not come.
    Source(E),
    /// The store; a sentence for the operator.
    Failed(String),
}

/// An import whose arguments are checked.
pub struct Import<'a> {
    services: &'a Services,
    events: &'a Events,
    family: Family,
    workspace: Option<WorkspaceId>,
}

impl<'a> Import<'a> {
    /// Checks what is asked.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn begin(services: &'a Services, ask: ImportEvents) -> Result<Import<'a>, String> {
        let ImportEvents { table, workspace } = ask;
        let workspace = workspace.map(|text| workspace_id(services, &text)).transpose()?;
        Ok(Import { services, events: events(services)?, family: table.family(), workspace })
    }

    /// What whoever reads the rows needs to know.
    pub fn told(&self) -> Told {
        Told { workspace_id: self.workspace.map(|id| id.to_string()) }
    }

    /// Imports rows, all or none. Blocks.
    ///
    /// # Errors
    /// The first row that cannot be imported, what the source says, or the store.
    pub fn run<E>(&self, rows: impl Iterator<Item = Result<RecordBatch, E>>) -> Result<Added, NotImported<E>> {
        let mut known: HashMap<String, Known> = HashMap::new();
        let mut before = 0;
        let checked = rows.map(|rows| {
            let rows = rows.map_err(NotImported::Source)?;
            for Owner { id, row, oldest } in owners(&rows) {
                match known.get_mut(id) {
                    Some(known) => known.oldest = known.oldest.min(oldest),
                    None => {
                        if let Some(days) = self.days_kept(id, before + row as u64 + 1)? {
                            known.insert(id.to_owned(), Known { days, oldest });
                        }
                    }
                }
            }
            before += rows.num_rows() as u64;
            Ok(rows)
        });
        let rows = self.add::<E>(checked)?;
        Ok(Added { rows, warnings: self.too_old(&known) })
    }

    fn add<E>(&self, rows: impl Iterator<Item = Result<RecordBatch, NotImported<E>>>) -> Result<u64, NotImported<E>> {
        self.events.import(self.family, rows).map_err(|error| match error {
            ImportError::Source(why) => why,
            ImportError::Row { row, column, reason } => {
                NotImported::Bad(BadRow { row, column: Some(column.to_owned()), reason })
            }
            ImportError::Columns(table) => NotImported::Failed(format!("these are not the columns of {table}")),
            ImportError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => NotImported::Failed(
                "the disk of the data directory is full: free some space, or lower storage.min_free_bytes".to_owned(),
            ),
            ImportError::Disk(error) => {
                NotImported::Failed(format!("the rows could not be written: {}", error_chain(&error)))
            }
        })
    }

    /// For how many days the workspace of a row keeps its events; it must be there. `None` for what is no id at all: the
    /// store says so itself.
    fn days_kept<E>(&self, id: &str, row: u64) -> Result<Option<u32>, NotImported<E>> {
        if WorkspaceId::parse(id).is_none() {
            return Ok(None);
        }
        let snapshot = self.services.storage.snapshot().map_err(|error| NotImported::Failed(unreadable(&error)))?;
        match find_workspace(&snapshot, id) {
            Ok(Some((_, found))) => Ok(Some(found.limits.logs_retention_days)),
            Ok(None) => {
                let reason = format!(
                    "there is no workspace `{id}`; make the rows name one that exists, or put them all into one with \
                     --workspace WS"
                );
                Err(NotImported::Bad(BadRow { row, column: Some("workspace_id".to_owned()), reason }))
            }
            Err(error) => Err(NotImported::Failed(unreadable(&error))),
        }
    }

    /// Remarks on rows that will not be kept: legal, but an import mostly means to keep them.
    fn too_old(&self, known: &HashMap<String, Known>) -> Vec<String> {
        let now = self.services.outside.clock.now_ms();
        let is_old = |known: &Known| {
            let kept_from = now.saturating_sub(u64::from(known.days) * DAY_MS);
            known.days > 0 && u64::try_from(known.oldest).is_ok_and(|oldest| oldest < kept_from)
        };
        let mut old: Vec<_> = known.iter().filter(|(_, known)| is_old(known)).collect();
        old.sort_by_key(|(id, _)| *id);
        let say = |(id, known): (&String, &Known)| {
            let oldest = text::time(u64::try_from(known.oldest).unwrap_or(0));
            format!(
                "the oldest rows of workspace {id} are from {oldest}, and it keeps events for {} days only: older ones are \
                 deleted, and not seen by queries until then; keyward workspace update --logs-retention-days keeps more",
                known.days
            )
        };
        old.into_iter().take(WARNINGS_MAX).map(say).collect()
    }
}

/// A workspace that imported rows name.
struct Known {
    /// For how many days it keeps events; 0 = for ever.
    days: u32,
    /// Of the rows imported into it; unix ms.
    oldest: i64,
}

/// Raw rows as an export wants them. Reading them blocks.
///
/// # Errors
/// A sentence for the operator.
pub fn exported(
    services: &Services,
    ask: ExportEvents,
) -> Result<impl Iterator<Item = io::Result<RecordBatch>> + Send + use<>, String> {
    let ExportEvents { table, workspace, start, end } = ask;
    let workspace = workspace.map(|text| workspace_id(services, &text)).transpose()?;
    let events = events(services)?;
    // What was answered before this command is in the file.
    events.flush();
    Ok(events.export(table.family(), workspace, start, end))
}

/// The server's side of an import.
fn receive(services: &Services, arguments: Map<String, Value>, frames: &mut Frames) -> Result<Value, String> {
    let ask: ImportEvents = read(arguments)?;
    let mut decoder = Decoder::new(ask.table.family());
    let import = Import::begin(services, ask)?;
    frames.go(&json!(import.told())).map_err(|error| gone(&error))?;
    let mut ended = false;
    let rows = std::iter::from_fn(|| {
        if ended {
            return None;
        }
        let rows = match frames.receive() {
            Ok(Frame::Bytes(frame)) => decoder.decode(frame).map_err(|error| gone(&error)),
            Ok(Frame::End) => {
                ended = true;
                return None;
            }
            Ok(Frame::Aborted) => Err("nothing was imported: the sender gave up".to_owned()),
            Err(error) => Err(gone(&error)),
        };
        Some(rows)
    });
    match import.run(rows) {
        Ok(added) => Ok(json!(Imported::Added(added))),
        Err(NotImported::Bad(BadRow { row, column, reason })) => Ok(json!(Imported::Refused { row, column, reason })),
        Err(NotImported::Source(reason) | NotImported::Failed(reason)) => Err(reason),
    }
}

/// The server's side of an export.
fn send(services: &Services, arguments: Map<String, Value>, frames: &mut Frames) -> Result<Value, String> {
    let ask: ExportEvents = read(arguments)?;
    let mut encoder = Encoder::new(ask.table.family()).map_err(|error| error.to_string())?;
    let batches = exported(services, ask)?;
    frames.go(&json!({})).map_err(|error| gone(&error))?;
    let mut rows = 0;
    for batch in batches {
        let sent = batch.and_then(|batch| {
            rows += batch.num_rows() as u64;
            encoder.encode(&batch, &mut |frame| frames.send(frame))
        });
        if let Err(error) = sent {
            let _ = frames.abort();
            return Err(format!("the events could not be read: {}", error_chain(&error)));
        }
    }
    frames.end().map_err(|error| gone(&error))?;
    Ok(json!({ "rows": rows }))
}

fn gone(error: &io::Error) -> String {
    format!("nothing was moved: {}", error_chain(error))
}

fn events(services: &Services) -> Result<&Arc<Events>, String> {
    services.events.as_ref().ok_or_else(|| "the events are not open".to_owned())
}

/// The id of a workspace that an operator named by id or slug.
fn workspace_id(services: &Services, text: &str) -> Result<WorkspaceId, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let (_, row) = live_workspace(&snapshot, text).map_err(|error| unreadable(&error))??;
    Ok(row.id)
}
