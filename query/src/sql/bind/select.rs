//! One SELECT: its clauses in the order in which they are computed.
//!
//! FROM, ARRAY JOIN, WHERE, GROUP BY, HAVING, windows, DISTINCT, ORDER BY, LIMIT BY, WITH FILL, LIMIT. Expressions are bound
//! before the plan is built, because one that stands late (an `arrayJoin` in ORDER BY) may need something early.

use datafusion::common::{Column as PlanColumn, NullHandling, UnnestOptions};
use datafusion::functions_aggregate::count::count_all;
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{Expr as Plan, GroupingSet, JoinType, LogicalPlan, LogicalPlanBuilder, lit};

use super::from::{everything, or_default};
use super::query::{Output, Queried};
use super::scope::{Column, Definitions, Scope, Stage, column};
use super::stage::{Attached, Exploded, Key};
use super::{Binder, built, internal};
use crate::error::Refusal;
use crate::sql::gate::tree::{ArrayJoin, Distinct, Expr, GroupBy, Kind, OrderBy, Select, Set, walk};
use crate::sql::kernel;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// Most keys of CUBE: it computes 2^n sets of groups.
const CUBE_KEYS_MAX: usize = 8;

/// Most different keys of ROLLUP and its like: DataFusion marks the absent ones in a number of 64 bits.
const SET_KEYS_MAX: usize = 64;

/// More groups than any memory holds: a limit that cuts nothing.
const GROUPS_MAX: usize = 1 << 48;

/// A select item once `*` is spelled out.
#[derive(Clone)]
pub(super) enum Item<'q> {
    Column(Column),
    Value(&'q Expr),
}

