//! What counting costs a request, and what a scrape costs.
//!
//! - `record/request`: how a request ended and how long it took: what the HTTP layer counts, without its clock.
//! - `record/verify`: all that is counted on the way of a verification: two look-ups, its outcome, the request.
//! - `record/verify/beside`: the same while other threads count, too: it must not be dearer.
//! - `record/clock`: the two readings of the clock that a time takes.
//! - `read`: adding up what eight threads have counted.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use keyward::api::OPERATIONS;
use keyward::metrics::recorder::{Index, Outcome, Recorder};
use keyward_query::events::Outcome as Verified;
use keyward_storage::Lookup;

/// Threads that count beside the measured one.
const BESIDE: usize = 3;

fn verify(recorder: &Recorder, nanos: u64) {
    recorder.lookup(Index::RootKeys, &Lookup::<()>::Absent);
    recorder.lookup(Index::Keys, &Lookup::<()>::Absent);
    recorder.verification(black_box(Some(Verified::Valid)));
    recorder.request(black_box(Some(15)), black_box(Outcome::OK), nanos);
}

fn benches(criterion: &mut Criterion) {
    let recorder = Recorder::new(OPERATIONS.len());
    let mut group = criterion.benchmark_group("record");
    let mut nanos = 0;
    group.bench_function("request", |bencher| {
        bencher.iter(|| {
            nanos = (nanos + 997) % 60_000;
            recorder.request(black_box(Some(15)), black_box(Outcome::OK), black_box(nanos));
        });
    });
    group.bench_function("verify", |bencher| bencher.iter(|| verify(&recorder, black_box(40_000))));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..BESIDE {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    verify(&recorder, 40_000);
                }
            });
        }
        group.bench_function("verify/beside", |bencher| bencher.iter(|| verify(&recorder, black_box(40_000))));
        stop.store(true, Ordering::Relaxed);
    });
    group.bench_function("clock", |bencher| {
        bencher.iter(|| {
            let begun = Instant::now();
            black_box(begun).elapsed()
        });
    });
    group.finish();
    let together = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                verify(&recorder, 1);
                together.wait();
            });
        }
    });
    criterion.bench_function("read", |bencher| bencher.iter(|| black_box(recorder.read())));
}

criterion_group!(metrics, benches);
criterion_main!(metrics);
