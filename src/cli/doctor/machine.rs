//! The processor, the limits of a process, the clock.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyward_storage::hot::window::cells_are_lock_free;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::cli::serve::OTHER_FILES;
use crate::cli::text;
use crate::config::Settings;
use crate::outside::Clock;

/// How long the system may take to say whether its clock is kept right.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// A file of the data directory may be this much newer than now: another machine may have written it.
const AHEAD_MS: u64 = 5 * 60_000;
/// No keyward is older: 2026-01-01.
const CLOCK_MIN_MS: u64 = 1_767_225_600_000;

pub(super) fn look(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    vec![processor(), open_files(settings), clock_is_right(settings, clock.now_ms()), clock_is_kept()]
}

fn processor() -> Finding {
    let check = "processor";
    if cells_are_lock_free() {
        Finding::ok(check, "it has the compare-and-swap of 128 bits that counters need")
    } else {
        Finding::problem(
            check,
            "it has no lock-free compare-and-swap of 128 bits",
            "use a processor of 2008 or later (cmpxchg16b)",
        )
    }
}

fn open_files(settings: &Settings) -> Finding {
    let check = "limits.files";
    let wanted = settings.http.max_connections as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    match limit.maximum {
        Some(maximum) if maximum < wanted => Finding::problem(
            check,
            format!("a process started from here may open {maximum} files, and {wanted} may be needed"),
            format!("raise it (LimitNOFILE={wanted} in the unit, ulimit -n in a shell), or lower http.max_connections"),
        ),
        maximum => {
            let most = maximum.map_or_else(|| "any number of".to_owned(), |maximum| maximum.to_string());
            Finding::ok(check, format!("a process started from here may open {most} files; {wanted} may be needed"))
        }
    }
}

/// A clock that went back ends credits' refills, expiries and windows at the wrong time.
fn clock_is_right(settings: &Settings, now_ms: u64) -> Finding {
    let check = "clock.time";
    let newest = fs::read_dir(&settings.data_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .filter_map(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .filter_map(|since| u64::try_from(since.as_millis()).ok())
        .max()
        .unwrap_or(0);
    judge_clock(check, now_ms, newest)
}

fn judge_clock(check: &'static str, now_ms: u64, newest_ms: u64) -> Finding {
    let shown = text::time(now_ms);
    let advice = "set it (timedatectl set-time), and keep it right with chrony or systemd-timesyncd: expiries, refills and rate \
                  limits go by it";
    if now_ms < CLOCK_MIN_MS {
        Finding::problem(check, format!("it says {shown}, which is before this program was written"), advice)
    } else if newest_ms > now_ms + AHEAD_MS {
        let found = format!("it says {shown}, and the data directory was written at {}", text::time(newest_ms));
        Finding::problem(check, found, advice)
    } else {
        Finding::ok(check, format!("it says {shown}"))
    }
}

fn clock_is_kept() -> Finding {
    let check = "clock.sync";
    match ask_timedatectl().as_deref() {
        Some("yes") => Finding::ok(check, "it is kept right over the network"),
        Some("no") => Finding::warning(
            check,
            "nothing keeps it right",
            "start chrony or systemd-timesyncd (in an air-gapped room, against a server of your own): expiries and windows go by it",
        ),
        _ => Finding::note(
            check,
            "whether something keeps it right cannot be seen here",
            "see that chrony, systemd-timesyncd or the virtual machine's host does",
        ),
    }
}

/// `yes` or `no`; `None` where there is no systemd to ask, or it does not answer.
fn ask_timedatectl() -> Option<String> {
    let mut child = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    /// A clock before this program's time, or behind what was already written, is wrong.
    #[test]
    fn a_clock_that_went_back_is_seen() {
        let now = CLOCK_MIN_MS + 1_000_000_000;
        for (now, newest, state) in [
            (now, 0, State::Ok),
            (now, now, State::Ok),
            (now, now + AHEAD_MS + 1, State::Problem),
            (1_000, 0, State::Problem),
        ] {
            assert_eq!(judge_clock("clock.time", now, newest).state, state);
        }
    }

    /// More connections than files is a problem that names both ways out.
    #[test]
    fn connections_need_files() {
        let mut settings = Settings::default();
        settings.http.max_connections = 4_000_000_000;
        let finding = open_files(&settings);
        if finding.state == State::Problem {
            let advice = finding.advice.expect("there is something to do");
            assert!(advice.contains("LimitNOFILE") && advice.contains("http.max_connections"), "{advice}");
        }
    }
}
