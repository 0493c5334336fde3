//! Which tables and functions a statement may name, and where (AN-GT, AN-FN, AN-GATE-05).

use std::collections::HashSet;

use super::first_select;
use super::tree::{Body, Expr, From, Kind, Query, Select, Set, With, walk};
use crate::error::Refusal;
use crate::events::tables::{Family, Table};
use crate::sql::{aggregates, functions};

/// Functions that the binder itself gives a meaning to.
const BINDERS_OWN: &[&str] = &["arrayjoin", "arrayfilter"];

/// Checks names in the order of AN-ORD-04: CTEs, sets, FROM, tables, functions.
pub fn check(query: &Query, family: Family) -> Result<(), Refusal> {
    let mut names = Names::default();
    names.query(query, &HashSet::new(), family);
    if let Some(refusal) = names.cte {
        return Err(refusal);
    }
    if let Some(refusal) = names.set {
        return Err(refusal);
    }
    if first_select(query).from.is_none() {
        return Err(Refusal::query("The query has no FROM clause: select from one of the analytics tables."));
    }
    match names.table.or(names.function) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// Whether a function of this name may be called.
pub fn is_allowed(name: &str) -> bool {
    aggregates::find(name).is_some()
        || functions::find(name).is_some()
        || BINDERS_OWN.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// The first offence of each kind.
#[derive(Default)]
struct Names {
    cte: Option<Refusal>,
    set: Option<Refusal>,
    table: Option<Refusal>,
    function: Option<Refusal>,
}

impl Names {
    /// Walks a query; `outer` are the CTEs that it sees, in lower case.
    fn query(&mut self, query: &Query, outer: &HashSet<String>, family: Family) {
        let Query { with, body, depth: _ } = query;
        let mut seen = outer.clone();
        for with in with {
            match with {
                With::Table { name, query } => {
                    self.query(query, &seen, family);
                    let lower = name.to_ascii_lowercase();
                    if Table::all().any(|table| table.family == family && table.name() == lower) {
                        self.cte.get_or_insert_with(|| {
                            Refusal::Table(format!("A CTE may not be called `{name}`: that is an analytics table."))
                        });
                    }
                    seen.insert(lower);
                }
                With::Scalar { name: _, value } => self.expr(value, &seen, family),
            }
        }
        self.body(body, &seen, family);
    }

    fn body(&mut self, body: &Body, seen: &HashSet<String>, family: Family) {
        match body {
            Body::Select(select) => self.select(select, seen, family),
            Body::Query(query) => self.query(query, seen, family),
            Body::Set { operator: _, left, right } => {
                self.body(left, seen, family);
                self.body(right, seen, family);
            }
        }
    }

    fn select(&mut self, select: &Select, seen: &HashSet<String>, family: Family) {
        if let Some(from) = &select.from {
            self.from(from, seen, family);
        }
        for expr in select.expressions() {
            self.expr(expr, seen, family);
        }
    }

    fn from(&mut self, from: &From, seen: &HashSet<String>, family: Family) {
        match from {
            From::Table { name, plain, alias: _ } => {
                let public = *plain && Table::find(family, name).is_some();
                let cte = *plain && seen.contains(&name.to_ascii_lowercase());
                if !public && !cte {
                    self.table.get_or_insert_with(|| {
                        Refusal::Table(format!("There is no table `{name}` for this operation to read."))
                    });
                }
            }
            From::Query { query, alias: _ } => self.query(query, seen, family),
            From::Function { name } => self.refuse_function(name),
            From::Join { kind: _, left, right, constraint: _ } => {
                self.from(left, seen, family);
                self.from(right, seen, family);
            }
        }
    }

    fn expr(&mut self, root: &Expr, seen: &HashSet<String>, family: Family) {
        let mut queries = Vec::new();
        walk(root, &mut |expr| {
            match &expr.kind {
                Kind::Call(call) if !is_allowed(&call.name) => self.refuse_function(&call.name),
                Kind::In { set: Set::Table(name), .. } => {
                    self.set.get_or_insert_with(|| {
                        Refusal::query(format!(
                            "IN cannot take its values from the table `{name}`: use a list or a subquery."
                        ))
                    });
                }
                _ => {}
            }
            queries.extend(expr.query());
        });
        for query in queries {
            self.query(query, seen, family);
        }
    }

    fn refuse_function(&mut self, name: &str) {
        self.function.get_or_insert_with(|| {
            Refusal::Function(format!("The function `{}` is not allowed.", name.to_ascii_lowercase()))
        });
    }
}
