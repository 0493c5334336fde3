//! What a command that is interrupted clears away.

use std::io;
use std::path::Path;
use std::process;

use tokio::signal::unix::{SignalKind, signal};

/// The status of a process that a signal has ended, as shells count: this and the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

/// Removes this file, or this directory with all in it, and ends the process when somebody interrupts or terminates it. A file that is gone, or has another
/// name by then, is none of its business.
///
/// # Errors
/// The system gives no thread, or no signals.
pub fn remove_if_interrupted(file: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let file = file.to_owned();
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let by = runtime.block_on(async {
            tokio::select! {
                Some(()) = interrupt.recv() => SignalKind::interrupt(),
                Some(()) = terminate.recv() => SignalKind::terminate(),
                else => std::future::pending().await,
            }
        });
        // It has its own name and is of no use to anybody.
        let _ = std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir_all(&file));
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever interrupts a command wants its end, and main is in a write"
        )]
        process::exit(ENDED_BY_SIGNAL + by.as_raw_value());
    })?;
    Ok(())
}
