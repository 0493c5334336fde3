//! The vault's commands on an open store (EXT-6).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::vault::{DataKeyShown, MasterKeyShown, NoArguments, Rotated, RotationShown, VaultStatus};
use super::{by, read, unreadable};
use crate::app::Services;
use crate::http::admin::stream::Frames;
use crate::http::admin::{AdminRequest, Operator};
use crate::telemetry::error_chain;
use crate::vault::Shown;
use crate::vault::census::Census;
use crate::vault::rotate::{self, Progress};

/// Between two reports of how far a rotation is.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a command tells how far it is while it runs.
pub fn is_streamed(command: &str) -> bool {
    command == "vault.rotate"
}

/// Executes a rotation on its connection: frames of how far it is flow to the client. Blocks.
///
/// # Errors
/// A sentence for the operator; what is done is kept.
pub fn stream(services: &Services, request: AdminRequest, frames: &mut Frames) -> Result<Value, String> {
    let AdminRequest { arguments, operator, .. } = request;
    let NoArguments {} = read(arguments)?;
    frames.go(&json!({})).map_err(|error| error_chain(&error))?;
    let mut told = Instant::now();
    let outcome = rotate(services, &operator, &mut |progress| {
        if told.elapsed() < PAUSE {
            return Ok(());
        }
        told = Instant::now();
        frames.send(json!(progress).to_string().as_bytes())
    });
    // Where the client is gone there is nobody to tell of that.
    let _ = if outcome.is_ok() { frames.end() } else { frames.abort() };
    outcome.map(|rotated| json!(rotated))
}

/// Rotates on an open store.
///
/// # Errors
/// A sentence for the operator; what is done is kept.
pub fn rotate(
    services: &Services,
    operator: &Operator,
    tell: &mut dyn FnMut(&Rotated) -> std::io::Result<()>,
) -> Result<Rotated, String> {
    let done = rotate::rotate(services, &by(services, operator), &mut |progress| tell(&rotated(progress)));
    done.map(|progress| rotated(&progress)).map_err(|error| error_chain(&error))
}

fn rotated(progress: &Progress) -> Rotated {
    let Progress { copies, seen, moved, wrapped, workspaces, unopened, lost_data_keys, resumed } = *progress;
    Rotated { copies, seen, moved, data_keys_wrapped: wrapped, workspaces, unopened, lost_data_keys, resumed }
}

/// What the vault holds.
///
/// # Errors
/// A sentence for the operator.
pub fn status(services: &Services) -> Result<VaultStatus, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let census = services.vault.census(&snapshot).map_err(|error| unreadable(&error))?;
    let copies = census.copies();
    let Census { place, masters, data_keys, orphans, rotation, failures } = census;
    let shown_master = |key: &crate::vault::census::Master| MasterKeyShown {
        fingerprint: Shown(&key.fingerprint).to_string(),
        configured: key.is_configured,
        current: key.is_current,
        data_keys: key.data_keys,
        copies: key.copies,
        removable: key.is_removable(),
    };
    let shown_data_key = |key: crate::vault::census::DataKey| DataKeyShown {
        data_key_id: key.id.to_string(),
        workspace_id: key.workspace.map(|id| id.to_string()),
        master_key: Shown(&key.master).to_string(),
        current: key.is_current,
        copies: key.copies,
        created_at: key.created_at,
    };
    Ok(VaultStatus {
        is_set_up: services.vault.is_set_up(),
        source: place,
        master_keys: masters.iter().map(shown_master).collect(),
        data_keys: data_keys.into_iter().map(shown_data_key).collect(),
        copies,
        copies_without_data_key: orphans,
        rotation: rotation.map(|row| RotationShown {
            number: row.number,
            begun_at: row.begun_at,
            ended_at: row.ended_at,
        }),
        decryption_failures: failures,
    })
}
