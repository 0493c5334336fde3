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
#[cfg(target_os = "linux")]
use std::ops::Range;
use std::time::Duration;

/// Place of `mi_option_purge_delay` in `mi_option_e` of `mimalloc.h`, the same in its versions 2 and 3; the binding names
/// other options only.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// How long freed memory is kept for whoever needs some next, in milliseconds: longer than from one seal to the next at a
/// rate of events where that matters.
const KEEP_FREED_MS: c_long = 10_000;

/// How much of the heap is in small pages: what is in use before there is a first key, and some keys. Most of it is tables of
/// the hot index, which are address space until they fill up, and then ask for huge pages by themselves.
#[cfg(target_os = "linux")]
const SMALL_PAGES: usize = 192 << 20;

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
///
/// The first time it also lets go of the program's own code, which only the start needed.
pub async fn give_back_freed_memory() {
    let mut begun = false;
    loop {
        tokio::time::sleep(Duration::from_millis(KEEP_FREED_MS as u64)).await;
        // SAFETY: it frees what nobody holds any more, in this thread's heap and in what all share; any thread may call it at
        // any time. `false`: nothing before its time.
        unsafe { libmimalloc_sys::mi_collect(false) };
        if !std::mem::replace(&mut begun, true) {
            let_go_of_code();
        }
    }
}

/// Takes the program's code, and what is read of its file before the code, out of this process's memory. What is needed again
/// comes back from the system's cache of files, a page and its neighbours at a time, without a read of the disk; what only the
/// start needed - the loader's relocations, reading settings, recovery - stays away: 15 MB.
#[cfg(target_os = "linux")]
fn let_go_of_code() {
    use rustix::mm::{Advice, madvise};
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for range in code(&maps, let_go_of_code as *const () as usize) {
        // SAFETY: the range is mapped, privately, from the program's file and cannot be written to, so that its pages are the
        // file's: whoever reads there finds the same bytes as before. It fails on a range of locked pages, which then stay.
        let _ =
            unsafe { madvise(std::ptr::with_exposed_provenance_mut(range.start), range.len(), Advice::LinuxDontNeed) };
    }
}

#[cfg(not(target_os = "linux"))]
fn let_go_of_code() {}

/// The mapping of code that holds an address, out of `/proc/self/maps` (`proc_pid_maps(5)`), and the one before it where that is
/// the beginning of the same file. No other: behind the code are addresses that the loader has filled in.
#[cfg(target_os = "linux")]
fn code(maps: &str, address: usize) -> Vec<Range<usize>> {
    let mut before: Option<(Range<usize>, [&str; 4])> = None;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut next = || words.next().unwrap_or_default();
        let hex = |text: &str| usize::from_str_radix(text, 16).unwrap_or_default();
        let (start, end) = next().split_once('-').unwrap_or_default();
        let range = hex(start)..hex(end);
        let [rights, offset, device, inode] = [next(), next(), next(), next()];
        if range.contains(&address) {
            if rights != "r-xp" || inode == "0" {
                return Vec::new();
            }
            let is_beginning = |(range, [rights, offset, its_device, its_inode]): &(Range<usize>, [&str; 4])| {
                *rights == "r--p"
                    && hex(offset) == 0
                    && (*its_device, *its_inode) == (device, inode)
                    && !range.is_empty()
            };
            return before.filter(is_beginning).map(|(range, _)| range).into_iter().chain([range]).collect();
        }
        before = Some((range, [rights, offset, device, inode]));
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only what is the file's, byte for byte: code, and what is before it; nothing that is written to or was, no memory of
    /// nobody's file, no other program's. And a process that lets go of its code goes on.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_pages_of_the_file_are_let_go_of() {
        let maps = "5000-6000 r--p 00000000 fe:00 7 /usr/bin/keyward\n6000-9000 r-xp 00001000 fe:00 7 /usr/bin/keyward\n\
                    9000-a000 r--p 00004000 fe:00 7 /usr/bin/keyward\na000-b000 rw-p 00005000 fe:00 7 /usr/bin/keyward\n\
                    c000-d000 r--p 00000000 fe:00 8 /lib/x.so\nd000-e000 r-xp 00000000 00:00 0 \n";
        assert_eq!(code(maps, 0x7000), [0x5000..0x6000, 0x6000..0x9000]);
        assert!([0x5000, 0x9000, 0xa000, 0xd000, 0xf000].iter().all(|at| code(maps, *at).is_empty()));
        let alone = maps.replacen("fe:00 7", "fe:00 6", 1);
        assert_eq!(code(&alone, 0x7000).first(), Some(&(0x6000..0x9000)));

        let own = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!code(&own, let_go_of_code as *const () as usize).is_empty());
        let_go_of_code();
        assert_eq!(code(&own, let_go_of_code as *const () as usize).last().map(Range::is_empty), Some(false));
    }

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
