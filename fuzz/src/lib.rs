//! What parses a stranger's bytes, as plain functions that a fuzzer can call.
//!
//! A target takes any bytes, panics when a promise is broken, and says whether it accepted them. The same functions run
//! three ways:
//!
//! - `cargo test -p keyward-fuzz`, part of `.ci/run`: over the corpus, and over some thousand seeded mutations of it
//!   ([`mutate`]);
//! - `cargo +nightly fuzz run --fuzz-dir fuzz/cargo-fuzz log_frame fuzz/corpus/log_frame`: guided by coverage, for hours;
//! - with one file, to look into a finding: put it into the corpus, and it stays a test.

pub mod http_body;
pub mod log_frame;
pub mod mutate;
pub mod permission_query;
pub mod row;
pub mod sql_gate;

/// What a target made of its input. A corpus has some of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be.
    Accepted,
    /// It is not, and that was said without a panic.
    Refused,
}

/// A target with what mutations of its corpus are made of.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus' directory.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]) -> Verdict,
    /// Pieces of the format that mutations put in.
    pub dictionary: &'static [&'static [u8]],
    /// Mutations that the test tries: a second or two of them, unoptimised.
    pub cases: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "http_body", run: http_body::run, dictionary: http_body::DICTIONARY, cases: 5_000 },
    Target { name: "log_frame", run: log_frame::run, dictionary: log_frame::DICTIONARY, cases: 20_000 },
    Target {
        name: "permission_query",
        run: permission_query::run,
        dictionary: permission_query::DICTIONARY,
        cases: 20_000,
    },
    Target { name: "row", run: row::run, dictionary: row::DICTIONARY, cases: 20_000 },
    Target { name: "sql_gate", run: sql_gate::run, dictionary: sql_gate::DICTIONARY, cases: 5_000 },
];
