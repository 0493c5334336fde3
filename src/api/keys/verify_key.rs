//! keys.verifyKey: is this key good, here and now?
//!
//! `judge` decides in the contract's order (KEYS-VERIFY-2); it is a pure function of the key's view, the request and the
//! time, but for two calls: rate limits are taken, all or none, and credits are spent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use keyward_query::events::{self, Verification};
use keyward_storage::hot::window::{Decision, Kind, Subject, Take};
use keyward_storage::ids::{ApiId, KeyId, KeyspaceId};
use keyward_storage::records::api::ApiView;
use keyward_storage::records::key::{KeyView, RatelimitView};
use keyward_storage::{Spent, Storage};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::key_object::Resolved;
use super::verify_reply::{Checked, LimitOf, Outcome, Response, Verdict, name_of};
use super::{Found, Trace, migrated, need_for_key, offline, refill, view, view_again};
use crate::api::call::{Call, latency_ms, unavailable};
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, List, Opt, SecretText, Text};
use crate::rbac::{Need, Query};
use crate::secret;

/// Most a verification may cost (KEYS-VERIFY-1).
const COST_MAX: i64 = 1_000_000_000_000;
/// Shortest window of a limit, ms; a custom one below it is refused (KEYS-RL-9).
const DURATION_MIN: u64 = 1000;

/// Which key, and what to check beside it.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key, as it was presented to you.
    key: SecretText<1, 512>,
    /// Labels for analytics.
    #[serde(default)]
    tags: Opt<List<Text<1, 512>, 0, 20>>,
    /// A permission query: slugs with AND, OR and parentheses.
    #[serde(default)]
    permissions: Opt<Text<1, 1000>>,
    /// What the verification costs; 1 where absent.
    #[serde(default)]
    credits: Opt<CreditsRequest>,
    /// Rate limits to check beside those that apply by themselves.
    #[serde(default)]
    ratelimits: Opt<List<RatelimitRequest, 0, 50>>,
    /// The migration the key may still be waiting in.
    #[serde(default)]
    migration_id: Opt<Text<0, 256>>,
    /// Key spaces the key must be in; a key in any other is not found. An empty list names none.
    #[serde(default)]
    keyspaces: Opt<List<Text<1, 255>, 0, 1000>>,
}

/// What a verification costs.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreditsRequest {
    /// Credits to take; 0 only looks.
    cost: Int<0, COST_MAX>,
}

/// A rate limit to check: one the key or its identity has, by name, or one given whole. Unknown members are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RatelimitRequest {
    /// Its name.
    name: Text<3, 255>,
    /// What the verification costs.
    #[serde(default)]
    #[schemars(extend("default" = 1))]
    cost: Opt<Int<0, { i64::MAX }>>,
    /// Most cost per window; with `duration`, a limit of this request's own.
    #[serde(default)]
    limit: Opt<Int<0, { i64::MAX }>>,
    /// Window length in milliseconds; with `limit`, a limit of this request's own.
    #[serde(default)]
    duration: Opt<Int<0, { i64::MAX }>>,
}

/// keys.verifyKey.
pub struct VerifyKey;

