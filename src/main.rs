//! The program: read the command line, match on the command, exit code.

use std::process::ExitCode;

use keyward::cli::{self, Command};

/// See `allocator.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyward::allocator::keep_freed_memory();
    keyward::telemetry::log_panics();
    match cli::parse(std::env::args_os()) {
        Ok(Command::Serve(arguments)) => cli::serve::run(arguments),
        Ok(Command::Status(arguments)) => cli::status::run(arguments),
        Ok(Command::Config(arguments)) => cli::config::run(arguments),
        Ok(Command::Workspace(arguments)) => cli::workspace::run(arguments),
        Ok(Command::RootKey(arguments)) => cli::root_key::run(arguments),
        Ok(Command::Events(arguments)) => cli::events::run(arguments),
        Ok(Command::Import(arguments)) => cli::import::run(arguments),
        Ok(Command::Vault(arguments)) => cli::vault::run(arguments),
        Ok(Command::Pepper(arguments)) => cli::pepper::run(arguments),
        Ok(Command::Promote(arguments)) => cli::promote::run(arguments),
        Ok(Command::Audit(arguments)) => cli::audit::run(arguments),
        Ok(Command::Backup(arguments)) => cli::backup::run(arguments),
        Ok(Command::Restore(arguments)) => cli::restore::run(arguments),
        Ok(Command::VerifyData(arguments)) => cli::verify_data::run(arguments),
        Ok(Command::Tls(arguments)) => cli::tls::run(arguments),
        Ok(Command::Doctor(arguments)) => cli::doctor::run(arguments),
        Ok(Command::SupportBundle(arguments)) => cli::support_bundle::run(arguments),
        Ok(Command::Api(arguments)) => cli::api::run(arguments),
        Ok(Command::Auth(arguments)) => cli::auth::run(arguments),
        Ok(Command::Completions(arguments)) => cli::shell::completions(&arguments, cli::tree()),
        Ok(Command::Man(arguments)) => cli::shell::man(&arguments, cli::tree()),
        Err(answered) => answered,
    }
}
