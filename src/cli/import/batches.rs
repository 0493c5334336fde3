//! Keys on their way into a keyward: gathered, sent, counted.
//!
//! `keys.migrateKeys` makes what is new and names what is there already, so an import that was interrupted is simply run
//! again. A call is one change: where the server refuses one as a whole, its keys are sent in halves, down to the one that
//! is to blame.

use std::collections::HashMap;
use std::mem::take;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::remote::{Remote, Repeat, Trouble};
use super::rows::Row;
use super::tally::{Complaints, Tally};
use crate::api::migrations::Algorithm;
use crate::cli::EXIT_ERROR;
use crate::cli::api::Failure;

/// Keys in one call: few enough that others get their turn with the writer between two calls.
const KEYS_MAX: usize = 1000;
/// Bytes of one call, well below what a server takes by default.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Roles and permissions that one call names; the operation takes twice as many.
const LINKS_MAX: usize = 10_000;
/// Each algorithm, with its place in a list of all.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::PrefixedApiKey];

/// A key, and where it is from, for messages.
struct Arrival {
    place: String,
    hash: String,
    item: Value,
}

/// Keys that are sent together.
#[derive(Default)]
struct Batch {
    arrivals: Vec<Arrival>,
    bytes: usize,
    links: usize,
}

/// Keys on their way into one API.
pub struct Batches<'a> {
    target: &'a Remote,
    api_id: String,
    migrations: &'a mut Migrations,
    waiting: [Batch; 2],
    tally: &'a mut Tally,
    complaints: &'a mut Complaints,
}

#[derive(Deserialize)]
struct Migrated {
    migrated: Vec<Value>,
    failed: Vec<Value>,
}

impl<'a> Batches<'a> {
    /// For the keys of this API.
    pub fn new(
        target: &'a Remote,
        api_id: String,
        migrations: &'a mut Migrations,
        tally: &'a mut Tally,
        complaints: &'a mut Complaints,
    ) -> Batches<'a> {
        Batches { target, api_id, migrations, waiting: Default::default(), tally, complaints }
    }

    /// Takes a key; sends those that have gathered, where they are enough.
    ///
    /// # Errors
    /// The server cannot be asked, or refuses for a reason that no key is to blame for.
    pub fn add(&mut self, place: String, row: Row) -> Result<(), Trouble> {
        let at = usize::from(row.algorithm == Algorithm::PrefixedApiKey);
        let bytes = row.item.to_string().len();
        let waiting = &self.waiting[at];
        let is_full = waiting.arrivals.len() >= KEYS_MAX
            || waiting.bytes + bytes > BYTES_MAX
            || waiting.links + row.links > LINKS_MAX;
        if is_full {
            self.send(at)?;
        }
        let waiting = &mut self.waiting[at];
        waiting.arrivals.push(Arrival { place, hash: row.hash, item: row.item });
        waiting.bytes += bytes;
        waiting.links += row.links;
        Ok(())
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// As [`Batches::add`].
    pub fn finish(mut self) -> Result<(), Trouble> {
        (0..ALGORITHMS.len()).try_for_each(|at| self.send(at))
    }

    fn send(&mut self, at: usize) -> Result<(), Trouble> {
        let batch = take(&mut self.waiting[at]);
        let mut arrivals = Vec::with_capacity(batch.arrivals.len());
        let mut seen: HashMap<String, String> = HashMap::new();
        for arrival in batch.arrivals {
            match seen.get(&arrival.hash) {
                Some(earlier) => {
                    self.tally.refused += 1;
                    self.complaints.add(&arrival.place, &format!("has the same hash as {earlier}"));
                }
                None => {
                    seen.insert(arrival.hash.clone(), arrival.place.clone());
                    arrivals.push(arrival);
                }
            }
        }
        if arrivals.is_empty() {
            return Ok(());
        }
        let migration = self.migrations.of(self.target, ALGORITHMS[at])?;
        // Halves of halves: as many as a batch has doublings.
        let mut left = vec![arrivals];
        while let Some(mut arrivals) = left.pop() {
            let keys: Vec<&Value> = arrivals.iter().map(|arrival| &arrival.item).collect();
            let body = json!({"migrationId": migration, "apiId": self.api_id, "keys": keys});
            match self.target.call::<Migrated>("keys.migrateKeys", &body, Repeat::Harmless) {
                Ok(reply) => {
                    self.tally.made += reply.data.migrated.len() as u64;
                    self.tally.already += reply.data.failed.len() as u64;
                }
                Err(Trouble::Refused(refused)) if matches!(refused.status, 400 | 408 | 413) => {
                    if arrivals.len() > 1 {
                        left.push(arrivals.split_off(arrivals.len() / 2));
                        left.push(arrivals);
                    } else {
                        self.tally.refused += 1;
                        self.complaints.add(&arrivals[0].place, &format!("is refused: {}", refused.detail));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

/// The migrations that keys are taken over by, one for each algorithm that is met; found by their names, or made.
#[derive(Default)]
pub struct Migrations(Vec<(Algorithm, String)>);

#[derive(Deserialize)]
struct Migration {
    id: String,
    name: String,
    algorithm: Algorithm,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MadeMigration {
    migration_id: String,
}

impl Migrations {
    /// What they are called.
    const NAME: &'static str = "keyward import";

    /// The id of the migration for an algorithm.
    fn of(&mut self, target: &Remote, algorithm: Algorithm) -> Result<String, Trouble> {
        if let Some((_, id)) = self.0.iter().find(|(of, _)| *of == algorithm) {
            return Ok(id.clone());
        }
        let mut found = None;
        target.list("migrations.listMigrations", json!({}), |migration: Migration| {
            if migration.name == Self::NAME && migration.algorithm == algorithm {
                found = Some(migration.id);
            }
            Ok(())
        })?;
        let id = match found {
            Some(id) => id,
            None => {
                let body = json!({"name": Self::NAME, "algorithm": algorithm});
                let made = target.call::<MadeMigration>("migrations.createMigration", &body, Repeat::Harmful)?;
                made.data.migration_id
            }
        };
        self.0.push((algorithm, id.clone()));
        Ok(id)
    }

    /// By algorithm, for the answer.
    pub fn told(&self) -> Result<Value, Failure> {
        let mut told = Map::new();
        for (algorithm, id) in &self.0 {
            let name = serde_json::to_value(algorithm).map_err(|error| Failure::new(EXIT_ERROR, error.to_string()))?;
            told.insert(name.as_str().unwrap_or_default().to_owned(), json!(id));
        }
        Ok(told.into())
    }
}
