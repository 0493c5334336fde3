//! OTLP's messages (opentelemetry-proto 1.x, whose field numbers never change) made of spans and of metrics.

use super::context::{self, SpanId};
use super::protobuf::{self, Field, Message};
use super::trace::Span;
use crate::api::OPERATIONS;
use crate::metrics::samples::{Family, Samples, Value};
use crate::metrics::table::Kind;
use crate::outside::Entropy;

const KIND_INTERNAL: u64 = 1;
const KIND_SERVER: u64 = 2;
const STATUS_ERROR: u64 = 2;
/// `AggregationTemporality`: values are counted since the start.
const CUMULATIVE: u64 = 2;
/// Flags of a span: it is recorded, and it is known whether its parent is in another process.
const FLAGS_OF_ROOT: u32 = 0x101;
/// The same, and it is in another process.
const FLAGS_OF_CALLED: u32 = 0x301;
/// Nanoseconds of a millisecond.
const MS_NS: u64 = 1_000_000;
/// What a collector says of spans that it did not take, cut at this many bytes.
const REASON_BYTES_MAX: usize = 200;

/// Who exports.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Tells this process from others and from its own former ones: a random UUID.
    pub instance: String,
    /// The setting `region`.
    pub region: String,
}

impl Resource {
    /// A process that begins now.
    pub fn new(region: &str, entropy: &Entropy) -> Resource {
        let mut id: [u8; 16] = context::draw(entropy);
        // Version 4, variant 1 (RFC 9562, 5.4).
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        let hex = context::spell(&id);
        let instance = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        Resource { instance, region: region.to_owned() }
    }

    fn write(&self, to: &mut Message) {
        to.message(1, |resource| {
            for (key, value) in [
                ("service.name", "keyward"),
                ("service.version", env!("CARGO_PKG_VERSION")),
                ("service.instance.id", &self.instance),
                ("keyward.region", &self.region),
            ] {
                text_attribute(resource, 1, key, value);
            }
        });
    }
}

/// `InstrumentationScope`.
fn scope(to: &mut Message) {
    to.message(1, |scope| {
        scope.text(1, "keyward");
        scope.text(2, env!("CARGO_PKG_VERSION"));
    });
}

fn text_attribute(to: &mut Message, field: u32, key: &str, value: &str) {
    to.message(field, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.text(1, value));
    });
}

fn number_attribute(to: &mut Message, field: u32, key: &str, value: u64) {
    to.message(field, |pair| {
        pair.text(1, key);
        pair.message(2, |any| any.varint(3, value));
    });
}

/// `ExportTraceServiceRequest`. Ids of the steps are drawn here.
pub fn traces(resource: &Resource, spans: &[Span], entropy: &Entropy) -> Vec<u8> {
    let mut request = Message::default();
    request.message(1, |of_resource| {
        resource.write(of_resource);
        of_resource.message(2, |of_scope| {
            scope(of_scope);
            for span in spans {
                of_scope.message(2, |message| request_span(message, span));
                for step in &span.steps {
                    let from = nanos(span.began_ms, step.after.as_nanos());
                    let times = (from, nanos_after(from, step.took.as_nanos()));
                    of_scope.message(2, |message| {
                        span_head(message, span, context::draw(entropy), Some(span.id));
                        span_body(message, step.work.name(), KIND_INTERNAL, times);
                        message.fixed32(16, FLAGS_OF_ROOT);
                    });
                }
            }
        });
    });
    request.into_bytes()
}

fn span_head(to: &mut Message, span: &Span, id: SpanId, parent: Option<SpanId>) {
    to.bytes(1, &span.trace);
    to.bytes(2, &id);
    if let Some(parent) = parent {
        to.bytes(4, &parent);
    }
}

fn span_body(to: &mut Message, name: &str, kind: u64, (from, until): (u64, u64)) {
    to.text(5, name);
    to.varint(6, kind);
    to.fixed64(7, from);
    to.fixed64(8, until);
}

