//! What is traced, and what is noted of it. The bytes are looked at by `tests/otlp.rs`, from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use super::Counts;
use super::context::spell;
use super::messages::{self, Resource};
use super::trace::{self, Ending, Item, Span, Tracer, Work};
use crate::api::problem::Code;
use crate::api::wire::RequestId;
use crate::outside::Entropy;

const CALLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const LEFT_ALONE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn tracer(ratio: f64, room: usize) -> (Arc<Tracer>, Receiver<Item>, Arc<Counts>) {
    let (queue, waiting) = sync_channel(room);
    let counts = Arc::<Counts>::default();
    (Arc::new(Tracer::new(ratio, queue, Entropy::seeded(1), Arc::clone(&counts))), waiting, counts)
}

fn ending(status: u16, code: Option<Code>) -> Ending {
    Ending {
        operation: 15,
        method: Some("POST"),
        status,
        code,
        request_id: RequestId::draw(&Entropy::seeded(2), 1_795_256_643_000),
    }
}

fn taken(waiting: &Receiver<Item>) -> Box<Span> {
    match waiting.try_recv().expect("something waits") {
        Item::Span(span) => span,
        Item::Wake => panic!("nobody woke anybody"),
    }
}

/// The caller decides where it says anything, else the ratio; the ratio can change. What finds no room is counted, and
/// nobody waits for it.
#[test]
fn callers_decide_and_a_full_queue_drops() {
    let (tracer, waiting, counts) = tracer(0.0, 2);
    let begin = |parent| tracer.begin(parent, Instant::now(), 1_000);
    assert!(begin(None).is_none() && begin(Some(LEFT_ALONE)).is_none() && begin(Some("nonsense")).is_none());
    begin(Some(CALLED)).expect("its caller wants it").end(ending(200, None));
    let span = taken(&waiting);
    assert_eq!(
        (spell(&span.trace).as_str(), span.parent.map(|id| spell(&id)).as_deref()),
        (&CALLED[3..35], Some(&CALLED[36..52]))
    );
    tracer.set_ratio(1.0);
    assert!(begin(Some(LEFT_ALONE)).is_none(), "its caller does not");
    for _ in 0..5 {
        let trace = begin(None).expect("all are chosen");
        assert_eq!(trace.spelled_id().len(), 32);
        trace.end(ending(200, None));
    }
    assert_eq!(counts.spans_dropped.load(Ordering::Relaxed), 3);
    let (one, two) = (taken(&waiting), taken(&waiting));
    assert!(one.parent.is_none() && one.trace != two.trace && one.id != two.id);
}

/// A step belongs to the request that its task works for, and to none elsewhere. A request notes so many and counts the
/// others; what is still under way at its end is not of it.
#[test]
fn steps_belong_to_their_request() {
    let (tracer, waiting, _) = tracer(1.0, 4);
    let trace = tracer.begin(None, Instant::now(), 1_000).expect("all are chosen");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let late = runtime.block_on(trace::within(Arc::clone(&trace), async {
        drop(trace::step(Work::Query));
        for _ in 0..40 {
            let _step = trace::step(Work::ReadRecords);
            tokio::task::yield_now().await;
        }
        assert!(tokio::spawn(async { trace::step(Work::Query).is_none() }).await.expect("it ends"));
        trace::step(Work::WriteRecords).expect("it is traced")
    }));
    assert!(trace::step(Work::Query).is_none(), "outside");
    trace.end(ending(200, None));
    drop(late);
    let span = taken(&waiting);
    assert_eq!((span.steps.len(), span.left_out, span.steps[0].work), (32, 9, Work::Query));
    assert!(span.steps.iter().all(|step| step.after + step.took <= span.took));
}

/// A process tells itself from others by a random UUID (RFC 9562, version 4).
#[test]
fn an_instance_is_a_uuid() {
    let instance = |seed| Resource::new("here", &Entropy::seeded(seed)).instance;
    let (one, other) = (instance(3), instance(4));
    assert_ne!(one, other);
    let lengths: Vec<usize> = one.split('-').map(str::len).collect();
    assert_eq!((lengths, &one[14..15]), (vec![8, 4, 4, 4, 12], "4"), "{one}");
    assert!("89ab".contains(&one[19..20]), "{one}");
}

/// What a collector says of what it did not take.
#[test]
fn partial_success_is_read() {
    assert_eq!(messages::rejected(b""), None);
    assert_eq!(messages::rejected(b"\x0a\x00"), None, "it took all");
    assert_eq!(messages::rejected(b"\x0a\x05\x08\x03\x12\x01x"), Some((3, "x".to_owned())));
    assert_eq!(
        messages::rejected(b"\x0a\x04\x12\x02\x1b["),
        Some((0, "\\u{1b}[".to_owned())),
        "no terminal is told anything"
    );
    assert_eq!(messages::rejected(b"<html>no collector</html>"), None);
}
