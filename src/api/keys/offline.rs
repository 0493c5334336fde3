//! Credits while the leader cannot be reached: refused, or given out on the word of the last known balance.
//!
//! Credits are the leader's to take. A follower that goes on alone takes none: it counts what it has given out in a rate-limit
//! window of its own, in memory, against the balance that it last knew. So each node that is cut off gives out at most that
//! balance (once more where the window, 30 days, ends meanwhile or the node is restarted), and what all give out together is at
//! most their number times it. A balance that was set anew begins anew.

use keyward_storage::hot::window::{Kind, Take};

use super::verify_reply::{Outcome, Verdict};
use crate::api::call::Call;
use crate::api::problem::Problem;
use crate::config::CreditsOffline;

/// How long a node remembers what it gave out, ms.
const WINDOW_MS: u64 = 30 * 24 * 60 * 60 * 1000;
/// Begins the name of the counter: no text does, so no rate limit is called so.
const COUNTER: &[u8] = b"\xffcredits given out alone ";

/// Gives credits out without taking them.
pub fn spend(call: &Call, verdict: &mut Verdict, cost: u64) -> Result<(), Problem> {
    if call.services().credits_offline == CreditsOffline::Refuse {
        return Err(Problem::no_capacity(
            "This node follows another one, which cannot be reached at the moment, and the key's credits are counted there. \
             Please try again in a moment. (The operator's setting is replication.credits_offline.)",
        ));
    }
    let view = &verdict.view;
    let windows = &call.storage().hot().windows;
    let name = [COUNTER, &view.counters.generation().to_le_bytes()[..]].concat();
    let subject = windows.subject(Kind::Key, view.workspace.0, view.id.as_bytes(), &name, WINDOW_MS);
    let balance = view.counters.balance();
    let take = Take { subject, duration_ms: WINDOW_MS, limit: balance, cost };
    let decision = windows.take(&take, call.now).map_err(|_| {
        Problem::no_capacity("The server has no room to count another key's credits. Please tell its operator.")
    })?;
    verdict.credits = Some(decision.remaining.min(balance));
    if !decision.passed {
        verdict.outcome = Outcome::UsageExceeded;
    }
    Ok(())
}
