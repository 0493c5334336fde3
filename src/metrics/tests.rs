//! What is counted, how it is told, and that it stays bounded.

use std::collections::HashSet;
use std::sync::Barrier;

use keyward_storage::Lookup;
use serde_json::json;

use super::recorder::{FOUND, INDEXES, Index, LATENCIES_NS, Outcome, Recorder, VERIFIED};
use super::table::{Kind, METRICS, of_series};
use super::{Metrics, page};
use crate::api::OPERATIONS;
use crate::api::problem::Code;
use crate::api::testing::Kit;

/// The page is the one the code generates. `KEYWARD_REGENERATE=1` rewrites it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a switch of this test")]
fn the_published_page_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/docs/metrics.md");
    if std::env::var_os("KEYWARD_REGENERATE").is_some() {
        std::fs::write(path, page::text()).expect("the page can be written");
    }
    assert_eq!(std::fs::read_to_string(path).expect("it is there"), page::text(), "run with KEYWARD_REGENERATE=1");
}

/// Names are what Prometheus takes, differ, and say their kind and unit; every metric says something.
#[test]
fn names_are_as_they_should_be() {
    let mut seen = HashSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(seen.insert(name), "{name} is there twice");
        assert!(name.starts_with("keyward_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert!(metric.help.len() > 10 && !metric.help.ends_with('.') && !metric.help.contains('|'), "{name}");
        assert_eq!(of_series(name), Some(*metric));
    }
    assert_eq!(of_series("keyward_log_sync_duration_seconds_bucket").map(|metric| metric.kind), Some(Kind::Histogram));
    assert_eq!((of_series("keyward_hot_keys_count"), of_series("keyward_nothing")), (None, None));
}

/// Statuses and codes make outcomes one to one: what is told is what was answered.
#[test]
fn every_answer_has_an_outcome_of_its_own() {
    let labels: HashSet<(u16, &str)> = Outcome::all().map(Outcome::labels).collect();
    assert_eq!(labels.len(), Outcome::all().count());
    for code in Code::ALL {
        assert_eq!(Outcome::of(code.status(), Some(*code)).labels(), (code.status(), code.path()));
    }
    for (status, code) in [
        (503, Code::ServiceUnavailable),
        (500, Code::ServiceUnavailable),
        (404, Code::InvalidInput),
        (405, Code::InvalidInput),
    ] {
        assert_eq!(Outcome::of(status, Some(code)).labels(), (status, code.path()));
    }
    assert_eq!((Outcome::of(200, None), Outcome::of(308, None)), (Outcome::OK, Outcome::OK));
    assert_eq!(Outcome::of(404, None).labels(), (404, Code::InvalidInput.path()), "a page that is not there");
    assert_eq!(Outcome::of(418, None).labels(), (500, Code::UnexpectedError.path()));
}

/// Nothing is lost and nothing counted twice, however many threads come and go; there are no more shards than threads at one
/// time, and recorders do not mix.
#[test]
fn threads_come_and_go_and_everything_is_counted() {
    const THREADS: usize = 8;
    const EACH: u64 = 2_000;
    let (recorder, other) = (Recorder::new(3), Recorder::new(3));
    for _ in 0..5 {
        let together = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (recorder, other, together) = (&recorder, &other, &together);
                scope.spawn(move || {
                    together.wait();
                    for at in 0..EACH {
                        recorder.request(Some(thread % 3), Outcome::OK, at * 1_000);
                        recorder.verification(None);
                        recorder.lookup(Index::Keys, &Lookup::<()>::Absent);
                        if at % 100 == 0 {
                            // A thread that serves two takes turns.
                            other.request(None, Outcome::of(503, Some(Code::ServiceUnavailable)), u64::MAX / 1_000_000);
                            other.decision(true);
                        }
                    }
                    together.wait();
                });
            }
        });
    }
    let all = 5 * THREADS as u64 * EACH;
    let counted = recorder.read();
    assert_eq!((0..4).map(|operation| counted.requests(operation, Outcome::OK)).sum::<u64>(), all);
    let latencies: u64 = (0..4).map(|operation| counted.latencies(operation).0.iter().sum::<u64>()).sum();
    let sum: u64 = (0..4).map(|operation| counted.latencies(operation).1).sum();
    assert_eq!((latencies, sum), (all, all / EACH * (0..EACH).map(|at| at * 1_000).sum::<u64>()));
    assert_eq!((counted.verifications(1), counted.verifications(0)), (all, 0));
    assert_eq!((counted.lookups(0, 1), counted.lookups(0, 0)), (all, 0));
    let others = other.read();
    assert_eq!((others.requests(3, Outcome::OK), others.decisions(true)), (0, all / 100));
    assert_eq!(others.latencies(3).0.last(), Some(&(all / 100)), "beyond all bounds");
    // Threads of one round may still be ending when those of the next begin; without reuse there would be five rounds' worth.
    assert!(
        recorder.shards() <= 2 * THREADS && other.shards() <= 2 * THREADS,
        "{} {}",
        recorder.shards(),
        other.shards()
    );
}

