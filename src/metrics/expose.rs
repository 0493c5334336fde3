//! Values as Prometheus reads them.

use std::borrow::Cow;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::table::{Kind, Metric};

/// What is known of all metrics at a moment, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Samples(Vec<Family>);

/// A metric and its series.
#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    series: Vec<(Vec<Label>, Value)>,
}

type Label = (&'static str, Cow<'static, str>);

/// The value of a series.
#[derive(Debug)]
enum Value {
    Whole(u64),
    Real(f64),
    /// Upper bounds with how many values were in each bucket alone, the last bound being infinite; and the sum.
    Buckets(Vec<(f64, u64)>, f64),
}

impl Samples {
    /// The value of a metric without labels.
    pub fn set(&mut self, metric: &'static Metric, value: u64) {
        self.push(metric, &[], Value::Whole(value));
    }

    /// The same where the value may be unknown: then the metric is left out.
    pub fn set_if(&mut self, metric: &'static Metric, value: Option<u64>) {
        if let Some(value) = value {
            self.set(metric, value);
        }
    }

    /// A time in seconds.
    pub fn set_seconds(&mut self, metric: &'static Metric, seconds: f64) {
        self.push(metric, &[], Value::Real(seconds));
    }

    /// The value of a series, with values for the metric's labels.
    pub fn add(&mut self, metric: &'static Metric, labels: &[Cow<'static, str>], value: u64) {
        self.push(metric, labels, Value::Whole(value));
    }

    /// A histogram: bounds, counts by bucket (one more than bounds), and the sum; `scale` is what makes the metric's unit of
    /// theirs.
    pub fn add_buckets(
        &mut self,
        metric: &'static Metric,
        labels: &[Cow<'static, str>],
        (bounds, counts, sum): (&[u64], &[u64], u64),
        scale: f64,
    ) {
        let bounds = bounds.iter().map(|bound| *bound as f64 / scale).chain([f64::INFINITY]);
        let buckets = bounds.zip(counts.iter().copied()).collect();
        self.push(metric, labels, Value::Buckets(buckets, sum as f64 / scale));
    }

    fn push(&mut self, metric: &'static Metric, labels: &[Cow<'static, str>], value: Value) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let labels = metric.labels.iter().copied().zip(labels.iter().cloned()).collect();
        match self.0.last_mut() {
            Some(family) if std::ptr::eq(family.metric, metric) => family.series.push((labels, value)),
            _ => self.0.push(Family { metric, series: vec![(labels, value)] }),
        }
    }
}

/// The text of a scrape.
pub fn text(samples: Samples) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(samples));
    let mut text = String::with_capacity(64 * 1024);
    // Writing into a string does not fail.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { metric, series } in &self.0 {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            // The encoder adds the end of a counter's name itself.
            let name = metric.name.strip_suffix("_total").filter(|_| metric.kind == Kind::Counter);
            let help = format!("{}.", metric.help);
            let mut family = encoder.encode_descriptor(name.unwrap_or(metric.name), &help, None, kind)?;
            for (labels, value) in series {
                let mut one = family.encode_family(labels)?;
                match (metric.kind, value) {
                    (Kind::Counter, Value::Whole(value)) => one.encode_counter::<NoLabelSet, u64, f64>(value, None)?,
                    (Kind::Counter, Value::Real(value)) => one.encode_counter::<NoLabelSet, f64, f64>(value, None)?,
                    (_, Value::Whole(value)) => one.encode_gauge(value)?,
                    (_, Value::Real(value)) => one.encode_gauge(value)?,
                    (_, Value::Buckets(buckets, sum)) => {
                        let count = buckets.iter().map(|(_, count)| count).sum();
                        one.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
