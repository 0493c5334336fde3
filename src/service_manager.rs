//! What the service manager is told (`sd_notify(3)`): ready, reloading, stopping, and that the server lives.
//!
//! Without one - no `NOTIFY_SOCKET`, no `WATCHDOG_USEC` - nothing here does anything.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{sleep, timeout};

/// Shortest pause between two signs of life.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Requests are taken.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Files are read again; [`ready`] follows.
pub fn reloading() {
    // systemd takes the message only with the time it was sent at (Type=notify-reload).
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the clock that systemd asks for cannot be read"),
    }
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told how the server is (NOTIFY_SOCKET)");
    }
}

/// Shows the service manager's watchdog, where it has one, that the server lives: twice in its time, and only when `answers`
/// came to its end first. What hangs there lets the watchdog fire. Never ends.
pub async fn feed_watchdog(answers: impl AsyncFn()) {
    match sd_notify::watchdog_enabled() {
        Some(limit) => feed(limit / 2, answers, || tell(&[NotifyState::Watchdog])).await,
        None => std::future::pending().await,
    }
}

async fn feed(pause: Duration, answers: impl AsyncFn(), mut sign: impl FnMut()) {
    let pause = pause.max(PAUSE_MIN);
    loop {
        let mut answer = Box::pin(answers());
        if timeout(pause, &mut answer).await.is_err() {
            tracing::error!(
                waited_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the writer does not answer; if it goes on like this, the watchdog ends the process"
            );
            // No second question while one is unanswered.
            answer.await;
        }
        sign();
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use keyward_storage::{Abort, Turn};

    use super::*;
    use crate::api::testing::Kit;

    /// A writer that hangs in a transaction keeps the signs of life back, for as long as it hangs and no longer.
    #[test]
    fn a_writer_that_hangs_gives_no_sign_of_life() {
        let kit = Kit::new();
        let services = Arc::clone(&kit.services);
        let signs = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let seen = || signs.load(Ordering::SeqCst);
        runtime.block_on(async {
            let (fed, counted) = (Arc::clone(&services), Arc::clone(&signs));
            let feeding = feed(
                Duration::from_millis(10),
                async move || fed.writer_answers().await,
                move || {
                    counted.fetch_add(1, Ordering::SeqCst);
                },
            );
            tokio::pin!(feeding);
            let alive = async {
                while seen() < 3 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = &mut feeding => unreachable!("it goes on"), () = alive => {} }

            let (release, held) = mpsc::channel::<()>();
            let (begun, begins) = tokio::sync::oneshot::channel();
            services.storage.transact(
                Turn::FIRST,
                0,
                move |_| -> Result<(), Abort<()>> {
                    let _ = begun.send(());
                    let _ = held.recv();
                    Err(Abort::Refused(()))
                },
                |_| {},
            );
            begins.await.expect("the writer has begun");
            let before = seen();
            tokio::select! { () = &mut feeding => {}, () = sleep(Duration::from_millis(200)) => {} }
            assert!(seen() <= before + 1, "at most the answer that was on its way");
            let silent = seen();
            drop(release);
            let alive = async {
                while seen() < silent + 3 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! { () = &mut feeding => {}, () = alive => {} }
        });
    }
}
