//! Removes the names of changes that nobody repeats any more ([`keyward_storage::records::change`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use keyward_storage::records::change;
use keyward_storage::{Abort, Turn};
use tokio::time::sleep;

use crate::app::Services;

/// How often it is looked for them.
const EVERY: Duration = Duration::from_secs(30);
/// Rows that one transaction looks at, and the pause between two.
const ROWS: usize = 1_000;
const BETWEEN: Duration = Duration::from_millis(50);

/// Sweeps for as long as it is polled, while this node leads.
pub async fn run(services: Arc<Services>) {
    loop {
        sleep(EVERY).await;
        let mut from = None;
        while services.node.is_leader() {
            let now = services.outside.clock.now_ms();
            let swept = services
                .transact(Turn::FIRST, now, move |tx| {
                    change::sweep(tx, now, from, ROWS).map_err(Abort::<Infallible>::Read)
                })
                .await;
            match swept {
                Ok(swept) => from = swept.value.1,
                // A writer that is busy or without room has better things to do; what is left is swept next time.
                Err(error) => {
                    tracing::debug!(%error, "the names of old changes were not swept");
                    break;
                }
            }
            if from.is_none() {
                break;
            }
            sleep(BETWEEN).await;
        }
    }
}
