//! keys.verifyKey: is this key good, here and now?
//!
//! [`judge`] decides in the contract's order (KEYS-VERIFY-2); it is a pure function of the key's view, the request and the
//! time, but for two calls: rate limits are taken, all or none, and credits are spent.

use std::net::IpAddr;
use std::sync::Arc;

use keyward_storage::hot::window::{Decision, Kind, Subject, Take};
use keyward_storage::records::api::ApiView;
use keyward_storage::records::key::{KeyHash, KeyView, RatelimitView};
use keyward_storage::{Spent, Storage};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::oneshot;

use super::key_object::{Resolved, array, shown_meta};
use super::{need_for_key, refill, view};
use crate::api::call::{Call, unavailable};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, List, Opt, SecretText, Text, Verbatim};
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
    #[expect(dead_code, reason = "checked with the request; recorded once analytics events exist")]
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
    #[expect(dead_code, reason = "no migration can exist yet, so no key waits in one: NOT_FOUND either way")]
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

/// The outcome, as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// The key is good.
    Valid,
    /// There is no such key, or the caller may not verify it.
    NotFound,
    /// The caller's address is not on the API's list.
    Forbidden,
    /// The permission query does not hold.
    InsufficientPermissions,
    /// No credits are left.
    UsageExceeded,
    /// A rate limit is exceeded.
    RateLimited,
    /// The key is disabled.
    Disabled,
    /// The key is expired.
    Expired,
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
        let hash = secret::hash(ask.key.expose_secret());
        let Some(found) = view(&call, &hash).await? else { return Ok(Response(None)) };
        // A deleted API ends its keys; so does a caller who may not verify them: not to be told apart.
        let Some(api) = found.api.load().clone() else { return Ok(Response(None)) };
        // A key outside the named key spaces costs nothing (EXT-19).
        if let Some(named) = ask.keyspaces.as_ref()
            && !named.iter().any(|keyspace| *api.keyspace.spell() == **keyspace)
        {
            return Ok(Response(None));
        }
        let may = |need: &Need<'_>| call.may(need).is_some();
        if !call.is_administrator() && !need_for_key(api.id, api.keyspace, found.id, "verify_key", may) {
            return Ok(Response(None));
        }
        let query = match ask.permissions.as_deref() {
            None => None,
            Some(text) => Some(
                Query::parse(text).map_err(|error| Problem::new(Code::PermissionsQuerySyntax, error.to_string()))?,
            ),
        };
        let Some(found) = refill::settle_now(&call, &hash, found).await? else { return Ok(Response(None)) };
        let checks = Checks {
            query: query.as_ref(),
            ratelimits: ask.ratelimits.as_deref().unwrap_or_default(),
            now: call.now,
            client_ip: call.client_ip,
        };
        let mut verdict = judge(call.storage(), found, api, &checks)?;
        if verdict.outcome == Outcome::Valid && verdict.view.limited {
            let cost = ask.credits.map_or(1, |credits| credits.cost.get_unsigned());
            match spend(&call, &hash, &mut verdict, cost).await? {
                true => {}
                false => return Ok(Response(None)),
            }
        }
        call.storage().touch(&verdict.view, call.now);
        Ok(Response(Some(verdict)))
    }
}

/// What a request asks beside the key itself.
struct Checks<'a> {
    query: Option<&'a Query<'a>>,
    ratelimits: &'a [RatelimitRequest],
    now: u64,
    client_ip: Option<IpAddr>,
}

/// What was decided, with all that the reply shows.
pub struct Verdict {
    outcome: Outcome,
    view: Arc<KeyView>,
    api: Arc<ApiView>,
    resolved: Resolved,
    /// Left after this verification.
    credits: Option<u64>,
    checked: Vec<Checked>,
}

/// A rate limit that was checked.
struct Checked {
    /// Id and name; a limit of the request's own has no id.
    limit: LimitOf,
    max: u64,
    duration: u64,
    auto_apply: bool,
    decision: Decision,
}

/// Whose limit it is, so that the reply can name it without copying its name.
enum LimitOf {
    Key(usize),
    Identity(usize),
    Request(Box<str>),
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

fn name_of<'a>(limit: &'a LimitOf, view: &'a KeyView, of_identity: &'a [RatelimitView]) -> &'a str {
    match limit {
        LimitOf::Key(at) => &view.ratelimits[*at].name,
        LimitOf::Identity(at) => &of_identity[*at].name,
        LimitOf::Request(name) => name,
    }
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
async fn spend(call: &Call, hash: &KeyHash, verdict: &mut Verdict, cost: u64) -> Result<bool, Problem> {
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
            Spent::LookAgain => match view(call, hash).await? {
                Some(again) if again.id == spender.id => {
                    spender = again;
                    continue;
                }
                _ => return Ok(false),
            },
            Spent::Unavailable(why) => return Err(unavailable(&why)),
            Spent::Journal(pending) => {
                let (tell, told) = oneshot::channel();
                call.storage().journal_spend(pending, move |left| {
                    // Nobody waits any more: the spend stands.
                    let _ = tell.send(left);
                });
                let left = told.await.unwrap_or(Err(keyward_storage::Unavailable::Stopped));
                verdict.credits = Some(left.map_err(|why| unavailable(&why))?);
            }
        }
        return Ok(true);
    }
}

/// The reply: nothing but the code for a key that is not found.
pub struct Response(Option<Verdict>);

