//! Refills: at 00:00 UTC of its day a key's credits are raised to an amount (KEYS-REFILL).
//!
//! They are lazy. A key's credits say from when a refill is due; whoever needs the balance at or after that moment has the
//! writer raise it first. Several missed dates become one refill, and a due date only ever moves forward, so a clock set
//! back does not refill twice (KEYS-REFILL-5).

use std::sync::Arc;

use keyward_storage::ids::KeyId;
use keyward_storage::records::key::{self, KeyRow, KeyView, Refill};
use keyward_storage::{Abort, Change as Balance, ReadError};
use time::{Date, Duration, Month, OffsetDateTime, Time};

use super::{Found, Trace, find_again, view_again};
use crate::api::call::{Call, Change, Correlate};
use crate::api::problem::{Code, Problem};
use crate::tenants::{system_actor, target};

/// The first due midnight after `after` (both unix ms): the very moment a refill is set never counts (KEYS-REFILL-6).
/// `None` beyond the calendar's end (year 9999).
pub fn next_due(refill: &Refill, after: u64) -> Option<u64> {
    let at = OffsetDateTime::from_unix_timestamp(i64::try_from(after / 1000).ok()?).ok()?;
    let mut date = at.date().next_day()?;
    if let Some(day) = refill.day {
        date = match due_day(date.year(), date.month(), day) {
            Some(due) if due >= date => due,
            _ => {
                let first_of_next = date.replace_day(1).ok()?.checked_add(Duration::days(31))?;
                due_day(first_of_next.year(), first_of_next.month(), day)?
            }
        };
    }
    u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok()?.checked_mul(1000)
}

/// The latest due midnight that is not after `now`: the moment at which everybody but the clock's keeper sees the refill
/// happen. `due`, which is one, where the calendar gives no other.
fn last_due(refill: &Refill, due: u64, now: u64) -> u64 {
    let last = || {
        let today = OffsetDateTime::from_unix_timestamp(i64::try_from(now / 1000).ok()?).ok()?.date();
        let date = match refill.day {
            None => today,
            Some(day) => match due_day(today.year(), today.month(), day)? {
                due if due <= today => due,
                _ => {
                    let before = today.replace_day(1).ok()?.previous_day()?;
                    due_day(before.year(), before.month(), day)?
                }
            },
        };
        u64::try_from(date.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp()).ok()?.checked_mul(1000)
    };
    last().map_or(due, |last| last.max(due))
}

/// The day of a month on which a refill of `day` is due: that day, or the month's last (KEYS-REFILL-1).
fn due_day(year: i32, month: Month, day: u8) -> Option<Date> {
    Date::from_calendar_date(year, month, day.min(month.length(year))).ok()
}

/// Raises a key's credits if a refill is due at the change's time. `row` is brought up to date; the caller puts nothing.
pub fn settle(change: &mut Change<'_, '_>, found: &mut Found) -> Result<(), Abort<Problem>> {
    let (workspace, now, id) = (change.workspace(), change.now(), found.id);
    let Some(refill) = found.row.refill.clone().filter(|_| found.row.limited) else { return Ok(()) };
    let credits = change.tx.credits(workspace, id, &found.row)?;
    let Some(due) = credits.refill_due.filter(|&due| due <= now) else { return Ok(()) };
    let next = next_due(&refill, now);
    let raised = change
        .tx
        .change_credits(workspace, id, &found.row, Balance::RaiseTo(refill.amount), next)?
        .unwrap_or(credits.balance);
    if raised == credits.balance {
        // Nothing to tell (KEYS-REFILL-7), but the due date has moved.
        change.may_go_untold();
        return Ok(());
    }
    // When the refill was made must not show (KEYS-REFILL-5): it happened when it was due.
    let at = last_due(&refill, due, now);
    found.row.updated_at = Some(found.row.updated_at.map_or(at, |changed| changed.max(at)));
    key::update(change.tx, workspace, id, &found.row);
    let id_text = id.to_string();
    let name = found.row.name.as_deref().unwrap_or(&id_text);
    let mut key = target("key", id, found.row.name.as_deref().unwrap_or_default());
    key.meta = Some(format!(
        r#"{{"refill_amount":{},"previous_remaining":{},"new_remaining":{raised}}}"#,
        refill.amount, credits.balance
    ));
    change.audit_as_system(
        system_actor("keyrefill", "Key Refill Service"),
        at,
        "key.update",
        format!("Refilled key {name}"),
        vec![key],
    );
    Ok(())
}

/// Gives a new key its first credits, and says when they first come back (KEYS-REFILL-6).
pub fn begin(change: &mut Change<'_, '_>, id: KeyId, row: &KeyRow, remaining: u64) -> Result<(), ReadError> {
    let (workspace, due) = (change.workspace(), due_after(row, change.now()));
    // What a request can hold, or another key has, always fits.
    let _ = change.tx.change_credits(workspace, id, row, Balance::Set(remaining), due)?;
    Ok(())
}

