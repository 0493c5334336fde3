//! apis.getApi: an API's id and name.

use keyward_storage::ids::ApiId;
use keyward_storage::records::api;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::not_found;
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::Ident;
use crate::rbac::Need;

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The API's id.
    api_id: Ident<8, 255>,
}

/// The API.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    #[schemars(length(min = 8, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    id: String,
    /// Its name, as it was given.
    #[schemars(length(min = 3, max = 256))]
    name: String,
}

/// apis.getApi.
pub struct GetApi;

impl Operation for GetApi {
    const NAME: &'static str = "apis.getApi";
    const SUMMARY: &'static str = "Get an API";
    const DESCRIPTION: &'static str = "Returns an API's id and name as they are now.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["api.*.read_api", "api.<apiId>.read_api"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound];
    const AUDITS: &'static [&'static str] = &[];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        // Before the lookup: without permission, APIs that exist and APIs that do not answer alike (APIS-GET-2).
        let _granted = call.authorize(&Need::any_or_one("api", &ask.api_id, "read_api"))?;
        let id = ApiId::parse(&ask.api_id).ok_or_else(not_found)?;
        let workspace = call.workspace();
        let row = call.read("API", move |storage| api::get_live(&storage.snapshot()?, workspace, id)).await?;
        let row = row.ok_or_else(not_found)?;
        Ok(Response { id: ask.api_id.into_string(), name: row.name })
    }
}
