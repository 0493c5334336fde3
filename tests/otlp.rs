//! Telemetry as a collector gets it: spans of requests, metrics, and what becomes of them where the collector is away.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use keyward::metrics::table::METRICS;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::collector::{Collector, SILENT, Span};
use crate::harness::program::DataDir;
use crate::harness::{Ask, Options, Server, Workspace};

/// A collector, and a server that exports everything to it.
fn traced(collector: &Collector) -> Options {
    Options::default()
        .setting("KEYWARD_TELEMETRY_OTLP_ENDPOINT", collector.endpoint())
        .setting("KEYWARD_TELEMETRY_SAMPLING_RATIO", "1")
        .setting("KEYWARD_TELEMETRY_METRICS_INTERVAL_MS", "1000")
}

/// The span of a request, and its steps.
fn of_request(collector: &Collector, id: &str) -> (Span, Vec<Span>) {
    let span = collector.wait_for("the span of the request", |collector| {
        collector.spans().into_iter().find(|span| span.of("keyward.request_id") == id)
    });
    let steps = collector.spans().into_iter().filter(|other| other.parent == span.id).collect();
    (span, steps)
}

/// A request becomes a span with its operation, status, code and request id, and steps below it for what it took time for. A
/// caller's trace is gone on with where it is recorded, and left alone where it is not. What names no operation has none. The
/// last spans come although the server stops.
#[test]
fn requests_become_spans_of_their_callers_traces() {
    let collector = Collector::start(200);
    let headers = DataDir::named("headers");
    std::fs::write(headers.path(), "# of the collector\nAuthorization: Bearer for-the-collector\n").unwrap();
    std::fs::set_permissions(headers.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = traced(&collector).setting("KEYWARD_TELEMETRY_OTLP_HEADERS_FILE", headers.text());
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let server = &workspace.server;
    let id_of = |reply: &crate::harness::Reply| reply.header("x-request-id").unwrap().to_owned();

    let made = workspace.call("apis.createApi", json!({"name": "traced"})).send();
    let (span, steps) = of_request(&collector, &id_of(&made));
    assert_eq!((span.name.as_str(), span.kind, span.parent.as_str()), ("POST /v2/apis.createApi", 2, ""));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v2/apis.createApi"),
        ("http.response.status_code", "200"),
        ("keyward.operation", "apis.createApi"),
        ("error.type", ""),
    ] {
        assert_eq!(span.of(name), value, "{name}");
    }
    let [write] = &steps[..] else { panic!("one step: {steps:?}") };
    assert_eq!((write.name.as_str(), write.kind, &write.trace), ("write records", 1, &span.trace));
    assert!(span.from <= write.from && write.from < write.until && write.until <= span.until && span.flags & 1 == 1);

    let missing = workspace.call("identities.getIdentity", json!({"identity": "nobody"})).send();
    let (span, steps) = of_request(&collector, &id_of(&missing));
    assert_eq!((span.of("http.response.status_code"), span.of("error.type")), ("404", "unkey/data/identity_not_found"));
    assert!(!span.is_error, "the caller's mistake is none of ours");
    assert!(steps.iter().any(|step| step.name == "read records"), "{steps:?}");
    let asked = workspace
        .call("analytics.getVerifications", json!({"query": "SELECT count(*) AS n FROM key_verifications_v1"}));
    let (_, steps) = of_request(&collector, &id_of(&asked.send()));
    assert!(steps.iter().any(|step| step.name == "run query"), "{steps:?}");

    // A caller's trace.
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let ask = |flags: &str| {
        let call = workspace.call("keys.verifyKey", json!({"key": "nobody"}));
        server.exchange(&call.ask().clone().header("traceparent", &format!("00-{trace}-{parent}-{flags}")))
    };
    let left_alone = id_of(&ask("00"));
    let (span, _) = of_request(&collector, &id_of(&ask("01")));
    assert_eq!((span.trace.as_str(), span.parent.as_str(), span.flags), (trace, parent, 0x301));
    // Metrics and health are looked at all the time, and a path may be anything.
    server.get("/health/live");
    server.get("/v2/nowhere?key=secret");
    server.exchange(&Ask::new("BREW", "/v2/keys.verifyKey"));

    let last = id_of(&workspace.call("keys.whoami", json!({"key": "nobody"})).send());
    assert_eq!(server.stop(), Some(0));
    let spans = collector.spans();
    let has = |id: &str| spans.iter().any(|span| span.of("keyward.request_id") == id);
    assert!(has(&last), "it was handed over at the end");
    assert!(!has(&left_alone));
    let roots: Vec<&Span> = spans.iter().filter(|span| span.kind == 2).collect();
    assert!(roots.iter().all(|span| !span.of("keyward.operation").is_empty()), "{roots:#?}");
    assert!(
        roots.iter().any(|span| span.of("http.request.method") == "_OTHER" && span.name == "HTTP /v2/keys.verifyKey")
    );
    for post in collector.posts() {
        assert_eq!(post.headers["content-type"], "application/x-protobuf");
        assert_eq!(post.headers["authorization"], "Bearer for-the-collector");
    }
    assert!(!server.log().contains("for-the-collector"));
}

