//! Can every row be read, and do the indexes say what the rows say?
//!
//! Both ways: a row has the entries it must have, and an entry leads to a row that has it. Links between rows may name what was
//! deleted since, which is no damage: ids do not recur.

use std::ops::ControlFlow;

use super::{Finding, Progress, REBUILD};
use crate::error::{BadRow, ReadError};
use crate::ids::{ID_RANDOM_CHARS, IdText, WorkspaceNo};
use crate::records::api::ApiRow;
use crate::records::audit::{AuditAnchor, AuditExported, AuditHead, AuditRow};
use crate::records::change::ChangeRow;
use crate::records::identity::IdentityRow;
use crate::records::key::{CreditsRow, KeyRow, LastUsedRow};
use crate::records::migration::{MigratedKeyRow, MigrationRow};
use crate::records::pepper::{self, PepperRow};
use crate::records::ratelimit::{NamespaceRow, OverrideRow};
use crate::records::role::{PermissionRow, RoleRow, folded};
use crate::records::root_key::RootKeyRow;
use crate::records::term::TermRow;
use crate::records::vault::{CopyRow, DataKeyRow, KeyringRow, RotationRow};
use crate::records::workspace::WorkspaceRow;
use crate::records::{
    API, AUDIT, AUDIT_ANCHOR, AUDIT_EXPORTED, AUDIT_HEAD, CHANGE, CREDITS, DATA_KEY, IDENTITY, IDENTITY_BY_EXTERNAL,
    KEY, KEY_BY_API, KEY_BY_HASH, KEY_BY_IDENTITY, KEY_COPY, KEYRING, LAST_USED, MIGRATED_KEY, MIGRATION, NAMESPACE,
    NAMESPACE_BY_NAME, OVERRIDE, OVERRIDE_BY_ID, OVERRIDE_PATTERN, PEPPER, PERMISSION, PERMISSION_BY_SLUG, ROLE,
    ROLE_BY_NAME, ROOT_KEY, ROOT_KEY_BY_HASH, ROOT_KEY_BY_WORKSPACE, Row, TERM, TableNo, VAULT_ROTATION, WORKSPACE,
    WORKSPACE_BY_ID, WORKSPACE_BY_SLUG, row_key,
};
use crate::store::{FILE, Read, Snapshot, Store};

/// Findings of one table that are told one by one.
const TOLD_MAX: u64 = 20;
/// Rows between two reports of how far it is.
const STEP: u64 = 4096;

