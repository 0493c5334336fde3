//! FROM: tables, CTEs, subqueries, and their joins.

use std::collections::HashSet;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column as PlanColumn, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::ColumnarValue;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr as Plan, JoinType, LogicalPlan, LogicalPlanBuilder, Operator, Volatility, WindowFrame,
    WindowFunctionDefinition, col, lit, when,
};

use super::query::Queried;
use super::scope::{Column, Definitions, Relation, Scope, Stage, column};
use super::{Binder, built, internal};
use crate::error::Refusal;
use crate::events::tables::Table;
use crate::sql::gate::tree::{Constraint, From, JoinKind};
use crate::sql::kernel;
use crate::sql::nodes::asof::{Asof, Nearest};
use crate::sql::operators;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

impl<'q> Binder<'_, 'q> {
    /// The rows that FROM names; without FROM one row without columns.
    pub(super) fn from(&mut self, from: Option<&'q From>, definitions: &Definitions<'q>) -> Result<Relation, Refusal> {
        match from {
            None => {
                let plan = LogicalPlanBuilder::empty(true).build().map_err(|error| internal(error.to_string()))?;
                Ok(Relation { plan, columns: Vec::new(), joins: 0, order: Vec::new() })
            }
            Some(from) => self.deeper(|binder| binder.relation(from, definitions)),
        }
    }

    fn relation(&mut self, from: &'q From, definitions: &Definitions<'q>) -> Result<Relation, Refusal> {
        match from {
            From::Table { name, plain: _, alias } => {
                if let Some((query, definitions)) = definitions.table(name) {
                    let queried = self.query(query, &definitions, None)?;
                    return Ok(relation(queried, alias.as_deref().unwrap_or(name), Some(name)));
                }
                let table = Table::find(self.surroundings.family, name)
                    .ok_or_else(|| Refusal::Table(format!("There is no table `{name}` for this operation to read.")))?;
                self.scan(table, alias.as_deref())
            }
            From::Query { query, alias } => {
                let queried = self.query(query, definitions, None)?;
                let mut relation = relation(queried, alias.as_deref().unwrap_or_default(), None);
                if alias.is_none() {
                    relation.columns.iter_mut().for_each(|column| column.qualifier = None);
                }
                Ok(relation)
            }
            From::Function { name } => {
                Err(Refusal::Function(format!("The function `{}` is not allowed.", name.to_ascii_lowercase())))
            }
            From::Join { kind, left, right, constraint } => {
                let left = self.deeper(|binder| binder.relation(left, definitions))?;
                let right = self.deeper(|binder| binder.relation(right, definitions))?;
                self.join(*kind, left, right, constraint, definitions)
            }
        }
    }

    fn scan(&mut self, table: Table, alias: Option<&str>) -> Result<Relation, Refusal> {
        let provider = (self.surroundings.scan)(table)?;
        let scan = self.id();
        let plan = built(LogicalPlanBuilder::scan(&scan, provider_as_source(provider), None))?;
        let mut columns = Vec::new();
        let mut projected = Vec::new();
        for found in table.columns() {
            let id = self.id();
            projected.push(col(PlanColumn::new(Some(scan.as_str()), found.name)).alias(&id));
            columns.push(Column {
                qualifier: Some(alias.unwrap_or(table.name()).to_owned()),
                table: Some(table.name().to_owned()),
                name: found.name.to_owned(),
                id,
                ty: found.ty,
                merged: false,
            });
        }
        let plan = built(LogicalPlanBuilder::from(plan).project(projected))?;
        Ok(Relation { plan, columns, joins: 0, order: Vec::new() })
    }

    fn join(
        &mut self,
        kind: JoinKind,
        left: Relation,
        right: Relation,
        constraint: &'q Constraint,
        definitions: &Definitions<'q>,
    ) -> Result<Relation, Refusal> {
        let joins = left.joins + right.joins + 1;
        let mut both = left.columns.clone();
        both.extend(right.columns.iter().cloned());
        let rights: HashSet<String> = right.columns.iter().map(|column| column.id.clone()).collect();

        // What must hold, and which columns USING makes one of.
        let mut conditions = Vec::new();
        let mut merged: Vec<(String, String)> = Vec::new();
        match constraint {
            Constraint::None => {}
            Constraint::On(condition) => {
                let joined = Relation { plan: left.plan.clone(), columns: both.clone(), joins, order: Vec::new() };
                let mut scope = Scope::new(definitions.clone(), &joined, Stage::Rows("ON"));
                conditions.push(self.condition(&mut scope, condition)?);
            }
            Constraint::Using(names) => {
                for name in names {
                    let of = |relation: &Relation| {
                        relation.columns.iter().find(|column| column.name == *name && !column.merged).cloned()
                    };
                    let (Some(one), Some(other)) = (of(&left), of(&right)) else {
                        return Err(Refusal::query(format!(
                            "Unknown identifier `{name}` in USING: both sides need it."
                        )));
                    };
                    let (a, b) = operators::comparable(one.typed(), other.typed())?;
                    conditions.push(a.expr.eq(b.expr));
                    merged.push((one.id, other.id));
                }
            }
        }
        let (mut left, mut right) = (left, right);
        let mut nearest = None;
        match kind {
            JoinKind::AnyInner | JoinKind::AnyLeft | JoinKind::AnyRight => {
                let pairs = equalities(&conditions, &rights)
                    .ok_or_else(|| Refusal::query("ANY JOIN takes equalities of the two sides only."))?;
                if kind != JoinKind::AnyRight {
                    right.plan =
                        self.one_of_each(right.plan, pairs.iter().map(|(_, right)| right.clone()).collect())?;
                }
                if kind != JoinKind::AnyLeft {
                    left.plan = self.one_of_each(left.plan, pairs.into_iter().map(|(left, _)| left).collect())?;
                }
            }
            JoinKind::Asof | JoinKind::AsofLeft => nearest = Some(kind == JoinKind::AsofLeft),
            _ => {}
        }
        let join_type = match kind {
            JoinKind::Inner | JoinKind::Cross | JoinKind::AnyInner | JoinKind::Asof => JoinType::Inner,
            JoinKind::Left | JoinKind::AnyLeft | JoinKind::AsofLeft => JoinType::Left,
            JoinKind::Right | JoinKind::AnyRight => JoinType::Right,
            JoinKind::Full => JoinType::Full,
            JoinKind::LeftSemi => JoinType::LeftSemi,
            JoinKind::LeftAnti => JoinType::LeftAnti,
            JoinKind::RightSemi => JoinType::RightSemi,
            JoinKind::RightAnti => JoinType::RightAnti,
        };
        let plan = match nearest {
            Some(outer) => self.nearest(left.plan, right.plan, &conditions, &rights, outer)?,
            None => {
                let pairs_are_hashed = conditions.iter().any(|condition| has_equality(condition, &rights));
                let condition = conditions.into_iter().reduce(Plan::and);
                let condition = if pairs_are_hashed {
                    condition
                } else {
                    // A join that looks at every pair has a condition in any case, which is where the run looks whether
                    // to go on.
                    Some(self.every_pair(&left, &right, condition)?)
                };
                built(LogicalPlanBuilder::from(left.plan).join_on(right.plan, join_type, condition))?
            }
        };
        match kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => {
                return Ok(Relation { plan, columns: left.columns, joins, order: Vec::new() });
            }
            JoinKind::RightSemi | JoinKind::RightAnti => {
                return Ok(Relation { plan, columns: right.columns, joins, order: Vec::new() });
            }
            _ => {}
        }

        // Rows without a partner have defaults where DataFusion has NULL (AN-SEM-05).
        let left_lacks = matches!(join_type, JoinType::Right | JoinType::Full);
        let right_lacks = matches!(join_type, JoinType::Left | JoinType::Full);
        let mut columns = Vec::new();
        let mut projected = Vec::new();
        for (at, mut one) in both.into_iter().enumerate() {
            let of_left = at < left.columns.len();
            let partner = merged.iter().find(|(a, b)| if of_left { one.id == *a } else { one.id == *b });
            let lacks = if of_left { left_lacks } else { right_lacks };
            let mut value = column(&one.id);
            if let (true, true, Some((_, right_id))) = (of_left, left_lacks, partner) {
                // The merged column of USING is whichever side there is.
                let other = right.columns.iter().find(|column| column.id == *right_id);
                let other = other.ok_or_else(|| internal("a column of USING is gone"))?;
                let unified = operators::super_type(&[one.ty.clone(), other.ty.clone()])?;
                let a = operators::coerce(one.typed(), &unified)?;
                let b = operators::coerce(other.typed(), &unified)?;
                one.ty = unified;
                value = when(a.expr.clone().is_null(), b.expr)
                    .otherwise(a.expr)
                    .map_err(|error| internal(error.to_string()))?;
            }
            if !of_left && partner.is_some() {
                one.merged = true;
            }
            let id = self.id();
            if lacks {
                // What its side says of a column (that it is a constant) does not hold in rows that lack it. DataFusion 55
                // keeps it through outer joins, and then neither sorts nor hashes by the column.
                value = kernel::opaque(&id, Typed::new(or_default(value, &one.ty)?, one.ty.clone()));
            }
            projected.push(value.alias(&id));
            columns.push(Column { id, ..one });
        }
        let plan = built(LogicalPlanBuilder::from(plan).project(projected))?;
        Ok(Relation { plan, columns, joins, order: Vec::new() })
    }

    /// ASOF: each left row with the nearest right one. Where `outer`, left rows without one stay.
    fn nearest(
        &mut self,
        left: LogicalPlan,
        right: LogicalPlan,
        conditions: &[Plan],
        rights: &HashSet<String>,
        outer: bool,
    ) -> Result<LogicalPlan, Refusal> {
        let (mut pairs, last, nearest) = inequality(conditions, rights)
            .ok_or_else(|| Refusal::query("ASOF JOIN takes equalities of the two sides and one inequality."))?;
        pairs.push(last);
        // What is compared becomes columns, which the projection after the join leaves out again.
        let (mut of_left, mut of_right, mut by) = (everything(&left), everything(&right), Vec::new());
        for (one, other) in pairs {
            let (left_id, right_id) = (self.id(), self.id());
            of_left.push(one.alias(&left_id));
            of_right.push(other.alias(&right_id));
            by.push((left_id, right_id));
        }
        let left = built(LogicalPlanBuilder::from(left).project(of_left))?;
        let right = built(LogicalPlanBuilder::from(right).project(of_right))?;
        let joined = Asof::new(left, right, by, nearest, outer).map_err(|error| internal(error.to_string()))?;
        Ok(joined.into_plan())
    }

    /// One row for each of some values.
    fn one_of_each(&mut self, plan: LogicalPlan, values: Vec<Plan>) -> Result<LogicalPlan, Refusal> {
        let kept = everything(&plan);
        let id = self.id();
        let picked = LogicalPlanBuilder::from(plan)
            .window(vec![Plan::from(row_number(values, Vec::new())).alias(&id)])
            .and_then(|builder| builder.filter(column(&id).eq(lit(1_u64))))
            .and_then(|builder| builder.project(kept));
        built(picked)
    }

    /// A condition that is true for every pair, in addition to the one given; it depends on both sides, so that nothing
    /// moves it to one of them.
    fn every_pair(&mut self, left: &Relation, right: &Relation, condition: Option<Plan>) -> Result<Plan, Refusal> {
        let some = |relation: &Relation| relation.columns.first().map_or(lit(true), |first| column(&first.id));
        let always = kernel::of_anything(
            "everyPair",
            vec![some(left), some(right)],
            DataType::Boolean,
            Volatility::Volatile,
            |_, _| Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true)))),
        );
        Ok(match condition {
            Some(condition) => condition.and(always),
            None => always,
        })
    }
}

