//! keys.getKey: a key by its id.

use schemars::JsonSchema;
use serde::Deserialize;

use super::key_object::{KeyObject, Resolved};
use super::recovery::{DECRYPTED, need_encryption, need_vault, reveal};
use super::{Trace, find, not_found, refill, view_again};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Ident, Opt};

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// Whether to return the plaintext of a recoverable key.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    decrypt: Opt<bool>,
}

/// keys.getKey.
pub struct GetKey;

impl Operation for GetKey {
    const NAME: &'static str = "keys.getKey";
    const SUMMARY: &'static str = "Get a key";
    const DESCRIPTION: &'static str = "Returns a key's settings, credits, permissions, roles and identity as they are \
        now. Reading a key is no use of it: nothing is counted or spent. `decrypt` adds the plaintext of a recoverable key; it \
        takes the permission `decrypt_key` as well, and leaves an audit event.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "api.*.read_key",
        "api.<apiId>.read_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#read_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["key.update", DECRYPTED];
    type Request = Request;
    type Response = KeyObject;

    async fn run(call: Call, ask: Request) -> Result<KeyObject, Problem> {
        let found = find(&call, &ask.key_id).await?;
        found.need("read_key", |need| call.authorize(need).map(drop))?;
        let decrypts = if ask.decrypt.unwrap_or(false) {
            need_vault(&call)?;
            let granted = found.need("decrypt_key", |need| call.authorize(need))?;
            need_encryption(&found.api)?;
            Some((granted, vec![found.target(), found.api_target()]))
        } else {
            None
        };
        let id = found.id;
        let mut object = object(&call, found).await?;
        if let Some((granted, targets)) = decrypts {
            object.plaintext = reveal(&call, granted, id, targets).await?;
        }
        Ok(object)
    }
}

/// The key object of a key the caller may read: refills that are due are made first, so that its credits are exact.
pub(super) async fn object(call: &Call, found: super::Found) -> Result<KeyObject, Problem> {
    let trace = Trace::Stored(found.row.hash);
    let seen = view_again(call, &trace, found.id).await?.ok_or_else(not_found)?;
    let behind = refill::is_due(&seen, call.now);
    let view = refill::settle_now(call, &trace, seen).await?.ok_or_else(not_found)?;
    let found = if behind { find(call, &found.id.spell()).await? } else { found };
    let resolved = call.storage().hot().shared.consistent(|| Resolved::read(&view));
    Ok(KeyObject::new(&found.row, &view, &resolved))
}