/// Reads all rows, and says how many there are.
pub fn check(store: &Store, progress: &mut Progress<'_>) -> Result<u64, ReadError> {
    let (snapshot, look) = (store.snapshot()?, store.snapshot()?);
    let mut rows = 0;
    for table in snapshot.tables()? {
        let (mut wrong, mut failed, mut strange) = (0, None, 0);
        snapshot.visit(table, &[], &[], |key, value| {
            rows += 1;
            if rows % STEP == 0 {
                progress.step(STEP);
            }
            let problem = match value {
                None => Ok(Some("its bytes do not fit their checksum".to_owned())),
                Some(value) => match problem(&look, table, key, value) {
                    Ok(Known::Right) => Ok(None),
                    Ok(Known::Wrong(what)) => Ok(Some(what)),
                    Ok(Known::Unknown) => {
                        strange += 1;
                        Ok(None)
                    }
                    // A row that it leads to is damaged; that is told where that row stands.
                    Err(ReadError::Row { cause, .. }) => Ok(Some(format!("what it leads to cannot be read: {cause}"))),
                    Err(error) => Err(error),
                },
            };
            match problem {
                Ok(None) => {}
                Ok(Some(what)) => {
                    wrong += 1;
                    if wrong <= TOLD_MAX {
                        let what = format!("table {table}, row {}: {what}", spelled(key));
                        progress.tell.found(Finding::damage(FILE, what, REBUILD));
                    }
                }
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if wrong > TOLD_MAX {
            let what = format!("table {table}: {} more rows are wrong", wrong - TOLD_MAX);
            progress.tell.found(Finding::damage(FILE, what, REBUILD));
        }
        if strange > 0 {
            let what = format!("table {table} with {strange} rows is none that this version knows");
            progress.tell.found(Finding::note(FILE, what, "nothing: a newer version wrote it, and it is kept"));
        }
    }
    Ok(rows)
}

/// What is known of a row.
enum Known {
    Right,
    Wrong(String),
    /// Its table is not known.
    Unknown,
}

impl From<Result<(), String>> for Known {
    fn from(judged: Result<(), String>) -> Known {
        match judged {
            Ok(()) => Known::Right,
            Err(what) => Known::Wrong(what),
        }
    }
}

/// A key as an operator can tell it: identifiers, not values. Keys are ids, names and hashes, no secrets.
fn spelled(key: &[u8]) -> String {
    const SHOWN: usize = 48;
    let mut text = key.iter().take(SHOWN).copied().collect::<Vec<u8>>().escape_ascii().to_string();
    if key.len() > SHOWN {
        text.push('…');
    }
    text
}

fn row<R: Row>(bytes: &[u8]) -> Result<R, String> {
    R::from_bytes(bytes).map_err(|error: BadRow| error.to_string())
}

/// A row key of a workspace: the number, and the rest.
fn of_workspace(key: &[u8]) -> Result<(WorkspaceNo, &[u8]), String> {
    let (no, rest) = key.split_first_chunk::<4>().ok_or("its key is too short for a workspace")?;
    Ok((WorkspaceNo(u32::from_be_bytes(*no)), rest))
}

fn id(bytes: &[u8]) -> Result<IdText, String> {
    let bytes = bytes.try_into().map_err(|_| "an id has a wrong length")?;
    IdText::from_bytes(bytes).ok_or_else(|| "an id has characters that none has".to_owned())
}

/// Two ids behind each other.
fn two_ids(rest: &[u8]) -> Result<(IdText, IdText), String> {
    let (one, other) = rest.split_at_checked(ID_RANDOM_CHARS).ok_or("its key is too short for an id")?;
    Ok((id(one)?, id(other)?))
}

fn must(is_so: bool, what: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what.to_owned()) }
}

fn problem(look: &Snapshot, table: TableNo, key: &[u8], value: &[u8]) -> Result<Known, ReadError> {
    // Reading what a row leads to may fail, which ends it all; what is wrong with the row itself does not.
    macro_rules! judge {
        ($judged:expr) => {
            match $judged {
                Ok(done) => done,
                Err(what) => return Ok(Known::Wrong(String::from(what))),
            }
        };
    }
    let points_to = |index: TableNo, at: &[u8], wanted: &[u8]| -> Result<bool, ReadError> {
        Ok(look.bytes(index, at)?.is_some_and(|entry| entry == wanted))
    };
    let leads_to = |index: TableNo, at: &[u8], wanted: IdText| -> Result<bool, ReadError> {
        let entry = look.bytes(index, at)?;
        Ok(entry.as_deref().and_then(pepper::read_entry).is_some_and(|(id, _)| id.0 == wanted))
    };
    let has_key = |at: &[u8]| -> Result<bool, ReadError> { Ok(look.bytes(KEY, at)?.is_some()) };
    let judged: Result<(), String> = match table {
        WORKSPACE => {
            let row: WorkspaceRow = judge!(row(value));
            let mut judged = must(points_to(WORKSPACE_BY_ID, row.id.as_bytes(), key)?, "its id leads elsewhere");
            if let Some(slug) = row.slug.filter(|_| row.deleted_at.is_none()) {
                let leads = points_to(WORKSPACE_BY_SLUG, slug.as_bytes(), key)?;
                judged = judged.and(must(leads, "its slug leads elsewhere"));
            }
            judged
        }
        WORKSPACE_BY_ID => {
            let found: Option<WorkspaceRow> = look.row(value)?;
            must(found.is_some_and(|row| row.id.as_bytes().as_slice() == key), "no workspace has this id")
        }
        WORKSPACE_BY_SLUG => {
            let found: Option<WorkspaceRow> = look.row(value)?;
            let is_its =
                |row: WorkspaceRow| row.deleted_at.is_none() && row.slug.is_some_and(|slug| slug.as_bytes() == key);
            must(found.is_some_and(is_its), "no workspace has this slug")
        }
        ROOT_KEY => {
            let (id, row): (IdText, RootKeyRow) = (judge!(id(key)), judge!(row(value)));
            if row.deleted_at.is_some() {
                Ok(())
            } else {
                let listed = row_key(row.workspace, &[key]);
                let found = leads_to(ROOT_KEY_BY_HASH, &row.hash, id)?;
                let is_listed = look.bytes(ROOT_KEY_BY_WORKSPACE, &listed)?.is_some();
                must(found, "its hash does not lead to it: it cannot be used")
                    .and(must(is_listed, "its workspace does not list it"))
            }
        }
        ROOT_KEY_BY_HASH => {
            let (id, _) = judge!(pepper::read_entry(value).ok_or("the entry is no id with its stage"));
            let found: Option<RootKeyRow> = look.row(id.as_bytes())?;
            let is_its = |row: RootKeyRow| row.deleted_at.is_none() && row.hash.as_slice() == key;
            must(found.is_some_and(is_its), "no root key has this hash")
        }
        ROOT_KEY_BY_WORKSPACE => {
            let (no, rest) = judge!(of_workspace(key));
            let found: Option<RootKeyRow> = look.row(rest)?;
            must(found.is_some_and(|row| row.deleted_at.is_none() && row.workspace == no), "it lists no root key")
        }
        API => row::<ApiRow>(value).map(drop),
        KEY => {
            let row: KeyRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let id = judge!(id(rest));
            let hash = row_key(no, &[&row.hash]);
            let mut judged =
                must(leads_to(KEY_BY_HASH, &hash, id)?, "its hash does not lead to it: it cannot be verified");
            if row.deleted_at.is_none() {
                let listed = row_key(no, &[row.api.as_bytes(), rest]);
                judged = judged.and(must(look.bytes(KEY_BY_API, &listed)?.is_some(), "its API does not list it"));
                if let Some(identity) = row.identity {
                    let listed = row_key(no, &[identity.as_bytes(), rest]);
                    let is_listed = points_to(KEY_BY_IDENTITY, &listed, row.api.as_bytes())?;
                    judged = judged.and(must(is_listed, "its identity does not list it"));
                }
                if row.limited {
                    judged = judged
                        .and(must(look.bytes(CREDITS, key)?.is_some(), "it has no credits though they are limited"));
                }
            }
            judged
        }
        KEY_BY_HASH => {
            let (no, hash) = judge!(of_workspace(key));
            let (id, _) = judge!(pepper::read_entry(value).ok_or("the entry is no id with its stage"));
            let at = row_key(no, &[id.as_bytes()]);
            let found: Option<KeyRow> = look.row(&at)?;
            let came: Option<MigratedKeyRow> = look.row(&at)?;
            let is_its = found.as_ref().is_some_and(|row| row.hash.as_slice() == hash)
                || (found.is_some() && came.is_some_and(|came| came.foreign.as_slice() == hash));
            must(is_its, "no key has this hash")
        }
        KEY_BY_API => {
            let (no, rest) = judge!(of_workspace(key));
            let (api, id) = judge!(two_ids(rest));
            let found: Option<KeyRow> = look.row(&row_key(no, &[id.as_bytes()]))?;
            must(found.is_some_and(|row| row.deleted_at.is_none() && row.api.0 == api), "it lists no key of this API")
        }
        KEY_BY_IDENTITY => {
            let (no, rest) = judge!(of_workspace(key));
            let (identity, id) = judge!(two_ids(rest));
            let found: Option<KeyRow> = look.row(&row_key(no, &[id.as_bytes()]))?;
            let is_its = |row: KeyRow| {
                row.deleted_at.is_none()
                    && row.identity.is_some_and(|of| of.0 == identity)
                    && row.api.as_bytes().as_slice() == value
            };
            must(found.is_some_and(is_its), "it lists no key of this identity")
        }
        CREDITS => judge_counter(row::<CreditsRow>(value).map(drop), has_key(key)?),
        LAST_USED => judge_counter(row::<LastUsedRow>(value).map(drop), has_key(key)?),
        MIGRATION => row::<MigrationRow>(value).map(drop),
        MIGRATED_KEY => {
            let came: MigratedKeyRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let leads = leads_to(KEY_BY_HASH, &row_key(no, &[&came.foreign]), judge!(id(rest)))?;
            must(has_key(key)?, "there is no such key").and(must(leads, "its foreign hash does not lead to it"))
        }
        IDENTITY => {
            let row: IdentityRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let at = row_key(no, &[row.external_id.as_bytes()]);
            let leads = row.deleted_at.is_some() || points_to(IDENTITY_BY_EXTERNAL, &at, rest)?;
            must(leads, "its external id leads elsewhere")
        }
        IDENTITY_BY_EXTERNAL => {
            let (no, external) = judge!(of_workspace(key));
            let found: Option<IdentityRow> = look.row(&row_key(no, &[value]))?;
            let is_its = |row: IdentityRow| row.deleted_at.is_none() && row.external_id.as_bytes() == external;
            must(found.is_some_and(is_its), "no identity has this external id")
        }
        PERMISSION => {
            let row: PermissionRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let at = row_key(no, &[folded(&row.slug).as_bytes()]);
            must(points_to(PERMISSION_BY_SLUG, &at, rest)?, "its slug leads elsewhere")
        }
        PERMISSION_BY_SLUG => {
            let (no, slug) = judge!(of_workspace(key));
            let found: Option<PermissionRow> = look.row(&row_key(no, &[value]))?;
            must(found.is_some_and(|row| folded(&row.slug).as_bytes() == slug), "no permission has this slug")
        }
        ROLE => {
            let row: RoleRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let at = row_key(no, &[folded(&row.name).as_bytes()]);
            must(points_to(ROLE_BY_NAME, &at, rest)?, "its name leads elsewhere")
        }
        ROLE_BY_NAME => {
            let (no, name) = judge!(of_workspace(key));
            let found: Option<RoleRow> = look.row(&row_key(no, &[value]))?;
            must(found.is_some_and(|row| folded(&row.name).as_bytes() == name), "no role has this name")
        }
        NAMESPACE => {
            let row: NamespaceRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let at = row_key(no, &[row.name.as_bytes()]);
            let leads = row.deleted_at.is_some() || points_to(NAMESPACE_BY_NAME, &at, rest)?;
            must(leads, "its name leads elsewhere")
        }
        NAMESPACE_BY_NAME => {
            let (no, name) = judge!(of_workspace(key));
            let found: Option<NamespaceRow> = look.row(&row_key(no, &[value]))?;
            must(found.is_some_and(|row| row.name.as_bytes() == name), "no namespace has this name")
        }
        OVERRIDE | OVERRIDE_PATTERN => {
            let row: OverrideRow = judge!(row(value));
            let (no, rest) = judge!(of_workspace(key));
            let parts = rest.split_at_checked(ID_RANDOM_CHARS).ok_or("its key is too short for a namespace");
            let (namespace, identifier) = judge!(parts);
            let at = row_key(no, &[namespace, row.id.as_bytes()]);
            must(points_to(OVERRIDE_BY_ID, &at, identifier)?, "its id leads elsewhere")
        }
        OVERRIDE_BY_ID => {
            let (no, rest) = judge!(of_workspace(key));
            let (namespace, id) = judge!(two_ids(rest));
            let of = if value.contains(&b'*') { OVERRIDE_PATTERN } else { OVERRIDE };
            let found = look.bytes(of, &row_key(no, &[namespace.as_bytes(), value]))?;
            let found = found.and_then(|bytes| OverrideRow::from_bytes(&bytes).ok());
            must(found.is_some_and(|row| row.id.0 == id), "no override has this id")
        }
        // Their chains are verified by themselves.
        AUDIT => row::<AuditRow>(value).map(drop),
        AUDIT_HEAD => row::<AuditHead>(value).map(drop),
        AUDIT_ANCHOR => row::<AuditAnchor>(value).map(drop),
        AUDIT_EXPORTED => row::<AuditExported>(value).map(drop),
        DATA_KEY => row::<DataKeyRow>(value).map(drop),
        KEYRING => row::<KeyringRow>(value).map(drop),
        KEY_COPY => judge_counter(row::<CopyRow>(value).map(drop), has_key(key)?),
        VAULT_ROTATION => row::<RotationRow>(value).map(drop),
        PEPPER => row::<PepperRow>(value).map(drop),
        TERM => row::<TermRow>(value).map(drop),
        CHANGE => row::<ChangeRow>(value).map(drop),
        _ => return Ok(Known::Unknown),
    };
    Ok(judged.into())
}

/// What belongs to a key goes with it.
fn judge_counter(judged: Result<(), String>, has_key: bool) -> Result<(), String> {
    judged.and(must(has_key, "there is no such key"))
}
