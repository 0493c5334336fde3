//! `keyward workspace …`: the tenants of this server (EXT-2).

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::ArgGroup;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ask::{Asked, Reach};
use super::values::{Name, OrNone, Slug, Whole, present};
use super::{EXIT_ERROR, fail, text};

/// Requests per minute a workspace may be limited to.
pub type Requests = Whole<0, 1_000_000_000_000>;
/// Days something may be kept: up to a hundred years.
pub type Days = Whole<1, 36_500>;
/// What can be counted in an hour.
pub type PerHour = Whole<0, 1_000_000_000>;
/// Bytes of memory of one query, up to 1 PiB.
pub type Bytes = Whole<1, { 1 << 50 }>;
/// Seconds one query may take: up to a day.
pub type Seconds = Whole<1, 86_400>;
/// Rows that one query may return.
pub type Rows = Whole<1, 1_000_000_000_000>;

/// `keyward workspace`.
#[derive(Debug, clap::Args)]
pub struct WorkspaceArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a workspace with a root key that may do everything in it
    Create(Asked<CreateWorkspace>),
    /// List the workspaces
    List(Asked<ListWorkspaces>),
    /// Show a workspace
    Get(Asked<OneWorkspace>),
    /// Change a workspace and its limits
    Update(Asked<UpdateWorkspace>),
    /// Delete a workspace; its root keys stop working at once. Asks first on a terminal, and only there
    Delete(DeleteArguments),
}

#[derive(Debug, clap::Args)]
struct DeleteArguments {
    #[command(flatten)]
    asked: Asked<OneWorkspace>,
    /// Do not ask. Without a terminal on standard input (a script, cron) it never asks
    #[arg(long)]
    yes: bool,
}

/// Arguments of `workspace.create`.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Its name, for people
    #[arg(long)]
    pub name: Name,
    /// A short unique name, by which commands also find it
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<Slug>,
}

/// Arguments of `workspace.list`: none.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListWorkspaces {}

/// Arguments of `workspace.get` and `workspace.delete`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneWorkspace {
    /// The workspace: id or slug
    #[arg(long, value_name = "WS")]
    pub workspace: String,
}

/// Arguments of `workspace.update`: what is absent stays as it is.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[command(group(ArgGroup::new("changes").required(true).multiple(true).args([
    "name", "enabled", "api_requests_per_minute", "logs_retention_days", "audit_retention_days", "queries_per_hour",
    "query_seconds_per_hour", "query_max_memory", "query_max_seconds", "query_max_rows",
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// The workspace: id or slug
    #[arg(long, value_name = "WS")]
    pub workspace: String,
    /// Its name, for people
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Whether its root keys are taken
    #[arg(long, value_name = "true|false")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Requests a minute over all its root keys; 0 refuses all, `none` is no limit
    #[arg(long, value_name = "N|none", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub api_requests_per_minute: Option<OrNone<Requests>>,
    /// Days that verification and rate-limit events are kept
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs_retention_days: Option<Days>,
    /// Days that audit events are kept
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_retention_days: Option<Days>,
    /// Analytics queries an hour
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries_per_hour: Option<PerHour>,
    /// Seconds of analytics queries an hour, all together
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_seconds_per_hour: Option<PerHour>,
    /// Bytes of memory one analytics query may take
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_max_memory: Option<Bytes>,
    /// Seconds one analytics query may take
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_max_seconds: Option<Seconds>,
    /// Rows one analytics query may return
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_max_rows: Option<Rows>,
}

/// Answer of `workspace.create`. The root key is shown here and never again.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedWorkspace {
    /// `ws_…`
    pub workspace_id: String,
    /// The plaintext.
    pub root_key: String,
}

/// Answer of `workspace.list`, in order of creation.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkspaceList {
    /// Every workspace that is not deleted.
    pub workspaces: Vec<WorkspaceShown>,
}

/// Answer of `workspace.get` and `workspace.update`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceShown {
    /// `ws_…`
    pub workspace_id: String,
    /// Its name.
    pub name: String,
    /// Its slug.
    pub slug: Option<String>,
    /// Whether its root keys are taken.
    pub enabled: bool,
    /// Unix ms.
    pub created_at: u64,
    /// What it may use.
    pub limits: LimitsShown,
}

