//! The search index's figures: its size, searches over many keys and audit events, how far it lags behind changes, and what
//! it costs the verifications beside it.
//!
//! In process, over the operations themselves. Keys have names, owners and metadata of a realistic shape; each key has its
//! audit event. The lag is that of every change: from its acknowledgement to the moment a search has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use keyward::app::Services;
use keyward::secret;
use keyward::tenants::{By, draw_id, system_actor, target};
use keyward_query::search::Freshness;
use keyward_storage::ids::{ApiId, IdentityId, KeyId};
use keyward_storage::records::identity::{self, IdentityRow};
use keyward_storage::records::key::{self, KeyRow};
use keyward_storage::{Abort, Turn};
use serde::Serialize;
use serde_json::{Value, json};

use crate::compare::scratch;
use crate::delete_role::Caller;
use crate::store::{self, KEYS_PER_TRANSACTION, WORKSPACE, make_api, transact};
use crate::{Error, Result};

/// Keys of one identity.
const KEYS_PER_IDENTITY: usize = 10;
/// How often each search is timed, after some times that are not.
const ROUNDS: usize = 300;
const ROUNDS_BEFORE: usize = 10;
/// How long the index may take to catch up with what was made.
const CATCH_UP: Duration = Duration::from_secs(1800);
/// Between two looks at where the index stands.
const LOOK: Duration = Duration::from_millis(2);
/// Verifications a second while the lag is measured: many, and two cores have time left for the index.
const VERIFIES_PACED: u64 = 20_000;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Keys, and as many audit events.
    pub keys: usize,
    /// Changes a second while the lag is measured.
    pub rate: u64,
    /// Seconds of each of the measurements beside changes.
    pub seconds: u64,
}

/// A search's times, ms.
#[derive(Debug, Serialize)]
pub struct Timed {
    /// What was asked.
    pub name: String,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Rows on the page.
    pub rows: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Keys, and audit events.
    pub keys: usize,
    /// From the last change to an index that has everything, s.
    pub caught_up_after_s: f64,
    /// A new index of all rows, s.
    pub made_anew_s: f64,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// The searches.
    pub searches: Vec<Timed>,
    /// Changes a second that were made while the lag was measured.
    pub changes_per_second: f64,
    /// From a change's acknowledgement to a search that has it, ms.
    pub lag_p50_ms: f64,
    /// The same, 99th percentile.
    pub lag_p99_ms: f64,
    /// The same, the longest.
    pub lag_max_ms: f64,
    /// The 99th percentile while one client verifies as fast as it can.
    pub lag_p99_saturated_ms: f64,
    /// Verifications a second beside changes that are indexed.
    pub verifies_beside_index: f64,
    /// Verifications a second beside the same changes with the index switched off.
    pub verifies_without_index: f64,
}

/// Fills a store and measures.
///
/// # Errors
/// Whatever keeps it from measuring.
pub fn search(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let place = scratch(options.directory.as_ref())?;
    let data = place.path().join("data");
    let services = store::open(&data)?;
    say(&format!("making {} keys and audit events", options.keys));
    let world = fill(&services, options.keys)?;
    let began = Instant::now();
    wait_for_index(&services)?;
    let caught_up_after_s = began.elapsed().as_secs_f64();
    services.shutdown();
    drop(services);

    say("making the index anew");
    std::fs::remove_dir_all(data.join("search")).map_err(Error::io("remove the index"))?;
    let services = store::open(&data)?;
    let began = Instant::now();
    wait_for_index(&services)?;
    let made_anew_s = began.elapsed().as_secs_f64();
    let index_bytes = bytes_below(&data.join("search"))?;
    say(&format!("{made_anew_s:.1} s, {:.1} MiB", index_bytes as f64 / f64::from(1 << 20)));

    let root_key = std::fs::read_to_string(data.join("root.key")).map_err(Error::io("read root.key"))?;
    let caller = Caller::new(Arc::clone(&services), root_key.trim())?;
    let mut searches = Vec::new();
    for (name, operation, body) in asked(&world, options.keys) {
        let timed = time(&caller, name, operation, &body)?;
        say(&format!("{:9.2} ms p50 {:9.2} ms p99 {:4} rows  {name}", timed.p50_ms, timed.p99_ms, timed.rows));
        searches.push(timed);
    }

    say("changing keys, verifying beside it");
    let paced = beside(&services, root_key.trim(), &world, options, true, Some(VERIFIES_PACED))?;
    wait_for_index(&services)?;
    let beside = beside(&services, root_key.trim(), &world, options, true, None)?;
    wait_for_index(&services)?;
    if let Some(search) = &services.search {
        search.stop();
    }
    let without = self::beside(&services, root_key.trim(), &world, options, false, None)?;
    services.shutdown();
    let at = |quantile| paced.lags.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Report {
        keys: options.keys,
        caught_up_after_s,
        made_anew_s,
        index_bytes,
        searches,
        changes_per_second: paced.changes_per_second,
        lag_p50_ms: at(0.5),
        lag_p99_ms: at(0.99),
        lag_max_ms: paced.lags.max() as f64 / 1000.0,
        lag_p99_saturated_ms: beside.lags.value_at_quantile(0.99) as f64 / 1000.0,
        verifies_beside_index: beside.verifies_per_second,
        verifies_without_index: without.verifies_per_second,
    })
}

