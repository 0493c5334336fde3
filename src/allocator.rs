//! How the allocator keeps memory that was freed.
//!
//! Requests allocate small and free soon, on many threads, and analytics allocate much and free all of it; `main.rs` takes
//! mimalloc, which serves both. By itself it gives freed pages back to the system within a second, and events are sealed a
//! few times a minute: every seal, and every batch before it, would be handed pages that the kernel has to clear again, which
//! took a third of the time of all that recording does.
//!
//! Its memory is in huge pages of 2 MiB where the kernel gives them, and a large store is the faster for it: a verify waits for
//! memory once where it waited twice. A small server would pay for that with pages of which it uses a corner, 45 MB of them
//! without a single request. So what the heap takes first is in small pages.
#![allow(unsafe_code)]

use std::ffi::c_long;
use std::time::Duration;

/// Place of `mi_option_purge_delay` in `mi_option_e` of `mimalloc.h`, the same in its versions 2 and 3; the binding names
/// other options only.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for whoever needs some next, in milliseconds: longer than from one seal to the next at a
/// rate of events where that matters.
const KEEP_FREED_MS: c_long = 10_000;

/// How much of the heap is in small pages: what is in use before there is a first key, and some keys.
#[cfg(target_os = "linux")]
const SMALL_PAGES: usize = 64 << 20;

/// Puts the first memory that is allocated into small pages. It is called by the loader, after mimalloc has set itself up
/// and before anything of Rust runs: once there is a heap, its pages are what they are.
#[cfg(target_os = "linux")]
extern "C" fn begin_with_small_pages() {
    let mut arena = std::ptr::null_mut();
    // SAFETY: the function is given a place for its answer, which it writes before it returns; it maps memory that nothing
    // else knows of. Where that fails, the heap begins with huge pages. `false, false`: no huge pages, and for everybody.
    let _ = unsafe { libmimalloc_sys::mi_reserve_os_memory_ex(SMALL_PAGES, true, false, false, &mut arena) };
}

/// mimalloc's own function of this kind has a priority, and these come after all that have one.
#[cfg(target_os = "linux")]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN_WITH_SMALL_PAGES: extern "C" fn() = begin_with_small_pages;

/// Has freed memory given back after ten seconds. `MIMALLOC_PURGE_DELAY` (milliseconds) says otherwise. For the beginning
/// of a program; without effect where mimalloc is not its allocator.
pub fn keep_freed_memory() {
    // SAFETY: the function stores a number in a static table of mimalloc's own, at a place that is in its bounds; called
    // before other threads are there, it races with nobody.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_FREED_MS) };
}

/// Has memory given back whose time has come although nobody allocates: mimalloc looks at its clock only when it is asked for
/// something, and what a start or a burst of work needed would stay for as long as the server has nothing to do. Never ends.
pub async fn give_back_freed_memory() {
    loop {
        tokio::time::sleep(Duration::from_millis(KEEP_FREED_MS as u64)).await;
        // SAFETY: it frees what nobody holds any more, in this thread's heap and in what all share; any thread may call it at
        // any time. `false`: nothing before its time.
        unsafe { libmimalloc_sys::mi_collect(false) };
    }
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
