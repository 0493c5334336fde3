//! rootKeys.createKey: make a root key that may do no more than its maker.

use keyward_storage::records::root_key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Caller, Ceiling, Name, Permissions, check_name, permissions, root_key_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, Opt, Patch, Secret, Text};
use crate::rbac::Need;
use crate::tenants::{NewRootKey, TIME_MAX};

/// The latest expiry, Unix ms.
const EXPIRES_MAX: i64 = TIME_MAX as i64;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// What it may do: `api.*.verify_key`, `unkey:v1:<workspaceId>:keyspaces/*#create_key`. The caller must hold each one
    /// itself, or one that covers it.
    permissions: Permissions,
    /// A name for people and for the audit log.
    #[serde(default)]
    name: Opt<Name>,
    /// Unix milliseconds after which it is refused, in the future; null or absent = never. No later than the caller's own.
    #[serde(default)]
    expires: Patch<Int<0, EXPIRES_MAX>>,
}

/// The new root key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    key_id: String,
    /// Its plaintext, shown this once.
    key: Secret,
}

/// rootKeys.createKey.
pub struct CreateKey;

impl Operation for CreateKey {
    const NAME: &'static str = "rootKeys.createKey";
    const SUMMARY: &'static str = "Create a root key";
    const DESCRIPTION: &'static str = "Makes a root key for the caller's workspace and returns its plaintext, which is \
        stored nowhere and cannot be shown again. It works at once.\n\nA root key can grant only what it holds itself or \
        what a permission of its own covers (`api.*.read_key` covers `api.<apiId>.read_key`, a resource name what lies \
        below it), and no longer than it lives itself: anything else is 403.";
    const ALLOWS: &'static [&'static str] = &["root_key.*.create_root_key", "unkey:v1:<workspaceId>:rootKeys/*#write"];
    const FAILS: &'static [Code] = &[];
    const AUDITS: &'static [&'static str] = &["root_key.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let need = [Need::tuple("root_key", "*", "create_root_key"), Need::urn(&["rootKeys", "*"], "write")];
        let granted = call.authorize(&Need::Any(&need))?;
        if let Some(name) = ask.name.as_deref() {
            check_name(name)?;
        }
        let expires = ask.expires.map(Int::get_unsigned).apply(None);
        if expires.is_some_and(|at| at <= call.now) {
            return Err(Problem::invalid("`expires` is in the past. It is a time in Unix milliseconds."));
        }
        let permissions = permissions(ask.permissions)?;
        let name = ask.name.map(Text::into_string);
        let key = NewRootKey::generate(name, permissions, expires, &call.services().outside.entropy);
        let response = Response { key_id: key.id.to_string(), key: Secret::new(&*key.minted.plaintext) };
        let caller = Caller::of(&call);
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            let ceiling = Ceiling::of(change, &caller)?;
            let id = key.id;
            let row = key.into_row(change.tx, change.workspace(), change.now())?;
            ceiling.covers(&row.permissions)?;
            ceiling.outlives(row.expires)?;
            root_key::put(change.tx, id, &row)?;
            change.audit("root_key.create", format!("Created root key {id}"), vec![root_key_target(id, &row)]);
            Ok(())
        });
        made.await?;
        Ok(response)
    }
}
