//! What a request may set on a key, and what it becomes in a row.

use keyward_storage::records::key::Refill;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::problem::Problem;
use crate::api::shape::{Int, Meta, Null, Opt, Patch};

/// 2100-01-01, the latest expiry (KEYS-CREATE-1).
pub const EXPIRES_MAX: i64 = 4_102_444_800_000;

/// When a key's credits come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Interval {
    /// Every day at midnight UTC.
    Daily,
    /// On one day of the month, at midnight UTC; on the last day where the month is shorter.
    Monthly,
}

/// How credits come back, in a request.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefillRequest {
    /// How often.
    pub interval: Interval,
    /// Credits are raised to this number.
    pub amount: Int<1, { i64::MAX }>,
    /// Day of the month; required for `monthly`.
    #[serde(default)]
    pub refill_day: Opt<Int<1, 31>>,
}

impl RefillRequest {
    /// As a new key has it: a day given with `daily` is ignored (KEYS-CREATE-5).
    pub fn for_new_key(self) -> Result<Refill, Problem> {
        match self.interval {
            Interval::Daily => Ok(Refill { amount: self.amount.get_unsigned(), day: None }),
            Interval::Monthly => self.monthly(),
        }
    }

    /// As a key that exists takes it: a day given with `daily` is refused (KEYS-UPDATE-2).
    pub fn for_update(self) -> Result<Refill, Problem> {
        if self.interval == Interval::Daily && self.refill_day.is_some() {
            return Err(Problem::invalid("`refillDay` must not be provided when the refill interval is `daily`."));
        }
        self.for_new_key()
    }

    fn monthly(self) -> Result<Refill, Problem> {
        let day = self.refill_day.map(|day| u8::try_from(day.get()).expect("the shape bounds it to 1..31"));
        match day {
            Some(day) => Ok(Refill { amount: self.amount.get_unsigned(), day: Some(day) }),
            None => Err(Problem::invalid("`refillDay` must be provided when the refill interval is `monthly`.")),
        }
    }
}

/// Credits of a new key (KEYS-OBJ-4).
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreditsRequest {
    /// How many verifications are left; null = unlimited.
    pub remaining: Null<Int<0, { i64::MAX }>>,
    /// How they come back.
    #[serde(default)]
    pub refill: Opt<RefillRequest>,
}

/// What a new key has from the start: credits, `None` = unlimited, and how they come back (KEYS-CREATE-3 steps 5 and 6,
/// KEYS-MIGRATE-10).
pub fn credits_of_new_key(ask: Opt<CreditsRequest>) -> Result<(Option<u64>, Option<Refill>), Problem> {
    let Some(CreditsRequest { remaining, refill }) = ask.0 else { return Ok((None, None)) };
    let remaining = remaining.0.map(Int::get_unsigned);
    if refill.is_some() && remaining.is_none() {
        return Err(refill_needs_credits());
    }
    Ok((remaining, refill.map(RefillRequest::for_new_key).transpose()?))
}

/// `refill` with unlimited credits makes no sense (KEYS-CREATE-3 step 5, KEYS-UPDATE-3).
pub fn refill_needs_credits() -> Problem {
    Problem::invalid("`credits.remaining` must be provided when `credits.refill` is set.")
}

/// Changes to credits: absent keeps, null clears (KEYS-UPDATE-2).
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreditsPatch {
    /// How many are left; null = unlimited, which removes the refill too.
    #[serde(default)]
    pub remaining: Patch<Int<0, { i64::MAX }>>,
    /// How they come back; null removes it.
    #[serde(default)]
    pub refill: Patch<RefillRequest>,
}

/// Metadata as a row holds it.
pub fn meta_text(meta: Meta) -> String {
    meta.as_str().to_owned()
}
