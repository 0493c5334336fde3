//! What keys.verifyKey answers (KEYS-VERIFY-6): everything that is known of the key, whatever the outcome, and nothing but the
//! outcome for a key that is not found.
//!
//! The reply borrows from the key's view while it is written, so names, metadata and permissions are copied once: into the
//! reply.

use std::sync::Arc;

use keyward_storage::hot::window::Decision;
use keyward_storage::records::api::ApiView;
use keyward_storage::records::key::{KeyView, RatelimitView};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::key_object::{Resolved, array};
use crate::api::shape::{Verbatim, shown_meta};

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

/// What was decided, with all that the reply shows.
pub struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) view: Arc<KeyView>,
    pub(super) api: Arc<ApiView>,
    pub(super) resolved: Resolved,
    /// Left after this verification.
    pub(super) credits: Option<u64>,
    pub(super) checked: Vec<Checked>,
}

/// A rate limit that was checked.
pub(super) struct Checked {
    /// Id and name; a limit of the request's own has no id.
    pub(super) limit: LimitOf,
    pub(super) max: u64,
    pub(super) duration: u64,
    pub(super) auto_apply: bool,
    pub(super) decision: Decision,
}

/// Whose limit it is, so that the reply can name it without copying its name.
pub(super) enum LimitOf {
    Key(usize),
    Identity(usize),
    Request(Box<str>),
}

/// A limit's name, wherever it stands.
pub(super) fn name_of<'a>(limit: &'a LimitOf, view: &'a KeyView, of_identity: &'a [RatelimitView]) -> &'a str {
    match limit {
        LimitOf::Key(at) => &view.ratelimits[*at].name,
        LimitOf::Identity(at) => &of_identity[*at].name,
        LimitOf::Request(name) => name,
    }
}

/// The reply: nothing but the code for a key that is not found.
pub struct Response(pub(super) Option<Verdict>);

// KEYS-VERIFY-6.
/// The reply's members.
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
