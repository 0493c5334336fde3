//! No query, however nested, sees what its caller may not (AN-SCOPE, AN-PERM, AN-TAB-08): random queries over a store in
//! which two workspaces have the same rows, in two key spaces each, answer what they answer over the caller's rows alone.

use std::cell::Cell;
use std::sync::Arc;

use keyward_query::events::event::{Outcome, Verification};
use keyward_query::events::tables::Family;
use keyward_query::events::{Events, Scope, Spaces};
use keyward_query::{Allowed, Limits, Query, Refusal, Select};
use keyward_storage::ids::{IdText, IdentityId, KeyId, KeyspaceId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;
use proptest::prelude::*;
use serde_json::Value;

/// 2024-03-20T14:23:45.678Z.
use crate::store;

const NOW_MS: u64 = 1_710_944_625_678;

fn text(char: char) -> IdText {
    IdText::from_bytes([u8::try_from(char).expect("ASCII"); 16]).expect("alphanumeric")
}

/// Rows of some keys over two days, the same for every workspace and key space.
fn rows(workspace: char, space: char) -> Vec<Verification> {
    let outcomes = [Outcome::Valid, Outcome::RateLimited, Outcome::Expired];
    (0..18_u64)
        .map(|at| Verification {
            request_id: *b"req_aaaaaaaaaaaaaaaaa",
            time: NOW_MS - at * 9_000_000,
            workspace: WorkspaceId(text(workspace)),
            keyspace: KeyspaceId(text(space)),
            key: KeyId(text(['k', 'l', 'm'][at as usize % 3])),
            identity: (at % 2 == 0).then(|| {
                Arc::new(IdentityView {
                    id: IdentityId(text('i')),
                    external_id: "user_1".into(),
                    meta: None,
                    ratelimits: Box::new([]),
                })
            }),
            outcome: outcomes[at as usize / 6],
            tags: (0..at % 3).map(|tag| format!("tag{tag}")).collect(),
            spent_credits: at,
            latency_ms: 0.25,
        })
        .collect()
}

struct Store {
    query: Query,
    events: Arc<Events>,
    _directory: tempfile::TempDir,
}

impl Store {
    /// A store with these rows, of which some are sealed and some are not.
    fn with(all: Vec<Vec<Verification>>) -> Store {
        let directory = tempfile::tempdir().expect("a directory");
        let events = store::open(directory.path(), NOW_MS);
        for half in 0..2 {
            for rows in &all {
                for row in rows.iter().skip(half).step_by(2) {
                    events.try_record(row.clone()).expect("there is room");
                }
            }
            if half == 0 { events.settle() } else { events.flush() }
        }
        let options = keyward_query::Options { threads: 2, concurrent: 1, waiting: 4, memory_bytes: 2_000_000_000 };
        let query = Query::start(Arc::clone(&events), &options).expect("threads start");
        Store { query, events, _directory: directory }
    }

    async fn answer(&self, text: &str, spaces: &Spaces) -> Result<Vec<String>, Refusal> {
        let select = Select {
            family: Family::Verifications,
            text: text.to_owned(),
            account: 1,
            scope: Scope {
                workspace: WorkspaceId(self::text('w')),
                spaces: spaces.clone(),
                now_ms: NOW_MS,
                retention_days: 30,
            },
            allowed: Allowed { queries: u32::MAX, seconds: u32::MAX },
            limits: Limits { memory_bytes: 1_000_000_000, seconds: 60, rows: 1_000_000, answer_bytes: 64 << 20 },
        };
        let rows = self.query.select(select).await?;
        let rows: Vec<Value> = serde_json::from_slice(&rows.json).expect("an answer is JSON");
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        Ok(rows)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.events.stop();
    }
}

/// Choices, made by bytes: fewer and smaller ones make a smaller query.
struct Dice<'a> {
    bytes: std::slice::Iter<'a, u8>,
    tables: usize,
}

impl Dice<'_> {
    fn below(&mut self, sides: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % sides
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }
}

const TABLES: &[&str] = &[
    "key_verifications_v1",
    "key_verifications_per_day_v1",
    "key_verifications_per_hour_v1",
    "key_verifications_per_minute_v1",
    "`key_verifications_per_month_v1`",
];
/// Columns of text that every table has.
const TEXTS: &[&str] = &["workspace_id", "key_space_id", "key_id", "external_id", "outcome", "identity_id"];
/// What somebody may try to be let in by.
const LITERALS: &[&str] = &[
    "'ws_oooooooooooooooo'",
    "'ks_tttttttttttttttt'",
    "'ws_wwwwwwwwwwwwwwww'",
    "'ks_ssssssssssssssss'",
    "'VALID'",
    "''",
];
const NAMES: &[&str] = &["x", "workspace_id", "key_space_id", "events", "scope", "`ws`", "time"];

