//! How the allocator keeps memory that was freed.
//!
//! Requests allocate small and free soon, on many threads, and analytics allocate much and free all of it; `main.rs` takes
//! mimalloc, which serves both. By itself it gives freed pages back to the system within a second, and events are sealed a
//! few times a minute: every seal, and every batch before it, would be handed pages that the kernel has to clear again, which
//! took a third of the time of all that recording does.
#![allow(unsafe_code)]

use std::ffi::c_long;

/// Place of `mi_option_purge_delay` in `mi_option_e` of `mimalloc.h`, the same in its versions 2 and 3; the binding names
/// other options only.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for whoever needs some next, in milliseconds: longer than from one seal to the next at a
/// rate of events where that matters.
const KEEP_FREED_MS: c_long = 10_000;

/// Has freed memory given back after ten seconds. `MIMALLOC_PURGE_DELAY` (milliseconds) says otherwise. For the beginning
/// of a program; without effect where mimalloc is not its allocator.
pub fn keep_freed_memory() {
    // SAFETY: the function stores a number in a static table of mimalloc's own, at a place that is in its bounds; called
    // before other threads are there, it races with nobody.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_FREED_MS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place is that of the option: its value after the call is ours, and was mimalloc's default before.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a variable of mimalloc's, not a setting of keyward's")]
    fn the_option_is_the_purge_delay() {
        // SAFETY: as above; tests run no other code that sets options.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            keep_freed_memory();
            assert_eq!(get(), KEEP_FREED_MS);
        }
    }
}