impl Operation for VerifyKey {
    const NAME: &'static str = "keys.verifyKey";
    const SUMMARY: &'static str = "Verify a key";
    const DESCRIPTION: &'static str = "Says whether a key is good: that it exists and is enabled, not expired, allowed \
        from this address, has the permissions asked for, is within its rate limits and has credits left, in this \
        order; the first check that fails gives the code and later ones count and spend nothing. The status is 200 for \
        every code. A key the caller may not verify is NOT_FOUND.";
    const ON_FOLLOWER: OnFollower = OnFollower::Verify;
    const ALLOWS: &'static [&'static str] = &[
        "api.*.verify_key",
        "api.<apiId>.verify_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#verify_key",
    ];
    const FAILS: &'static [Code] = &[Code::PermissionsQuerySyntax, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["key.update"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let begun = Instant::now();
        let digest = secret::digest(ask.key.expose_secret());
        let mut trace = Trace::Presented(digest);
        let found = match view(&call, &digest).await? {
            Some(found) => found,
            None => {
                let Some(migration) = ask.migration_id.as_deref() else { return Ok(not_found(&call)) };
                let may = |found: &Found| may_verify(&call, &ask, found.row.api, found.api.keyspace, found.id);
                let presented = migrated::present(&call, ask.key.expose_secret(), digest, migration, may);
                let Some((own, found)) = Box::pin(presented).await? else { return Ok(not_found(&call)) };
                trace = own;
                found
            }
        };
        // A deleted API ends its keys; so does a caller who may not verify them: not to be told apart.
        let Some(api) = found.api.load().clone() else { return Ok(not_found(&call)) };
        if !may_verify(&call, &ask, api.id, api.keyspace, found.id) {
            return Ok(not_found(&call));
        }
        let query = match ask.permissions.as_deref() {
            None => None,
            Some(text) => Some(
                Query::parse(text).map_err(|error| Problem::new(Code::PermissionsQuerySyntax, error.to_string()))?,
            ),
        };
        let Some(found) = refill::settle_now(&call, &trace, found).await? else { return Ok(not_found(&call)) };
        let checks = Checks {
            query: query.as_ref(),
            ratelimits: ask.ratelimits.as_deref().unwrap_or_default(),
            now: call.now,
            client_ip: call.client_ip,
            call: &call,
        };
        let mut verdict = judge(call.storage(), found, api, &checks)?;
        let mut spent = 0;
        if verdict.outcome == Outcome::Valid && verdict.view.limited {
            let cost = ask.credits.map_or(1, |credits| credits.cost.get_unsigned());
            match spend(&call, &trace, &mut verdict, cost).await? {
                true if verdict.outcome == Outcome::Valid => spent = cost,
                true => {}
                false => return Ok(not_found(&call)),
            }
        }
        call.storage().touch(&verdict.view, call.now);
        let tags = ask.tags.0.map_or_else(Vec::new, |tags| tags.into_iter().map(String::from).collect());
        call.services().metrics.requests.verification(recorded(verdict.outcome));
        if let Some(event) = event(&call, &verdict, tags, spent, begun) {
            call.record(event).await;
        }
        Ok(Response(Some(verdict)))
    }
}

/// The answer for a key that is not there, or not for this caller.
fn not_found(call: &Call) -> Response {
    call.services().metrics.requests.verification(None);
    Response(None)
}

/// The outcome as events and metrics have it; `None` is a key that is not found.
fn recorded(outcome: Outcome) -> Option<events::Outcome> {
    Some(match outcome {
        Outcome::Valid => events::Outcome::Valid,
        Outcome::Disabled => events::Outcome::Disabled,
        Outcome::Expired => events::Outcome::Expired,
        Outcome::Forbidden => events::Outcome::Forbidden,
        Outcome::InsufficientPermissions => events::Outcome::InsufficientPermissions,
        Outcome::RateLimited => events::Outcome::RateLimited,
        Outcome::UsageExceeded => events::Outcome::UsageExceeded,
        Outcome::NotFound => return None,
    })
}

/// What a verification leaves behind, whatever became of it (KEYS-ANALYTICS). A key that is not found leaves nothing.
fn event(
    call: &Call,
    verdict: &Verdict,
    tags: Vec<String>,
    spent_credits: u64,
    begun: Instant,
) -> Option<Verification> {
    let outcome = recorded(verdict.outcome)?;
    Some(Verification {
        request_id: *call.request_id.as_bytes(),
        time: call.now,
        workspace: call.workspace_id(),
        keyspace: verdict.api.keyspace,
        key: verdict.view.id,
        identity: verdict.resolved.identity.clone(),
        outcome,
        tags,
        spent_credits,
        latency_ms: latency_ms(begun, 1),
    })
}

/// Whether a key is in the key spaces that the request names, outside of which it costs nothing (EXT-19), and the caller may
/// verify it.
fn may_verify(call: &Call, ask: &Request, api: ApiId, keyspace: KeyspaceId, key: KeyId) -> bool {
    if let Some(named) = ask.keyspaces.as_ref()
        && !named.iter().any(|named| *keyspace.spell() == **named)
    {
        return false;
    }
    let may = |need: &Need<'_>| call.may(need).is_some();
    call.is_administrator() || need_for_key(api, keyspace, key, "verify_key", may)
}

/// What a request asks beside the key itself.
struct Checks<'a> {
    query: Option<&'a Query<'a>>,
    ratelimits: &'a [RatelimitRequest],
    now: u64,
    client_ip: Option<IpAddr>,
    /// Says whether limits may be counted here.
    call: &'a Call,
}