/// A key's balance as it is at `now`, and when that was raised last by a refill that is due and was not made yet: what
/// [`settle`] would make of it. For looking at many keys, where a transaction for each would be a heavy price.
pub fn as_settled(row: &KeyRow, balance: u64, due: Option<u64>, now: u64) -> (u64, Option<u64>) {
    match (row.refill.as_ref().filter(|_| row.limited), due.filter(|&due| due <= now)) {
        (Some(refill), Some(due)) if refill.amount > balance => (refill.amount, Some(last_due(refill, due, now))),
        _ => (balance, None),
    }
}

/// Whether a view's credits are behind a due date.
pub fn is_due(view: &KeyView, now: u64) -> bool {
    view.limited && view.counters.refill_is_due(now)
}

/// Raises a key's credits if that is due, and gives its view as it is afterwards; `None` where it has gone meanwhile.
pub async fn settle_now(call: &Call, trace: &Trace, view_now: Arc<KeyView>) -> Result<Option<Arc<KeyView>>, Problem> {
    if is_due(&view_now, call.now) { Box::pin(settle_due(call, trace, view_now)).await } else { Ok(Some(view_now)) }
}

async fn settle_due(call: &Call, trace: &Trace, view_now: Arc<KeyView>) -> Result<Option<Arc<KeyView>>, Problem> {
    let id = view_now.id;
    let settled = call.as_system().transact(Correlate::IfSeveral, move |change| {
        let mut found = find_again(change, id)?;
        settle(change, &mut found)
    });
    match settled.await {
        Ok(_) => view_again(call, trace, id).await,
        Err(problem) if problem.code() == Code::KeyNotFound => Ok(None),
        // A full disk refuses the refill, but verifications go on: with what is left, until there is room.
        // So they do on a follower whose leader is away: the refill is made when that is back.
        Err(problem) if problem.status() == 503 && (call.is_alone() || call.storage().stats().read_only) => {
            Ok(Some(view_now))
        }
        Err(problem) => Err(problem),
    }
}

/// The refill due date a key's credits have after its settings changed at `now`.
pub fn due_after(row: &KeyRow, now: u64) -> Option<u64> {
    row.refill.as_ref().filter(|_| row.limited).and_then(|refill| next_due(refill, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        let (date, clock) = text.split_once(' ').expect("date and time");
        let mut parts = date.split('-').map(|part| part.parse::<i32>().expect("number"));
        let (year, month, day) =
            (parts.next().expect("year"), parts.next().expect("month"), parts.next().expect("day"));
        let date = Date::from_calendar_date(
            year,
            Month::try_from(u8::try_from(month).expect("month")).expect("month"),
            u8::try_from(day).expect("day"),
        )
        .expect("date");
        let mut clock = clock.split(':').map(|part| part.parse::<u8>().expect("number"));
        let time = Time::from_hms(clock.next().expect("h"), clock.next().expect("m"), clock.next().expect("s"));
        u64::try_from(date.with_time(time.expect("time")).assume_utc().unix_timestamp()).expect("after 1970") * 1000
    }

    /// KEYS-REFILL-1, KEYS-REFILL-6: midnight UTC, month ends, never the moment itself.
    #[test]
    fn due_dates() {
        for (day, after, due) in [
            (None, "2026-03-01 12:00:00", "2026-03-02 00:00:00"),
            (None, "2026-03-01 00:00:00", "2026-03-02 00:00:00"),
            (None, "2026-12-31 23:59:59", "2027-01-01 00:00:00"),
            (Some(15), "2026-03-01 12:00:00", "2026-03-15 00:00:00"),
            (Some(15), "2026-03-15 00:00:00", "2026-04-15 00:00:00"),
            (Some(31), "2026-04-01 00:00:00", "2026-04-30 00:00:00"),
            (Some(31), "2026-04-30 00:00:01", "2026-05-31 00:00:00"),
            (Some(30), "2026-02-27 00:00:00", "2026-02-28 00:00:00"),
            (Some(29), "2028-02-28 23:00:00", "2028-02-29 00:00:00"),
            (Some(30), "2026-01-30 10:00:00", "2026-02-28 00:00:00"),
            (Some(31), "2026-01-31 00:00:00", "2026-02-28 00:00:00"),
            (Some(1), "2026-12-15 00:00:00", "2027-01-01 00:00:00"),
            (Some(31), "2026-12-31 00:00:00", "2027-01-31 00:00:00"),
        ] {
            assert_eq!(next_due(&Refill { amount: 1, day }, at(after)), Some(at(due)), "{day:?} after {after}");
        }
        assert_eq!(next_due(&Refill { amount: 1, day: None }, u64::MAX), None);
        for (day, due, now, last) in [
            (None, "2026-03-01 00:00:00", "2026-03-05 10:00:00", "2026-03-05 00:00:00"),
            (Some(15), "2026-03-15 00:00:00", "2026-03-15 00:00:00", "2026-03-15 00:00:00"),
            (Some(15), "2026-01-15 00:00:00", "2026-03-14 23:59:59", "2026-02-15 00:00:00"),
            (Some(31), "2026-01-31 00:00:00", "2026-03-01 00:00:00", "2026-02-28 00:00:00"),
        ] {
            assert_eq!(last_due(&Refill { amount: 1, day }, at(due), at(now)), at(last), "{day:?} at {now}");
        }
    }
}
