//! `keyward vault …`: what recoverable keys are encrypted with (EXT-6).

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Output, Reach, StoreArguments, Way, note, print_answer};
use super::operator;
use super::progress::Line;
use super::{EXIT_ERROR, SecretsArguments, fail, text};
use crate::http::admin::Operator;
use crate::outside::Outside;
use crate::vault;

/// Data keys that a text lists; `--output json` lists all.
const LISTED_MAX: usize = 50;

/// `keyward vault`.
#[derive(Debug, clap::Args)]
pub struct VaultArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print a new master key
    #[command(after_help = GENERATE_HELP)]
    GenerateKey(GenerateArguments),
    /// Show master keys and data keys, what is under them, and what may be taken away
    Status(VaultStore),
    /// Wrap all data keys with the current master key, make new ones, and encrypt all copies anew
    #[command(after_help = ROTATE_HELP)]
    Rotate(VaultStore),
}

const GENERATE_HELP: &str = "Keep it where no backup of the data directory goes, and keep a copy of it: without it no \
    plaintext of a recoverable key can be read again, though all keys go on to verify.\n\n\
    (umask 077; keyward vault generate-key > /etc/keyward/master.key)\n\
    keyward serve --master-key-file /etc/keyward/master.key";
const ROTATE_HELP: &str = "To exchange the master key: put a new one before the old one in its file (one a line, the first \
    encrypts), restart the server, run this command, and take the old one out when `keyward vault status` calls it removable. \
    Verifications and changes go on meanwhile. A rotation that is interrupted, in whatever way, goes on where it was when this \
    is run again. A backup from before is readable with the old master key still.";

#[derive(Debug, clap::Args)]
struct GenerateArguments {
    /// What to print: the key alone, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct VaultStore {
    #[command(flatten)]
    secrets: SecretsArguments,
    #[command(flatten)]
    store: StoreArguments,
}

/// Arguments of `vault.status` and `vault.rotate`: none.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// Answer of `vault.status`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultStatus {
    /// Whether keys can be made recoverable.
    pub is_set_up: bool,
    /// Where the configured master keys are.
    pub source: Option<String>,
    /// Master keys, configured ones first and in their order.
    pub master_keys: Vec<MasterKeyShown>,
    /// Data keys, in the order of workspaces.
    pub data_keys: Vec<DataKeyShown>,
    /// Encrypted copies in all.
    pub copies: u64,
    /// Copies whose data key is gone.
    pub copies_without_data_key: u64,
    /// The newest rotation.
    pub rotation: Option<RotationShown>,
    /// Copies that could not be opened since the start of the server; 0 where none runs.
    pub decryption_failures: u64,
}

/// A master key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterKeyShown {
    /// `mk_…`: what names it, and tells nothing of it.
    pub fingerprint: String,
    /// Whether it is configured.
    pub configured: bool,
    /// Whether it wraps new data keys.
    pub current: bool,
    /// Data keys it wraps.
    pub data_keys: u64,
    /// Copies under these.
    pub copies: u64,
    /// Whether nothing needs it any more.
    pub removable: bool,
}

/// A data key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyShown {
    /// `dek_…`
    pub data_key_id: String,
    /// `ws_…`
    pub workspace_id: Option<String>,
    /// Fingerprint of the master key that wraps it.
    pub master_key: String,
    /// Whether new copies go under it.
    pub current: bool,
    /// Copies under it.
    pub copies: u64,
    /// Unix ms.
    pub created_at: u64,
}

/// A rotation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationShown {
    /// Its number.
    pub number: u64,
    /// Unix ms.
    pub begun_at: u64,
    /// Unix ms; absent while something is left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
}

/// How far a rotation is, and at its end its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    /// Copies there were when it began or went on.
    pub copies: u64,
    /// Copies looked at.
    pub seen: u64,
    /// Copies that are under another data key than before.
    pub moved: u64,
    /// Data keys that were wrapped anew.
    pub data_keys_wrapped: u64,
    /// Workspaces that are done.
    pub workspaces: u64,
    /// Copies that could not be opened, and stay as they are.
    pub unopened: u64,
    /// Data keys that could not be unwrapped, and stay as they are.
    pub lost_data_keys: u64,
    /// Whether it went on with one that was interrupted.
    pub resumed: bool,
}

/// Runs `keyward vault`.
pub fn run(arguments: VaultArguments) -> ExitCode {
    match arguments.action {
        Action::GenerateKey(GenerateArguments { output }) => generate(output),
        Action::Status(VaultStore { secrets, store }) => match store.reach_with(secrets) {
            Ok(reach) => reach.run("vault.status", &NoArguments {}, VaultStatus::text),
            Err(answered) => answered,
        },
        Action::Rotate(VaultStore { secrets, store }) => {
            let output = store.output();
            match store.reach_with(secrets) {
                Ok(reach) => answer_rotation(output, rotate(&reach)),
                Err(answered) => answered,
            }
        }
    }
}

fn generate(output: Output) -> ExitCode {
    let key = vault::generate(&Outside::system().entropy);
    let answer = match output {
        Output::Text => zeroize::Zeroizing::new(format!("{}\n", *key)),
        Output::Json => zeroize::Zeroizing::new(format!("{}\n", json!({ "masterKey": *key }))),
    };
    print_answer(answer.as_bytes())
}

