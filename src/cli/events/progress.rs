//! One line on a terminal that says how far a long command is; nothing where nobody looks.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two looks of the line.
const PAUSE: Duration = Duration::from_millis(200);
/// Moves to the line's begin and clears it.
const CLEAR: &str = "\r\x1b[K";
/// Cells of the bar.
const BAR: u64 = 24;

/// How far a command is.
pub struct Progress {
    /// Bytes of everything, where that is known.
    total: Option<u64>,
    begun: Instant,
    /// `None` where standard error is no terminal.
    shown: Option<Instant>,
    is_drawn: bool,
}

impl Progress {
    /// Begins now.
    pub fn new(total: Option<u64>) -> Progress {
        let begun = Instant::now();
        Progress { total, begun, shown: io::stderr().is_terminal().then_some(begun), is_drawn: false }
    }

    /// Shows how far it is, from time to time.
    pub fn show(&mut self, rows: u64, bytes: u64) {
        if self.shown.is_none_or(|shown| shown.elapsed() < PAUSE) {
            return;
        }
        self.shown = Some(Instant::now());
        self.is_drawn = true;
        let line = line(rows, bytes, self.total, self.begun.elapsed());
        let mut stderr = io::stderr().lock();
        // A terminal that is gone hinders nobody.
        let _ = write!(stderr, "{CLEAR}{line}").and_then(|()| stderr.flush());
    }

    /// Takes the line away.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{CLEAR}").and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// `[######------] 1234567 rows, 45.6 MB/s, 12 s left`
fn line(rows: u64, bytes: u64, total: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = bytes as f64 / seconds;
    let told = format!("{rows} rows, {:.1} MB/s", rate / 1e6);
    match total.filter(|total| *total > 0 && bytes > 0) {
        None => told,
        Some(total) => {
            let done = bytes.min(total);
            let filled = usize::try_from(BAR * done / total).unwrap_or(0);
            let bar = format!("{}{}", "#".repeat(filled), "-".repeat(BAR as usize - filled));
            format!("[{bar}] {told}, {:.0} s left", (total - done) as f64 / rate)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_long() {
        let ten = Duration::from_secs(10);
        assert_eq!(
            line(250_000, 50_000_000, Some(200_000_000), ten),
            "[######------------------] 250000 rows, 5.0 MB/s, 30 s left"
        );
        assert_eq!(line(7, 1_000, None, ten), "7 rows, 0.0 MB/s");
        assert_eq!(line(7, 3, Some(2), ten), "[########################] 7 rows, 0.0 MB/s, 0 s left");
    }
}
