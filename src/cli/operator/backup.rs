//! A backup of an open store: for the server, which sends it, and for a command that has opened the data directory itself.
//!
//! Events come first: what an event tells of is then in the records. Both are copies of one moment each, a few milliseconds
//! apart, however long they take to be read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use keyward_query::events::copy;
use keyward_query::priority::{self, Priority};
use keyward_storage::backup;
use keyward_storage::records::{pepper as rows, vault};
use serde_json::{Value, json};

use super::super::backup::manifest::{Told, hex};
use super::super::backup::{Going, names};
use super::super::vault::NoArguments;
use super::{read, unreadable};
use crate::app::Services;
use crate::http::admin::AdminRequest;
use crate::http::admin::stream::Frames;
use crate::telemetry::error_chain;

/// Bytes of a file that are moved at once.
const PIECE_BYTES: usize = 256 << 10;

/// Whether a command is the one that sends a backup.
pub fn is_streamed(command: &str) -> bool {
    command == "backup"
}

/// A part of a backup on its way.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A file begins.
    File {
        /// Its path in the backup.
        path: &'a str,
        /// Its bytes, all of which follow.
        length: u64,
    },
    /// The next bytes of the file.
    Bytes(&'a [u8]),
}

impl<'a> Piece<'a> {
    /// As a frame: `F`, the length (u64, little-endian) and the path; or `B` and the bytes.
    pub fn encode(&self, frame: &mut Vec<u8>) {
        frame.clear();
        match self {
            Piece::File { path, length } => {
                frame.push(b'F');
                frame.extend_from_slice(&length.to_le_bytes());
                frame.extend_from_slice(path.as_bytes());
            }
            Piece::Bytes(bytes) => {
                frame.push(b'B');
                frame.extend_from_slice(bytes);
            }
        }
    }

    /// Reads a frame back.
    pub fn decode(frame: &'a [u8]) -> Option<Piece<'a>> {
        match frame.split_first()? {
            (b'F', rest) => {
                let (length, path) = rest.split_first_chunk()?;
                Some(Piece::File { path: std::str::from_utf8(path).ok()?, length: u64::from_le_bytes(*length) })
            }
            (b'B', bytes) => Some(Piece::Bytes(bytes)),
            _ => None,
        }
    }
}

/// Sends a backup to the client. Blocks.
///
/// # Errors
/// A sentence for the operator.
pub fn stream(services: &Services, request: AdminRequest, frames: &mut Frames) -> Result<Value, String> {
    let NoArguments {} = read(request.arguments)?;
    let mut backup = Backup::begin(services)?;
    // Only now: what it has begun with takes locks that others wait for. The thread ends with the command.
    priority::set(Priority::Patient);
    let gone = |error: io::Error| format!("the backup was not sent: {}", error_chain(&error));
    frames.go(&json!(Going { of: backup.told().clone(), bytes: backup.bytes() })).map_err(gone)?;
    let mut frame = Vec::new();
    let sent = backup.run(&mut |piece| {
        piece.encode(&mut frame);
        frames.send(&frame).map_err(gone)
    });
    match sent {
        Ok(()) => {
            frames.end().map_err(gone)?;
            let told = backup.told();
            tracing::info!(position = told.position, rows = told.rows, events = told.events, "a backup was sent");
            Ok(json!({}))
        }
        Err(reason) => {
            tracing::warn!(reason, "a backup was not finished");
            let _ = frames.abort();
            Err(reason)
        }
    }
}

/// A copy of everything that a backup holds.
pub struct Backup<'a> {
    services: &'a Services,
    events: Option<copy::Copy>,
    records: backup::Copy,
    told: Told,
}

