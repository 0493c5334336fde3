//! The values of metrics at a moment, in no form yet.

use std::borrow::Cow;

use super::table::Metric;

/// What is known of all metrics at a moment, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Samples(Vec<Family>);

/// A metric and its series.
#[derive(Debug)]
pub struct Family {
    /// The metric.
    pub metric: &'static Metric,
    /// Each with its labels.
    pub series: Vec<(Vec<Label>, Value)>,
}

/// A label's name and its value.
pub type Label = (&'static str, Cow<'static, str>);

/// The value of a series.
#[derive(Debug)]
pub enum Value {
    /// A count, or a size.
    Whole(u64),
    /// A time.
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

    /// The metrics, in order.
    pub fn families(&self) -> &[Family] {
        &self.0
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