/// Rotates where the store is.
fn rotate(reach: &Reach) -> Result<Rotated, String> {
    let mut line = Line::new("copies");
    let outcome = match reach.begin("vault.rotate", &NoArguments {})? {
        Way::Server(mut frames, _) => line.follow(&mut frames, |progress: &Rotated| (progress.seen, progress.copies)),
        Way::Directory(services) => {
            let done = operator::vault::rotate(&services, &Operator::current(), &mut |progress| {
                line.show(progress.seen, progress.copies);
                Ok(())
            });
            services.shutdown();
            done
        }
    };
    line.end();
    outcome
}

fn answer_rotation(output: Output, outcome: Result<Rotated, String>) -> ExitCode {
    let rotated = match outcome {
        Ok(rotated) => rotated,
        Err(reason) => return fail(EXIT_ERROR, [reason]),
    };
    if rotated.unopened > 0 || rotated.lost_data_keys > 0 {
        note([format!(
            "warning: {} copies could not be opened and {} data keys not be unwrapped; they stay as they are, and `keyward vault \
             status` names the master keys that are missing",
            rotated.unopened, rotated.lost_data_keys
        )]);
    }
    let answer = match output {
        Output::Json => format!("{}\n", json!(rotated)),
        Output::Text => text::fields(&[
            ("copies encrypted anew", rotated.moved.to_string()),
            ("data keys wrapped anew", rotated.data_keys_wrapped.to_string()),
            ("workspaces", rotated.workspaces.to_string()),
            ("went on with an interrupted one", rotated.resumed.to_string()),
        ]),
    };
    print_answer(answer.as_bytes())
}

impl VaultStatus {
    fn text(&self) -> String {
        let mut told = text::fields(&[
            ("vault", if self.is_set_up { "set up".to_owned() } else { "no master key is configured".to_owned() }),
            ("master keys from", self.source.clone().unwrap_or_else(|| "nowhere".to_owned())),
            ("encrypted copies", self.copies.to_string()),
            ("of these without data key", self.copies_without_data_key.to_string()),
            ("failed decryptions since start", self.decryption_failures.to_string()),
            (
                "last rotation",
                match &self.rotation {
                    None => "none".to_owned(),
                    Some(RotationShown { ended_at: Some(at), .. }) => format!("ended {}", text::time(*at)),
                    Some(RotationShown { begun_at, .. }) => format!(
                        "begun {} and not ended; run `keyward vault rotate` to go on with it, unless it runs now",
                        text::time(*begun_at)
                    ),
                },
            ),
        ]);
        if !self.master_keys.is_empty() {
            told.push('\n');
            told.push_str(&text::table(
                ["master key", "data keys", "copies", "state"],
                self.master_keys.iter().map(|key| {
                    let state = match (key.configured, key.current, key.removable) {
                        (false, ..) => "missing: its copies cannot be read; configure it behind the current one",
                        (_, true, _) => "current",
                        (_, _, true) => "can be removed now",
                        _ => "still needed; run `keyward vault rotate`",
                    };
                    [key.fingerprint.clone(), key.data_keys.to_string(), key.copies.to_string(), state.to_owned()]
                }),
            ));
        }
        if !self.data_keys.is_empty() {
            told.push('\n');
            told.push_str(&text::table(
                ["data key", "workspace", "master key", "copies", "created", "current"],
                self.data_keys.iter().take(LISTED_MAX).map(|key| {
                    [
                        key.data_key_id.clone(),
                        key.workspace_id.clone().unwrap_or_else(|| "-".to_owned()),
                        key.master_key.clone(),
                        key.copies.to_string(),
                        text::time(key.created_at),
                        key.current.to_string(),
                    ]
                }),
            ));
            if self.data_keys.len() > LISTED_MAX {
                told.push_str(&format!("and {} more; --output json lists all\n", self.data_keys.len() - LISTED_MAX));
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text says of each master key what to do about it.
    #[test]
    fn a_status_tells_what_to_do() {
        let key = |fingerprint: &str, configured, current, data_keys| MasterKeyShown {
            fingerprint: fingerprint.to_owned(),
            configured,
            current,
            data_keys,
            copies: 0,
            removable: configured && !current && data_keys == 0,
        };
        let status = VaultStatus {
            is_set_up: true,
            source: Some("the file /etc/keyward/master.key".to_owned()),
            master_keys: vec![
                key("mk_1", true, true, 1),
                key("mk_2", true, false, 1),
                key("mk_3", true, false, 0),
                key("mk_4", false, false, 1),
            ],
            data_keys: (0..60)
                .map(|n| DataKeyShown {
                    data_key_id: format!("dek_{n}"),
                    workspace_id: None,
                    master_key: "mk_1".to_owned(),
                    current: true,
                    copies: 1,
                    created_at: 0,
                })
                .collect(),
            copies: 60,
            copies_without_data_key: 0,
            rotation: Some(RotationShown { number: 1, begun_at: 0, ended_at: None }),
            decryption_failures: 0,
        };
        let told = status.text();
        let state = |key: &str| {
            told.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {told}")).to_owned()
        };
        for (key, wanted) in
            [("mk_1", "current"), ("mk_2", "still needed"), ("mk_3", "can be removed now"), ("mk_4", "missing")]
        {
            assert!(state(key).contains(wanted), "{told}");
        }
        assert!(told.contains("and 10 more") && told.contains("not ended"), "{told}");
        let read = json!(status);
        assert_eq!(read["masterKeys"][2]["removable"], true);
    }
}
