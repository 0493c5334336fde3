//! The operations: what they take, answer, ask for and record. The only place that knows JSON shapes.
//!
//! [`OPERATIONS`] is the table everything is made from: routes, validation, the OpenAPI document, the reference page. An
//! operation is one file and one line here. [`respond`] takes a request through the contract's order of checks
//! (COM-ORD): credential presence, content type, body, authentication, workspace limit, handler.

pub mod analytics;
pub mod apis;
mod attached_limits;
pub mod audit_event;
pub mod audit_logs;
pub mod call;
#[cfg(test)]
mod forwarded_tests;
pub mod identities;
pub mod keys;
mod listing;
pub mod migrations;
pub mod openapi;
pub mod operation;
pub mod permissions;
pub mod problem;
pub mod ratelimit;
pub mod reference;
pub mod root_keys;
mod search;
pub mod shape;
#[cfg(test)]
pub(crate) mod testing;
mod trail;
pub mod validate;
pub mod wire;
pub mod workspace;

use std::sync::Arc;

use keyward_storage::Unavailable;
use keyward_storage::hot::window::{Kind, Take};
use keyward_storage::ids::{KeyId, WorkspaceId};
use keyward_storage::records::change;

use crate::app::Services;
use crate::auth::{self, Principal};
use crate::replication::forward::{self, Lost};
use crate::replication::node::Role;
use crate::telemetry;
use call::{Call, Standing};
pub use operation::Entry;
use operation::{Body, OnFollower, Operation, Serving};
use problem::{Code, Problem};
use wire::{ContentType, Failure, Inbound, Outbound, RateLimitHeaders};

/// Every operation, in the order of the reference page. Written by hand: a list one can read.
pub static OPERATIONS: &[&Entry] = &[
    &const { Entry::of::<analytics::get_verifications::GetVerifications>() },
    &const { Entry::of::<analytics::get_ratelimits::GetRatelimits>() },
    &const { Entry::of::<apis::create_api::CreateApi>() },
    &const { Entry::of::<apis::get_api::GetApi>() },
    &const { Entry::of::<apis::delete_api::DeleteApi>() },
    &const { Entry::of::<apis::list_apis::ListApis>() },
    &const { Entry::of::<apis::update_api::UpdateApi>() },
    &const { Entry::of::<apis::list_keys::ListKeys>() },
    &const { Entry::of::<audit_logs::query_audit_logs::QueryAuditLogs>() },
    &const { Entry::of::<identities::create_identity::CreateIdentity>() },
    &const { Entry::of::<identities::get_identity::GetIdentity>() },
    &const { Entry::of::<identities::list_identities::ListIdentities>() },
    &const { Entry::of::<identities::update_identity::UpdateIdentity>() },
    &const { Entry::of::<identities::delete_identity::DeleteIdentity>() },
    &const { Entry::of::<keys::create_key::CreateKey>() },
    &const { Entry::of::<keys::verify_key::VerifyKey>() },
    &const { Entry::of::<keys::get_key::GetKey>() },
    &const { Entry::of::<keys::whoami::Whoami>() },
    &const { Entry::of::<keys::search_keys::SearchKeys>() },
    &const { Entry::of::<keys::update_key::UpdateKey>() },
    &const { Entry::of::<keys::update_credits::UpdateCredits>() },
    &const { Entry::of::<keys::delete_key::DeleteKey>() },
    &const { Entry::of::<keys::add_permissions::AddPermissions>() },
    &const { Entry::of::<keys::remove_permissions::RemovePermissions>() },
    &const { Entry::of::<keys::set_permissions::SetPermissions>() },
    &const { Entry::of::<keys::add_roles::AddRoles>() },
    &const { Entry::of::<keys::remove_roles::RemoveRoles>() },
    &const { Entry::of::<keys::set_roles::SetRoles>() },
    &const { Entry::of::<keys::reroll_key::RerollKey>() },
    &const { Entry::of::<keys::migrate_keys::MigrateKeys>() },
    &const { Entry::of::<permissions::create_permission::CreatePermission>() },
    &const { Entry::of::<permissions::get_permission::GetPermission>() },
    &const { Entry::of::<permissions::list_permissions::ListPermissions>() },
    &const { Entry::of::<permissions::update_permission::UpdatePermission>() },
    &const { Entry::of::<permissions::delete_permission::DeletePermission>() },
    &const { Entry::of::<permissions::create_role::CreateRole>() },
    &const { Entry::of::<permissions::get_role::GetRole>() },
    &const { Entry::of::<permissions::list_roles::ListRoles>() },
    &const { Entry::of::<permissions::update_role::UpdateRole>() },
    &const { Entry::of::<permissions::set_role_permissions::SetRolePermissions>() },
    &const { Entry::of::<permissions::delete_role::DeleteRole>() },
    &const { Entry::of::<migrations::create_migration::CreateMigration>() },
    &const { Entry::of::<migrations::list_migrations::ListMigrations>() },
    &const { Entry::of::<ratelimit::limit::Limit>() },
    &const { Entry::of::<ratelimit::multi_limit::MultiLimit>() },
    &const { Entry::of::<ratelimit::set_override::SetOverride>() },
    &const { Entry::of::<ratelimit::get_override::GetOverride>() },
    &const { Entry::of::<ratelimit::list_overrides::ListOverrides>() },
    &const { Entry::of::<ratelimit::delete_override::DeleteOverride>() },
    &const { Entry::of::<ratelimit::create_namespace::CreateNamespace>() },
    &const { Entry::of::<ratelimit::list_namespaces::ListNamespaces>() },
    &const { Entry::of::<ratelimit::delete_namespace::DeleteNamespace>() },
    &const { Entry::of::<root_keys::create_key::CreateKey>() },
    &const { Entry::of::<root_keys::list_keys::ListKeys>() },
    &const { Entry::of::<root_keys::update_key::UpdateKey>() },
    &const { Entry::of::<root_keys::reroll_key::RerollKey>() },
    &const { Entry::of::<root_keys::delete_key::DeleteKey>() },
    &const { Entry::of::<workspace::get_limits::GetLimits>() },
    &const { Entry::of::<workspace::get_usage::GetUsage>() },
];

