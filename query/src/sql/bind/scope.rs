//! What names mean: tables of WITH, columns of FROM, aliases of the SELECT.

use std::collections::HashMap;
use std::rc::Rc;

use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr as Plan, LogicalPlan, ident};

use super::stage::{Aggregates, Attached, Exploded, Key, Windows};
use crate::error::Refusal;
use crate::sql::gate::tree::Kind;
use crate::sql::gate::tree::{Expr, Query, Select, Window, With, walk};
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// The definitions of WITH that a place sees, the nearest first: a list that grows at its head.
#[derive(Clone, Default)]
pub(super) struct Definitions<'q> {
    nearest: Option<Rc<Definition<'q>>>,
    /// The query that sees them.
    query: u32,
}

struct Definition<'q> {
    with: &'q With,
    before: Definitions<'q>,
}

impl<'q> Definitions<'q> {
    /// What a query in here sees.
    pub fn of_query(&self, query: u32) -> Definitions<'q> {
        Definitions { nearest: self.nearest.clone(), query }
    }

    pub fn with(&self, with: &'q With) -> Definitions<'q> {
        let definition = Definition { with, before: self.clone() };
        Definitions { nearest: Some(Rc::new(definition)), query: self.query }
    }

    /// The subquery a name stands for, in any case, with what it sees itself.
    pub fn table(&self, name: &str) -> Option<(&'q Query, Definitions<'q>)> {
        let mut next = &self.nearest;
        while let Some(definition) = next {
            if let With::Table { name: defined, query } = definition.with
                && defined.eq_ignore_ascii_case(name)
            {
                return Some((query, definition.before.clone()));
            }
            next = &definition.before.nearest;
        }
        None
    }

    /// The expression a name stands for, and whether the query's own WITH says so: then it is an alias like any other and
    /// hides a column.
    pub fn scalar(&self, name: &str) -> Option<(&'q Expr, bool)> {
        let mut next = &self.nearest;
        while let Some(definition) = next {
            if let With::Scalar { name: defined, value } = definition.with
                && defined == name
            {
                return Some((value, definition.before.query == self.query));
            }
            next = &definition.before.nearest;
        }
        None
    }
}

/// A column that a FROM gives.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// What it may be qualified with: the alias of its table, or its name.
    pub qualifier: Option<String>,
    /// The table's own name where it has an alias as well.
    pub table: Option<String>,
    /// Its name.
    pub name: String,
    /// Its name in the plan.
    pub id: String,
    pub ty: Type,
    /// Whether `*` and bare names pass it over: it was merged into another one by USING.
    pub merged: bool,
}

impl Column {
    pub fn typed(&self) -> Typed {
        Typed::new(ident(&self.id), self.ty.clone())
    }

    pub fn is_qualified_by(&self, qualifier: &str) -> bool {
        self.qualifier.as_deref() == Some(qualifier) || self.table.as_deref() == Some(qualifier)
    }
}

/// Rows with named columns.
pub(super) struct Relation {
    pub plan: LogicalPlan,
    pub columns: Vec<Column>,
    /// How many joins made it.
    pub joins: usize,
    /// In what order its rows come, where it has one.
    pub order: Vec<Sort>,
}

/// Which expressions a place may hold, and over which rows they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Over the rows of FROM, before they are grouped: WHERE, keys, arguments of aggregates. The text says where, for a
    /// refusal.
    Rows(&'static str),
    /// Over the rows of FROM, in a SELECT that groups nothing.
    Ungrouped,
    /// Over groups.
    Groups,
}

