//! Events in process: how many a second one core records, journals and seals, and how many bytes of Parquet each takes.
//!
//! The whole process is bound to one core, so that the threads of the store and the one that records share it. Chance is
//! asked before the clock runs; events are made as requests make them, labels allocated one by one. Once until they are
//! journaled and queries see them, and once until they are sealed, roll-ups included. Their times are those of half a
//! million a second, as a server that records so many sees them; once more, sealed, with the times of a slow half day in
//! one piece, as an import of history brings them: there nearly each event is alone in its minute, and what is sealed is
//! twice as many rows. The bytes are those of ten million events over thirty days, roll-ups included, after every merge;
//! `KEYWARD_BENCH_EVENTS` sets another number.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::print_stderr, reason = "a bench tells its figures")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use keyward::api::wire::RequestId;
use keyward::outside::Entropy;
use keyward_query::events::event::REQUEST_ID_BYTES;
use keyward_query::events::{Event, Events, Options, Outcome, Verification};
use keyward_storage::disk::RealDisk;
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::{IdText, IdentityId, KeyId, KeyspaceId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The same allocator as keyward's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START: u64 = 1_772_323_200_000; // 1 March 2026
const DAYS: u64 = 30;
const DAY: u64 = 86_400_000;
const KEYS: u64 = 5_000;
const IDENTITIES: usize = 1_500;
const INGESTED: u64 = 3_000_000;
/// The time they would take at the rate that is asked for.
const LIVE_MS: u64 = INGESTED / 500;
/// Events that are journaled and shown to queries, and too few to be sealed.
const JOURNALED: u64 = 500_000;

/// A workspace's traffic: a few keys make most of it, what hangs on a key stays the same, nearly all is well.
struct Traffic {
    dice: SplitMix,
    entropy: Entropy,
    workspace: WorkspaceId,
    keyspaces: [KeyspaceId; 3],
    keys: Vec<(KeyId, Option<Arc<IdentityView>>)>,
    time: f64,
    gap: f64,
}

fn id(dice: &mut SplitMix) -> IdText {
    IdText::draw(|| u8::try_from(dice.below(248)).unwrap_or(0))
}

impl Traffic {
    /// So many events evenly over `ms` milliseconds.
    fn new(events: u64, ms: u64) -> Traffic {
        let mut dice = SplitMix(1);
        let identities: Vec<Arc<IdentityView>> = (0..IDENTITIES)
            .map(|number| {
                Arc::new(IdentityView {
                    id: IdentityId(id(&mut dice)),
                    external_id: format!("user_{number:05}").into(),
                    meta: None,
                    ratelimits: Box::new([]),
                })
            })
            .collect();
        let keys = (0..KEYS)
            .map(|_| {
                let identity = (dice.below(10) < 8).then(|| {
                    let at = usize::try_from(dice.below(IDENTITIES as u64)).unwrap_or(0);
                    Arc::clone(&identities[at])
                });
                (KeyId(id(&mut dice)), identity)
            })
            .collect();
        Traffic {
            workspace: WorkspaceId(id(&mut dice)),
            keyspaces: [0; 3].map(|_| KeyspaceId(id(&mut dice))),
            keys,
            time: START as f64,
            gap: ms as f64 / events as f64,
            dice,
            entropy: Entropy::seeded(3),
        }
    }

    fn share(&mut self) -> f64 {
        self.dice.below(1 << 53) as f64 / (1u64 << 53) as f64
    }

    /// Draws what is to happen next.
    fn draw(&mut self) -> Drawn {
        self.time += self.gap * 2.0 * self.share();
        let time = self.time as u64;
        // Zipf-like: the rank is log-uniform.
        let rank = (((KEYS as f64).powf(self.share()) - 1.0) as usize).min(self.keys.len() - 1);
        // A few to some hundred microseconds, most of them short.
        let micros = (8.0 * (4.0 * self.share() * self.share()).exp()).round();
        let request_id = *RequestId::draw(&self.entropy, time).as_bytes();
        Drawn { request_id, time, rank, micros, chances: [self.dice.below(10), self.dice.below(100)] }
    }

    /// The event as a request makes it: its labels are allocated, all else is there.
    fn event(&self, drawn: &Drawn) -> Event {
        let rank = drawn.rank;
        let (key, identity) = self.keys[rank].clone();
        let [label, fate] = drawn.chances;
        let tags = match (rank % 4, label) {
            (0, _) => vec![],
            (1, 0..9) => vec!["path=/v1/chat".to_owned()],
            (1, _) => vec!["path=/v1/models".to_owned()],
            (2, _) => vec!["region=eu".to_owned(), format!("plan={}", rank % 3)],
            (_, _) => vec![format!("endpoint=/items/{}", label % 8)],
        };
        let outcome = match fate {
            0..94 => Outcome::Valid,
            94..97 => Outcome::RateLimited,
            97 => Outcome::UsageExceeded,
            98 => Outcome::InsufficientPermissions,
            _ => Outcome::Expired,
        };
        Verification {
            request_id: drawn.request_id,
            time: drawn.time,
            workspace: self.workspace,
            keyspace: self.keyspaces[rank % 3],
            key,
            identity,
            outcome,
            tags,
            spent_credits: u64::from(rank.is_multiple_of(2) && outcome == Outcome::Valid),
            latency_ms: drawn.micros / 1e3,
        }
        .into()
    }
}

/// What chance says of an event.
struct Drawn {
    request_id: [u8; REQUEST_ID_BYTES],
    time: u64,
    rank: usize,
    micros: f64,
    chances: [u64; 2],
}

fn open(dir: &Path) -> Events {
    Events::open(Options {
        dir: dir.to_path_buf(),
        disk: Arc::new(RealDisk),
        region: "local".to_owned(),
        clock: Arc::new(|| START),
        queue_events: 131_072,
        min_free_bytes: 0,
        retention: None,
    })
    .expect("an event store")
}

fn record(events: &Events, mut event: Event) {
    loop {
        match events.try_record(event) {
            Ok(()) => return,
            Err(back) => event = back,
        }
        std::thread::yield_now();
    }
}

/// Binds the process to one core.
fn bind_to_one_core() {
    let allowed = sched_getaffinity(None).expect("the cores of this process");
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).rev().find(|core| allowed.is_set(*core)).expect("there is a core"));
    sched_setaffinity(None, &one).expect("bound to a core");
}

