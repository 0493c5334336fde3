//! Rows of every table: two bytes of table number, then the row's value.

use keyward_storage::records::api::ApiRow;
use keyward_storage::records::audit::{AuditHead, AuditRow};
use keyward_storage::records::identity::IdentityRow;
use keyward_storage::records::key::{CreditsRow, KeyRow};
use keyward_storage::records::ratelimit::{NamespaceRow, OverrideRow};
use keyward_storage::records::role::{PermissionRow, RoleRow};
use keyward_storage::records::root_key::RootKeyRow;
use keyward_storage::records::vault::{CopyRow, DataKeyRow, KeyringRow, RotationRow};
use keyward_storage::records::workspace::WorkspaceRow;
use keyward_storage::records::{Row, TableNo};

use crate::Verdict;

/// See [`crate::Target`].
pub const DICTIONARY: &[&[u8]] = &[
    &[11, 0, 1],
    &[1, 0, 1],
    b"aaaaaaaaaaaaaaaa",
    b"{\"a\":1}",
    &[1, 0, 0, 0],
    &[0xff; 4],
    &[0xff; 8],
    &[0xc3, 0x28],
    &[2],
];

/// A table's number with what reads its rows.
type Table = (TableNo, fn(&[u8]) -> Verdict);

/// Every table whose values are rows; the others are indexes, whose values are an id or nothing.
const TABLES: &[Table] = &[
    table::<WorkspaceRow>(),
    table::<RootKeyRow>(),
    table::<ApiRow>(),
    table::<KeyRow>(),
    table::<CreditsRow>(),
    table::<IdentityRow>(),
    table::<PermissionRow>(),
    table::<RoleRow>(),
    table::<NamespaceRow>(),
    table::<OverrideRow>(),
    table::<AuditRow>(),
    table::<AuditHead>(),
    table::<DataKeyRow>(),
    table::<KeyringRow>(),
    table::<CopyRow>(),
    table::<RotationRow>(),
];

const fn table<R: Row>() -> Table {
    (R::TABLE, read::<R>)
}

/// Reads a row of the table it names.
///
/// # Panics
///
/// When a row that was accepted has another byte form than it was read from.
pub fn run(data: &[u8]) -> Verdict {
    let Some((number, value)) = data.split_first_chunk::<2>() else { return Verdict::Refused };
    let number = TableNo::from_le_bytes(*number);
    match TABLES.iter().find(|(table, _)| *table == number) {
        Some((_, read)) => read(value),
        None => Verdict::Refused,
    }
}

fn read<R: Row>(value: &[u8]) -> Verdict {
    match R::from_bytes(value) {
        Ok(row) => {
            assert_eq!(row.to_bytes(), value, "one row of table {}, one form", R::TABLE);
            Verdict::Accepted
        }
        Err(_) => Verdict::Refused,
    }
}
