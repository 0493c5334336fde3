//! The thread that writes rate-limit windows down and drops old ones.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::hot::Hot;
use crate::hot::window::WindowJournal;

/// How often rate-limit cells are written down and old ones dropped.
const EVERY: Duration = Duration::from_secs(1);

/// What the thread is asked.
pub enum Ask {
    /// To write at once, and to tell when that is done.
    Write(Sender<()>),
    /// To write once more, and to end.
    Stop,
}

/// Runs until it is asked to stop or nobody is left to ask, and writes once more then.
pub fn run(mut journal: WindowJournal, hot: &Hot, clock: &Arc<dyn Fn() -> u64 + Send + Sync>, asks: &Receiver<Ask>) {
    let mut failing = false;
    loop {
        let (stopping, waiting) = match asks.recv_timeout(EVERY) {
            Ok(Ask::Write(told)) => (false, Some(told)),
            Err(RecvTimeoutError::Timeout) => (false, None),
            Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => (true, None),
        };
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
        // Where nobody waits any more there is nobody to tell.
        let _ = waiting.map(|told| told.send(()));
        if stopping {
            return;
        }
    }
}
