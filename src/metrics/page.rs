//! The page about metrics: `packaging/docs/metrics.md`, made from the table.

use std::fmt::Write as _;

use super::table::METRICS;

/// What stands before the table.
const HEAD: &str = "\
# Metrics

`GET /metrics` answers in Prometheus's text format. What it tells is about the whole server and not about a tenant, but a
stranger has no business with it either, so it is served

- on the addresses of `listen` to clients in `metrics.allow`, by default this machine alone; everybody else gets the 404 of a
  path that does not exist. A request that came through a proxy counts as coming from each address in its `X-Forwarded-For`
  as well: all of them must be allowed.
- on `metrics.listen`, an address of its own, to whoever reaches it. Choose one that only your monitoring reaches. It answers
  `/metrics` and `/health/*` and nothing else, in plain HTTP.

`packaging/observability/` holds a scrape configuration, alert rules, and a Grafana dashboard.

Counting costs a request some nanoseconds: each thread counts for itself, without a lock, and a scrape adds up. No label
holds anything that a client or a tenant chose, so there are at most as many series as the program has operations and error
codes. After a restart counters begin at 0.

This page is made from `src/metrics/table.rs`; a test keeps the two the same.

| metric | kind | labels | says |
| --- | --- | --- | --- |
";

/// The page's text.
pub fn text() -> String {
    let mut page = HEAD.to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing into a string does not fail.
        let _ =
            writeln!(page, "| `{}` | {} | {} | {} |", metric.name, metric.kind.name(), labels.join(", "), metric.help);
    }
    page
}
