//! What a run found, in a form for programs (JSON) and one for people (a table).

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::{Outcome, Pace, Plan};

/// Percentiles of a latency in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// The longest.
    pub max: f64,
    /// Mean.
    pub mean: f64,
}

impl Latency {
    /// Reads a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
        }
    }
}

/// One run's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// `closed` or `open`.
    pub mode: &'static str,
    /// Requests a second that an open loop was told to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// The generator's threads.
    pub threads: usize,
    /// Measured time in seconds.
    pub seconds: f64,
    /// Answers in the measured time.
    pub completed: u64,
    /// Answers a second.
    pub throughput: f64,
    /// Latencies in microseconds; of an open loop from the due time.
    pub latency_us: Latency,
    /// How late requests of an open loop left, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lateness_us: Option<Latency>,
    /// Answers by status, warm-up included.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that failed below HTTP.
    pub failures: u64,
    /// Answers without the text they had to hold.
    pub wrong_answers: u64,
    /// Requests that got no answer.
    pub unanswered: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// The generator's CPU time per request in microseconds.
    pub generator_cpu_us_per_request: f64,
}

impl Summary {
    /// Sums a run up.
    pub fn of(plan: &Plan, outcome: &Outcome) -> Summary {
        let rate = match plan.pace {
            Pace::Closed => None,
            Pace::Open { rate, .. } => Some(rate),
        };
        let counted = outcome.statuses.iter().zip(0u16..).filter(|(count, _)| **count > 0);
        Summary {
            mode: if rate.is_some() { "open" } else { "closed" },
            rate,
            connections: plan.connections,
            threads: plan.threads,
            seconds: outcome.measured.as_secs_f64(),
            completed: outcome.completed,
            throughput: outcome.throughput(),
            latency_us: Latency::of(&outcome.latency),
            lateness_us: rate.map(|_| Latency::of(&outcome.lateness)),
            statuses: counted.map(|(count, status)| (status, *count)).collect(),
            failures: outcome.failures,
            wrong_answers: outcome.wrong_answers,
            unanswered: outcome.unanswered,
            reconnects: outcome.reconnects,
            generator_cpu_us_per_request: per_request(outcome.generator_cpu, outcome.sent),
        }
    }

    /// One row under [`HEADINGS`].
    pub fn row(&self, name: &str) -> String {
        let latency = &self.latency_us;
        format!(
            "{name:<28}{:>11.0}{:>10.1}{:>10.1}{:>10.1}{:>11.1}{:>8}",
            self.throughput,
            latency.p50,
            latency.p99,
            latency.p999,
            latency.max,
            self.failures + self.wrong_answers + self.unanswered
        )
    }
}

/// The headings of [`Summary::row`].
pub const HEADINGS: &str = "run                            answers/s    p50 us    p99 us   p999 us     max us  failed";

/// CPU time per request in microseconds.
pub fn per_request(cpu: std::time::Duration, requests: u64) -> f64 {
    if requests == 0 { 0.0 } else { cpu.as_secs_f64() * 1e6 / requests as f64 }
}