impl<'q> Binder<'_, 'q> {
    pub(super) fn select(
        &mut self,
        select: &'q Select,
        definitions: &Definitions<'q>,
        rows_max: Option<u64>,
    ) -> Result<Queried, Refusal> {
        self.count_select()?;
        let relation = self.from(select.from.as_ref(), definitions)?;
        let mut scope = Scope::new(definitions.clone(), &relation, Stage::Rows("WHERE"));
        scope.define_aliases(select)?;
        scope.windows_named = &select.windows;
        let mut plan = self.array_joins(&mut scope, relation.plan, &select.array_join)?;
        plan = self.filtered(&mut scope, plan, select)?;
        let items = expand(&scope, &select.items)?;

        let grouped = select.group_by != GroupBy::No || self.aggregates_anywhere(&scope, select);
        let mut sets = None;
        if grouped {
            scope.stage = Stage::Rows("GROUP BY");
            sets = self.keys(&mut scope, &select.group_by, &items)?;
            scope.keys_may_be_absent = sets.is_some();
        }
        scope.stage = if grouped { Stage::Groups } else { Stage::Ungrouped };
        let having = match &select.having {
            Some(having) => Some(self.condition(&mut scope, having)?),
            None => None,
        };
        if !scope.windows.all.is_empty() {
            return Err(Refusal::query("A window function cannot stand in HAVING."));
        }
        let exploded_for_having = scope.exploded_late.len();
        let mut outputs = Vec::with_capacity(items.len());
        for item in &items {
            outputs.push(self.output(&mut scope, item)?);
        }
        let tail = self.tail(&mut scope, select, &outputs)?;

        // What the rows of FROM need beyond what WHERE needed.
        plan = self.explode(plan, &scope.exploded[scope.exploded_done..])?;
        plan = attach(plan, &std::mem::take(&mut scope.attached))?;
        if grouped {
            plan = self.grouped(&scope, plan, sets, &relation.order)?;
            plan = self.explode(plan, &scope.exploded_late[..exploded_for_having])?;
            plan = attach(plan, &scope.attached_late)?;
        }
        if let Some(having) = having {
            plan = built(LogicalPlanBuilder::from(plan).filter(having))?;
        }
        plan = self.explode(plan, &scope.exploded_late[exploded_for_having..])?;
        plan = self.windowed(&scope, plan)?;
        self.finished(plan, outputs, tail, select, definitions, rows_max)
    }

    /// ARRAY JOIN: a row for each element, which takes the array's name or an alias.
    fn array_joins(
        &mut self,
        scope: &mut Scope<'q>,
        plan: LogicalPlan,
        joins: &'q [ArrayJoin],
    ) -> Result<LogicalPlan, Refusal> {
        if joins.is_empty() {
            return Ok(plan);
        }
        for join in joins {
            if let Kind::Alias(_, name) = &join.array.kind {
                scope.aliases.remove(name.as_str());
            }
        }
        scope.stage = Stage::Rows("ARRAY JOIN");
        let mut arrays = Vec::new();
        for ArrayJoin { array, left } in joins {
            let bound = self.expr(scope, array.bare())?;
            let Type::Array(element) = &bound.ty else {
                return Err(Refusal::query(format!("ARRAY JOIN takes an array, not {}.", bound.ty)));
            };
            arrays.push((array, *left, (**element).clone(), bound.clone(), self.id()));
        }
        let all: Vec<Plan> = arrays.iter().map(|(.., bound, _)| bound.expr.clone()).collect();
        let mut projected = everything(&plan);
        for (.., bound, id) in &arrays {
            let array = if all.len() > 1 { same_lengths(bound, &all) } else { bound.expr.clone() };
            projected.push(array.alias(id));
        }
        let left = arrays.iter().any(|(_, left, ..)| *left);
        let options = UnnestOptions {
            null_handling: if left { NullHandling::PreserveAndExpandEmpty } else { NullHandling::Drop },
            recursions: Vec::new(),
        };
        let ids = arrays.iter().map(|(.., id)| PlanColumn::new_unqualified(id)).collect();
        let plan = LogicalPlanBuilder::from(plan)
            .project(projected)
            .and_then(|builder| builder.unnest_columns_with_options(ids, options));
        let mut plan = built(plan)?;
        if left {
            let mut projected = Vec::new();
            for source in everything(&plan) {
                let of = arrays.iter().find(|(.., id)| source == column(id));
                projected.push(match of {
                    Some((_, _, element, _, id)) => or_default(source, element)?.alias(id),
                    None => source,
                });
            }
            plan = built(LogicalPlanBuilder::from(plan).project(projected))?;
        }
        for (array, _, element, _, id) in arrays {
            let (name, replaces) = match &array.kind {
                Kind::Alias(_, name) => (name.clone(), scope.columns.iter().position(|column| column.name == *name)),
                Kind::Name(path) => {
                    let found = scope.column(path).map(|found| found.id.clone());
                    let at = scope.columns.iter().position(|column| Some(&column.id) == found.as_ref());
                    (path.last().cloned().unwrap_or_default(), at)
                }
                _ => continue,
            };
            match replaces {
                Some(at) => {
                    scope.columns[at].id = id;
                    scope.columns[at].ty = element;
                }
                None => {
                    let merged = true;
                    scope.columns.push(Column { qualifier: None, table: None, name, id, ty: element, merged });
                }
            }
        }
        Ok(plan)
    }

    /// PREWHERE and WHERE.
    fn filtered(
        &mut self,
        scope: &mut Scope<'q>,
        plan: LogicalPlan,
        select: &'q Select,
    ) -> Result<LogicalPlan, Refusal> {
        let mut conditions = Vec::new();
        let mut sets = Vec::new();
        for filter in select.prewhere.iter().chain(&select.filter) {
            scope.stage = Stage::Rows("WHERE");
            let parts = match &filter.kind {
                Kind::And(parts) => parts.as_slice(),
                _ => std::slice::from_ref(filter),
            };
            for part in parts {
                // A set that rows must be in keeps them without a look at what it says about the others.
                if let Kind::In { value, set: Set::Query(query), negated: false } = &part.kind {
                    let value = self.expr(scope, value)?;
                    let set = self.set(&value, query, scope)?;
                    sets.push(set);
                } else {
                    conditions.push(self.condition(scope, part)?);
                }
            }
        }
        let mut plan = self.explode(plan, &scope.exploded)?;
        scope.exploded_done = scope.exploded.len();
        for Attached { set, on, marker: _ } in sets {
            let on = on.into_iter().map(|(left, right)| left.eq(column(&right)));
            plan = built(LogicalPlanBuilder::from(plan).join_on(set, JoinType::LeftSemi, on))?;
        }
        plan = attach(plan, &std::mem::take(&mut scope.attached))?;
        // One filter each: the optimizer joins them, and each finds its own way down.
        for condition in conditions {
            plan = built(LogicalPlanBuilder::from(plan).filter(condition))?;
        }
        Ok(plan)
    }

    fn aggregates_anywhere(&self, scope: &Scope<'q>, select: &'q Select) -> bool {
        let mut places: Vec<&'q Expr> = select.items.iter().chain(&select.having).collect();
        if let OrderBy::Keys(keys, _) = &select.order_by {
            places.extend(keys.iter().map(|key| &key.value));
        }
        if let Some(limit_by) = &select.limit_by {
            places.extend(&limit_by.keys);
        }
        if let Distinct::On(keys) = &select.distinct {
            places.extend(keys);
        }
        for (_, window) in &select.windows {
            places.extend(window.expressions());
        }
        places.into_iter().any(|place| self.aggregates(scope, place))
    }

    /// Binds the keys of GROUP BY into the scope; gives the sets of them where there are several.
    fn keys(
        &mut self,
        scope: &mut Scope<'q>,
        group_by: &'q GroupBy,
        items: &[Item<'q>],
    ) -> Result<Option<GroupingSet>, Refusal> {
        let mut sets = None;
        match group_by {
            GroupBy::No => {}
            GroupBy::Keys(keys) => {
                self.key_list(scope, keys, items)?;
            }
            GroupBy::All => {
                for item in items {
                    match item {
                        Item::Column(column) => {
                            self.add_key(scope, column.typed());
                        }
                        Item::Value(value) => {
                            let mut parts = Vec::new();
                            self.parts_without_aggregates(scope, value, &mut parts);
                            for part in parts {
                                let bound = self.expr(scope, part)?;
                                if bound.as_literal().is_none() {
                                    self.add_key(scope, bound);
                                }
                            }
                        }
                    }
                }
            }
            GroupBy::Rollup(keys) => sets = Some(GroupingSet::Rollup(self.key_list(scope, keys, items)?)),
            GroupBy::Cube(keys) => {
                let keys = self.key_list(scope, keys, items)?;
                if keys.len() > CUBE_KEYS_MAX {
                    return Err(Refusal::query(format!(
                        "CUBE groups by every selection of its keys: it takes {CUBE_KEYS_MAX} of them at most, not {}.",
                        keys.len()
                    )));
                }
                sets = Some(GroupingSet::Cube(keys));
            }
            GroupBy::Sets(all) => {
                let bound = all.iter().map(|keys| self.key_list(scope, keys, items)).collect::<Result<_, _>>()?;
                sets = Some(GroupingSet::GroupingSets(bound));
            }
        }
        Ok(sets)
    }

    /// The columns of keys; one that says the same as another one counts once.
    fn key_list(&mut self, scope: &mut Scope<'q>, keys: &'q [Expr], items: &[Item<'q>]) -> Result<Vec<Plan>, Refusal> {
        let mut ids = Vec::new();
        for key in keys {
            let parts = match &key.kind {
                Kind::Tuple(parts) => parts.as_slice(),
                _ => std::slice::from_ref(key),
            };
            for part in parts {
                let bound = match position(part, items.len(), "GROUP BY")? {
                    Some(at) => match &items[at] {
                        Item::Column(column) => column.typed(),
                        Item::Value(value) => self.expr(scope, value)?,
                    },
                    None => self.expr(scope, part)?,
                };
                let id = self.add_key(scope, bound);
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    }

    fn add_key(&mut self, scope: &mut Scope<'q>, value: Typed) -> Plan {
        if let Some(known) = scope.keys.iter().find(|known| known.value == value) {
            return column(&known.id);
        }
        let id = self.id();
        scope.keys.push(Key { value, id: id.clone() });
        column(&id)
    }

    /// The largest parts of an expression that do not aggregate: what GROUP BY ALL groups by.
    fn parts_without_aggregates(&self, scope: &Scope<'q>, root: &'q Expr, parts: &mut Vec<&'q Expr>) {
        if !self.aggregates(scope, root) {
            let mut names = false;
            walk(root, &mut |expr| names |= matches!(expr.kind, Kind::Name(_)));
            if names {
                parts.push(root);
            }
            return;
        }
        if let Kind::Call(call) = &root.kind
            && crate::sql::aggregates::find(&call.name).is_some()
        {
            return;
        }
        for child in root.children() {
            self.parts_without_aggregates(scope, child, parts);
        }
    }

    /// Groups rows: computes keys and arguments, then aggregates, then puts defaults where DataFusion has NULL.
    fn grouped(
        &mut self,
        scope: &Scope<'q>,
        plan: LogicalPlan,
        sets: Option<GroupingSet>,
        order: &[Sort],
    ) -> Result<LogicalPlan, Refusal> {
        let mut projected = everything(&plan);
        let mut group = Vec::new();
        // A key is computed under a name of its own; over groups it has another, because of its default.
        for key in &scope.keys {
            // What WHERE says of a key (that it is a constant, or equal to another one) holds no longer in sets that it is
            // absent from. DataFusion 55 keeps it, and then does not sort by it.
            let as_it_is = sets.is_none() || key.value.as_literal().is_some();
            let value = if as_it_is { key.value.expr.clone() } else { kernel::opaque(&key.id, key.value.clone()) };
            projected.push(value.alias(&key.id));
            group.push(column(&key.id));
        }
        let mut computed = Vec::new();
        for aggregate in &scope.aggregates.all {
            let call = &aggregate.call;
            let mut arguments = Vec::new();
            for argument in &call.arguments {
                arguments.push(match argument {
                    Plan::Column(_) | Plan::Literal(..) => argument.clone(),
                    other => {
                        let id = self.id();
                        projected.push(other.clone().alias(&id));
                        column(&id)
                    }
                });
            }
            let filter = match &call.filter {
                None => None,
                Some(filter) => {
                    let id = self.id();
                    projected.push(filter.clone().alias(&id));
                    Some(Box::new(column(&id)))
                }
            };
            let function = AggregateFunction::new_udf(
                std::sync::Arc::clone(&call.function),
                arguments,
                call.distinct,
                filter,
                // Nobody promises it, everybody relies on it: an array of ordered rows is in their order.
                if call.function.name() == "groupArray" && !call.distinct { order.to_vec() } else { Vec::new() },
                None,
            );
            computed.push(Plan::AggregateFunction(function).alias(&aggregate.id));
        }
        let several = sets.is_some();
        if several && scope.keys.len() > SET_KEYS_MAX {
            return Err(Refusal::query(format!(
                "ROLLUP, CUBE and GROUPING SETS take {SET_KEYS_MAX} different keys at most, not {}.",
                scope.keys.len()
            )));
        }
        // Of no rows ROLLUP and CUBE make no groups, although the set without keys would be one.
        let counted = matches!(sets, Some(GroupingSet::Rollup(_) | GroupingSet::Cube(_))).then(|| self.id());
        computed.extend(counted.iter().map(|id| count_all().alias(id)));
        let group = match sets {
            None => group,
            Some(sets) => vec![Plan::GroupingSet(sets)],
        };
        let plan =
            LogicalPlanBuilder::from(plan).project(projected).and_then(|builder| builder.aggregate(group, computed));
        let mut plan = built(plan)?;
        if scope.keys.is_empty() || several {
            // Without keys there is a group even of no rows. A condition that turns out to read no column (on what an outer
            // SELECT sees as a column, and this one wrote as a constant) would go below the aggregate in DataFusion 55, which
            // leaves that group there; it does not pass a limit.
            plan = built(LogicalPlanBuilder::from(plan).limit(0, Some(GROUPS_MAX)))?;
        }
        if let Some(id) = &counted {
            plan = built(LogicalPlanBuilder::from(plan).filter(column(id).gt(lit(0_i64))))?;
        }
        let mut projected = Vec::new();
        for key in &scope.keys {
            let value = column(&key.id);
            projected.push(match several {
                // A constant is what it is in every set, also in those that it is no key of.
                true if key.value.as_literal().is_some() => key.value.expr.clone().alias(&key.id),
                true => or_default(value, &key.value.ty)?.alias(&key.id),
                false => value,
            });
        }
        for aggregate in &scope.aggregates.all {
            projected.push(or_empty(column(&aggregate.id), aggregate.call.empty.as_ref())?.alias(&aggregate.id));
        }
        built(LogicalPlanBuilder::from(plan).project(projected))
    }

    /// A select item's value and name.
    fn output(&mut self, scope: &mut Scope<'q>, item: &Item<'q>) -> Result<(Output, Typed), Refusal> {
        let (name, value) = match item {
            Item::Column(found) => {
                let typed = found.typed();
                let value = if scope.stage == Stage::Groups {
                    let key = scope.keys.iter().find(|key| key.value == typed);
                    let key = key.ok_or_else(|| {
                        Refusal::query(format!("The column `{}` is neither aggregated nor in GROUP BY.", found.name))
                    })?;
                    Typed::new(column(&key.id), typed.ty)
                } else {
                    typed
                };
                (scope.shown(found), value)
            }
            Item::Value(value) => (super::naming::name(scope, value), self.expr(scope, value)?),
        };
        Ok((Output { name, id: self.id(), ty: value.ty.clone() }, value))
    }

    /// Multiplies rows by the elements of arrays, one array after the other.
    fn explode(&mut self, plan: LogicalPlan, all: &[Exploded]) -> Result<LogicalPlan, Refusal> {
        let mut plan = plan;
        for Exploded { array, id } in all {
            let mut projected = everything(&plan);
            projected.push(array.clone().alias(id));
            let options = UnnestOptions { null_handling: NullHandling::Drop, recursions: Vec::new() };
            let exploded = LogicalPlanBuilder::from(plan)
                .project(projected)
                .and_then(|builder| builder.unnest_column_with_options(PlanColumn::new_unqualified(id), options));
            plan = built(exploded)?;
        }
        Ok(plan)
    }
}

/// Joins rows with sets that their expressions look up, each of which adds its marker.
fn attach(plan: LogicalPlan, all: &[Attached]) -> Result<LogicalPlan, Refusal> {
    let mut plan = plan;
    for Attached { set, on, marker } in all {
        let mut columns = everything(&plan);
        columns.push(column(marker));
        let on: Vec<Plan> = on.iter().map(|(left, right)| left.clone().eq(column(right))).collect();
        let joined = LogicalPlanBuilder::from(plan).join_on(set.clone(), JoinType::Left, on);
        plan = built(joined.and_then(|builder| builder.project(columns)))?;
    }
    Ok(plan)
}

/// Spells out `*` and `t.*`.
fn expand<'q>(scope: &Scope<'q>, items: &'q [Expr]) -> Result<Vec<Item<'q>>, Refusal> {
    let mut all = Vec::new();
    for item in items {
        let before = all.len();
        match &item.kind {
            Kind::Star => all.extend(scope.columns.iter().filter(|column| !column.merged).cloned().map(Item::Column)),
            Kind::QualifiedStar(table) => {
                let of = scope.columns.iter().filter(|column| column.is_qualified_by(table));
                all.extend(of.cloned().map(Item::Column));
            }
            _ => all.push(Item::Value(item)),
        }
        if all.len() == before {
            let what = match &item.kind {
                Kind::QualifiedStar(table) => format!("Unknown identifier `{table}` before `.*`."),
                _ => "`*` stands for no column here.".to_owned(),
            };
            return Err(Refusal::query(what));
        }
    }
    Ok(all)
}

/// The select item that a bare number names in GROUP BY and ORDER BY (AN-SEM-02), counted from 0.
pub(super) fn position(expr: &Expr, items: usize, clause: &str) -> Result<Option<usize>, Refusal> {
    let Kind::Number(number) = &expr.kind else { return Ok(None) };
    match number.parse::<usize>() {
        Ok(at) if (1..=items).contains(&at) => Ok(Some(at - 1)),
        Ok(at) => Err(Refusal::query(format!("{clause} names position {at}, but the SELECT has {items} columns."))),
        Err(_) => Ok(None),
    }
}

/// An aggregate's value, or what it is over no rows (AN-SEM-04).
pub(super) fn or_empty(value: Plan, empty: Option<&datafusion::common::ScalarValue>) -> Result<Plan, Refusal> {
    match empty {
        None => Ok(value),
        Some(empty) => datafusion::logical_expr::when(value.clone().is_null(), Plan::Literal(empty.clone(), None))
            .otherwise(value)
            .map_err(|error| internal(error.to_string())),
    }
}

/// An array, once it is known to be as long as the others in every row.
fn same_lengths(array: &Typed, all: &[Plan]) -> Plan {
    use datafusion::arrow::array::{Array, AsArray};
    use datafusion::logical_expr::{ColumnarValue, Volatility};
    let mut arguments = vec![array.expr.clone()];
    arguments.extend(all.iter().cloned());
    kernel::expression("sameLengths", "", arguments, array.ty.arrow(), Volatility::Immutable, |values, rows| {
        let columns = ColumnarValue::values_to_arrays(values)?;
        let lengths: Vec<_> = columns.iter().map(|column| column.as_list::<i32>()).collect();
        let (first, others) = lengths.split_first().ok_or_else(|| kernel::refused("no array"))?;
        let rows = if first.len() == rows { rows } else { first.len() };
        for row in 0..rows {
            if others.iter().any(|other| other.value_length(row) != first.value_length(row)) {
                return Err(kernel::refused("The arrays of ARRAY JOIN must be equally long in every row."));
            }
        }
        Ok(ColumnarValue::Array(std::sync::Arc::clone(&columns[0])))
    })
}