/// The metrics of the table and no others, with the numbers that Prometheus is told, their kind, help and unit.
#[test]
fn metrics_are_those_of_the_table() {
    let collector = Collector::start(200);
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), traced(&collector))));
    let key = workspace.key(&workspace.api(), json!({}));
    for _ in 0..4 {
        assert_eq!(workspace.code(&key, json!({})), "VALID");
    }
    let verified = |metrics: &std::collections::BTreeMap<String, crate::harness::collector::Metric>| {
        let points = &metrics.get("keyward_verifications_total")?.points;
        points.iter().find(|point| point.labels["code"] == "VALID").map(|point| point.value)
    };
    let metrics = collector.wait_for("metrics with the verifications", |collector| {
        collector.metrics().filter(|metrics| verified(metrics) == Some(4.0))
    });
    for (name, seen) in &metrics {
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}?"));
        assert_eq!(
            (seen.kind, seen.help.as_str(), seen.unit.as_str()),
            (metric.kind.name(), metric.help, metric.unit())
        );
        for point in &seen.points {
            let labels: Vec<&str> = point.labels.keys().map(String::as_str).collect();
            let mut wanted = metric.labels.to_vec();
            wanted.sort_unstable();
            assert_eq!(labels, wanted, "{name}");
        }
    }
    let missing: Vec<&str> =
        METRICS.iter().map(|metric| metric.name).filter(|name| !metrics.contains_key(*name)).collect();
    // Left out while there is nothing to say: neither a live export nor a lease is set up, the index may be opening, this node
    // follows nobody.
    let may_lack =
        ["audit_export", "search", "replication_staleness", "replication_leader_reachable", "replication_lease"];
    assert!(missing.iter().all(|name| may_lack.iter().any(|part| name.contains(part))), "{missing:?}");
    let times = &metrics["keyward_request_duration_seconds"];
    let of_verify = times.points.iter().find(|point| point.labels["operation"] == "keys.verifyKey").unwrap();
    assert_eq!(of_verify.buckets.1.iter().sum::<u64>(), 4);
    assert!(of_verify.value > 0.0 && times.unit == "s" && metrics["keyward_log_bytes"].unit == "By");
    collector.wait_for("the spans", |collector| (collector.spans().len() >= 4).then_some(()));
}