/// The reply's members (KEYS-VERIFY-6).
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    /// Whether the code is VALID.
    valid: bool,
    /// The outcome.
    code: Outcome,
    /// The key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    /// The key space it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    keyspace_id: Option<&'a str>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Verbatim<&'a str>>,
    /// Unix milliseconds after which it is expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// Credits left after this verification; absent for a key with unlimited ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<u64>,
    /// Whether it is enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// Slugs of its permissions, its own and those of its roles.
    #[serde(skip_serializing_if = "Slugs::is_empty")]
    permissions: Slugs<'a>,
    /// Names of its roles.
    #[serde(skip_serializing_if = "Names::is_empty")]
    roles: Names<'a>,
    /// The identity it is linked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<ShownIdentity<'a>>,
    /// The rate limits that were checked.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    ratelimits: Limits<'a>,
}

/// An identity, with those of its limits that no limit of the key hides.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShownIdentity<'a> {
    /// Its id.
    id: String,
    /// Your own id of it.
    external_id: &'a str,
    /// Its metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Verbatim<&'a str>>,
    /// Its rate limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ratelimits: Vec<ShownRatelimit<'a>>,
}

/// A rate limit of an identity.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShownRatelimit<'a> {
    /// Its id.
    id: String,
    /// Its name.
    name: &'a str,
    /// Most cost per window.
    limit: u64,
    /// Window length in milliseconds.
    duration: u64,
    /// Whether every verification counts against it.
    auto_apply: bool,
}

/// A rate limit that was checked.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShownCheck<'a> {
    /// Its id; empty for a limit of the request's own.
    id: &'a str,
    /// Its name.
    name: &'a str,
    /// Most cost per window.
    limit: u64,
    /// Window length in milliseconds.
    duration: u64,
    /// Whether every verification counts against it.
    auto_apply: bool,
    /// Whether it refused this verification.
    exceeded: bool,
    /// What is left in the window.
    remaining: u64,
    /// Unix milliseconds at which the present window ends.
    reset: u64,
}

#[derive(Clone, Copy)]
struct Slugs<'a>(&'a Verdict);
#[derive(Clone, Copy)]
struct Names<'a>(&'a Verdict);
#[derive(Clone, Copy)]
struct Limits<'a>(&'a Verdict);

impl Slugs<'_> {
    fn is_empty(&self) -> bool {
        self.0.resolved.permissions.is_empty()
    }
}

impl Names<'_> {
    fn is_empty(&self) -> bool {
        self.0.resolved.roles.is_empty()
    }
}

impl Limits<'_> {
    fn is_empty(&self) -> bool {
        self.0.checked.is_empty()
    }
}

impl Serialize for Slugs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        array(serializer, self.0.resolved.permissions.iter().map(|permission| &*permission.slug))
    }
}

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        array(serializer, self.0.resolved.roles.iter().map(|role| &*role.name))
    }
}

impl Serialize for Limits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let Verdict { view, resolved, checked, .. } = self.0;
        let of_identity = resolved.identity.as_deref().map_or(&[][..], |identity| &identity.ratelimits);
        let mut items = serializer.serialize_seq(Some(checked.len()))?;
        for check in checked {
            let id = match &check.limit {
                LimitOf::Key(at) => Some(view.ratelimits[*at].id.spell()),
                LimitOf::Identity(at) => Some(of_identity[*at].id.spell()),
                LimitOf::Request(_) => None,
            };
            items.serialize_element(&ShownCheck {
                id: id.as_deref().unwrap_or_default(),
                name: name_of(&check.limit, view, of_identity),
                limit: check.max,
                duration: check.duration,
                auto_apply: check.auto_apply,
                exceeded: !check.decision.passed,
                remaining: check.decision.remaining,
                reset: check.decision.reset_ms,
            })?;
        }
        items.end()
    }
}

macro_rules! list_schema {
    ($($list:ident of $item:ty;)*) => {$(
        impl JsonSchema for $list<'_> {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($list).into()
            }
            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                Vec::<$item>::json_schema(generator)
            }
        }
    )*};
}
list_schema! {
    Slugs of String;
    Names of String;
    Limits of ShownCheck<'static>;
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(verdict) = &self.0 else {
            #[derive(Serialize)]
            struct NotFound {
                valid: bool,
                code: Outcome,
            }
            return NotFound { valid: false, code: Outcome::NotFound }.serialize(serializer);
        };
        let view = &verdict.view;
        let (key_id, keyspace_id) = (view.id.spell(), verdict.api.keyspace.spell());
        let hidden = |limit: &&RatelimitView| view.ratelimits.iter().all(|own| own.name != limit.name);
        let identity = verdict.resolved.identity.as_deref().map(|identity| ShownIdentity {
            id: identity.id.to_string(),
            external_id: &identity.external_id,
            meta: shown_meta(identity.meta.as_deref()).map(Verbatim),
            ratelimits: identity
                .ratelimits
                .iter()
                .filter(hidden)
                .map(|limit| ShownRatelimit {
                    id: limit.id.to_string(),
                    name: &limit.name,
                    limit: limit.limit,
                    duration: limit.duration,
                    auto_apply: limit.auto_apply,
                })
                .collect(),
        });
        Shown {
            valid: verdict.outcome == Outcome::Valid,
            code: verdict.outcome,
            key_id: Some(&key_id),
            keyspace_id: Some(&keyspace_id),
            name: view.name.as_deref(),
            meta: shown_meta(view.meta()).map(Verbatim),
            expires: view.expires().filter(|&expires| expires != 0),
            credits: verdict.credits,
            enabled: Some(view.enabled),
            permissions: Slugs(verdict),
            roles: Names(verdict),
            identity,
            ratelimits: Limits(verdict),
        }
        .serialize(serializer)
    }
}

impl JsonSchema for Response {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "V2KeysVerifyKeyResponseData".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Shown::<'static>::json_schema(generator);
        // Members that a key which is not found lacks.
        if let Some(required) = schema.get_mut("required") {
            *required = serde_json::json!(["valid", "code"]);
        }
        schema
    }
}
