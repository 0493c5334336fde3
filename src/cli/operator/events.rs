//! Import and export of events on an open store (EXT-4): for the server, whose client sends frames, and for a command that
//! has opened the data directory itself.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use keyward_query::Events;
use keyward_query::events::files::frames::{Decoder, Encoder};
use keyward_query::events::files::{BadRow, workspaces};
use keyward_query::events::tables::Family;
use keyward_query::events::{ImportError, RecordBatch};
use keyward_storage::ids::WorkspaceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::events::{ExportEvents, ImportEvents};
use super::{live_workspace, read, unreadable};
use crate::app::{Services, find_workspace};
use crate::http::admin::AdminRequest;
use crate::http::admin::stream::{Frame, Frames};
use crate::telemetry::error_chain;

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
    Rows(u64),
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
    pub fn run<E>(&self, rows: impl Iterator<Item = Result<RecordBatch, E>>) -> Result<u64, NotImported<E>> {
        let mut known = HashSet::new();
        let mut before = 0;
        let checked = rows.map(|rows| {
            let rows = rows.map_err(NotImported::Source)?;
            for (row, id) in workspaces(&rows) {
                if !known.contains(id) {
                    self.check_workspace(id, before + row as u64 + 1)?;
                    known.insert(id.to_owned());
                }
            }
            before += rows.num_rows() as u64;
            Ok(rows)
        });
        self.events.import(self.family, checked).map_err(|error| match error {
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

    /// A row's workspace must be there. What is no id at all is left to the store, which says so.
    fn check_workspace<E>(&self, id: &str, row: u64) -> Result<(), NotImported<E>> {
        if WorkspaceId::parse(id).is_none() {
            return Ok(());
        }
        let snapshot = self.services.storage.snapshot().map_err(|error| NotImported::Failed(unreadable(&error)))?;
        match find_workspace(&snapshot, id) {
            Ok(Some(_)) => Ok(()),
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
        Ok(rows) => Ok(json!(Imported::Rows(rows))),
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