/// What can be selected from: columns of text and of numbers, as they are written.
struct Source {
    sql: String,
    texts: Vec<String>,
    numbers: Vec<String>,
}

/// A SELECT of two texts `a` and `b` and a number `n`.
fn query(dice: &mut Dice<'_>, depth: usize, ctes: &mut Vec<String>) -> String {
    let known = ctes.len();
    let mut with = String::new();
    if depth > 0 && dice.below(4) == 1 {
        let name = format!("{}{}", dice.one(&["cte", "system_tables", "Key_Verifications", "default"]), ctes.len());
        let inner = query(dice, depth - 1, ctes);
        with = format!("WITH {name} AS ({inner}) ");
        ctes.push(name);
    }
    let mut sql = with + &select(dice, depth, ctes);
    if depth > 0 && dice.below(5) == 1 {
        let operator = dice.one(&["UNION ALL", "UNION DISTINCT", "EXCEPT", "INTERSECT"]);
        sql = format!("{sql} {operator} {}", select(dice, depth - 1, ctes));
    }
    ctes.truncate(known);
    sql
}

fn select(dice: &mut Dice<'_>, depth: usize, ctes: &mut Vec<String>) -> String {
    let source = source(dice, depth, ctes);
    let a = word(dice, &source);
    let b = word(dice, &source);
    let n = number(dice, &source);
    let place = dice.one(&["WHERE", "WHERE", "PREWHERE"]);
    let filter = match dice.below(3) {
        0 => String::new(),
        _ => format!(" {place} {}", condition(dice, &source, depth, ctes)),
    };
    let from = format!("FROM {}{filter}", source.sql);
    match dice.below(12) {
        7 => format!("SELECT {a} AS a, {b} AS b, ({}) AS n {from}", scalar(dice, depth, ctes)),
        8 => format!("WITH ({}) AS top SELECT {a} AS a, {b} AS b, top AS n {from}", scalar(dice, depth, ctes)),
        9 => format!("SELECT {a} AS a, arrayJoin([{b}, 'x']) AS b, {n} AS n {from}"),
        10 => format!("SELECT DISTINCT {a} AS a, {b} AS b, count() OVER (PARTITION BY {a}) AS n {from}"),
        11 => {
            let least = dice.one(&["min", "max"]);
            let order = dice.one(&["", " ORDER BY ALL"]);
            format!("SELECT {a} AS a, {least}({b}) AS b, max({n}) AS n {from} GROUP BY ALL{order}")
        }
        0 => format!("SELECT {a} AS a, {b} AS b, {n} AS n {from}"),
        1 => format!("SELECT DISTINCT {a} AS a, {b} AS b, {n} AS n {from}"),
        2 => {
            let aggregate = dice.one(&["sum", "count", "uniqExact", "max", "min", "uniq"]);
            let having = dice.one(&["", " HAVING count() > 1", " HAVING max(a) != ''"]);
            let rollup = dice.one(&["", "", " WITH ROLLUP", " WITH TOTALS", " WITH CUBE"]);
            format!("SELECT {a} AS a, {b} AS b, {aggregate}({n}) AS n {from} GROUP BY a, b{rollup}{having}")
        }
        3 => format!("SELECT max({a}) AS a, min({b}) AS b, count() AS n {from}"),
        4 => format!("SELECT {a} AS a, {b} AS b, sum({n}) OVER (PARTITION BY {a}, {b}) AS n {from}"),
        5 => format!("SELECT {a} AS a, {b} AS b, {n} AS n {from} ORDER BY a, b, n LIMIT 2 BY a, b LIMIT 9"),
        _ => format!(
            "SELECT {a} AS a, toString(length(groupUniqArray({b}))) AS b, countIf({b} != '') AS n {from} GROUP BY 1"
        ),
    }
}