impl<'a> Backup<'a> {
    /// Begins a backup: from here on what it holds is decided.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn begin(services: &'a Services) -> Result<Backup<'a>, String> {
        let failed = |error: io::Error| format!("the events could not be copied: {}", error_chain(&error));
        let events = services.events.as_ref().map(|events| events.copy()).transpose().map_err(failed)?;
        // Spent credits and last uses are written down first.
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        services.storage.flush(move || {
            let _ = tell.send(());
        });
        // Where the writer has ended the records are what they are.
        let _ = told.recv();
        services.storage.write_windows();
        let records = services.storage.copy().map_err(|error| unreadable(&error))?;
        let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
        let data_keys = vault::data_keys(&snapshot).map_err(|error| unreadable(&error))?;
        let masters: BTreeSet<_> = data_keys.into_iter().map(|(_, _, row)| row.master).collect();
        let pepper = rows::get(&snapshot).map_err(|error| unreadable(&error))?;
        let pepper = pepper.and_then(|row| row.links.last().cloned()).filter(|link| link.kept.is_none());
        let told = Told {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store_id: hex(&records.store_id()),
            position: records.position().0,
            term: records.term().0,
            created_at: services.outside.clock.now_ms(),
            rows: records.rows(),
            events: events.as_ref().map_or(0, copy::Copy::events),
            peppers: pepper.iter().map(|link| keyward_storage::pepper::Shown(&link.fingerprint).to_string()).collect(),
            master_keys: masters.iter().map(|master| crate::vault::Shown(master).to_string()).collect(),
        };
        Ok(Backup { services, events, records, told })
    }

    /// What it is of.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Bytes it will have, about.
    pub fn bytes(&self) -> u64 {
        /// What a row takes, indexes included, on the average.
        const ROW_BYTES: u64 = 96;
        self.records.rows() * ROW_BYTES + self.events.as_ref().map_or(0, copy::Copy::bytes)
    }

    /// Hands out every file of it, piece by piece. Blocks.
    ///
    /// # Errors
    /// A sentence for the operator: what cannot be read, or the first that `put` says.
    pub fn run(&mut self, put: &mut dyn FnMut(Piece<'_>) -> Result<(), String>) -> Result<(), String> {
        whole(names::STATE, &self.records.state(), put)?;
        let mut number = 0;
        loop {
            let chunk = self.records.next_chunk().map_err(|error| {
                format!(
                    "{}; there is no backup of damage: stop the server and run keyward verify-data",
                    unreadable(&error)
                )
            })?;
            let Some((chunk, _)) = chunk else { break };
            number += 1;
            whole(&names::rows(number), &chunk, put)?;
        }
        self.windows(put)?;
        if let Some(events) = &self.events {
            let mut buffer = vec![0; PIECE_BYTES];
            events.files(&mut |file| {
                let path = format!("{}/{}", names::EVENTS, file.path);
                copied(&path, file.length, file.bytes, &mut buffer, put)
            })?;
        }
        Ok(())
    }

    /// The rate-limit windows, as they stand on the disk: what is appended meanwhile is left out, and a slot that is cut is
    /// ignored by who reads it.
    fn windows(&self, put: &mut dyn FnMut(Piece<'_>) -> Result<(), String>) -> Result<(), String> {
        let path = self.services.data_dir.join(names::WINDOWS);
        let opened = File::open(&path).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok((file, length)) => {
                let mut buffer = vec![0; PIECE_BYTES];
                copied(names::WINDOWS, length, &mut file.take(length), &mut buffer, put)
                    .map_err(|error: NotCopied| error.into())
            }
            // Nothing has been counted yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    }
}

/// Why a file was not copied, in words.
struct NotCopied(String);

impl From<io::Error> for NotCopied {
    fn from(error: io::Error) -> NotCopied {
        NotCopied(format!("a file could not be read: {}", error_chain(&error)))
    }
}

impl From<NotCopied> for String {
    fn from(NotCopied(reason): NotCopied) -> String {
        reason
    }
}

fn whole(path: &str, bytes: &[u8], put: &mut dyn FnMut(Piece<'_>) -> Result<(), String>) -> Result<(), String> {
    put(Piece::File { path, length: bytes.len() as u64 })?;
    bytes.chunks(PIECE_BYTES).try_for_each(|part| put(Piece::Bytes(part)))
}

fn copied(
    path: &str,
    length: u64,
    from: &mut dyn Read,
    buffer: &mut [u8],
    put: &mut dyn FnMut(Piece<'_>) -> Result<(), String>,
) -> Result<(), NotCopied> {
    put(Piece::File { path, length }).map_err(NotCopied)?;
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        from.read_exact(&mut buffer[..part])?;
        put(Piece::Bytes(&buffer[..part])).map_err(NotCopied)?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sent is what is received; other bytes are no piece.
    #[test]
    fn pieces_are_frames() {
        let mut frame = Vec::new();
        for piece in [Piece::File { path: "records/state", length: 49 }, Piece::Bytes(b"abc"), Piece::Bytes(b"")] {
            piece.encode(&mut frame);
            assert_eq!(Piece::decode(&frame), Some(piece));
        }
        for wrong in [&b""[..], b"X", b"F1234567", b"F\0\0\0\0\0\0\0\0\xff"] {
            assert_eq!(Piece::decode(wrong), None);
        }
    }
}