/// What was made, as far as it is asked for.
struct World {
    api: ApiId,
    keys: Vec<(KeyId, KeyRow)>,
    plaintext: String,
}

/// Names, owners and metadata of a key.
fn texts(number: usize) -> (String, String, String) {
    let teams = ["billing", "checkout", "reporting", "mobile app", "data import", "partner portal", "internal tools"];
    let plans = ["free", "pro", "enterprise"];
    let name = format!("{} key {number}", teams[number % teams.len()]);
    let owner = format!("customer-{:06}", number / KEYS_PER_IDENTITY);
    let meta = format!(
        r#"{{"email":"user{number}@example{}.com","plan":"{}","region":"eu-{}"}}"#,
        number % 97,
        plans[number % plans.len()],
        number % 5
    );
    (name, owner, meta)
}

fn fill(services: &Services, count: usize) -> Result<World> {
    let entropy = services.outside.entropy.clone();
    let api = ApiId(draw_id(&entropy));
    let by = By::new(system_actor("bench", "keyward-bench"), services.outside.clock.now_ms(), &entropy);
    make_api(services, &by, api)?;
    let mut world = World { api, keys: Vec::new(), plaintext: String::new() };
    let mut made = 0;
    let mut owner = IdentityId(draw_id(&entropy));
    while made < count {
        let mut rows = Vec::with_capacity(KEYS_PER_TRANSACTION);
        let mut owners = Vec::new();
        for number in made..count.min(made + KEYS_PER_TRANSACTION) {
            let (name, external_id, meta) = texts(number);
            if number.is_multiple_of(KEYS_PER_IDENTITY) {
                owner = IdentityId(draw_id(&entropy));
                let meta = None;
                let row = IdentityRow {
                    external_id,
                    meta,
                    ratelimits: Vec::new(),
                    created_at: by.now,
                    updated_at: None,
                    deleted_at: None,
                };
                owners.push((owner, row));
            }
            let minted = secret::mint(Some("prod"), secret::DEFAULT_BYTES, &entropy);
            let row = KeyRow {
                hash: minted.digest.0,
                api,
                start: minted.start,
                name: Some(name),
                meta: Some(meta),
                identity: Some(owner),
                expires: None,
                enabled: true,
                limited: false,
                refill: None,
                ratelimits: Vec::new(),
                permissions: Vec::new(),
                roles: Vec::new(),
                created_at: by.now,
                updated_at: None,
                deleted_at: None,
            };
            world.plaintext = minted.plaintext.to_string();
            rows.push((KeyId(draw_id(&entropy)), row));
        }
        made += rows.len();
        world.keys.extend(rows.iter().take(10).cloned());
        let by = By { now: by.now + made as u64, ..by.clone() };
        transact(services, by.now, move |tx| {
            for (id, row) in &owners {
                identity::put(tx, WORKSPACE, *id, row);
            }
            for (id, row) in &rows {
                key::insert(tx, WORKSPACE, *id, row).expect("readable");
                let name = row.name.as_deref().unwrap_or_default();
                let targets = vec![target("key", id, name), target("api", row.api, "bench")];
                tx.audit(WORKSPACE, by.event("key.create", format!("Created key {id}"), targets));
            }
        })?;
    }
    Ok(world)
}

