//! The command line. clap stays in this folder: everything else gets plain types.
//!
//! Exit codes: 0 for success, 1 for an error, 2 for wrong usage (unknown flags, settings that are refused).
//! Answers go to standard output, errors and logs to standard error.

pub mod admin_client;
pub mod serve;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

/// Something failed.
pub const EXIT_ERROR: u8 = 1;
/// The command line or the settings are wrong.
pub const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "keyward", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What the program was asked to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::ServeArguments),
}

/// Reads the command line. `Err` is an exit code: help, the version or the reason for a refusal has been printed.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    Arguments::try_parse_from(arguments).map(|arguments| arguments.command).map_err(|error| {
        // The reader may be gone (`keyward --help | head -1`); there is nobody to tell.
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
    })
}

/// Prints why a command failed, one line a reason, and gives its exit code.
pub fn fail(code: u8, reasons: impl IntoIterator<Item = impl AsRef<str>>) -> ExitCode {
    let mut stderr = io::stderr().lock();
    for reason in reasons {
        // Standard error may be closed; the exit code still tells.
        let _ = writeln!(stderr, "keyward: {}", reason.as_ref());
    }
    ExitCode::from(code)
}