/// Window of the workspace limit, ms (COM-WRL-01).
const WORKSPACE_WINDOW_MS: u64 = 60_000;

/// The operation at exactly this path.
pub fn find(path: &str) -> Option<&'static Entry> {
    find_numbered(path).map(|(_, entry)| entry)
}

/// The operation at exactly this path, and its number in the table.
pub fn find_numbered(path: &str) -> Option<(usize, &'static Entry)> {
    OPERATIONS.iter().enumerate().find(|(_, entry)| entry.path == path).map(|(number, entry)| (number, *entry))
}

/// Answers a request. Whatever goes wrong is an error reply.
pub fn respond(services: Arc<Services>, entry: &'static Entry, inbound: Inbound) -> Serving {
    (entry.serve)(services, inbound)
}

/// What is known of a request on its way, for the reply's headers and the log.
#[derive(Default)]
struct Known {
    limit: Option<RateLimitHeaders>,
    caller: Option<(WorkspaceId, KeyId)>,
}

/// The road of a request for one operation.
fn serve<O: Operation>(services: Arc<Services>, inbound: Inbound) -> Serving {
    Box::pin(async move {
        if services.node.is_leader() {
            return here::<O>(services, &inbound, Standing::Leader).await.outbound;
        }
        Box::pin(follow::<O>(services, inbound)).await
    })
}

/// What this node has to say.
struct Here {
    outbound: Outbound,
    /// Whether the leader is to be asked instead.
    is_for_leader: bool,
}

/// Answers a request on this node.
async fn here<O: Operation>(services: Arc<Services>, inbound: &Inbound, standing: Standing) -> Here {
    let mut known = Known::default();
    match answer::<O>(services, inbound, standing, &mut known).await {
        Ok(body) => Here {
            outbound: Outbound { rate_limit: known.limit, caller: known.caller, ..Outbound::ok(body) },
            is_for_leader: false,
        },
        Err(problem) => Here {
            is_for_leader: problem.is_for_leader(),
            outbound: Outbound {
                rate_limit: known.limit,
                caller: known.caller,
                ..refusal(&problem, inbound.request_id.as_str())
            },
        },
    }
}

/// Answers a request on a node that follows another one: by itself where that is right, else by asking the leader. Where the
/// leader is away, verifications and limits go on.
async fn follow<O: Operation>(services: Arc<Services>, mut inbound: Inbound) -> Outbound {
    let stale = |mut outbound: Outbound| {
        outbound.staleness_ms = Some(services.node.staleness_ms());
        outbound
    };
    if O::ON_FOLLOWER != OnFollower::Leader {
        let here = here::<O>(Arc::clone(&services), &inbound, Standing::Follower).await;
        if !here.is_for_leader {
            return stale(here.outbound);
        }
    }
    let forwarded = forward::name(&services, inbound.forwarded);
    let asked =
        forward::forward(&services, Entry::path_of::<O>(), &inbound, forwarded, (O::ON_FOLLOWER, O::PACE)).await;
    let lost = match asked {
        Ok(outbound) => return outbound,
        Err(lost) => lost,
    };
    if services.node.is_leader() {
        // It was promoted meanwhile. What the leader before it has made of the request is known here by its name.
        inbound.forwarded = Some(forwarded);
        return here::<O>(services, &inbound, Standing::Leader).await.outbound;
    }
    if O::ON_FOLLOWER.goes_on_alone() {
        services.metrics.replication.alone();
        return stale(here::<O>(Arc::clone(&services), &inbound, Standing::Alone).await.outbound);
    }
    let problem = match lost {
        Lost::Unsent if services.node.role() == Role::Fenced => call::unavailable(&Unavailable::Fenced),
        Lost::Unsent if services.node.is_suspended() => call::unavailable(&Unavailable::Suspended),
        Lost::Unsent => Problem::for_leader(),
        Lost::Unknown => Problem::new(
            Code::RequestTimeout,
            "The leader was asked and its reply did not come: whether the change was made is not known. Please look at the \
             resource before you try again.",
        ),
    };
    refusal(&problem, inbound.request_id.as_str())
}

