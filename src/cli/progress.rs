//! How far a command is that takes long: one line that changes on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::admin_client::finish;
use super::ask::note;
use crate::http::admin::stream::{Frame, Frames};

/// Between two looks of the line on a terminal.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// Says on standard error how far a command is.
pub struct Line {
    what: &'static str,
    is_terminal: bool,
    begun: Instant,
    shown: Instant,
    /// How far it was last, where that was not shown: of a line on a terminal nothing stays, elsewhere the last one is to tell the
    /// end.
    untold: Option<(u64, u64)>,
    is_drawn: bool,
}

impl Line {
    /// About so many of `what`, a plural.
    pub fn new(what: &'static str) -> Line {
        let is_terminal = io::stderr().is_terminal();
        let begun = Instant::now();
        Line { what, is_terminal, begun, shown: begun, untold: None, is_drawn: false }
    }

    /// Says that `done` of `all` are done, unless something was said, or it was begun, a moment ago: what takes no time has no
    /// progress.
    pub fn show(&mut self, done: u64, all: u64) {
        let pause = if self.is_terminal { PAUSE } else { LONG_PAUSE };
        if self.shown.elapsed() < pause {
            self.untold = Some((done, all));
            return;
        }
        self.shown = Instant::now();
        self.untold = None;
        self.is_drawn = true;
        let told = self.told(done, all);
        if !self.is_terminal {
            return note([told]);
        }
        let mut stderr = io::stderr().lock();
        // A terminal that is gone hinders nobody.
        let _ = write!(stderr, "\r\x1b[K{told}").and_then(|()| stderr.flush());
    }

    fn told(&self, done: u64, all: u64) -> String {
        let rate = done as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        format!("{done} of {all} {}, {rate:.0}/s", self.what)
    }

    /// Shows how far a command of the server's is, frame by frame, and gives its answer. `of` says how much of how much a
    /// frame tells of.
    ///
    /// # Errors
    /// A sentence for the operator: the server's, or that it is gone.
    pub fn follow<T: DeserializeOwned>(
        &mut self,
        frames: &mut Frames,
        of: impl Fn(&T) -> (u64, u64),
    ) -> Result<T, String> {
        loop {
            match frames.receive() {
                Ok(Frame::Bytes(bytes)) => {
                    if let Ok(progress) = serde_json::from_slice(&bytes) {
                        let (done, all) = of(&progress);
                        self.show(done, all);
                    }
                }
                Ok(Frame::End | Frame::Aborted) => break,
                Err(error) => {
                    return Err(format!("the connection to the server is gone ({error}); run it again to go on"));
                }
            }
        }
        let answer = finish(frames).map_err(|error| error.to_string())?;
        serde_json::from_value(answer).map_err(|error| format!("the server's answer: {error}"))
    }

    /// Takes the line away; where lines stay, and one was written, the last one says how far it came.
    pub fn end(&mut self) {
        let untold = self.untold.take();
        if !std::mem::take(&mut self.is_drawn) {
            return;
        }
        if !self.is_terminal {
            return note(untold.map(|(done, all)| self.told(done, all)));
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
    }
}
