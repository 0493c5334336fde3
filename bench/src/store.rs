//! A store with many keys, made in process: what the in-process benches and the restart figures stand on.

use std::path::Path;
use std::sync::Arc;

use keyward::app::Services;
use keyward::config::Typed;
use keyward::outside::Outside;
use keyward::secret;
use keyward::tenants::{By, draw_id, system_actor, target};
use keyward_storage::ids::{ApiId, KeyId, KeyspaceId, RatelimitId, RoleId, WorkspaceNo};
use keyward_storage::records::api::{self, ApiRow};
use keyward_storage::records::key::{self, KeyRow, Ratelimit};
use keyward_storage::{Abort, Turn};

use crate::{Error, Result};

/// Keys made in one transaction.
pub const KEYS_PER_TRANSACTION: usize = 500;
/// The first workspace of a store.
pub const WORKSPACE: WorkspaceNo = WorkspaceNo(1);
/// The rate limit every key has: high enough that it never refuses.
const LIMIT: u64 = 1 << 40;

/// Opens the services on a directory, as `keyward serve` does with default settings.
///
/// # Errors
/// What opening says.
pub fn open(dir: &Path) -> Result<Arc<Services>> {
    let typed = Typed { data_dir: Some(dir.display().to_string()), ..Typed::default() };
    let settings = typed.read().map_err(|error| Error::Unexpected(error.to_string()))?.settings;
    Services::open(&settings, Outside::system()).map_err(|error| Error::Unexpected(error.to_string()))
}

/// Makes `count` keys with one rate limit each in a new API of the first workspace, and gives their plaintexts.
///
/// # Errors
/// What the store says.
pub fn fill(services: &Services, count: usize) -> Result<Vec<String>> {
    fill_with_roles(services, count, &[])
}

/// The same, with these roles attached to every key.
///
/// # Errors
/// What the store says.
pub fn fill_with_roles(services: &Services, count: usize, roles: &[RoleId]) -> Result<Vec<String>> {
    let entropy = services.outside.entropy.clone();
    let api_id = ApiId(draw_id(&entropy));
    let by = By::new(system_actor("bench", "keyward-bench"), services.outside.clock.now_ms(), &entropy);
    make_api(services, &by, api_id)?;
    let mut plaintexts = Vec::with_capacity(count);
    while plaintexts.len() < count {
        let mut rows = Vec::with_capacity(KEYS_PER_TRANSACTION);
        for _ in 0..KEYS_PER_TRANSACTION.min(count - plaintexts.len()) {
            let minted = secret::mint(Some("bench"), secret::DEFAULT_BYTES, &entropy);
            let limit = Ratelimit {
                id: RatelimitId(draw_id(&entropy)),
                name: "requests".to_owned(),
                limit: LIMIT,
                duration: 60_000,
                auto_apply: true,
            };
            let row = key_row(minted.digest.0, minted.start, api_id, limit, by.now);
            rows.push((KeyId(draw_id(&entropy)), KeyRow { roles: roles.to_vec(), ..row }));
            plaintexts.push(minted.plaintext.to_string());
        }
        let by = by.clone();
        transact(services, by.now, move |tx| {
            for (id, row) in &rows {
                key::insert(tx, WORKSPACE, *id, row).expect("readable");
            }
            tx.audit(WORKSPACE, by.event("key.create", format!("Created {} keys", rows.len()), Vec::new()));
        })?;
    }
    Ok(plaintexts)
}

/// Makes an API named `bench` in the first workspace.
///
/// # Errors
/// What the store says.
pub fn make_api(services: &Services, by: &By, api: ApiId) -> Result<()> {
    let row = ApiRow {
        keyspace: KeyspaceId(draw_id(&services.outside.entropy)),
        name: "bench".to_owned(),
        created_at: by.now,
        deleted_at: None,
        default_prefix: None,
        default_bytes: None,
        store_encrypted_keys: false,
        delete_protection: false,
        ip_whitelist: Vec::new(),
    };
    let event = by.event("api.create", format!("Created API {api}"), vec![target("api", api, "bench")]);
    transact(services, by.now, move |tx| {
        api::put(tx, WORKSPACE, api, &row);
        tx.audit(WORKSPACE, event);
    })
}

fn key_row(hash: key::KeyHash, start: String, api: ApiId, limit: Ratelimit, now: u64) -> KeyRow {
    KeyRow {
        hash,
        api,
        start,
        name: Some("bench key".to_owned()),
        meta: None,
        identity: None,
        expires: None,
        enabled: true,
        limited: false,
        refill: None,
        ratelimits: vec![limit],
        permissions: Vec::new(),
        roles: Vec::new(),
        created_at: now,
        updated_at: None,
        deleted_at: None,
    }
}

/// Runs a change of the operator's and waits for it.
///
/// # Errors
/// What the store says.
pub fn transact(
    services: &Services,
    now: u64,
    run: impl FnOnce(&mut keyward_storage::Tx<'_>) + Send + 'static,
) -> Result<()> {
    let done = services.transact_blocking(
        Turn::FIRST,
        now,
        move |tx| -> std::result::Result<(), Abort<std::convert::Infallible>> {
            run(tx);
            Ok(())
        },
    );
    done.map(drop).map_err(|error| Error::Unexpected(error.to_string()))
}