/// A collector that is away, that refuses, and that never answers costs requests nothing: they are answered, the log says so
/// once, what finds no room is counted, and the end waits for some seconds at most. One that comes back gets what waited.
#[test]
fn a_collector_that_is_away_holds_nothing_up() {
    let collector = Collector::start(503);
    let options = traced(&collector).setting("KEYWARD_TELEMETRY_QUEUE_SPANS", "16");
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let first = workspace.call("keys.whoami", json!({"key": "nobody"})).send();
    let first = first.header("x-request-id").unwrap().to_owned();
    collector.wait_for("a batch is refused", |collector| {
        collector.posts().iter().any(|post| post.path == "/v1/traces").then_some(())
    });
    let number = |server: &Server, name: &str| -> f64 {
        let scrape = server.get("/metrics").text();
        let line = scrape.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // The batch is waiting for its next try: what comes now stays in the queue, which is full at sixteen.
    while number(&workspace.server, "keyward_otlp_spans_dropped_total") < 1.0 {
        assert_eq!(workspace.call("keys.whoami", json!({"key": "nobody"})).send().status, 404);
    }
    collector.answer(200);
    of_request(&collector, &first);
    assert!(number(&workspace.server, "keyward_otlp_export_failures_total") >= 1.0);
    collector.wait_for("the log says that it is over", |_| {
        workspace.server.log().contains("telemetry is exported again").then_some(())
    });
    let log = workspace.server.log();
    assert_eq!(log.matches("telemetry cannot be exported for now").count(), 1, "{log}");
    assert!(log.contains("it answered 503"));
    assert!(number(&workspace.server, "keyward_otlp_spans_exported_total") >= 1.0);

    collector.answer(SILENT);
    for _ in 0..40 {
        assert_eq!(workspace.call("keys.whoami", json!({"key": "nobody"})).send().status, 404);
    }
    assert_eq!(workspace.server.stop(), Some(0), "nobody waits for it");
}

/// The ratio changes with a reload, and so do the headers; headers that others may read change nothing, and stop a start.
/// Variables of Unkey and of OpenTelemetry name the collector too.
#[test]
fn the_ratio_and_the_headers_are_read_again() {
    let collector = Collector::start(200);
    let (file, headers) = (DataDir::named("keyward.toml"), DataDir::named("headers"));
    let write = |ratio: &str| {
        std::fs::write(file.path(), format!("[telemetry]\nsampling_ratio = {ratio}\nsignals = \"traces\"\n")).unwrap();
    };
    let secret = |value: &str, mode: u32| {
        std::fs::write(headers.path(), format!("X-Tenant: {value}\n")).unwrap();
        std::fs::set_permissions(headers.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("0");
    secret("one", 0o600);
    let options = Options::default()
        .setting("KEYWARD_CONFIG", file.text())
        .setting("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .setting("KEYWARD_TELEMETRY_OTLP_HEADERS_FILE", headers.text());
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let server = &workspace.server;
    let ask = || {
        let reply = workspace.call("keys.whoami", json!({"key": "nobody"})).send();
        reply.header("x-request-id").unwrap().to_owned()
    };
    let reload = |line: &str| {
        let before = server.log().matches(line).count();
        server.signal(Signal::HUP);
        collector.wait_for(line, |_| (server.log().matches(line).count() > before).then_some(()));
    };
    let before = ask();
    write("1.0");
    secret("two", 0o600);
    reload("the settings were reloaded");
    of_request(&collector, &ask());
    assert_eq!(collector.posts().last().unwrap().headers["x-tenant"], "two");
    secret("three", 0o644);
    reload("the headers for telemetry stay as they were");
    of_request(&collector, &ask());
    assert_eq!(collector.posts().last().unwrap().headers["x-tenant"], "two");
    assert!(collector.spans().iter().all(|span| span.of("keyward.request_id") != before));
    assert!(collector.metrics().is_none(), "traces alone were asked for");
    assert_eq!(server.stop(), Some(0));

    let arguments = ["serve", "--data-dir", server.dir.text(), "--listen", "127.0.0.1:0"];
    let variables =
        [("UNKEY_OTEL_OTLP_ENDPOINT", &*collector.endpoint()), ("KEYWARD_TELEMETRY_OTLP_HEADERS_FILE", headers.text())];
    let refused = crate::harness::keyward_with(&arguments, &variables);
    assert!(refused.code == Some(1) && refused.stderr.contains("chmod 600"), "{refused:?}");
}
