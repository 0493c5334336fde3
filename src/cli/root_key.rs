//! `keyward root-key …`: the credentials that administer a workspace (EXT-3).

use std::process::ExitCode;

use clap::ArgGroup;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ask::{Asked, Output, note};
use super::text;
use super::values::{Name, OrNone, Permission, Time, present};

/// `keyward root-key`.
#[derive(Debug, clap::Args)]
pub struct RootKeyArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a root key; its secret is printed this once
    Create(Asked<CreateRootKey>),
    /// List the root keys of a workspace
    List(Asked<ListRootKeys>),
    /// Show a root key, without its secret
    Get(Asked<OneRootKey>),
    /// Change a root key
    Update(Asked<UpdateRootKey>),
    /// Revoke a root key; it stops working at once, for good
    Revoke(Asked<OneRootKey>),
}

/// Arguments of `root-key.create`.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRootKey {
    /// The workspace it administers: id or slug
    #[arg(long, value_name = "WS")]
    pub workspace: String,
    /// Its name, for people and the audit log
    #[arg(long)]
    pub name: Name,
    /// What it may do, such as api.*.create_key or unkey:v1:WORKSPACE-ID:**#*; may be repeated
    #[arg(long = "permission", value_name = "P")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    /// When it expires, in Unix milliseconds
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// Arguments of `root-key.list`.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListRootKeys {
    /// The workspace: id or slug
    #[arg(long, value_name = "WS")]
    pub workspace: String,
}

/// Arguments of `root-key.get` and `root-key.revoke`.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneRootKey {
    /// Its id
    #[arg(long)]
    pub key_id: String,
    /// The workspace it must belong to: id or slug
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// Arguments of `root-key.update`: what is absent stays as it is.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[command(group(ArgGroup::new("changes").required(true).multiple(true).args([
    "name", "permissions", "add_permissions", "clear_permissions", "enabled", "expires",
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateRootKey {
    /// Its id
    #[arg(long)]
    pub key_id: String,
    /// The workspace it must belong to: id or slug
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Its name
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it may do from now on, in place of all it could do before; may be repeated
    #[arg(long = "permission", value_name = "P")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    /// What it may do beside all it could do before; may be repeated
    #[arg(long = "add-permission", value_name = "P", conflicts_with = "permissions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_permissions: Vec<Permission>,
    /// Take all permissions away
    #[arg(long, conflicts_with_all = ["permissions", "add_permissions"])]
    #[serde(default)]
    pub clear_permissions: bool,
    /// Whether it is taken
    #[arg(long, value_name = "true|false")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// When it expires, in Unix milliseconds; `none` for never
    #[arg(long, value_name = "MS|none", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub expires: Option<OrNone<Time>>,
}

/// Answer of `root-key.create`. The key is shown here and never again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedRootKey {
    /// `key_…`
    pub key_id: String,
    /// The plaintext.
    pub key: String,
}

/// Answer of `root-key.list`, in order of creation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootKeyList {
    /// Every root key of the workspace that is not revoked.
    pub root_keys: Vec<RootKeyShown>,
}

/// Answer of `root-key.get` and `root-key.update`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootKeyShown {
    /// `key_…`
    pub key_id: String,
    /// The workspace it administers.
    pub workspace_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Its first characters, by which people tell keys apart (KEYFMT-5).
    pub start: String,
    /// Its last characters; absent for a key the operator chose.
    pub end: Option<String>,
    /// What it may do, sorted.
    pub permissions: Vec<String>,
    /// Whether it is taken.
    pub enabled: bool,
    /// Unix ms after which it is refused.
    pub expires: Option<u64>,
    /// Unix ms.
    pub created_at: u64,
    /// Unix ms of its last change.
    pub updated_at: Option<u64>,
}

/// Answer of `root-key.revoke`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevokedRootKey {
    /// `key_…`
    pub key_id: String,
    /// Unix ms.
    pub revoked_at: u64,
}

impl RootKeyShown {
    /// What `update` can change, for the audit log.
    pub fn changeable(&self) -> Map<String, Value> {
        [
            ("name", json!(self.name)),
            ("permissions", json!(self.permissions)),
            ("enabled", json!(self.enabled)),
            ("expires", json!(self.expires)),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    fn text(&self) -> String {
        let never = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), text::time);
        let mut fields = vec![
            ("root key", self.key_id.clone()),
            ("name", self.name.clone().unwrap_or_default()),
            ("workspace", self.workspace_id.clone()),
            ("secret", format!("{}…{}", self.start, self.end.as_deref().unwrap_or_default())),
            ("enabled", self.enabled.to_string()),
            ("expires", never(self.expires)),
            ("created", text::time(self.created_at)),
            ("updated", never(self.updated_at)),
        ];
        if self.permissions.is_empty() {
            fields.push(("permissions", "none".to_owned()));
        }
        for (position, permission) in self.permissions.iter().enumerate() {
            fields.push((if position == 0 { "permissions" } else { "" }, permission.clone()));
        }
        text::fields(&fields)
    }
}

/// Runs `keyward root-key`.
pub fn run(arguments: RootKeyArguments) -> ExitCode {
    match arguments.action {
        Action::Create(asked) => {
            if asked.ask.permissions.is_empty() && asked.store.output() == Output::Text {
                note(["note: this root key may do nothing until `keyward root-key update` gives it a --permission"]);
            }
            asked.run("root-key.create", |made: &CreatedRootKey| {
                let fields = [("root key", made.key_id.clone()), ("secret", made.key.clone())];
                format!("{}The secret is not shown again.\n", text::fields(&fields))
            })
        }
        Action::List(asked) => asked.run("root-key.list", |list: &RootKeyList| {
            text::table(
                ["id", "secret", "enabled", "expires", "permissions", "name"],
                list.root_keys.iter().map(|one| {
                    [
                        one.key_id.clone(),
                        format!("{}…{}", one.start, one.end.as_deref().unwrap_or_default()),
                        one.enabled.to_string(),
                        one.expires.map_or_else(|| "never".to_owned(), text::time),
                        one.permissions.len().to_string(),
                        one.name.clone().unwrap_or_default(),
                    ]
                }),
            )
        }),
        Action::Get(asked) => asked.run("root-key.get", RootKeyShown::text),
        Action::Update(asked) => asked.run("root-key.update", RootKeyShown::text),
        Action::Revoke(asked) => {
            asked.run("root-key.revoke", |gone: &RevokedRootKey| format!("revoked root key {}\n", gone.key_id))
        }
    }
}