/// What expressions of one SELECT are bound in.
pub(super) struct Scope<'q> {
    pub definitions: Definitions<'q>,
    pub columns: Vec<Column>,
    pub joins: usize,
    pub aliases: HashMap<&'q str, &'q Expr>,
    pub windows_named: &'q [(String, Window)],
    pub stage: Stage,
    /// Aliases whose definitions are being bound: inside of them their names mean columns (AN-SEM-01).
    pub expanding: Vec<&'q str>,
    /// Parameters of the lambdas around.
    pub lambdas: Vec<Vec<(&'q str, Typed)>>,
    /// GROUP BY.
    pub keys: Vec<Key>,
    /// Whether some groups lack some keys: ROLLUP and its like.
    pub keys_may_be_absent: bool,
    pub aggregates: Aggregates,
    pub windows: Windows,
    /// `arrayJoin` over the rows of FROM.
    pub exploded: Vec<Exploded>,
    /// How many of them WHERE needed already.
    pub exploded_done: usize,
    /// `arrayJoin` over groups.
    pub exploded_late: Vec<Exploded>,
    /// Sets that the rows of FROM must be joined with.
    pub attached: Vec<Attached>,
    /// Sets that groups must be joined with.
    pub attached_late: Vec<Attached>,
    /// Every set by what it is looked up for, over groups or not, with its marker.
    pub sets: Vec<(Typed, &'q Query, bool, String)>,
    /// Subqueries that were bound as values.
    pub scalars: Vec<(&'q Query, Typed)>,
}

impl<'q> Scope<'q> {
    pub fn new(definitions: Definitions<'q>, relation: &Relation, stage: Stage) -> Scope<'q> {
        Scope {
            definitions,
            columns: relation.columns.clone(),
            joins: relation.joins,
            aliases: HashMap::new(),
            windows_named: &[],
            stage,
            expanding: Vec::new(),
            lambdas: Vec::new(),
            keys: Vec::new(),
            keys_may_be_absent: false,
            aggregates: Aggregates::default(),
            windows: Windows::default(),
            exploded: Vec::new(),
            exploded_done: 0,
            exploded_late: Vec::new(),
            attached: Vec::new(),
            attached_late: Vec::new(),
            sets: Vec::new(),
            scalars: Vec::new(),
        }
    }

    /// Makes the aliases of a SELECT visible, wherever in it they are defined.
    pub fn define_aliases(&mut self, select: &'q Select) -> Result<(), Refusal> {
        let mut double = None;
        for expr in select.expressions() {
            walk(expr, &mut |expr| {
                if let Kind::Alias(value, name) = &expr.kind {
                    let before = self.aliases.insert(name, value);
                    if before.is_some_and(|before| before != &**value) {
                        double.get_or_insert(name);
                    }
                }
            });
        }
        match double {
            Some(name) => Err(Refusal::query(format!("The alias `{name}` stands for several expressions."))),
            None => Ok(()),
        }
    }

    /// The column a name means.
    pub fn column(&self, path: &[String]) -> Option<&Column> {
        match path {
            [name] => {
                let mut plain = self.columns.iter().filter(|column| column.name == *name);
                let first = plain.clone().find(|column| !column.merged);
                first.or_else(|| plain.next())
            }
            [qualifier, name] => {
                self.columns.iter().find(|column| column.name == *name && column.is_qualified_by(qualifier))
            }
            _ => None,
        }
    }

    /// Whether a column is what its bare name means, so that it needs no qualifier in the answer (AN-NAME-01).
    pub fn is_plain(&self, column: &Column) -> bool {
        let mut same = self.columns.iter().filter(|other| other.name == column.name && !other.merged);
        match (same.next(), same.next()) {
            (Some(first), Some(_)) => self.joins < 2 && first.id == column.id,
            (Some(first), None) => first.id == column.id || column.merged,
            (None, _) => true,
        }
    }

    /// What a column is called in the answer.
    pub fn shown(&self, column: &Column) -> String {
        match &column.qualifier {
            Some(qualifier) if !self.is_plain(column) => format!("{qualifier}.{}", column.name),
            _ => column.name.clone(),
        }
    }
}

/// The refusal of a name that means nothing (AN-ERR-14).
pub(super) fn unknown(path: &[String]) -> Refusal {
    Refusal::query(format!("Unknown identifier `{}`: no column or alias is called so.", path.join(".")))
}

/// A column of a plan by its name there.
pub(super) fn column(id: &str) -> Plan {
    ident(id)
}