fn ingest(bench: &mut Criterion) {
    keyward::allocator::keep_freed_memory();
    bind_to_one_core();
    let mut group = bench.benchmark_group("events");
    group.sample_size(10).measurement_time(Duration::from_secs(20)).throughput(Throughput::Elements(INGESTED));
    for (name, ms) in [("record, journal and seal", LIVE_MS), ("record, journal and seal history", DAY / 2)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let home = tempfile::tempdir().expect("a scratch directory");
                    let mut traffic = Traffic::new(INGESTED, ms);
                    let drawn: Vec<Drawn> = (0..INGESTED).map(|_| traffic.draw()).collect();
                    let events = open(home.path());
                    let begun = Instant::now();
                    for drawn in &drawn {
                        record(&events, traffic.event(drawn));
                    }
                    events.stop();
                    spent += begun.elapsed();
                    assert_eq!((events.stats().written, events.stats().unsealed_rows), (INGESTED, 0));
                }
                black_box(spent)
            });
        });
    }
    group.throughput(Throughput::Elements(JOURNALED));
    group.bench_function("record and journal", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let home = tempfile::tempdir().expect("a scratch directory");
                let mut traffic = Traffic::new(INGESTED, LIVE_MS);
                let drawn: Vec<Drawn> = (0..JOURNALED).map(|_| traffic.draw()).collect();
                let events = open(home.path());
                let begun = Instant::now();
                for drawn in &drawn {
                    record(&events, traffic.event(drawn));
                }
                events.flush();
                spent += begun.elapsed();
                assert_eq!(events.stats().unsealed_rows, JOURNALED, "nothing was sealed meanwhile");
                events.stop();
            }
            spent
        });
    });
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a smaller number for who is in a hurry; a bench has no settings")]
fn size(_: &mut Criterion) {
    let count = std::env::var("KEYWARD_BENCH_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let home = tempfile::tempdir().expect("a scratch directory");
    let events = open(home.path());
    let mut traffic = Traffic::new(count, DAYS * DAY);
    let begun = Instant::now();
    for _ in 0..count {
        let drawn = traffic.draw();
        record(&events, traffic.event(&drawn));
    }
    let recorded = begun.elapsed();
    events.settle();
    let stats = events.stats();
    eprintln!(
        "{count} events: {:.2} bytes each in {} files, {:.0}/s made and recorded, {:.1} s to merge all",
        stats.part_bytes as f64 / count as f64,
        stats.parts,
        count as f64 / recorded.as_secs_f64(),
        (begun.elapsed() - recorded).as_secs_f64()
    );
    for (table, rows, bytes) in events.sizes() {
        eprintln!("  {table}: {rows} rows, {:.2} bytes per event", bytes as f64 / count as f64);
    }
}

criterion_group!(benches, ingest, size);
criterion_main!(benches);
