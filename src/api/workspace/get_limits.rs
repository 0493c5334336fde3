//! workspace.getLimits: the limits of the workspace, as the operator set them.

use keyward_storage::records::workspace::{self, WorkspaceLimits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::Call;
use crate::api::operation::{Body, OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;

/// Nothing: the workspace is the root key's.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {}

/// The limits. Official clients want `limit` there in each, so no limit is `null`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Verifications and rate-limit decisions per calendar month: keyward has no such limit.
    api_billable_operations_count_max_per_month: Limit,
    /// Requests per minute over all root keys of the workspace; one above it is 429.
    api_requests_count_max_per_minute: Limit,
    /// Days that verifications and rate-limit decisions are kept.
    logs_retention_days_max: Limit,
    /// Days that audit events are kept.
    logs_audit_retention_days_max: Limit,
    /// Log drains: keyward has none.
    logdrains_max: Limit,
}

/// A limit.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// The most there may be; null = there is no limit.
    limit: Option<u64>,
    /// How many there are, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
}

impl Limit {
    fn of(limit: Option<u64>) -> Limit {
        Limit { limit, current: None }
    }
}

impl Response {
    fn new(limits: &WorkspaceLimits) -> Response {
        Response {
            api_billable_operations_count_max_per_month: Limit::of(None),
            api_requests_count_max_per_minute: Limit::of(limits.api_requests_per_minute),
            logs_retention_days_max: Limit::of(Some(limits.logs_retention_days.into())),
            logs_audit_retention_days_max: Limit::of(Some(limits.audit_retention_days.into())),
            logdrains_max: Limit { limit: Some(0), current: Some(0) },
        }
    }
}

/// workspace.getLimits.
pub struct GetLimits;

impl Operation for GetLimits {
    const NAME: &'static str = "workspace.getLimits";
    const SUMMARY: &'static str = "Get the workspace's limits";
    const DESCRIPTION: &'static str = "Returns what the caller's workspace may use at most. The operator of the server sets \
        these limits with `keyward workspace update`. The body may be left out.";
    const BODY: Body = Body::Optional;
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] =
        &["workspace.*.read_workspace", "workspace.<workspaceId>.read_workspace", "unkey:v1:<workspaceId>:limits#read"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, _: Request) -> Result<Response, Problem> {
        let id = call.workspace_id().spell();
        let need = [Need::any_or_one("workspace", &id, "read_workspace"), Need::urn(&["limits"], "read")];
        let _granted = call.authorize(&Need::Any(&need))?;
        let no = call.workspace();
        let row = call.read("workspace", move |storage| workspace::get(&storage.snapshot()?, no)).await?;
        let row =
            row.ok_or_else(|| Problem::new(Code::WorkspaceNotFound, "The requested workspace does not exist."))?;
        Ok(Response::new(&row.limits))
    }
}
