//! How long rows are kept (AN-RET-02).
//!
//! Each table has a time of its own; a workspace whose retention is longer keeps its rows for that, one without a limit for
//! ever. A workspace with a shorter one only stops seeing them: raising it again brings them back.

use std::sync::Arc;

use keyward_storage::ids::WorkspaceId;

use super::live::PartMap;
use super::parts::Part;
use super::tables::{Family, Level, Table};

const DAY_MS: u64 = 86_400_000;

/// Days a table's rows are kept at least.
fn stored_days(table: Table) -> u32 {
    match (table.family, table.level) {
        (Family::Verifications, Level::Raw | Level::Minute | Level::Hour) => 90,
        (Family::Verifications, Level::Day) => 365,
        (Family::Ratelimits, Level::Raw) => 31,
        (Family::Ratelimits, Level::Minute) => 7,
        (Family::Ratelimits, Level::Hour) => 30,
        (Family::Ratelimits, Level::Day) => 100,
        (_, Level::Month) => 3 * 366,
    }
}

/// The day from which on a caller with so many days of retention sees rows (AN-RET-01), days since 1970; `None` for no
/// limit.
pub(crate) fn first_visible_day(now_ms: u64, days: u32) -> Option<i64> {
    (days > 0).then(|| i64::try_from(now_ms / DAY_MS).unwrap_or(i64::MAX) - i64::from(days))
}

/// The parts all of whose rows are past their time.
pub(crate) fn expired(
    parts: &PartMap,
    now_ms: u64,
    workspace_days: impl Fn(WorkspaceId) -> Option<u32>,
) -> Vec<Arc<Part>> {
    let mut gone = Vec::new();
    for ((table, workspace), list) in parts {
        let stored = stored_days(*table);
        let days = match workspace_days(*workspace) {
            Some(0) => continue,
            Some(days) => stored.max(days),
            None => stored,
        };
        let Some(first) = first_visible_day(now_ms, days) else { continue };
        gone.extend(list.iter().filter(|part| i64::from(part.info.day) < first).cloned());
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::events::manifest::PartInfo;
    use crate::events::testing::text;

    /// AN-RET-02: younger rows are never dropped, older ones are; a longer retention of the workspace keeps them, a shorter
    /// one drops nothing, and without a limit nothing ever goes.
    #[test]
    fn a_part_goes_when_all_its_rows_are_past_the_tables_time() {
        let (workspace, today) = (WorkspaceId(text('w')), 20_000);
        let now_ms = u64::try_from(today).expect("positive") * DAY_MS + DAY_MS / 2;
        for (table, days) in Table::all().map(|table| (table, stored_days(table))) {
            let part = |no: u64, age: u32| {
                let day = today - i32::try_from(age).expect("small");
                let info = PartInfo { no, table, workspace, day, rows: 1, bytes: 1, least_time: 0, greatest_time: 0 };
                Arc::new(Part::new(Path::new("events"), info))
            };
            let list = vec![part(1, 0), part(2, days), part(3, days + 1), part(4, days + 11)];
            let parts = PartMap::from([((table, workspace), Arc::new(list))]);
            for (workspace_days, gone) in
                [(None, vec![3, 4]), (Some(1), vec![3, 4]), (Some(days + 10), vec![4]), (Some(0), vec![])]
            {
                let found = expired(&parts, now_ms, |_| workspace_days);
                let found: Vec<u64> = found.iter().map(|part| part.info.no).collect();
                assert_eq!(found, gone, "{} with {workspace_days:?}", table.name());
            }
        }
    }
}
