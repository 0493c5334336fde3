//! The command line. clap stays in this folder: everything else gets plain types.
//!
//! Exit codes: 0 for success, 1 for an error, 2 for wrong usage (unknown flags, settings that are refused), 3 for a server
//! that could not be reached.
//! Answers go to standard output, errors and logs to standard error.

pub mod access;
pub mod admin_client;
pub mod api;
pub mod ask;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod config;
pub mod doctor;
pub mod events;
pub mod import;
pub mod operator;
pub mod pepper;
mod permission_hints;
mod progress;
pub mod restore;
pub mod promote;
pub mod root_key;
pub mod serve;
mod setting_flags;
pub mod shell;
pub mod status;
pub mod support_bundle;
mod text;
pub mod tls;
mod values;
pub mod vault;
pub mod verify_data;
pub mod workspace;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use setting_flags::SettingFlags;

use crate::config::{CONFIG_VARIABLE, ConfigError, Reading, Typed, reads_variable};
use crate::named_file;

/// Bytes of a settings file: all settings with their meanings have some ten thousand.
const SETTINGS_BYTES_MAX: u64 = 1024 * 1024;
/// Something failed.
pub const EXIT_ERROR: u8 = 1;
/// The command line or the settings are wrong.
pub const EXIT_USAGE: u8 = 2;
/// No server answered where one was looked for, so nothing was asked.
pub const EXIT_UNREACHABLE: u8 = 3;

#[derive(Debug, Parser)]
#[command(
    name = "keyward",
    version,
    about,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 success, 1 error, 2 wrong usage or refused settings, 3 no server reached (api, auth, import)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What the program was asked to do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the server
    Serve(serve::ServeArguments),
    /// Say how the server is
    Status(status::StatusArguments),
    /// Check and show the settings
    Config(config::ConfigArguments),
    /// Make, show, change and delete workspaces
    Workspace(workspace::WorkspaceArguments),
    /// Make, show, change and revoke root keys
    RootKey(root_key::RootKeyArguments),
    /// Add events from files, and write them to files
    Events(events::EventsArguments),
    /// Take keys over from Unkey or another system
    Import(import::ImportArguments),
    /// Look after the vault: what recoverable keys are encrypted with
    Vault(vault::VaultArguments),
    /// Look after the pepper: what stored hashes of keys are keyed with
    Pepper(pepper::PepperArguments),
    /// Make this node the leader, where the one it followed is gone
    Promote(promote::PromoteArguments),
    /// Verify and export the audit trail
    Audit(audit::AuditArguments),
    /// Write all data, as of one moment, into a directory or an archive
    Backup(backup::BackupArguments),
    /// Make a data directory from a backup
    Restore(restore::RestoreArguments),
    /// Say whether a data directory or a backup is whole, and what to do where it is not
    VerifyData(verify_data::VerifyDataArguments),
    /// Make certificates, and show what they say
    Tls(tls::TlsArguments),
    /// Look whether this machine and these settings are fit for the server, and say what to do
    Doctor(doctor::DoctorArguments),
    /// Gather what helps to find out what is wrong, without secrets, into one archive
    SupportBundle(support_bundle::SupportBundleArguments),
    /// Call an operation of the API
    Api(api::ApiArguments),
    /// Store and check the root key that `keyward api` uses
    Auth(auth::AuthArguments),
    /// Print a shell's completion script
    Completions(shell::CompletionsArguments),
    /// Print or write manual pages
    Man(shell::ManArguments),
}

/// The tree of all commands.
pub fn tree() -> clap::Command {
    Arguments::command()
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

/// Where a command finds its settings.
#[derive(Debug, Clone, clap::Args)]
pub struct SettingsArguments {
    /// Settings file; config/keyward.toml lists all settings [env: KEYWARD_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where all data lives, made at the first start [default: ./keyward-data] [env: KEYWARD_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
}

impl SettingsArguments {
    /// Puts together what was typed: flags, this process's environment, the settings file.
    #[expect(clippy::disallowed_methods, reason = "settings are read here, once")]
    fn read_with(self, flags: Flags) -> Result<Reading, ConfigError> {
        let Flags { listen, test_mode, secrets, pepper, settings: SettingFlags(flags) } = flags;
        let listen = (!listen.is_empty()).then(|| listen.join(","));
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            if reads_variable(&name) {
                let value = utf8(&format!("the environment variable {name}"), value)?;
                environment.push((name, value));
            }
        }
        let named = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|(_, value)| value.into());
        let file = self.config.or(named).map(|path| read_file(&path)).transpose()?;
        let data_dir = self.data_dir.map(|dir| utf8("the flag --data-dir", dir)).transpose()?;
        let master_key_file =
            secrets.master_key_file.map(|path| utf8("the flag --master-key-file", path)).transpose()?;
        let pepper_file = pepper.pepper_file.map(|path| utf8("the flag --pepper-file", path)).transpose()?;
        let credentials_dir = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let typed = Typed {
            file,
            environment,
            data_dir,
            listen,
            test_mode,
            master_key_file,
            pepper_file,
            flags,
            credentials_dir,
        };
        typed.read()
    }
}

/// Flags that stand for settings, of the commands that have them.
#[derive(Debug, Default)]
struct Flags {
    listen: Vec<String>,
    test_mode: bool,
    secrets: SecretsArguments,
    pepper: PepperFileArguments,
    settings: SettingFlags,
}

/// Where a command finds secrets that are not in the data directory.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SecretsArguments {
    /// File of the master key, under which recoverable keys are encrypted; see `keyward vault` [env: KEYWARD_MASTER_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<OsString>,
}

/// Where a command that opens the data directory finds the pepper.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PepperFileArguments {
    /// File of the pepper, with which stored hashes of keys are keyed; see `keyward pepper` [env: KEYWARD_PEPPER_FILE]
    #[arg(long, value_name = "FILE")]
    pepper_file: Option<OsString>,
}

fn utf8(what: &str, text: OsString) -> Result<String, ConfigError> {
    text.into_string().map_err(|_| ConfigError(vec![format!("{what} is not UTF-8; use a name that is")]))
}

fn read_file(path: &Path) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    match named_file::read_text(path, SETTINGS_BYTES_MAX) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(ConfigError(vec![format!("cannot read the settings file {name}: {error}")])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(arguments: &[&str]) -> String {
        let arguments = ["keyward"].iter().chain(arguments);
        Arguments::try_parse_from(arguments).expect_err("must be refused").to_string()
    }

    /// A negative number is a number out of bounds, not a flag nobody knows; a flag is not taken for a value.
    #[test]
    fn numbers_out_of_bounds_are_told_their_bounds() {
        let update = ["workspace", "update", "--workspace", "default"];
        for (flag, bounds) in [
            ("--api-requests-per-minute", "from 0 to 1000000000000, or `none`"),
            ("--logs-retention-days", "from 1 to 36500"),
            ("--query-max-memory", "from 1 to 1125899906842624"),
            ("--query-max-rows", "from 1 to 1000000000000"),
        ] {
            let told = refusal(&[&update[..], &[flag, "-1"]].concat());
            assert!(told.contains(flag) && told.contains(bounds), "{told}");
            let told = refusal(&[&update[..], &[flag, "--name", "x"]].concat());
            assert!(told.contains("a value is required"), "{told}");
        }
        let told = refusal(&["root-key", "create", "--workspace", "default", "--name", "k", "--expires", "-5"]);
        assert!(told.contains("from 0 to 253402300799999"), "{told}");
    }
}
