//! Explicit lower bounds of `time` that lie before the workspace's retention (AN-RET-03 to -07). Everything that this does
//! not recognise counts as recent: what a query can see is the scan's matter, this is only for a clear answer.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use super::Rules;
use super::tree::{Body, Expr, From, Kind, Operator, Query, Select, With, walk};
use crate::error::Refusal;
use crate::sql::types::Unit;

const DAY_MS: i64 = 86_400_000;

/// How far back a workspace's queries may look.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Days; 0 is no limit.
    pub days: u32,
    /// Now, Unix milliseconds.
    pub now_ms: i64,
}

impl Retention {
    /// The first instant a query may ask for, Unix milliseconds.
    pub fn first_ms(&self) -> i64 {
        if self.days == 0 { i64::MIN } else { self.now_ms.saturating_sub(i64::from(self.days) * DAY_MS) }
    }
}

/// Refuses a statement that asks for more than is kept.
pub fn check(query: &Query, rules: &Rules) -> Result<(), Refusal> {
    let retention = Retention { days: rules.retention_days, now_ms: rules.now_ms };
    if retention.days == 0 {
        return Ok(());
    }
    look_at_query(query, &retention)
}

fn look_at_query(query: &Query, retention: &Retention) -> Result<(), Refusal> {
    for with in &query.with {
        match with {
            With::Table { name: _, query } => look_at_query(query, retention)?,
            With::Scalar { name: _, value } => look_below(value, retention)?,
        }
    }
    look_at_body(&query.body, retention)
}

fn look_at_body(body: &Body, retention: &Retention) -> Result<(), Refusal> {
    match body {
        Body::Select(select) => look_at_select(select, retention),
        Body::Query(query) => look_at_query(query, retention),
        Body::Set { operator: _, left, right } => {
            look_at_body(left, retention)?;
            look_at_body(right, retention)
        }
    }
}

fn look_at_select(select: &Select, retention: &Retention) -> Result<(), Refusal> {
    if let Some(from) = &select.from {
        look_at_from(from, retention)?;
    }
    if let Some(filter) = &select.filter {
        look_at_condition(filter, retention)?;
    }
    select.expressions().into_iter().try_for_each(|expr| look_below(expr, retention))
}

fn look_at_from(from: &From, retention: &Retention) -> Result<(), Refusal> {
    match from {
        From::Table { .. } | From::Function { .. } => Ok(()),
        From::Query { query, alias: _ } => look_at_query(query, retention),
        From::Join { kind: _, left, right, constraint: _ } => {
            look_at_from(left, retention)?;
            look_at_from(right, retention)
        }
    }
}

/// The subqueries of an expression have WHEREs of their own.
fn look_below(root: &Expr, retention: &Retention) -> Result<(), Refusal> {
    let mut queries = Vec::new();
    walk(root, &mut |expr| queries.extend(expr.query()));
    queries.into_iter().try_for_each(|query| look_at_query(query, retention))
}

fn look_at_condition(condition: &Expr, retention: &Retention) -> Result<(), Refusal> {
    let bound = match &condition.kind {
        Kind::And(parts) | Kind::Or(parts) => {
            return parts.iter().try_for_each(|part| look_at_condition(part, retention));
        }
        Kind::Alias(value, _) => return look_at_condition(value, retention),
        Kind::Binary(Operator::GreaterOrEquals | Operator::Greater, left, right) if is_time(left) => right,
        Kind::Binary(Operator::LessOrEquals | Operator::Less, left, right) if is_time(right) => left,
        Kind::Binary(Operator::Equals, left, right) if is_time(left) => right,
        Kind::Binary(Operator::Equals, left, right) if is_time(right) => left,
        Kind::Between { value, low, high: _, negated: false } if is_time(value) => low,
        _ => return Ok(()),
    };
    let Some(asked_ms) = instant(bound, retention.now_ms) else { return Ok(()) };
    let first_ms = retention.first_ms();
    if asked_ms >= first_ms {
        return Ok(());
    }
    Err(Refusal::Range(format!(
        "The query asks for data from {}, but this workspace keeps {} days: the first date available is {}.",
        date(asked_ms),
        retention.days,
        date(first_ms)
    )))
}

fn is_time(expr: &Expr) -> bool {
    match &expr.bare().kind {
        Kind::Name(path) => path.last().is_some_and(|name| name.eq_ignore_ascii_case("time")),
        _ => false,
    }
}

fn date(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| "before all dates".to_owned(), |instant| instant.format("%Y-%m-%d").to_string())
}

/// The instant an expression names, Unix milliseconds, as roughly as AN-RET-06 wants it.
fn instant(expr: &Expr, now_ms: i64) -> Option<i64> {
    match &expr.kind {
        Kind::Number(number) => number.replace('_', "").parse().ok(),
        Kind::Text(text) => parse(text),
        Kind::Alias(value, _) => instant(value, now_ms),
        Kind::Call(call) => {
            let name = call.name.to_ascii_lowercase();
            match name.as_str() {
                "now" | "now64" | "today" => Some(now_ms),
                "date_trunc" => instant(call.arguments.get(1)?, now_ms),
                "todate"
                | "todatetime"
                | "todatetime64"
                | "formatdatetime"
                | "tounixtimestamp64milli"
                | "fromunixtimestamp64milli" => instant(call.arguments.first()?, now_ms),
                _ if name.starts_with("tostartof") => instant(call.arguments.first()?, now_ms),
                _ => None,
            }
        }
        Kind::Binary(Operator::Minus, from, by) => instant(from, now_ms)?.checked_sub(length(by)?),
        Kind::Binary(Operator::Plus, left, right) => match (&left.kind, &right.kind) {
            (Kind::Interval(..), _) => instant(right, now_ms)?.checked_add(length(left)?),
            _ => instant(left, now_ms)?.checked_add(length(right)?),
        },
        _ => None,
    }
}

/// The length of an interval in milliseconds, months being 30 days and years 365.
fn length(expr: &Expr) -> Option<i64> {
    let Kind::Interval(amount, unit) = &expr.kind else { return None };
    let Kind::Number(amount) = &amount.kind else { return None };
    let unit_ms = match unit {
        Unit::Second => 1_000,
        Unit::Minute => 60_000,
        Unit::Hour => 3_600_000,
        Unit::Day => DAY_MS,
        Unit::Week => 7 * DAY_MS,
        Unit::Month => 30 * DAY_MS,
        Unit::Year => 365 * DAY_MS,
        Unit::Nanosecond | Unit::Microsecond | Unit::Millisecond | Unit::Quarter => return None,
    };
    amount.replace('_', "").parse::<i64>().ok()?.checked_mul(unit_ms)
}

/// RFC 3339, `YYYY-MM-DD HH:MM:SS` or `YYYY-MM-DD`, in UTC.
fn parse(text: &str) -> Option<i64> {
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.timestamp_millis());
    }
    if let Ok(local) = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S") {
        return Some(local.and_utc().timestamp_millis());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}