/// The sides, left and right, of conditions that are all equalities of the two.
fn equalities(conditions: &[Plan], rights: &HashSet<String>) -> Option<Vec<(Plan, Plan)>> {
    let mut parts = Vec::new();
    for condition in conditions {
        parts.extend(split_conjunction(condition));
    }
    parts
        .into_iter()
        .map(|part| sides(part, rights).filter(|(op, ..)| *op == Operator::Eq))
        .map(|found| found.map(|(_, left, right)| (left, right)))
        .collect()
}

/// Two sides of a comparison, left and right.
type Pair = (Plan, Plan);

/// The equalities, the inequality, and which row it means, where all conditions but one are equalities.
fn inequality(conditions: &[Plan], rights: &HashSet<String>) -> Option<(Vec<Pair>, Pair, Nearest)> {
    let (mut equal, mut found) = (Vec::new(), None);
    for part in conditions.iter().flat_map(|condition| split_conjunction(condition)) {
        let (op, left, right) = sides(part, rights)?;
        let nearest = match op {
            Operator::Eq => {
                equal.push((left, right));
                continue;
            }
            Operator::Gt => Nearest::Before,
            Operator::GtEq => Nearest::AtOrBefore,
            Operator::Lt => Nearest::After,
            Operator::LtEq => Nearest::AtOrAfter,
            _ => return None,
        };
        if found.replace(((left, right), nearest)).is_some() {
            return None;
        }
    }
    let (last, nearest) = found.filter(|_| !equal.is_empty())?;
    Some((equal, last, nearest))
}

