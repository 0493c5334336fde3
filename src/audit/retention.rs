//! Audit events leave when their workspace has kept them for as long as it wants (EXT-2): whole, at the front of the chain,
//! never earlier (AL-STORE-04).

use keyward_storage::ids::WorkspaceNo;
use keyward_storage::records::audit::{self, AuditEvent, OPERATOR, expire};
use keyward_storage::records::workspace::{self, WorkspaceLimits};
use keyward_storage::{Abort, ReadError, TransactError, Turn};

use crate::app::Services;
use crate::telemetry::error_chain;
use crate::tenants::{By, system_actor};

const DAY_MS: u64 = 86_400_000;
/// How much older than its recording an event of the refill service may say it is: a refill happened when it was due, and the
/// last date on which one was due lies at most a month back.
const REFILL_LATE_MS: u64 = 31 * DAY_MS;
/// The id under which refills act.
const REFILLS: &str = "keyrefill";

/// What one look has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Events deleted.
    pub events: u64,
    /// Whether it was stopped before its end.
    pub is_stopped: bool,
}

/// Deletes what is too old, workspace by workspace, in transactions of a bounded size. `is_over` is asked between them. What
/// fails is logged, and tried again the next time. Blocks.
pub fn expire(services: &Services, is_over: &dyn Fn() -> bool) -> Pass {
    let mut pass = Pass::default();
    let chains = services.storage.snapshot().and_then(|snapshot| audit::chains(&snapshot));
    let chains = match chains {
        Ok(chains) => chains,
        Err(error) => {
            tracing::error!(error = error_chain(&error), "audit retention could not read the records");
            return pass;
        }
    };
    for no in chains {
        loop {
            if is_over() {
                pass.is_stopped = true;
                return pass;
            }
            match batch(services, no) {
                Ok((events, more)) => {
                    pass.events += events;
                    if !more {
                        break;
                    }
                }
                Err(reason) => {
                    tracing::error!(workspace = no.0, reason, "audit retention deletes nothing here for now");
                    break;
                }
            }
        }
    }
    if pass.events > 0 {
        tracing::info!(events = pass.events, "audit events were deleted whose time was over");
    }
    pass
}

/// One transaction: how many went, and whether there may be more.
fn batch(services: &Services, no: WorkspaceNo) -> Result<(u64, bool), String> {
    let unreadable = |error: ReadError| error_chain(&error);
    let now = services.outside.clock.now_ms();
    let snapshot = services.storage.snapshot().map_err(unreadable)?;
    let days = match workspace::get(&snapshot, no).map_err(unreadable)? {
        Some(row) => row.limits.audit_retention_days,
        None if no == OPERATOR => WorkspaceLimits::default().audit_retention_days,
        // A chain without a workspace is evidence of something: `keyward audit verify` names it.
        None => return Ok((0, false)),
    };
    let is_old = move |event: &AuditEvent| is_old(event, days, now);
    // Most have nothing old, and a look costs no turn of the writer's.
    let first = audit::page(&snapshot, no, 0, 1, 1).map_err(unreadable)?;
    if !first.first().is_some_and(|(_, row)| is_old(&row.event)) {
        return Ok((0, false));
    }
    drop(snapshot);
    let by = By::new(system_actor("auditretention", "Audit retention"), now, &services.outside.entropy);
    let turn = if no == OPERATOR { Turn::FIRST } else { Turn::of(no) };
    let done = services.transact_blocking(turn, now, move |tx| {
        let tell = |events: u64, target| {
            by.event(expire::EVENT, format!("Deleted {events} audit events older than {days} days"), vec![target])
        };
        expire::expire(tx, no, is_old, tell)?.map_err(Abort::Refused)
    });
    match done {
        Ok(done) => Ok(done.value.map_or((0, false), |expired| (expired.events, expired.more))),
        Err(TransactError::Refused(broken)) => {
            Err(format!("{broken}: what is left of it is evidence; `keyward audit verify` says more"))
        }
        Err(TransactError::Unavailable(why)) => Err(why.to_string()),
        Err(TransactError::Read(error)) => Err(unreadable(error)),
    }
}

fn is_old(event: &AuditEvent, days: u32, now: u64) -> bool {
    let late = if event.actor.kind == "system" && event.actor.id == REFILLS { REFILL_LATE_MS } else { 0 };
    event.time.saturating_add(u64::from(days) * DAY_MS).saturating_add(late) < now
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::testing::{Kit, NOW};

    fn names(kit: &Kit) -> Vec<String> {
        let snapshot = kit.services.storage.snapshot().unwrap();
        let events = audit::list(&snapshot, kit.workspace, 0, usize::MAX).unwrap();
        events.into_iter().map(|(_, row)| row.event.event).collect()
    }

    /// AL-STORE-04, EXT-2: by the test clock, an event stays for all its workspace's days and goes afterwards, whole and in
    /// order; the chain holds, and says what went. A refill that says it is older than its recording stays a month longer.
    #[test]
    fn an_event_stays_for_as_long_as_it_should() {
        let kit = Kit::new();
        let clock = &kit.services.outside.clock;
        let api = kit.ok("apis.createApi", json!({"name": "one"}))["apiId"].clone();
        let credits = json!({"remaining": 1, "refill": {"interval": "monthly", "amount": 5, "refillDay": 1}});
        let key = kit.ok("keys.createKey", json!({"apiId": api, "credits": credits}));
        let late = i64::try_from(NOW + 20 * DAY_MS).unwrap();
        kit.test_time_ms.set(Some(late));
        kit.ok("keys.verifyKey", json!({"key": key["key"]}));
        let before = names(&kit);
        assert_eq!(before.last().unwrap(), "key.update", "the refill");
        let over = || false;
        for days in [0, 200, 365] {
            clock.set_ms(NOW + days * DAY_MS);
            assert_eq!(expire(&kit.services, &over), Pass::default(), "after {days} days");
        }
        assert_eq!(names(&kit), before);
        clock.set_ms(NOW + 365 * DAY_MS + 1);
        let gone = before.len() as u64 - 1;
        assert_eq!(expire(&kit.services, &over).events, gone);
        assert_eq!(names(&kit), ["key.update", expire::EVENT]);
        clock.set_ms(NOW + (365 + 31) * DAY_MS - 1);
        assert_eq!(expire(&kit.services, &over).events, 0, "its recording may be this late");
        clock.set_ms(NOW + (365 + 60) * DAY_MS);
        assert_eq!(expire(&kit.services, &over).events, 1);
        let stopped = expire(&kit.services, &|| true);
        assert_eq!(stopped, Pass { events: 0, is_stopped: true });
        let verified =
            audit::verify::verify(&|| kit.services.storage.snapshot(), kit.workspace, &[], &mut |_| {}).unwrap();
        assert!(verified.is_whole(), "{verified:?}");
    }
}