/// A problem as a reply.
pub(crate) fn refusal(problem: &Problem, request_id: &str) -> Outbound {
    Outbound::refusal(problem, request_id, failure(problem))
}

/// What the log says of a problem (COM-LOG-07). The cause is told for failures of ours only.
fn failure(problem: &Problem) -> Failure {
    Failure {
        code: problem.code(),
        cause: std::error::Error::source(problem).filter(|_| problem.status() >= 500).map(telemetry::error_chain),
    }
}

async fn answer<O: Operation>(
    services: Arc<Services>,
    inbound: &Inbound,
    standing: Standing,
    known: &mut Known,
) -> Result<Vec<u8>, Problem> {
    let path = Entry::path_of::<O>();
    if !auth::is_present(&inbound.authorization) {
        return Err(validate::missing_authorization());
    }
    match &inbound.content_type {
        ContentType::Json => {}
        ContentType::Absent if O::BODY == Body::Optional && inbound.body.is_empty() => {}
        ContentType::Absent => return Err(validate::wrong_content_type(path, None)),
        ContentType::Other(received) => return Err(validate::wrong_content_type(path, Some(received))),
    }
    let ask = operation::decode::<O>(&inbound.body)?;
    let request_id = inbound.request_id;
    let now = inbound.test_time_ms.map_or(inbound.now_ms, |time| u64::try_from(time).unwrap_or(0));
    let principal = auth::authenticate(&services, &inbound.authorization, inbound.client_ip, now).await?;
    known.caller = Some((principal.workspace.id, principal.key.id));
    // The server's own clock, also in test mode (COM-WRL-06).
    known.limit = count_request(&services, &principal, inbound.now_ms)?;
    if let Some(refused) = known.limit.as_ref().filter(|limit| limit.refused) {
        let detail = match refused.limit {
            0 => {
                "The operator of this server allows this workspace no requests (its limit is 0 per minute).".to_owned()
            }
            limit => {
                format!("The workspace has reached its limit of {limit} requests per minute. Please try again later.")
            }
        };
        return Err(Problem::new(Code::WorkspaceRateLimited, detail));
    }
    let change = inbound.forwarded.filter(|_| O::ON_FOLLOWER == OnFollower::Leader);
    let change = change.map(|forwarded| {
        let (workspace, key) = (principal.workspace.id.to_string(), principal.key.id.to_string());
        change::of_sender(forwarded.change, &[&workspace, &key, path])
    });
    if let Some(id) = change
        && let Some(answered) = Box::pin(made_before::<O>(&services, id, request_id)).await?
    {
        return Ok(answered);
    }
    let call = Call {
        services,
        principal,
        request_id,
        now,
        deadline: inbound.deadline_ms,
        client_ip: inbound.client_ip,
        user_agent: inbound.user_agent.clone(),
        metrics_disabled: inbound.metrics_disabled,
        audits: O::AUDITS,
        standing,
        change,
    };
    operation::finish::<O>(O::run(call, ask).await, request_id)
}

/// What a change is answered that was made before and whose reply is lost: that it was made, in the operation's own words
/// where these are always the same. `None` for one that was not made yet.
async fn made_before<O: Operation>(
    services: &Arc<Services>,
    id: change::ChangeId,
    request_id: wire::RequestId,
) -> Result<Option<Vec<u8>>, Problem> {
    let read = services.read(move |storage| change::get(&storage.snapshot()?, &id)).await;
    let row = read.map_err(|error| Problem::no_capacity("The records could not be read.").because(error))?;
    if row.is_none() {
        return Ok(None);
    }
    operation::only_reply::<O>(request_id)?.map_or_else(|| Err(call::made_before()), |reply| Ok(Some(reply)))
}

/// Counts a request against its workspace's limit (COM-WRL); `None` where there is none.
fn count_request(services: &Services, principal: &Principal, now: u64) -> Result<Option<RateLimitHeaders>, Problem> {
    let Some(limit) = principal.workspace.api_requests_per_minute else { return Ok(None) };
    if limit == 0 {
        return Ok(Some(RateLimitHeaders { limit, remaining: 0, reset_s: None, refused: true }));
    }
    let windows = &services.storage.hot().windows;
    let subject = windows.subject(Kind::Workspace, principal.workspace.no.0, &[], &[], WORKSPACE_WINDOW_MS);
    let take = Take { subject, duration_ms: WORKSPACE_WINDOW_MS, limit, cost: 1 };
    let decision = windows.take(&take, now).map_err(|_| {
        Problem::no_capacity("The server has no room to count this workspace's requests. Please tell its operator.")
    })?;
    // Rounded up, so that nobody is told to come back within the window that refused them (COM-WRL-05).
    let reset_s = decision.reset_ms.saturating_sub(now).div_ceil(1000);
    Ok(Some(RateLimitHeaders {
        limit,
        remaining: decision.remaining,
        reset_s: Some(u32::try_from(reset_s).unwrap_or(u32::MAX)),
        refused: !decision.passed,
    }))
}