/// The span of a request, by OpenTelemetry's semantic conventions for HTTP servers.
fn request_span(to: &mut Message, span: &Span) {
    let ending = &span.ending;
    let Some(operation) = OPERATIONS.get(ending.operation) else { return };
    let method = ending.method.unwrap_or("_OTHER");
    let from = nanos(span.began_ms, 0);
    span_head(to, span, span.id, span.parent);
    span_body(
        to,
        &format!("{} {}", ending.method.unwrap_or("HTTP"), operation.path),
        KIND_SERVER,
        (from, nanos_after(from, span.took.as_nanos())),
    );
    text_attribute(to, 9, "http.request.method", method);
    text_attribute(to, 9, "http.route", operation.path);
    number_attribute(to, 9, "http.response.status_code", u64::from(ending.status));
    text_attribute(to, 9, "keyward.operation", operation.name);
    text_attribute(to, 9, "keyward.request_id", ending.request_id.as_str());
    if let Some(code) = ending.code {
        text_attribute(to, 9, "error.type", code.path());
    }
    if span.left_out > 0 {
        number_attribute(to, 9, "keyward.steps_left_out", u64::from(span.left_out));
    }
    if ending.status >= 500 {
        to.message(15, |status| status.varint(3, STATUS_ERROR));
    }
    to.fixed32(16, if span.parent.is_some() { FLAGS_OF_CALLED } else { FLAGS_OF_ROOT });
}

fn nanos(ms: u64, more: u128) -> u64 {
    nanos_after(ms.saturating_mul(MS_NS), more)
}

fn nanos_after(ns: u64, more: u128) -> u64 {
    ns.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}

/// `ExportMetricsServiceRequest`: every series of the samples, cumulative since the start. Times are Unix ms.
pub fn metrics(resource: &Resource, samples: &Samples, started_at_ms: u64, now_ms: u64) -> Vec<u8> {
    let times = (nanos(started_at_ms, 0), nanos(now_ms, 0));
    let mut request = Message::default();
    request.message(1, |of_resource| {
        resource.write(of_resource);
        of_resource.message(2, |of_scope| {
            scope(of_scope);
            for family in samples.families() {
                of_scope.message(2, |message| metric(message, family, times));
            }
        });
    });
    request.into_bytes()
}

fn metric(to: &mut Message, Family { metric, series }: &Family, times: (u64, u64)) {
    to.text(1, metric.name);
    to.text(2, metric.help);
    to.text(3, metric.unit());
    let kind = match metric.kind {
        Kind::Gauge => 5,
        Kind::Counter => 7,
        Kind::Histogram => 9,
    };
    to.message(kind, |data| {
        for (labels, value) in series {
            data.message(1, |point| {
                point.fixed64(2, times.0);
                point.fixed64(3, times.1);
                let attributes = match value {
                    Value::Whole(value) => {
                        // What is counted stays far below the sign.
                        point.fixed64(6, (*value).min(i64::MAX as u64));
                        7
                    }
                    Value::Real(value) => {
                        point.double(4, *value);
                        7
                    }
                    Value::Buckets(buckets, sum) => {
                        point.fixed64(4, buckets.iter().map(|(_, count)| count).sum());
                        point.double(5, *sum);
                        point.packed_fixed64(6, buckets.iter().map(|(_, count)| *count));
                        // The last bucket has no bound.
                        let bounds = &buckets[..buckets.len().saturating_sub(1)];
                        point.packed_fixed64(7, bounds.iter().map(|(bound, _)| bound.to_bits()));
                        9
                    }
                };
                for (name, label) in labels {
                    text_attribute(point, attributes, name, label);
                }
            });
        }
        match metric.kind {
            Kind::Gauge => {}
            Kind::Counter => {
                data.varint(2, CUMULATIVE);
                data.varint(3, 1);
            }
            Kind::Histogram => data.varint(2, CUMULATIVE),
        }
    });
}

/// What a collector did not take of what it answered 200 to (`partial_success`): how many, and what it says of it. `None`
/// where it took all.
pub fn rejected(answer: &[u8]) -> Option<(u64, String)> {
    let Some(Field::Bytes(partial)) = protobuf::find(answer, 1) else { return None };
    let number = match protobuf::find(partial, 1) {
        Some(Field::Number(number)) => number,
        _ => 0,
    };
    let reason = match protobuf::find(partial, 2) {
        Some(Field::Bytes(reason)) => String::from_utf8_lossy(reason).into_owned(),
        _ => String::new(),
    };
    let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].escape_debug().to_string();
    (number > 0 || !reason.is_empty()).then_some((number, reason))
}
