//! The gate: what a text may be before anything runs (section 7 of the contract). It is an allowlist three times over: of
//! forms (the grammar reads nothing else), of tables, and of functions.

mod lex;
mod names;
mod parse;
mod range;
pub mod tree;

use crate::error::Refusal;
use crate::events::tables::Family;
use lex::Lexeme;
use tree::{Body, Query};

pub use parse::DEPTH_MAX;
pub use range::Retention;

/// Longest text, in bytes (AN-GATE-01).
pub const BYTES_MAX: usize = 16_384;
/// Most select items of a statement (AN-GATE-07).
pub const ITEMS_MAX: usize = 64;
/// Most syntax nodes of a statement (AN-GATE-08).
pub const NODES_MAX: usize = 2_000;

/// What the gate has to know besides the text.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The tables of the operation (AN-OP-04).
    pub family: Family,
    /// The query's clock, Unix milliseconds.
    pub now_ms: i64,
    /// How many days back a query may ask for; 0 is no limit (AN-RET-07).
    pub retention_days: u32,
}

/// A statement that passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub(crate) query: Query,
}

/// Words that begin statements of ClickHouse, or of others, that are no SELECT (AN-GATE-03).
const OTHER_STATEMENTS: &[&str] = &[
    "ALTER", "ANALYZE", "ATTACH", "BACKUP", "BEGIN", "CALL", "CHECK", "COMMIT", "COPY", "CREATE", "DELETE", "DESC",
    "DESCRIBE", "DETACH", "DROP", "EXCHANGE", "EXECUTE", "EXISTS", "EXPLAIN", "GRANT", "INSERT", "KILL", "LOCK",
    "MERGE", "MOVE", "OPTIMIZE", "PRAGMA", "PREPARE", "RENAME", "REPLACE", "RESTORE", "REVOKE", "ROLLBACK", "SET",
    "SHOW", "START", "SYSTEM", "TRUNCATE", "UNDROP", "UPDATE", "USE", "VALUES", "WATCH",
];

/// Reads a text and checks it, in the order of AN-ORD-04.
pub fn check(text: &str, rules: &Rules) -> Result<Statement, Refusal> {
    if text.len() > BYTES_MAX {
        return Err(Refusal::query(format!(
            "The query exceeds the maximum length of {BYTES_MAX} bytes: it has {}.",
            text.len()
        )));
    }
    let tokens = lex::tokens(text)?;
    let mut words = tokens.iter().map(|token| &token.kind).skip_while(|kind| **kind == Lexeme::Symbol(";"));
    let first = words.next();
    // A semicolon stands in no statement: what follows one is another statement.
    let mut later =
        words.skip_while(|kind| **kind != Lexeme::Symbol(";")).skip_while(|kind| **kind == Lexeme::Symbol(";"));
    match first {
        None | Some(Lexeme::End) => {
            return Err(Refusal::query("The query is empty: one SELECT statement is expected."));
        }
        _ if later.any(|kind| *kind != Lexeme::End) => {
            return Err(Refusal::query("Exactly one statement is expected: the query has several."));
        }
        Some(Lexeme::Word(word)) if OTHER_STATEMENTS.iter().any(|other| other.eq_ignore_ascii_case(word)) => {
            return Err(Refusal::NotSelect(format!(
                "Only SELECT statements are allowed, not {}.",
                word.to_ascii_uppercase()
            )));
        }
        Some(_) => {}
    }
    let leading = tokens.iter().take_while(|token| token.kind == Lexeme::Symbol(";")).count();
    let parsed = parse::parse(text, &tokens[leading..])?;
    if parsed.settings {
        return Err(Refusal::query("SETTINGS clauses are not allowed."));
    }
    if parsed.nodes > NODES_MAX {
        return Err(Refusal::query(format!("The query is too complex: it has more than {NODES_MAX} syntax nodes.")));
    }
    if parsed.items > ITEMS_MAX {
        return Err(Refusal::query(format!(
            "The query selects more than {ITEMS_MAX} columns, over all of its SELECTs."
        )));
    }
    names::check(&parsed.query, rules.family)?;
    range::check(&parsed.query, rules)?;
    Ok(Statement { query: parsed.query })
}

/// The SELECT that a reader meets first.
fn first_select(query: &Query) -> &tree::Select {
    let mut body = &query.body;
    loop {
        body = match body {
            Body::Select(select) => return select,
            Body::Query(query) => &query.body,
            Body::Set { operator: _, left, right: _ } => left,
        }
    }
}
