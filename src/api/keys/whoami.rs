//! keys.whoami: a key by its plaintext.

use keyward_storage::records::key;
use schemars::JsonSchema;
use serde::Deserialize;

use super::get_key::object;
use super::key_object::KeyObject;
use super::{live, not_found};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::SecretText;
use crate::secret;

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key itself.
    key: SecretText<1, 512>,
}

/// keys.whoami.
pub struct Whoami;

impl Operation for Whoami {
    const NAME: &'static str = "keys.whoami";
    const SUMMARY: &'static str = "Get a key by its plaintext";
    const DESCRIPTION: &'static str = "Returns what keys.getKey returns, for whoever holds the key instead of its id. \
        Nothing is counted or spent, and disabled and expired keys are shown too.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "api.*.read_key",
        "api.<apiId>.read_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#read_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound];
    const AUDITS: &'static [&'static str] = &["key.update"];
    type Request = Request;
    type Response = KeyObject;

    async fn run(call: Call, ask: Request) -> Result<KeyObject, Problem> {
        let digest = secret::digest(ask.key.expose_secret());
        let workspace = call.workspace();
        let found = call.read("key", move |storage| {
            let snapshot = storage.snapshot()?;
            match key::find(&snapshot, workspace, &digest)? {
                Some(id) => live(&snapshot, workspace, id),
                None => Ok(None),
            }
        });
        let found = found.await?.ok_or_else(not_found)?;
        // A key one may not read looks like one that does not exist, byte for byte (KEYS-WHOAMI-3).
        if !found.need("read_key", |need| call.may(need).is_some()) {
            return Err(not_found());
        }
        object(&call, found).await
    }
}
