//! In process, without a socket: what a verify and a limit cost at a million keys, chosen uniformly at random.
//!
//! - `verify/core`: hash the key, find it, decide, count one rate limit: what is keyward's own in a verify.
//! - `verify/request`: a whole request as the HTTP layer hands it on: root key, body decoded, verify, reply encoded.
//! - `limit/…`: the same for `ratelimit.limit` over 100,000 identifiers.
//!
//! `KEYWARD_BENCH_KEYS` sets another number of keys.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use keyward::api::wire::{Authorization, ContentType, Inbound, Outbound, RequestId};
use keyward::api::{self, Entry};
use keyward::app::Services;
use keyward::secret;
use keyward_bench::store;
use keyward_storage::Lookup;
use keyward_storage::hot::window::{Kind, Take};
use keyward_storage::ids::{NamespaceId, WorkspaceNo};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IDENTIFIERS: usize = 100_000;

/// A small generator of its own (SplitMix64), so that choosing costs next to nothing.
struct Choose(u64);

impl Choose {
    fn of(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 32).expect("32 bits") % count
    }
}

fn inbound(services: &Services, root_key: &str, body: Bytes) -> Inbound {
    Inbound {
        request_id: RequestId::draw(&services.outside.entropy, services.outside.clock.now_ms()),
        now_ms: services.outside.clock.now_ms(),
        deadline_ms: u64::MAX,
        test_time_ms: None,
        authorization: Authorization::One(root_key.into()),
        portal_session: None,
        content_type: ContentType::Json,
        client_ip: None,
        user_agent: None,
        metrics_disabled: false,
        body,
        forwarded: None,
    }
}

/// A request whose key is in memory is answered at once: its future never waits.
fn at_once(services: &Arc<Services>, entry: &'static Entry, inbound: Inbound) -> Outbound {
    let mut future = api::respond(Arc::clone(services), entry, inbound);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outbound) => outbound,
        Poll::Pending => panic!("a hot request waited"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench has no settings file")]
fn benches(criterion: &mut Criterion) {
    let keys = std::env::var("KEYWARD_BENCH_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let services = store::open(dir.path()).expect("open");
    let root_key = std::fs::read_to_string(dir.path().join("root.key")).expect("root.key");
    let root_key = format!("Bearer {}", root_key.trim());
    let plaintexts = store::fill(&services, keys).expect("fill");
    let workspace = WorkspaceNo(1);
    for plaintext in &plaintexts {
        services.storage.read_key(workspace, &secret::digest(plaintext)).expect("readable").expect("there");
    }
    let root_hash = secret::digest(root_key.trim_start_matches("Bearer "));
    services.storage.read_root_key(&root_hash).expect("readable").expect("there");

    let mut group = criterion.benchmark_group("verify");
    group.throughput(Throughput::Elements(1));
    let mut choose = Choose(1);
    group.bench_function("core", |bencher| {
        // A key comes out of a socket's buffer, so it is in the processor's cache: choosing one is not measured.
        bencher.iter_batched(
            || plaintexts[choose.of(keys)].clone(),
            |plaintext| {
                let hash = secret::digest(black_box(&plaintext));
                let Lookup::Hot(view) = services.storage.key(workspace, &hash) else { panic!("not hot") };
                let now = services.outside.clock.now_ms();
                let limit = &view.ratelimits[0];
                let take = Take { subject: limit.subject, duration_ms: limit.duration, limit: limit.limit, cost: 1 };
                let decision = services.storage.hot().windows.take(&take, now).expect("room");
                services.storage.touch(&view, now);
                black_box((view.enabled, decision.remaining));
                plaintext
            },
            BatchSize::NumIterations(100),
        );
    });
    let verify = api::find("/v2/keys.verifyKey").expect("there");
    group.bench_function("request", |bencher| {
        bencher.iter_batched(
            || {
                let body = format!(r#"{{"key":"{}"}}"#, plaintexts[choose.of(keys)]);
                inbound(&services, &root_key, Bytes::from(body))
            },
            |inbound| {
                let outbound = at_once(&services, verify, inbound);
                assert!(outbound.status == 200);
                outbound
            },
            BatchSize::NumIterations(100),
        );
    });
    group.finish();

    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Elements(1));
    let namespace = NamespaceId(keyward::tenants::draw_id(&services.outside.entropy));
    let identifiers: Vec<String> = (0..IDENTIFIERS).map(|number| format!("user_{number}@example.com")).collect();
    group.bench_function("core", |bencher| {
        bencher.iter(|| {
            let identifier = identifiers[choose.of(IDENTIFIERS)].as_bytes();
            let windows = &services.storage.hot().windows;
            let subject = windows.subject(Kind::Namespace, 1, namespace.as_bytes(), identifier, 60_000);
            let take = Take { subject, duration_ms: 60_000, limit: 1 << 40, cost: 1 };
            black_box(windows.take(&take, services.outside.clock.now_ms()).expect("room"))
        });
    });
    let limit = api::find("/v2/ratelimit.limit").expect("there");
    let body = |identifier: &str| {
        Bytes::from(format!(
            r#"{{"namespace":"bench","identifier":"{identifier}","limit":1000000000,"duration":60000}}"#
        ))
    };
    // The first request makes the namespace and so has to wait.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(api::respond(Arc::clone(&services), limit, inbound(&services, &root_key, body("first"))));
    group.bench_function("request", |bencher| {
        bencher.iter(|| {
            let body = body(&identifiers[choose.of(IDENTIFIERS)]);
            black_box(at_once(&services, limit, inbound(&services, &root_key, body)))
        });
    });
    group.finish();
}

criterion_group!(hot, benches);
criterion_main!(hot);
