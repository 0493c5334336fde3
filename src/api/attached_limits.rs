//! Rate limits that hang on a key or an identity: what a request says of them, what a row holds, what a reply shows.

use keyward_storage::ids::RatelimitId;
use keyward_storage::records::key::{Ratelimit as Stored, RatelimitView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::Change;
use super::shape::{Int, List, Text};

// KEYS-OBJ-5, ID-CREATE-01.
/// A rate limit, in a request; unknown members are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RatelimitRequest {
    /// Its name, unique among its owner's.
    pub name: Text<3, 128>,
    /// Most cost per window.
    pub limit: Int<1, { i64::MAX }>,
    /// Window length in milliseconds.
    pub duration: Int<1000, { i64::MAX }>,
    /// Whether every verification counts against it without naming it.
    #[schemars(extend("default" = false))]
    pub auto_apply: bool,
}

/// Rate limits, in a request.
pub type RatelimitsRequest = List<RatelimitRequest, 0, 50>;

/// The limits an owner has from now on, in request order, of repeated names the last; one that is named like a present one
/// keeps its id, and with it its count (KEYS-UPDATE-5, ID-UPDATE-04).
pub fn ratelimits(change: &Change<'_, '_>, asked: RatelimitsRequest, present: &[Stored]) -> Vec<Stored> {
    let mut limits: Vec<Stored> = Vec::with_capacity(asked.len());
    for ask in asked {
        let limit = ask.limit.get_unsigned();
        let duration = ask.duration.get_unsigned();
        let name = ask.name.into_string();
        if let Some(earlier) = limits.iter_mut().find(|earlier| earlier.name == name) {
            (earlier.limit, earlier.duration, earlier.auto_apply) = (limit, duration, ask.auto_apply);
            continue;
        }
        let id = present.iter().find(|old| old.name == name).map_or_else(|| RatelimitId(change.new_id()), |old| old.id);
        limits.push(Stored { id, name, limit, duration, auto_apply: ask.auto_apply });
    }
    limits
}

/// A rate limit of a key or an identity.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ratelimit {
    /// Its id.
    #[schemars(length(min = 8, max = 255), regex(pattern = "^rl_[a-zA-Z0-9_]+$"))]
    id: String,
    /// Its name.
    #[schemars(length(min = 1))]
    name: String,
    /// Most cost per window.
    #[schemars(range(min = 1))]
    limit: u64,
    /// Window length in milliseconds.
    #[schemars(range(min = 1000))]
    duration: u64,
    /// Whether every verification counts against it.
    auto_apply: bool,
}

impl Ratelimit {
    /// As the hot index has it.
    pub fn new(limit: &RatelimitView) -> Ratelimit {
        Ratelimit::of(limit.id, &limit.name, limit.limit, limit.duration, limit.auto_apply)
    }

    /// As a row has it.
    pub fn stored(limit: &Stored) -> Ratelimit {
        Ratelimit::of(limit.id, &limit.name, limit.limit, limit.duration, limit.auto_apply)
    }

    fn of(id: RatelimitId, name: &str, limit: u64, duration: u64, auto_apply: bool) -> Ratelimit {
        Ratelimit { id: id.to_string(), name: name.to_owned(), limit, duration, auto_apply }
    }
}
