//! The thread that writes rate-limit windows down and drops old ones.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::hot::Hot;
use crate::hot::window::WindowJournal;

/// How often rate-limit cells are written down and old ones dropped.
const EVERY: Duration = Duration::from_secs(1);

/// Runs until `stop` hears of anything or loses its sender, and writes once more then.
pub fn run(mut journal: WindowJournal, hot: &Hot, clock: &Arc<dyn Fn() -> u64 + Send + Sync>, stop: &Receiver<()>) {
    let mut failing = false;
    loop {
        let stopping = !matches!(stop.recv_timeout(EVERY), Err(RecvTimeoutError::Timeout));
        let now = clock();
        hot.windows.sweep(now);
        // A bounded, documented loss: counting goes on in memory, the next round writes what changed.
        match journal.write_changed(&hot.windows, now) {
            Err(cause) if !failing => {
                tracing::warn!(
                    %cause,
                    "rate-limit windows cannot be written down; counting goes on in memory and this is tried again \
                     every second; a restart before it succeeds forgets what was counted"
                );
                failing = true;
            }
            Ok(_) if failing => {
                tracing::info!("rate-limit windows are written down again");
                failing = false;
            }
            _ => {}
        }
        if stopping {
            return;
        }
    }
}
