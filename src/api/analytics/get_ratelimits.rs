//! analytics.getRatelimits: a SELECT over rate-limit decisions.

use keyward_query::events::tables::Family;

use super::{FAILS, Request, Rows, answer};
use crate::api::call::Call;
use crate::api::operation::{Operation, Pace};
use crate::api::problem::{Code, Problem};

/// analytics.getRatelimits.
pub struct GetRatelimits;

impl Operation for GetRatelimits {
    const NAME: &'static str = "analytics.getRatelimits";
    const SUMMARY: &'static str = "Query rate-limit decisions with SQL";
    const DESCRIPTION: &'static str = "Runs one SELECT, in ClickHouse's dialect, over the decisions of `ratelimit.limit` and \
        `ratelimit.multiLimit`, and returns its rows. A decision can be queried within a second.\n\n\
        Tables: `ratelimits_v1` has one row per decision, with `time` in Unix milliseconds; `ratelimits_per_minute_v1`, \
        `..._per_hour_v1`, `..._per_day_v1` and `..._per_month_v1` have sums in `total`, `passed`, `total_tokens` and \
        `passed_tokens`, and are much faster over long ranges.\n\n\
        For instance: `SELECT identifier, SUM(total - passed) AS denied FROM ratelimits_per_hour_v1 WHERE time >= now() - \
        INTERVAL 1 DAY GROUP BY identifier ORDER BY denied DESC LIMIT 10`.\n\n\
        A root key with `ratelimit.*.read_analytics` sees all namespaces, one with \
        `ratelimit.<namespaceId>.read_analytics` that namespace, deleted or not. How many queries there may be in an hour, \
        how long they may take together, and how much one of them may use is set by the operator; an answer has at most \
        4 MiB.";
    const PACE: Pace = Pace::Stops;
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.read_analytics", "ratelimit.<namespaceId>.read_analytics"];
    const FAILS: &'static [Code] = FAILS;
    type Request = Request;
    type Response = Rows;

    async fn run(call: Call, ask: Request) -> Result<Rows, Problem> {
        answer(call, Family::Ratelimits, ask).await
    }
}
