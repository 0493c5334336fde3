//! What tracing costs a request.
//!
//! - `trace/off`: no collector is set up: the one branch that every request pays.
//! - `trace/left_alone`: one is, and this request is not chosen: an id is drawn.
//! - `trace/caller_declines`: one is, and the caller says that its trace is not recorded: its header is read.
//! - `trace/chosen`: the request is traced and handed to a queue, which another thread empties.
//! - `step/off`: what a read from the disk or a change pays to find that nobody traces it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use keyward::api::wire::RequestId;
use keyward::otlp::Counts;
use keyward::otlp::trace::{Ending, Tracer, Work, step};
use keyward::outside::Entropy;

/// Room of the queue.
const ROOM: usize = 8192;
const DECLINED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// What the HTTP layer does of it for one request.
fn request(tracer: Option<&Arc<Tracer>>, parent: Option<&str>, began: Instant, request_id: RequestId) {
    if let Some(tracer) = black_box(tracer)
        && let Some(trace) = tracer.begin(parent, began, 1_795_256_643_000)
    {
        trace.end(Ending { operation: 15, method: Some("POST"), status: 200, code: None, request_id });
    }
}

fn benches(criterion: &mut Criterion) {
    let entropy = Entropy::system();
    let id = RequestId::draw(&entropy, 1_795_256_643_000);
    let began = Instant::now();
    let (queue, waiting) = sync_channel(ROOM);
    let emptied = std::thread::spawn(move || waiting.iter().count());
    let tracer = |ratio| Arc::new(Tracer::new(ratio, queue.clone(), entropy.clone(), Arc::<Counts>::default()));
    let (none, all) = (tracer(0.0), tracer(1.0));
    let mut group = criterion.benchmark_group("trace");
    group.bench_function("off", |bencher| bencher.iter(|| request(None, None, began, id)));
    group.bench_function("left_alone", |bencher| bencher.iter(|| request(Some(&none), None, began, id)));
    group.bench_function("caller_declines", |bencher| {
        bencher.iter(|| request(Some(&none), black_box(Some(DECLINED)), began, id));
    });
    group.bench_function("chosen", |bencher| bencher.iter(|| request(Some(&all), None, began, id)));
    group.finish();
    criterion.bench_function("step/off", |bencher| bencher.iter(|| black_box(step(Work::ReadRecords)).is_none()));
    drop((none, all, queue));
    assert!(emptied.join().is_ok());
}

criterion_group!(otlp, benches);
criterion_main!(otlp);