/// Decides everything but credits, in the order of KEYS-VERIFY-2 from step 7 on.
fn judge(storage: &Storage, view: Arc<KeyView>, api: Arc<ApiView>, checks: &Checks<'_>) -> Result<Verdict, Problem> {
    let resolved = storage.hot().shared.consistent(|| Resolved::read(&view));
    let outcome = if !view.enabled {
        Outcome::Disabled
    } else if view.expires().is_some_and(|expires| checks.now > expires) {
        Outcome::Expired
    } else if !is_listed(&api, checks.client_ip) {
        Outcome::Forbidden
    } else if checks.query.is_some_and(|query| !query.holds(|slug| holds(&resolved, slug))) {
        Outcome::InsufficientPermissions
    } else {
        Outcome::Valid
    };
    let mut verdict = Verdict { outcome, credits: None, checked: Vec::new(), resolved, view, api };
    if outcome == Outcome::Valid {
        check_ratelimits(storage, &mut verdict, checks)?;
    }
    verdict.credits = verdict.view.limited.then(|| verdict.view.counters.balance());
    Ok(verdict)
}

/// Whether the caller's address is on the API's list; an empty list admits everyone (KEYS-IP-1, KEYS-IP-4).
fn is_listed(api: &ApiView, client_ip: Option<IpAddr>) -> bool {
    let list = &api.ip_whitelist;
    list.is_empty() || client_ip.is_some_and(|ip| list.iter().any(|range| range.contains(&ip.to_canonical())))
}

fn holds(resolved: &Resolved, slug: &str) -> bool {
    resolved.permissions.binary_search_by(|held| (*held.slug).cmp(slug)).is_ok()
}

/// Collects the limits that apply (KEYS-RL-1, KEYS-RL-2) and takes them, all or none (KEYS-RL-7).
fn check_ratelimits(storage: &Storage, verdict: &mut Verdict, checks: &Checks<'_>) -> Result<(), Problem> {
    let view = Arc::clone(&verdict.view);
    let identity = verdict.resolved.identity.clone();
    let of_identity = identity.as_deref().map_or(&[][..], |identity| &identity.ratelimits);
    if checks.ratelimits.is_empty() && view.ratelimits.is_empty() && of_identity.is_empty() {
        return Ok(());
    }
    let mut asked: Vec<(LimitOf, Known, u64)> = Vec::with_capacity(view.ratelimits.len() + checks.ratelimits.len());
    for (at, limit) in view.ratelimits.iter().enumerate().filter(|(_, limit)| limit.auto_apply) {
        asked.push((LimitOf::Key(at), Known::of(limit), 1));
    }
    let hidden = |name: &str| view.ratelimits.iter().any(|own| *own.name == *name);
    for (at, limit) in of_identity.iter().enumerate().filter(|(_, limit)| limit.auto_apply && !hidden(&limit.name)) {
        asked.push((LimitOf::Identity(at), Known::of(limit), 1));
    }
    for item in checks.ratelimits {
        let name = item.name.as_str();
        let entry = explicit(storage, &view, of_identity, item).ok_or_else(|| unknown_limit(verdict, name))??;
        let same = |other: &(LimitOf, Known, u64)| name_of(&other.0, &view, of_identity) == name;
        match asked.iter_mut().find(|other| same(other)) {
            Some(other) => *other = entry,
            None => asked.push(entry),
        }
    }
    asked.sort_by(|one, other| name_of(&one.0, &view, of_identity).cmp(name_of(&other.0, &view, of_identity)));
    let exhausted =
        |_| Problem::no_capacity("The server has no room to count another rate limit. Please tell its operator.");
    let take = |known: &Known, cost: u64| Take {
        subject: known.subject,
        duration_ms: known.duration,
        limit: known.limit,
        cost,
    };
    let windows = &storage.hot().windows;
    if !asked.is_empty() {
        checks.call.may_count()?;
    }
    let (passed, decisions) = match asked.as_slice() {
        [] => return Ok(()),
        [(_, known, cost)] => {
            let decision = windows.take(&take(known, *cost), checks.now).map_err(exhausted)?;
            verdict.checked.reserve_exact(1);
            let passed = decision.passed;
            let (limit, known, _) = asked.pop().expect("the pattern says there is one");
            verdict.checked.push(checked(limit, &known, decision));
            (passed, Vec::new())
        }
        several => {
            let takes: Vec<Take> = several.iter().map(|(_, known, cost)| take(known, *cost)).collect();
            let mut decisions = Vec::with_capacity(takes.len());
            (windows.take_all(&takes, checks.now, &mut decisions).map_err(exhausted)?, decisions)
        }
    };
    for ((limit, known, _), decision) in asked.into_iter().zip(decisions) {
        verdict.checked.push(checked(limit, &known, decision));
    }
    if !passed {
        verdict.outcome = Outcome::RateLimited;
    }
    Ok(())
}