/// A comparison of the two sides of a join as `left op right`.
fn sides(condition: &Plan, rights: &HashSet<String>) -> Option<(Operator, Plan, Plan)> {
    let Plan::BinaryExpr(binary) = condition else { return None };
    let side = |expr: &Plan| {
        let references = expr.column_refs();
        let of_right = references.iter().filter(|column| rights.contains(column.name.as_str())).count();
        (references.len() - of_right, of_right)
    };
    match (side(&binary.left), side(&binary.right)) {
        ((1.., 0), (0, 1..)) => Some((binary.op, (*binary.left).clone(), (*binary.right).clone())),
        ((0, 1..), (1.., 0)) => Some((binary.op.swap()?, (*binary.right).clone(), (*binary.left).clone())),
        _ => None,
    }
}

/// `row_number()`.
pub(super) fn row_number(partition_by: Vec<Plan>, order_by: Vec<Sort>) -> WindowFunction {
    let mut number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    number.params.window_frame = WindowFrame::new((!order_by.is_empty()).then_some(true));
    number.params.partition_by = partition_by;
    number.params.order_by = order_by;
    number
}

/// A value, or its type's default where it is NULL and the type has no NULL.
pub(super) fn or_default(value: Plan, ty: &Type) -> Result<Plan, Refusal> {
    if ty.is_nullable() {
        return Ok(value);
    }
    let default = Plan::Literal(operators::default_of(ty), None);
    when(value.clone().is_null(), default).otherwise(value).map_err(|error| internal(error.to_string()))
}

/// Whether one of the conditions that all must hold is an equality of the two sides, by which rows can be hashed.
fn has_equality(condition: &Plan, rights: &HashSet<String>) -> bool {
    split_conjunction(condition).into_iter().any(|part| matches!(sides(part, rights), Some((Operator::Eq, ..))))
}

fn relation(queried: Queried, qualifier: &str, table: Option<&str>) -> Relation {
    let columns = queried
        .columns
        .into_iter()
        .map(|output| Column {
            qualifier: Some(qualifier.to_owned()),
            table: table.map(str::to_owned),
            name: output.name,
            id: output.id,
            ty: output.ty,
            merged: false,
        })
        .collect();
    Relation { plan: queried.plan, columns, joins: 0, order: queried.order }
}

/// All columns of a plan, as they are.
pub(super) fn everything(plan: &LogicalPlan) -> Vec<Plan> {
    plan.schema().columns().into_iter().map(Plan::Column).collect()
}