/// A scalar subquery that counts or sums.
fn scalar(dice: &mut Dice<'_>, depth: usize, ctes: &mut Vec<String>) -> String {
    let inner = query(dice, depth.saturating_sub(1), ctes);
    let call = dice.one(&["count()", "sum(n)", "uniqExact(a, b)", "countIf(a = b)", "length(groupUniqArray(a))"]);
    format!("SELECT {call} FROM ({inner})")
}

fn source(dice: &mut Dice<'_>, depth: usize, ctes: &mut Vec<String>) -> Source {
    if depth > 0 && dice.tables > 0 && dice.below(4) == 1 {
        let left = single(dice, depth - 1, ctes, "l");
        let right = single(dice, depth - 1, ctes, "r");
        let word = dice.one(&[
            "JOIN",
            "LEFT JOIN",
            "RIGHT JOIN",
            "FULL JOIN",
            "CROSS JOIN",
            "LEFT SEMI JOIN",
            "LEFT ANTI JOIN",
            ",",
            "ASOF JOIN",
            "ASOF LEFT JOIN",
            "GLOBAL LEFT JOIN",
        ]);
        let equal = format!("{} = {}", dice_one(dice, &left.texts), dice_one(dice, &right.texts));
        let on = match word {
            "CROSS JOIN" | "," => String::new(),
            _ if word.starts_with("ASOF") => {
                format!(" ON {equal} AND {} >= {}", left.numbers[0], right.numbers[0])
            }
            _ => format!(" ON {equal}"),
        };
        let sql = format!("{} {word} {}{on}", left.sql, right.sql);
        if word.starts_with("ASOF") {
            // Which of several nearest rows is taken is not said; whether there is one is.
            return Source { sql, texts: left.texts, numbers: left.numbers };
        }
        let only_left = word.starts_with("LEFT SEMI") || word.starts_with("LEFT ANTI");
        let both = |left: Vec<String>, right: Vec<String>| {
            if only_left { left } else { left.into_iter().chain(right).collect() }
        };
        return Source { sql, texts: both(left.texts, right.texts), numbers: both(left.numbers, right.numbers) };
    }
    single(dice, depth, ctes, "")
}

fn dice_one(dice: &mut Dice<'_>, of: &[String]) -> String {
    of[dice.below(of.len())].clone()
}

/// A table, a CTE or a subquery; with an alias where columns need one.
fn single(dice: &mut Dice<'_>, depth: usize, ctes: &mut Vec<String>, alias: &str) -> Source {
    dice.tables = dice.tables.saturating_sub(1);
    let prefix = if alias.is_empty() { String::new() } else { format!("{alias}.") };
    let suffix = if alias.is_empty() { String::new() } else { format!(" AS {alias}") };
    let of = |texts: &[&str], numbers: &[&str], sql: String| Source {
        sql: format!("{sql}{suffix}"),
        texts: texts.iter().map(|name| format!("{prefix}{name}")).collect(),
        numbers: numbers.iter().map(|name| format!("{prefix}{name}")).collect(),
    };
    let kind = if depth == 0 || dice.tables == 0 { 0 } else { dice.below(4) };
    match kind {
        1 => {
            let inner = query(dice, depth - 1, ctes);
            of(&["a", "b"], &["n"], format!("({inner})"))
        }
        2 if !ctes.is_empty() => {
            let cte = dice_one(dice, ctes);
            of(&["a", "b"], &["n"], cte)
        }
        _ => of(TEXTS, &["spent_credits", "length(tags)"], dice.one(TABLES).to_owned()).fixed(&prefix),
    }
}

impl Source {
    /// With the qualifier inside the call.
    fn fixed(mut self, prefix: &str) -> Source {
        for number in &mut self.numbers {
            if number.ends_with("length(tags)") {
                *number = format!("length({prefix}tags)");
            }
        }
        self
    }
}

fn word(dice: &mut Dice<'_>, source: &Source) -> String {
    let column = dice_one(dice, &source.texts);
    match dice.below(5) {
        0 | 1 => column,
        2 => format!("if({column} = {}, 'yes', {column})", dice.one(LITERALS)),
        3 => format!("concat({column}, '/', {})", dice_one(dice, &source.texts)),
        _ => format!("({column} AS {})", dice.one(NAMES)),
    }
}

fn number(dice: &mut Dice<'_>, source: &Source) -> String {
    let column = dice_one(dice, &source.numbers);
    match dice.below(4) {
        0 | 1 => column,
        2 => format!("{column} + 1"),
        _ => format!("toInt64({column})"),
    }
}

