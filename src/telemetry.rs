//! Operational logs: where they go, in which form, and how a panic gets into them.
//!
//! Logs are for the operator and go to standard error. They never hold a secret, an `Authorization` value or a body
//! (COM-LOG-07).

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogFormat, LogLevel};

/// The crates whose lines are written down to the chosen level. Others, such as the HTTP library, are heard from `warn`
/// up, and from `debug` up where everything is asked for.
const OURS: &[&str] = &["keyward", "keyward_storage", "keyward_query"];

/// The least important lines that are written, which can change while the program runs.
#[derive(Clone)]
pub struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Writes the lines of this level, and the more important ones, from now on.
    pub fn set(&self, log: &Log) {
        // Fails only where no subscriber is left.
        let _ = self.0.reload(targets(log.level));
    }
}

/// What is written at a level.
fn targets(level: LogLevel) -> Targets {
    use tracing::Level;
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let others = if level == Level::TRACE { Level::DEBUG } else { level.min(Level::WARN) };
    OURS.iter().fold(Targets::new().with_default(LevelFilter::from_level(others)), |targets, ours| {
        targets.with_target(*ours, level)
    })
}

/// Starts logging. A second call, as tests in one process make, changes nothing.
///
/// `no_colour` is whether the user asked for plain text although standard error is a terminal (<https://no-color.org>).
pub fn start(log: &Log, no_colour: bool) -> Level {
    let (targets, level) = reload::Layer::new(targets(log.level));
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal() && !no_colour).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Fails only where a subscriber is in place already.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    Level(level)
}

/// Makes a panic one line of the log, with its place, in place of the default text.
///
/// A panic in a handler is caught by the HTTP layer, which answers 500; this is what tells the operator where it was.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        if tracing::event_enabled!(tracing::Level::ERROR) {
            tracing::error!(panic = message, place, "a bug: the program panicked");
        } else {
            // Logging has not started, or the log is off: standard error is all there is, and it may be gone too.
            let _ = writeln!(io::stderr(), "keyward: a bug: panic at {place}: {message}");
        }
    }));
}

/// An error with what caused it, on one line, for a log or an operator.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
