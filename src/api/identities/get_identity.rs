//! identities.getIdentity: an identity by its id or its external id.

use keyward_storage::records::identity;
use schemars::JsonSchema;
use serde::Deserialize;

use super::identity_object::Identity;
use super::{IdentityName, Reader, not_found};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The identity's id, or else its external id.
    identity: IdentityName,
}

/// identities.getIdentity.
pub struct GetIdentity;

impl Operation for GetIdentity {
    const NAME: &'static str = "identities.getIdentity";
    const SUMMARY: &'static str = "Get an identity";
    const DESCRIPTION: &'static str = "Returns an identity with its metadata and rate limits as they are now. Where a \
        text is the id of one identity and the external id of another, the id counts.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "identity.*.read_identity",
        "identity.<identityId>.read_identity",
        "unkey:v1:<workspaceId>:projects/*/identities/*#read_identity",
    ];
    const FAILS: &'static [Code] = &[Code::IdentityNotFound];
    const AUDITS: &'static [&'static str] = &[];
    type Request = Request;
    type Response = Identity;

    async fn run(call: Call, ask: Request) -> Result<Identity, Problem> {
        let reader = Reader::new(&call)?;
        let workspace = call.workspace();
        let found =
            call.read("identity", move |storage| identity::named(&storage.snapshot()?, workspace, &ask.identity));
        let (id, row) = found.await?.ok_or_else(not_found)?;
        reader.check(id)?;
        Ok(Identity::stored(id, &row))
    }
}