fn wait_for_index(services: &Services) -> Result<()> {
    let search = services.search.as_ref().ok_or_else(|| Error::Unexpected("there is no index".to_owned()))?;
    let until = Instant::now() + CATCH_UP;
    loop {
        let (stats, position) = (search.stats(), services.storage.stats().position);
        if stats.freshness != Freshness::Partial && stats.position >= position {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Error::Unexpected(format!("the index stands at {} of {position}", stats.position)));
        }
        std::thread::sleep(LOOK);
    }
}

fn bytes_below(dir: &Path) -> Result<u64> {
    let failed = Error::io(format!("list {}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    Ok(entries.filter_map(|entry| entry.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum())
}

/// The searches: what the most and the least of the rows have, and what people ask.
fn asked(world: &World, keys: usize) -> Vec<(&'static str, &'static str, Value)> {
    let (id, row) = &world.keys[world.keys.len() / 2];
    let (search, audit) = ("keys.searchKeys", "auditLogs.queryAuditLogs");
    let middle = keys / 2;
    let time = row.created_at + middle as u64;
    vec![
        ("keys: start of one", search, json!({"query": row.start})),
        ("keys: id", search, json!({"query": id.to_string()})),
        ("keys: plaintext", search, json!({"query": world.plaintext})),
        ("keys: owner", search, json!({"query": format!("customer-{:06}", middle / KEYS_PER_IDENTITY)})),
        ("keys: address", search, json!({"query": format!("user{middle}@example{}.com", middle % 97)})),
        ("keys: a word of every one", search, json!({"query": "prod"})),
        ("keys: two words of very many", search, json!({"query": "billing enterprise"})),
        ("keys: one letter", search, json!({"query": "c"})),
        ("keys: six letters of very many words", search, json!({"query": "user12"})),
        ("keys: of an API", search, json!({"query": "partner portal", "apiId": world.api.to_string()})),
        ("keys: nothing", search, json!({"query": "does not exist"})),
        ("events: all", audit, json!({})),
        ("events: by name", audit, json!({"event": ["key.create"]})),
        ("events: by resource", audit, json!({"resourceId": id.to_string()})),
        ("events: by name, in a while", audit, json!({"event": ["key.create"], "start": time, "end": time + 1000})),
        ("events: a word of very many", audit, json!({"search": "billing"})),
        ("events: words and resource", audit, json!({"search": "created key", "resourceId": id.to_string()})),
    ]
}

fn time(caller: &Caller, name: &str, operation: &str, body: &Value) -> Result<Timed> {
    let mut times = Vec::with_capacity(ROUNDS);
    let mut rows = 0;
    for round in 0..ROUNDS_BEFORE + ROUNDS {
        let began = Instant::now();
        let data = caller.ok(operation, body)?;
        let took = began.elapsed().as_secs_f64() * 1000.0;
        rows = data.as_array().map_or(0, Vec::len);
        if round >= ROUNDS_BEFORE {
            times.push(took);
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    Ok(Timed { name: name.to_owned(), p50_ms: at(0.5), p99_ms: at(0.99), rows })
}

/// What happened beside changes.
struct Beside {
    changes_per_second: f64,
    verifies_per_second: f64,
    /// Microseconds.
    lags: Histogram<u64>,
}

/// Changes keys at the rate, verifies at a pace or as often as one client can, and, where there is an index, looks when it has them.
fn beside(
    services: &Arc<Services>,
    root_key: &str,
    world: &World,
    options: &Options,
    indexed: bool,
    pace: Option<u64>,
) -> Result<Beside> {
    let done = AtomicBool::new(false);
    let (tell, told) = std::sync::mpsc::channel::<(u64, Instant)>();
    let long = Duration::from_secs(options.seconds);
    std::thread::scope(|scope| {
        let lags = scope.spawn(|| -> Result<Histogram<u64>> {
            let mut lags = Histogram::new(3).map_err(|error| Error::Unexpected(error.to_string()))?;
            let Some(search) = services.search.as_ref().filter(|_| indexed) else { return Ok(lags) };
            for (position, acknowledged) in told {
                while search.stats().position < position {
                    if acknowledged.elapsed() > CATCH_UP {
                        return Err(Error::Unexpected("the index does not follow".to_owned()));
                    }
                    std::thread::sleep(LOOK);
                }
                let micros = u64::try_from(acknowledged.elapsed().as_micros()).unwrap_or(u64::MAX);
                lags.record(micros).map_err(|error| Error::Unexpected(error.to_string()))?;
            }
            Ok(lags)
        });
        let changes = scope.spawn(|| {
            let (began, mut made) = (Instant::now(), 0_u64);
            // The last sender is dropped with this one, which ends the looking.
            let tell = tell;
            while !done.load(Ordering::Relaxed) {
                let due = began + Duration::from_secs_f64(made as f64 / options.rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let (id, row) = world.keys[made as usize % world.keys.len()].clone();
                let row = KeyRow { name: Some(format!("renamed {made}")), ..row };
                let entropy = services.outside.entropy.clone();
                let by = By::new(system_actor("bench", "keyward-bench"), services.outside.clock.now_ms(), &entropy);
                let event = by.event("key.update", format!("Updated key {id}"), vec![target("key", id, "renamed")]);
                let tell = tell.clone();
                services.storage.transact(
                    Turn::FIRST,
                    by.now,
                    move |tx| -> std::result::Result<(), Abort<std::convert::Infallible>> {
                        key::update(tx, WORKSPACE, id, &row);
                        tx.audit(WORKSPACE, event);
                        Ok(())
                    },
                    move |fate| {
                        if let Ok(committed) = fate {
                            // Nobody looks where there is no index.
                            let _ = tell.send((committed.position.0, Instant::now()));
                        }
                    },
                );
                made += 1;
            }
            made as f64 / began.elapsed().as_secs_f64()
        });
        let verified = (|| {
            let caller = Caller::new(Arc::clone(services), root_key)?;
            let (began, mut verified) = (Instant::now(), 0_u64);
            while began.elapsed() < long {
                if let Some(pace) = pace {
                    let due = began + Duration::from_secs_f64(verified as f64 / pace as f64);
                    let early = due.saturating_duration_since(Instant::now());
                    if early > LOOK {
                        std::thread::sleep(early);
                    }
                }
                caller.verify(&world.plaintext)?;
                verified += 1;
            }
            Ok(verified as f64 / began.elapsed().as_secs_f64())
        })();
        done.store(true, Ordering::Relaxed);
        let panicked = || Error::Unexpected("a thread panicked".to_owned());
        let changes_per_second = changes.join().map_err(|_| panicked())?;
        let lags = lags.join().map_err(|_| panicked())??;
        Ok(Beside { changes_per_second, verifies_per_second: verified?, lags })
    })
}

impl Report {
    /// The figures as text.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} keys and audit events\nindex {:.1} MiB, made anew in {:.1} s, caught up {:.1} s after the last was made",
            self.keys,
            self.index_bytes as f64 / f64::from(1 << 20),
            self.made_anew_s,
            self.caught_up_after_s,
        );
        for timed in &self.searches {
            text.push_str(&format!(
                "\n{:9.2} ms p50 {:9.2} ms p99 {:4} rows  {}",
                timed.p50_ms, timed.p99_ms, timed.rows, timed.name
            ));
        }
        text.push_str(&format!(
            "\nat {:.0} changes/s found after {:.0} ms p50, {:.0} ms p99, {:.0} ms at most, {:.0} ms p99 while a \
             client verifies without a pause\nverifications {:.0}/s beside it, \
             {:.0}/s beside the changes alone ({:+.1} %)",
            self.changes_per_second,
            self.lag_p50_ms,
            self.lag_p99_ms,
            self.lag_max_ms,
            self.lag_p99_saturated_ms,
            self.verifies_beside_index,
            self.verifies_without_index,
            (self.verifies_beside_index / self.verifies_without_index - 1.0) * 100.0,
        ));
        text
    }
}
