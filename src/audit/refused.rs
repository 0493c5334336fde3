//! Refused root keys, as the operator is told of them: one event an address and interval, and one for all others. So whoever
//! guesses can fill neither the log nor the disk: at nine events of some 400 bytes every five minutes, a whole day of it is
//! one megabyte.

use keyward_storage::records::audit::{OPERATOR, Target};
use keyward_storage::{Abort, Turn};

use crate::app::Services;
use crate::guesses::Report;
use crate::tenants::{By, system_actor, target};

/// Name of the events.
const EVENT: &str = "root_key.refused";

/// Writes down what was refused since the last time: a line of the log, and events in the operator's own chain. Blocks.
pub fn report(services: &Services) {
    let now = services.outside.clock.now_ms();
    let Some(Report { named, others }) = services.guesses.take_report(now) else { return };
    let attempts: u64 = named.iter().map(|(_, attempts)| attempts).sum::<u64>() + others;
    let worst = named.first().map(|(origin, _)| origin.to_string());
    tracing::warn!(attempts, addresses = named.len(), worst, "requests came with root keys that do not exist");
    let by = By::new(system_actor("rootkeyguard", "Root key guard"), now, &services.outside.entropy);
    let told = |whom: &str, attempts: u64, target: Target| {
        let description = format!("Refused {attempts} attempts with unknown root keys from {whom}");
        by.event(EVENT, description, vec![Target { meta: Some(format!(r#"{{"attempts":{attempts}}}"#)), ..target }])
    };
    let mut events: Vec<_> = named
        .iter()
        .map(|(origin, attempts)| {
            let whom = origin.to_string();
            told(&whom, *attempts, target("address", &whom, ""))
        })
        .collect();
    if others > 0 {
        events.push(told("other addresses", others, target("address", "others", "")));
    }
    let written = services.transact_blocking(Turn::FIRST, now, move |tx| {
        events.into_iter().for_each(|event| tx.audit(OPERATOR, event));
        Ok::<_, Abort<std::convert::Infallible>>(())
    });
    if let Err(error) = written {
        tracing::warn!(%error, attempts, "refused root keys could not be written to the audit trail");
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use keyward_storage::records::audit;

    use super::*;
    use crate::api::testing::{Kit, NOW};

    /// However many attempts and addresses: a few events, whose sums are right, in a chain that belongs to no workspace.
    #[test]
    fn a_flood_is_a_few_events() {
        let kit = Kit::new();
        let services = Arc::clone(&kit.services);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for n in 0..5000_u32 {
                services.guesses.slow_down(Some(IpAddr::from((n % 500).to_be_bytes())), NOW).await;
            }
        });
        report(&services);
        report(&services);
        let snapshot = services.storage.snapshot().unwrap();
        let events = audit::list(&snapshot, OPERATOR, 0, usize::MAX).unwrap();
        assert_eq!(events.len(), crate::guesses::NAMED_MAX + 1);
        let sum: u64 = events
            .iter()
            .map(|(_, row)| {
                let event = &row.event;
                assert_eq!((&*event.event, &*event.actor.kind, &*event.targets[0].kind), (EVENT, "system", "address"));
                let meta = event.targets[0].meta.as_deref().unwrap();
                meta.trim_start_matches(r#"{"attempts":"#).trim_end_matches('}').parse::<u64>().unwrap()
            })
            .sum();
        assert_eq!(sum, 5000);
        let verified = audit::verify::verify(&|| services.storage.snapshot(), OPERATOR, &[], &mut |_| {}).unwrap();
        assert!(verified.is_whole());
    }
}
