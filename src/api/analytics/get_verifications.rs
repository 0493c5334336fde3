//! analytics.getVerifications: a SELECT over the verifications of keys.

use keyward_query::events::tables::Family;

use super::{FAILS, Request, Rows, answer};
use crate::api::call::Call;
use crate::api::operation::{Operation, Pace};
use crate::api::problem::{Code, Problem};

/// analytics.getVerifications.
pub struct GetVerifications;

impl Operation for GetVerifications {
    const NAME: &'static str = "analytics.getVerifications";
    const SUMMARY: &'static str = "Query verifications with SQL";
    const DESCRIPTION: &'static str = "Runs one SELECT, in ClickHouse's dialect, over the verifications of the workspace's \
        keys, and returns its rows. A verification can be queried within a second.\n\n\
        Tables: `key_verifications_v1` has one row per verification, with `time` in Unix milliseconds; \
        `key_verifications_per_minute_v1`, `..._per_hour_v1`, `..._per_day_v1` and `..._per_month_v1` have sums in `count` \
        and `spent_credits`, and are much faster over long ranges.\n\n\
        For instance: `SELECT outcome, SUM(count) AS verifications FROM key_verifications_per_day_v1 WHERE time >= today() - \
        INTERVAL 7 DAY GROUP BY outcome`.\n\n\
        A root key with `api.*.read_analytics` sees all keys, one with `api.<apiId>.read_analytics` the keys of that API. \
        How many queries there may be in an hour, how long they may take together, and how much one of them may use is set \
        by the operator; an answer has at most 4 MiB.";
    const PACE: Pace = Pace::Stops;
    const ALLOWS: &'static [&'static str] = &["api.*.read_analytics", "api.<apiId>.read_analytics"];
    const FAILS: &'static [Code] = FAILS;
    type Request = Request;
    type Response = Rows;

    async fn run(call: Call, ask: Request) -> Result<Rows, Problem> {
        answer(call, Family::Verifications, ask).await
    }
}