fn checked(limit: LimitOf, known: &Known, decision: Decision) -> Checked {
    Checked { limit, max: known.limit, duration: known.duration, auto_apply: known.auto_apply, decision }
}

/// A limit with its counter.
struct Known {
    subject: Subject,
    limit: u64,
    duration: u64,
    auto_apply: bool,
}

impl Known {
    fn of(limit: &RatelimitView) -> Known {
        Known { subject: limit.subject, limit: limit.limit, duration: limit.duration, auto_apply: limit.auto_apply }
    }
}

/// The limit an item of the request means: its own, the key's, or the identity's; `None` where there is no such name.
fn explicit(
    storage: &Storage,
    view: &KeyView,
    of_identity: &[RatelimitView],
    item: &RatelimitRequest,
) -> Option<Result<(LimitOf, Known, u64), Problem>> {
    let name = item.name.as_str();
    let cost = item.cost.0.map_or(1, Int::get_unsigned);
    if let (Some(limit), Some(duration)) = (item.limit.0, item.duration.0) {
        let duration = duration.get_unsigned();
        if duration < DURATION_MIN {
            return Some(Err(Problem::invalid(format!(
                "The rate limit '{name}' has a duration of {duration} ms; the shortest is {DURATION_MIN} ms."
            ))));
        }
        let subject =
            storage.hot().windows.subject(Kind::Key, view.workspace.0, view.id.as_bytes(), name.as_bytes(), duration);
        let known = Known { subject, limit: limit.get_unsigned(), duration, auto_apply: false };
        return Some(Ok((LimitOf::Request(name.into()), known, cost)));
    }
    let by_name = |limits: &[RatelimitView]| limits.iter().position(|limit| *limit.name == *name);
    if let Some(at) = by_name(&view.ratelimits) {
        return Some(Ok((LimitOf::Key(at), Known::of(&view.ratelimits[at]), cost)));
    }
    by_name(of_identity).map(|at| Ok((LimitOf::Identity(at), Known::of(&of_identity[at]), cost)))
}

/// KEYS-RL-4, word for word.
fn unknown_limit(verdict: &Verdict, name: &str) -> Problem {
    let detail = match verdict.resolved.identity.as_deref() {
        None => format!(
            "ratelimit '{name}' was requested but does not exist for key '{}' and there is no identity connected.",
            verdict.view.id
        ),
        Some(identity) => format!(
            "ratelimit '{name}' was requested but does not exist for key '{}' nor identity: '{}' external ID: '{}'",
            verdict.view.id, identity.id, identity.external_id
        ),
    };
    Problem::new(Code::PreconditionFailed, detail)
}

/// Takes the credits. `false` where the key has gone meanwhile.
async fn spend(call: &Call, trace: &Trace, verdict: &mut Verdict, cost: u64) -> Result<bool, Problem> {
    call.may_count()?;
    if call.is_alone() {
        return offline::spend(call, verdict, cost).map(|()| true);
    }
    // Only the counters are taken from a view that is read again: what was checked belongs to the first one.
    let mut spender = Arc::clone(&verdict.view);
    loop {
        match call.storage().spend(&spender, cost) {
            Spent::Taken(left) => verdict.credits = Some(left),
            Spent::Short(left) => {
                verdict.credits = Some(left);
                verdict.outcome = Outcome::UsageExceeded;
            }
            // Evicted between the look-up and here: the same key, freshly read.
            Spent::LookAgain => match Box::pin(view_again(call, trace, spender.id)).await? {
                Some(again) => {
                    spender = again;
                    continue;
                }
                None => return Ok(false),
            },
            Spent::Unavailable(why) => return Err(unavailable(&why)),
            Spent::Journal(pending) => {
                let (tell, told) = oneshot::channel();
                call.storage().journal_spend(pending, call.deadline, move |left| {
                    // Nobody waits any more: the spend stands.
                    let _ = tell.send(left);
                });
                let left = Box::pin(told).await.unwrap_or(Err(keyward_storage::Unavailable::Stopped));
                verdict.credits = Some(left.map_err(|why| unavailable(&why))?);
            }
        }
        return Ok(true);
    }
}