/// The limits of a workspace, in the units of the flags that set them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "each is the flag of the same name")]
pub struct LimitsShown {
    pub api_requests_per_minute: Option<u64>,
    pub logs_retention_days: u32,
    pub audit_retention_days: u32,
    pub queries_per_hour: u32,
    pub query_seconds_per_hour: u32,
    pub query_max_memory: u64,
    pub query_max_seconds: u32,
    pub query_max_rows: u64,
}

/// Answer of `workspace.delete`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedWorkspace {
    /// `ws_…`
    pub workspace_id: String,
    /// Unix ms.
    pub deleted_at: u64,
}

impl WorkspaceShown {
    /// What `update` can change, for the audit log.
    pub fn changeable(&self) -> Map<String, Value> {
        let Value::Object(mut fields) = json!(self.limits) else { unreachable!("a struct is an object in JSON") };
        fields.insert("name".to_owned(), json!(self.name));
        fields.insert("enabled".to_owned(), json!(self.enabled));
        fields
    }

    fn text(&self) -> String {
        let limits = &self.limits;
        text::fields(&[
            ("workspace", self.workspace_id.clone()),
            ("name", self.name.clone()),
            ("slug", self.slug.clone().unwrap_or_else(|| "none".to_owned())),
            ("enabled", self.enabled.to_string()),
            ("created", text::time(self.created_at)),
            (
                "API requests per minute",
                limits.api_requests_per_minute.map_or("no limit".to_owned(), |n| n.to_string()),
            ),
            ("logs kept", format!("{} days", limits.logs_retention_days)),
            ("audit log kept", format!("{} days", limits.audit_retention_days)),
            ("queries per hour", limits.queries_per_hour.to_string()),
            ("query time per hour", format!("{} s", limits.query_seconds_per_hour)),
            ("memory of a query", format!("{} bytes", limits.query_max_memory)),
            ("time of a query", format!("{} s", limits.query_max_seconds)),
            ("rows a query may return", limits.query_max_rows.to_string()),
        ])
    }
}

/// Runs `keyward workspace`.
pub fn run(arguments: WorkspaceArguments) -> ExitCode {
    match arguments.action {
        Action::Create(asked) => asked.run("workspace.create", |made: &CreatedWorkspace| {
            let fields = [("workspace", made.workspace_id.clone()), ("root key", made.root_key.clone())];
            format!("{}The root key is not shown again.\n", text::fields(&fields))
        }),
        Action::List(asked) => asked.run("workspace.list", |list: &WorkspaceList| {
            text::table(
                ["id", "slug", "enabled", "created", "name"],
                list.workspaces.iter().map(|one| {
                    let slug = one.slug.clone().unwrap_or_else(|| "-".to_owned());
                    let created = text::time(one.created_at);
                    [one.workspace_id.clone(), slug, one.enabled.to_string(), created, one.name.clone()]
                }),
            )
        }),
        Action::Get(asked) => asked.run("workspace.get", WorkspaceShown::text),
        Action::Update(asked) => asked.run("workspace.update", WorkspaceShown::text),
        Action::Delete(asked) => delete(asked),
    }
}

fn delete(DeleteArguments { asked: Asked { mut ask, store }, yes }: DeleteArguments) -> ExitCode {
    let reach = match store.reach() {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    // On a terminal it asks; a script that says `workspace delete` means it (EXT-2).
    if !yes && io::stdin().is_terminal() {
        match confirmed(&reach, &ask) {
            // What was agreed to is deleted, even if the slug has moved on meanwhile.
            Ok(Some(workspace_id)) => ask.workspace = workspace_id,
            Ok(None) => return fail(EXIT_ERROR, ["nothing was deleted"]),
            Err(reason) => return fail(EXIT_ERROR, [reason]),
        }
    }
    reach.run("workspace.delete", &ask, |gone: &DeletedWorkspace| format!("deleted workspace {}\n", gone.workspace_id))
}

/// Asks on the terminal; the id of the workspace where the answer is yes.
fn confirmed(reach: &Reach, ask: &OneWorkspace) -> Result<Option<String>, String> {
    let found = reach.ask("workspace.get", ask)?.result;
    let found: WorkspaceShown =
        serde_json::from_value(found).map_err(|error| format!("the server's answer: {error}"))?;
    let name = text::printable(&found.name);
    let mut stderr = io::stderr().lock();
    // Where the question cannot be printed there will be no answer to it either.
    let _ = write!(
        stderr,
        "Delete workspace {} ({name})? All its root keys stop working at once, and it cannot be brought back. [y/N] ",
        found.workspace_id
    );
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| format!("cannot read the answer: {error}"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes").then_some(found.workspace_id))
}
