//! Values as Prometheus reads them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::samples::{Family, Samples, Value};
use super::table::Kind;

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
        for Family { metric, series } in self.families() {
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
