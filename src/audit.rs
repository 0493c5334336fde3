//! What keeps the audit trail while the server runs: retention, live exports, and the sums of refused root keys.
//!
//! All of it stands behind the store: it reads what was committed, and what it writes takes its turn like any change. No
//! request waits for it.

pub mod export;
pub mod file;
pub mod refused;
pub mod retention;
pub mod syslog;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::Services;
use crate::config::Settings;

/// Between two sums of refused root keys.
const REFUSED_EVERY: Duration = Duration::from_secs(300);
/// Between two looks for events that are too old.
const RETENTION_EVERY: Duration = Duration::from_secs(3600);
/// The first look: when the start is over.
const RETENTION_AT_FIRST: Duration = Duration::from_secs(30);

/// Between two looks of a follower whether it leads by now.
const AGAIN: Duration = Duration::from_secs(30);

/// The threads that keep the trail.
pub struct Keeper {
    threads: Vec<(SyncSender<()>, JoinHandle<()>)>,
}

impl Keeper {
    /// Starts them.
    ///
    /// # Errors
    /// The system's, when it has no thread to give.
    pub fn start(services: &Arc<Services>, settings: &Settings) -> io::Result<Keeper> {
        let mut keeper = Keeper { threads: Vec::new() };
        let keeping = Arc::clone(services);
        // Nothing is deleted by the wall clock where tests move it (EXT-4).
        let expires = !settings.test_mode;
        keeper.spawn("keyward-audit", move |stop| keep(&keeping, expires, stop))?;
        for export in &services.exports {
            let (services, export) = (Arc::clone(services), Arc::clone(export));
            keeper.spawn("keyward-export", move |stop| export.run(&services, stop))?;
        }
        Ok(keeper)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Receiver<()>) + Send + 'static) -> io::Result<()> {
        let (stop, stopped) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&stopped))?;
        self.threads.push((stop, thread));
        Ok(())
    }

    /// Ends them: what was refused is written down, and what was exported noted. Before the store is closed.
    pub fn stop(self) {
        for (stop, _) in &self.threads {
            let _ = stop.try_send(());
        }
        for (_, thread) in self.threads {
            // A thread that panicked has said so through its panic.
            let _ = thread.join();
        }
    }
}

/// Whether this is the end; waits for it for at most so long.
fn is_over(stop: &Receiver<()>, patience: Duration) -> bool {
    !matches!(stop.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
}

fn keep(services: &Services, expires: bool, stop: &Receiver<()>) {
    let begun = Instant::now();
    let mut refused_at = begun + REFUSED_EVERY;
    let mut retention_at = begun + RETENTION_AT_FIRST;
    loop {
        let next = if expires { refused_at.min(retention_at) } else { refused_at };
        let over = is_over(stop, next.saturating_duration_since(Instant::now()));
        // What a follower writes is its leader's; who was refused here is told once it leads, or in its log.
        if !services.node.is_leader() {
            if over {
                return;
            }
            refused_at = refused_at.max(Instant::now() + REFUSED_EVERY.min(AGAIN));
            retention_at = retention_at.max(Instant::now() + AGAIN);
            continue;
        }
        if over || Instant::now() >= refused_at {
            refused::report(services);
            refused_at = Instant::now() + REFUSED_EVERY;
        }
        if over {
            return;
        }
        if expires && Instant::now() >= retention_at {
            if retention::expire(services, &|| is_over(stop, Duration::ZERO)).is_stopped {
                refused::report(services);
                return;
            }
            retention_at = Instant::now() + RETENTION_EVERY;
        }
    }
}
