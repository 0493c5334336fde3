//! What the system knows of this process. Elsewhere than on Linux only the processor time and the limit of open files.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What was found; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Process {
    /// Bytes in memory.
    pub resident_bytes: Option<u64>,
    /// Bytes of address space.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open files, sockets among them.
    pub open_files: Option<u64>,
    /// Files that may be open.
    pub open_files_max: Option<u64>,
    /// Processor time of all threads since the start.
    pub cpu: Duration,
}

/// Asks the system.
pub fn look() -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
    Process {
        resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024),
        virtual_bytes: field(&status, "VmSize:").map(|kib| kib * 1024),
        threads: field(&status, "Threads:"),
        // The one that lists them is among them.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1)),
        open_files_max: getrlimit(Resource::Nofile).current,
        cpu: Duration::new(seconds, u32::try_from(cpu.tv_nsec).unwrap_or(0)),
    }
}

/// The number of a line of `/proc/self/status`; memory is in KiB there.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_status_are_read() {
        let status = "Name:\tkeyward\nVmSize:\t  204800 kB\nVmRSS:\t   10240 kB\nThreads:\t12\n";
        assert_eq!(field(status, "VmRSS:"), Some(10_240));
        assert_eq!((field(status, "Threads:"), field(status, "VmSwap:")), (Some(12), None));
        let here = look();
        assert!(here.cpu > Duration::ZERO);
        if cfg!(target_os = "linux") {
            assert!(here.resident_bytes > Some(1 << 20) && here.open_files > Some(2) && here.threads > Some(0));
        }
    }
}