fn condition(dice: &mut Dice<'_>, source: &Source, depth: usize, ctes: &mut Vec<String>) -> String {
    let column = dice_one(dice, &source.texts);
    match dice.below(if depth == 0 { 7 } else { 13 }) {
        11 => {
            let inner = query(dice, depth - 1, ctes);
            let other = dice_one(dice, &source.texts);
            format!("({column}, {other}) {}IN (SELECT a, b FROM ({inner}))", dice.one(&["", "NOT "]))
        }
        12 => {
            let inner = query(dice, depth - 1, ctes);
            format!("{column} {} (SELECT {}(a) FROM ({inner}))", dice.one(&["=", "!=", "<"]), dice.one(&["min", "max"]))
        }
        0 => format!("{column} = {}", dice.one(LITERALS)),
        1 => format!("{column} != {}", dice.one(LITERALS)),
        2 => format!("{column} LIKE {}", dice.one(&["'%'", "'ws_o%'", "'ks_t%'", "'%w'"])),
        3 => format!("{column} IN ({}, {})", dice.one(LITERALS), dice.one(LITERALS)),
        4 => format!("{column} = {}", dice_one(dice, &source.texts)),
        5 => dice.one(&["1", "true", "1 = 1", "NOT 0", "/* workspace_id */ 1"]).to_owned(),
        6 => format!("{} > 3", dice_one(dice, &source.numbers)),
        7 => format!("NOT ({})", condition(dice, source, depth - 1, ctes)),
        8 => {
            let operator = dice.one(&["OR", "AND", "OR"]);
            let left = condition(dice, source, depth - 1, ctes);
            format!("({left}) {operator} ({})", condition(dice, source, depth - 1, ctes))
        }
        9 => {
            let not = dice.one(&["", "NOT "]);
            let inner = query(dice, depth - 1, ctes);
            format!("{column} {not}IN (SELECT a FROM ({inner}))")
        }
        _ => {
            let inner = query(dice, depth - 1, ctes);
            format!("(SELECT count() FROM ({inner})) > {}", dice.one(&["0", "20", "100"]))
        }
    }
}

/// Callers: who has the grant of one key space, of two, of everything, of none that is there. The store of their rows alone
/// answers what the store of everybody's rows answers.
#[test]
fn no_query_sees_another_workspace_or_key_space() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let space = |name: &str| format!("ks_{}", name.repeat(16));
    let these = |names: &[&str]| Spaces::These(names.iter().map(|name| space(name)).collect());
    let all = Store::with(['w', 'o'].iter().flat_map(|&ws| ['s', 't', 'u'].map(|ks| rows(ws, ks))).collect());
    let callers = [
        (these(&["s"]), Store::with(vec![rows('w', 's')]), ["oooooooo", "tttttttt", "uuuuuuuu"].as_slice()),
        (these(&["s", "t", "gone"]), Store::with(vec![rows('w', 's'), rows('w', 't')]), &["oooooooo", "uuuuuuuu"]),
        (Spaces::All, Store::with(['s', 't', 'u'].map(|ks| rows('w', ks)).to_vec()), &["oooooooo"]),
        (these(&[]), Store::with(Vec::new()), &["oooooooo", "ssssssss", "tttttttt", "uuuuuuuu", "wwwwwwww"]),
    ];
    let (answered, asked) = (Cell::new(0), Cell::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 160,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&(0..8_usize, proptest::collection::vec(any::<u8>(), 4..90)), |(caller, bytes)| {
        // One key space is the usual grant.
        let (spaces, alone, foreign) = &callers[caller.saturating_sub(4)];
        let mut dice = Dice { bytes: bytes.iter(), tables: 4 };
        let sql = query(&mut dice, 3, &mut Vec::new());
        let (seen, wanted) =
            runtime.block_on(async { (all.answer(&sql, spaces).await, alone.answer(&sql, &Spaces::All).await) });
        asked.set(asked.get() + 1);
        answered.set(answered.get() + usize::from(seen.is_ok()));
        prop_assert_eq!(&seen, &wanted, "{}", sql);
        for row in seen.iter().flatten() {
            for foreign in *foreign {
                // Only as a literal of the query itself may a foreign id come back.
                prop_assert!(!row.contains(foreign) || sql.contains(foreign), "{sql}: {row}");
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    let (answered, asked) = (answered.get(), asked.get());
    assert!(answered * 10 > asked * 9, "only {answered} of {asked} random queries mean anything");
}