/// The number of series is bounded by the program: with every operation having ended in every way, and a flood of requests
/// that name nothing, there are as many as the tables say.
#[test]
fn the_number_of_series_is_bounded() {
    let kit = Kit::new();
    let requests = &kit.services.metrics.requests;
    for operation in (0..OPERATIONS.len()).map(Some).chain([None]) {
        for outcome in Outcome::all() {
            requests.request(operation, outcome, 1);
            // A number that is none of the table's counts among those that name nothing.
            requests.request(Some(usize::MAX), outcome, 1);
        }
    }
    VERIFIED.iter().for_each(|(outcome, _)| requests.verification(*outcome));
    let text = Metrics::exposition(&kit.services);
    let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    let operations = OPERATIONS.len() + 1;
    assert_eq!(of("keyward_requests_total{"), operations * Outcome::all().count());
    assert_eq!(of("keyward_request_duration_seconds_bucket{"), operations * (LATENCIES_NS.len() + 1));
    assert_eq!(of("keyward_verifications_total{"), VERIFIED.len());
    assert_eq!(of("keyward_lookups_total{"), INDEXES.len() * FOUND.len());
    let all = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(all < operations * (Outcome::all().count() + LATENCIES_NS.len() + 3) + 300, "{all} series");
}

/// KEYS-VERIFY-2, RL-LIMIT-01: what operations decide is what is counted, by the names of the answers.
#[test]
fn verifications_and_decisions_are_counted_as_they_are_answered() {
    let kit = Kit::new();
    let api = kit.api();
    let made = kit.ok("keys.createKey", json!({"apiId": api, "credits": {"remaining": 2}}));
    for expected in ["VALID", "VALID", "USAGE_EXCEEDED"] {
        assert_eq!(kit.ok("keys.verifyKey", json!({"key": made["key"]}))["code"], expected);
    }
    assert_eq!(kit.ok("keys.verifyKey", json!({"key": "nobody"}))["code"], "NOT_FOUND");
    for _ in 0..3 {
        kit.ok("ratelimit.limit", json!({"namespace": "n", "identifier": "i", "limit": 2, "duration": 60_000}));
    }
    let several = json!([{"namespace": "n", "identifier": "i", "limit": 2, "duration": 60_000},
        {"namespace": "n", "identifier": "other", "limit": 2, "duration": 60_000}]);
    kit.ok("ratelimit.multiLimit", several);
    let text = Metrics::exposition(&kit.services);
    for line in [
        "keyward_verifications_total{code=\"VALID\"} 2",
        "keyward_verifications_total{code=\"USAGE_EXCEEDED\"} 1",
        "keyward_verifications_total{code=\"NOT_FOUND\"} 1",
        "keyward_verifications_total{code=\"EXPIRED\"} 0",
        "keyward_ratelimit_decisions_total{outcome=\"passed\"} 3",
        "keyward_ratelimit_decisions_total{outcome=\"refused\"} 2",
        "keyward_lookups_total{index=\"keys\",result=\"hit\"} 3",
        "keyward_lookups_total{index=\"keys\",result=\"absent\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
}
