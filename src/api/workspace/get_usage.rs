//! workspace.getUsage: what the workspace used in a calendar month.

use keyward_query::events::Usage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime};

use crate::api::call::Call;
use crate::api::operation::{Body, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, Opt};
use crate::rbac::Need;

/// How far back a period may end.
const PAST_DAYS: i32 = 90;
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Which month.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// A calendar month, UTC, that is not over for more than 90 days; the present one where absent.
    #[serde(default)]
    period: Opt<Period>,
}

/// A calendar month.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Period {
    /// The year.
    year: Int<1970, 9999>,
    /// The month, 1 = January.
    month: Int<1, 12>,
}

/// What was used.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    period: Bounds,
    totals: Totals,
    breakdowns: Breakdowns,
}

/// The period.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// Unix milliseconds of its start.
    start: i64,
    /// Unix milliseconds of its end, which is not part of it.
    end: i64,
}

/// Sums over the workspace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    api: ApiTotals,
    compute: ComputeTotals,
    gateway: GatewayTotals,
}

/// What the API answered.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiTotals {
    /// Recorded verifications, whatever their outcome.
    verifications: u64,
    /// Recorded rate-limit decisions.
    ratelimits: u64,
}

/// Compute, of which keyward has none.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComputeTotals {
    /// Always 0.
    cpu_seconds: f64,
    /// Always 0.
    #[serde(rename = "memoryGiBHours")]
    memory_gib_hours: f64,
    /// Always 0.
    #[serde(rename = "storageGiBHours")]
    storage_gib_hours: f64,
    /// Always 0.
    #[serde(rename = "egressGiB")]
    egress_gib: f64,
}

/// The gateway, of which keyward has none.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTotals {
    /// Always 0.
    active_keys: u64,
}

/// Compute by environment and app: always empty.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breakdowns {
    by_environment: Vec<u64>,
    by_app: Vec<u64>,
}

/// workspace.getUsage.
pub struct GetUsage;

impl Operation for GetUsage {
    const NAME: &'static str = "workspace.getUsage";
    const SUMMARY: &'static str = "Get the workspace's usage";
    const DESCRIPTION: &'static str = "Returns how many verifications and rate-limit decisions the caller's workspace had \
        in a calendar month (UTC), as far as they are kept. Figures of compute are 0: keyward has none. The body may be \
        left out.";
    const BODY: Body = Body::Optional;
    const ALLOWS: &'static [&'static str] =
        &["workspace.*.read_workspace", "workspace.<workspaceId>.read_workspace", "unkey:v1:<workspaceId>:usage#read"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let id = call.workspace_id().spell();
        let need = [Need::any_or_one("workspace", &id, "read_workspace"), Need::urn(&["usage"], "read")];
        let _granted = call.authorize(&Need::Any(&need))?;
        let (from, to) = days(&ask, call.now)?;
        let workspace = call.workspace_id();
        let used = call.read_events("usage", move |events| events.usage(workspace, from, to)).await?;
        Ok(Response::new(from, to, used))
    }
}

impl Response {
    fn new(from: i32, to: i32, used: Usage) -> Response {
        Response {
            period: Bounds { start: i64::from(from) * DAY_MS, end: i64::from(to) * DAY_MS },
            totals: Totals {
                api: ApiTotals { verifications: used.verifications, ratelimits: used.ratelimits },
                compute: ComputeTotals {
                    cpu_seconds: 0.0,
                    memory_gib_hours: 0.0,
                    storage_gib_hours: 0.0,
                    egress_gib: 0.0,
                },
                gateway: GatewayTotals { active_keys: 0 },
            },
            breakdowns: Breakdowns { by_environment: Vec::new(), by_app: Vec::new() },
        }
    }
}

/// The days of the month asked for, since 1970: its first, and the one after its last.
fn days(ask: &Request, now_ms: u64) -> Result<(i32, i32), Problem> {
    let unusable = |detail: String| Problem::invalid(detail);
    let now = i64::try_from(now_ms / 1000).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    let now = now.ok_or_else(|| unusable("The request's time is beyond the calendar.".to_owned()))?;
    let (year, month) = match ask.period.as_ref() {
        Some(period) => (period.year.get_unsigned(), period.month.get_unsigned()),
        None => (u64::try_from(now.year()).unwrap_or(0), u64::from(u8::from(now.month()))),
    };
    let first = |year: u64, month: u64| -> Option<i32> {
        let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
        let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, 1).ok()?;
        Some(date.to_julian_day() - EPOCH_JULIAN_DAY)
    };
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let bounds = first(year, month).zip(first(next_year, next_month));
    let (from, to) = bounds.ok_or_else(|| unusable(format!("There is no month {year}-{month:02} to count.")))?;
    let today = now.date().to_julian_day() - EPOCH_JULIAN_DAY;
    if from > today || to < today - PAST_DAYS {
        return Err(unusable(format!(
            "The period {year}-{month:02} cannot be counted: it must have begun, and not be over for more than {PAST_DAYS} days."
        )));
    }
    Ok((from, to))
}

/// The Julian day of 1 January 1970.
const EPOCH_JULIAN_DAY: i32 = 2_440_588;
