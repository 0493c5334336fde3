//! Priorities of threads whose work can wait.
//!
//! Linux shares a core among those that want it by weight (`sched_prio_to_weight` in the kernel): beside a thread of
//! ordinary priority that is never idle, one of [`Priority::Background`] has a quarter of a core, one of
//! [`Priority::Patient`] 3 %, one of [`Priority::Lowest`] 1.5 %; of an idle core each has all. And whoever wakes up with
//! ordinary priority need not wait for them.

/// How much a thread yields to those that answer requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Work that piles up when it is not done.
    Background = 5,
    /// Work that may be late.
    Patient = 16,
    /// Work that somebody asked for and that may take all that is left, and no more.
    Lowest = 19,
}

/// Gives the calling thread, and those it starts, a priority. On Linux priorities belong to threads; elsewhere they would
/// be the whole program's, and nothing is changed.
pub fn set(priority: Priority) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, priority as i32) {
        let thread = std::thread::current();
        tracing::warn!(%error, thread = thread.name(), "a background thread runs with the priority of everything else");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = priority;
}
