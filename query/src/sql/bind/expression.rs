//! Expressions: what they compute, and of what type.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringViewArray};
use datafusion::arrow::datatypes::UInt64Type;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{
    ColumnarValue, Expr as Plan, LogicalPlan, LogicalPlanBuilder, Volatility, scalar_subquery, when,
};

use super::from::row_number;
use super::scope::{Scope, Stage, column, unknown};
use super::stage::{Attached, Exploded, Mark};
use super::{Binder, internal};
use crate::error::Refusal;
use crate::sql::aggregates::{self, Aggregated};
use crate::sql::functions;
use crate::sql::gate::tree::{Call, Expr, Kind, Operator, Query, Set, walk};
use crate::sql::kernel;
use crate::sql::operators;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

impl<'q> Binder<'_, 'q> {
    /// Binds an expression where the scope stands.
    pub(super) fn expr(&mut self, scope: &mut Scope<'q>, expr: &'q Expr) -> Result<Typed, Refusal> {
        self.deeper(|binder| {
            if scope.stage == Stage::Groups
                && let Some(key) = binder.key(scope, expr)
            {
                return Ok(key);
            }
            binder.kind(scope, expr)
        })
    }

    /// As a condition: of WHERE, HAVING, ON.
    pub(super) fn condition(&mut self, scope: &mut Scope<'q>, expr: &'q Expr) -> Result<Plan, Refusal> {
        let typed = self.expr(scope, expr)?;
        typed.condition().ok_or_else(|| Refusal::query(format!("A value of type {} is no condition.", typed.ty)))
    }

    pub(super) fn all(&mut self, scope: &mut Scope<'q>, list: &'q [Expr]) -> Result<Vec<Typed>, Refusal> {
        list.iter().map(|expr| self.expr(scope, expr)).collect()
    }

    /// The key of GROUP BY that an expression over rows is equal to.
    fn key(&mut self, scope: &mut Scope<'q>, expr: &'q Expr) -> Option<Typed> {
        let leaf = matches!(expr.kind, Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_));
        if leaf || scope.keys.is_empty() {
            return None;
        }
        let mark = scope.mark();
        scope.stage = Stage::Rows("an expression over groups");
        let value = self.kind(scope, expr);
        scope.stage = Stage::Groups;
        let found = value
            .ok()
            .and_then(|value| scope.keys.iter().find(|key| key.value == value))
            .map(|key| Typed::new(column(&key.id), key.value.ty.clone()));
        if found.is_none() {
            scope.reset(mark);
        }
        found
    }

    fn kind(&mut self, scope: &mut Scope<'q>, expr: &'q Expr) -> Result<Typed, Refusal> {
        match &expr.kind {
            Kind::Null => Ok(operators::null()),
            Kind::Bool(value) => Ok(operators::boolean(*value)),
            Kind::Number(text) => operators::number(text),
            Kind::Text(text) => Ok(Typed::text(text)),
            Kind::Name(path) => self.name(scope, path),
            Kind::Star | Kind::QualifiedStar(_) => Err(Refusal::query("`*` stands where a value is wanted.")),
            Kind::Call(call) => self.call(scope, call),
            Kind::Negate(value) => operators::negate(self.expr(scope, value)?),
            Kind::Not(value) => operators::not(self.expr(scope, value)?),
            Kind::And(parts) => {
                let parts = self.all(scope, parts)?;
                balanced(parts, operators::and)
            }
            Kind::Or(parts) => {
                let parts = self.all(scope, parts)?;
                balanced(parts, operators::or)
            }
            Kind::Binary(operator, left, right) => {
                let left = self.expr(scope, left)?;
                let right = self.expr(scope, right)?;
                self.binary(*operator, left, right)
            }
            Kind::IsNull { value, negated } => {
                let value = self.expr(scope, value)?;
                if *negated { operators::is_not_null(value) } else { operators::is_null(value) }
            }
            Kind::Between { value, low, high, negated } => {
                let value = self.expr(scope, value)?;
                let low = self.expr(scope, low)?;
                let high = self.expr(scope, high)?;
                if *negated { operators::not_between(value, low, high) } else { operators::between(value, low, high) }
            }
            Kind::In { value, set, negated } => match set {
                Set::List(list) | Set::Array(list) => {
                    let value = self.expr(scope, value)?;
                    let list = self.all(scope, list)?;
                    if *negated { operators::not_in_list(value, list) } else { operators::in_list(value, list) }
                }
                Set::Query(query) => self.in_query(scope, value, query, *negated),
                Set::Table(_) => Err(Refusal::query("IN cannot take its values from a table.")),
            },
            Kind::Subquery(query) => self.scalar(scope, query),
            Kind::Cast(value, target) => {
                let cast = operators::cast(self.expr(scope, value)?, &target.ty)?;
                match target.width {
                    None => Ok(cast),
                    Some(width) => padded(cast, width),
                }
            }
            Kind::Case { operand, branches, otherwise } => {
                let operand = operand.as_ref().map(|operand| self.expr(scope, operand)).transpose()?;
                let mut bound = Vec::with_capacity(branches.len());
                for (when, then) in branches {
                    bound.push((self.expr(scope, when)?, self.expr(scope, then)?));
                }
                let otherwise = otherwise.as_ref().map(|otherwise| self.expr(scope, otherwise)).transpose()?;
                operators::case(operand, bound, otherwise)
            }
            Kind::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                let condition = self.expr(scope, condition)?;
                let then = self.expr(scope, then)?;
                operators::if_else(condition, then, self.expr(scope, otherwise)?)
            }
            Kind::Array(items) => operators::array(self.all(scope, items)?),
            Kind::Tuple(parts) => operators::tuple(self.all(scope, parts)?),
            Kind::Element(array, index) => {
                let array = self.expr(scope, array)?;
                operators::array_element(array, self.expr(scope, index)?)
            }
            Kind::Lambda(..) => Err(Refusal::query("A lambda stands where a value is wanted.")),
            Kind::Interval(amount, unit) => operators::interval(self.expr(scope, amount)?, *unit),
            Kind::Extract(part, value) => operators::extract(*part, self.expr(scope, value)?),
            Kind::Alias(value, name) => {
                scope.expanding.push(name);
                let bound = self.expr(scope, value);
                scope.expanding.pop();
                bound
            }
        }
    }

    fn binary(&mut self, operator: Operator, left: Typed, right: Typed) -> Result<Typed, Refusal> {
        match operator {
            Operator::Plus => operators::plus(left, right),
            Operator::Minus => operators::minus(left, right),
            Operator::Multiply => operators::multiply(left, right),
            Operator::Divide => operators::divide(left, right),
            Operator::Modulo => operators::modulo(left, right),
            Operator::Equals => operators::equals(left, right),
            Operator::NotEquals => operators::not_equals(left, right),
            Operator::Less => operators::less(left, right),
            Operator::LessOrEquals => operators::less_or_equals(left, right),
            Operator::Greater => operators::greater(left, right),
            Operator::GreaterOrEquals => operators::greater_or_equals(left, right),
            Operator::Like => operators::like(left, right),
            Operator::NotLike => operators::not_like(left, right),
            Operator::Ilike => operators::ilike(left, right),
            Operator::NotIlike => operators::not_ilike(left, right),
            Operator::Concat => self.function("concat", vec![left, right]),
        }
    }

    /// A function of the allowlist.
    pub(super) fn function(&mut self, name: &str, arguments: Vec<Typed>) -> Result<Typed, Refusal> {
        match functions::find(name) {
            Some(function) => (function.call)(&self.context, arguments),
            None => Err(Refusal::Function(format!("The function `{}` is not allowed.", name.to_ascii_lowercase()))),
        }
    }

    fn name(&mut self, scope: &mut Scope<'q>, path: &'q [String]) -> Result<Typed, Refusal> {
        if let [name] = path {
            let parameter = scope.lambdas.iter().rev().flatten().find(|(parameter, _)| *parameter == name.as_str());
            if let Some((_, typed)) = parameter {
                return Ok(typed.clone());
            }
            let own = || scope.definitions.scalar(name).filter(|(_, own)| *own).map(|(value, _)| value);
            if let Some(value) = scope.aliases.get(name.as_str()).copied().or_else(own)
                && !scope.expanding.contains(&name.as_str())
            {
                return self.named(scope, name, value);
            }
        }
        if let Some(column) = scope.column(path) {
            let typed = column.typed();
            return match scope.stage {
                Stage::Rows(_) | Stage::Ungrouped => Ok(typed),
                Stage::Groups => Err(Refusal::query(format!(
                    "The column `{}` is neither aggregated nor in GROUP BY.",
                    path.join(".")
                ))),
            };
        }
        if let [name] = path
            && let Some((value, _)) = scope.definitions.scalar(name)
            && !scope.expanding.contains(&name.as_str())
        {
            return self.named(scope, name, value);
        }
        Err(unknown(path))
    }

    /// What an alias stands for. Lambdas around the place where it is used mean nothing in its definition.
    fn named(&mut self, scope: &mut Scope<'q>, name: &'q str, value: &'q Expr) -> Result<Typed, Refusal> {
        let lambdas = std::mem::take(&mut scope.lambdas);
        scope.expanding.push(name);
        let bound = self.expr(scope, value);
        scope.expanding.pop();
        scope.lambdas = lambdas;
        bound
    }

    fn call(&mut self, scope: &mut Scope<'q>, call: &'q Call) -> Result<Typed, Refusal> {
        let Call { name, parameters, arguments, distinct, over } = call;
        if aggregates::find(name).is_some() {
            return match over {
                Some(over) => self.window_call(scope, call, over),
                None => self.aggregate(scope, call),
            };
        }
        if over.is_some() {
            return Err(Refusal::query(format!("`{name}` is no window function.")));
        }
        if parameters.is_some() || *distinct {
            return Err(Refusal::query(format!("`{name}` takes neither parameters nor DISTINCT.")));
        }
        if name.eq_ignore_ascii_case("arrayJoin") {
            return self.array_join(scope, arguments);
        }
        if name.eq_ignore_ascii_case("arrayFilter") {
            return self.array_filter(scope, arguments);
        }
        let arguments = self.all(scope, arguments)?;
        self.function(name, arguments)
    }

    /// Checks an aggregate's call and binds its arguments where the scope stands.
    pub(super) fn aggregated(&mut self, scope: &mut Scope<'q>, call: &'q Call) -> Result<Aggregated, Refusal> {
        let aggregate = aggregates::find(&call.name).ok_or_else(|| internal("an aggregate is gone"))?;
        let parameters = call.parameters.as_deref().map(|list| self.all(scope, list)).transpose()?.unwrap_or_default();
        let arguments = self.all(scope, &call.arguments)?;
        (aggregate.build)(&self.context, aggregates::Call { parameters, arguments, distinct: call.distinct })
    }

    fn aggregate(&mut self, scope: &mut Scope<'q>, call: &'q Call) -> Result<Typed, Refusal> {
        match scope.stage {
            Stage::Rows(place) => {
                return Err(Refusal::query(format!("The aggregate function `{}` cannot stand in {place}.", call.name)));
            }
            Stage::Ungrouped => return Err(internal("an aggregate in a SELECT without groups")),
            Stage::Groups => {}
        }
        if !scope.lambdas.is_empty() {
            return Err(Refusal::query(format!("The aggregate function `{}` cannot stand in a lambda.", call.name)));
        }
        scope.stage = Stage::Rows("another aggregate function");
        let aggregated = self.aggregated(scope, call);
        scope.stage = Stage::Groups;
        let aggregated = aggregated?;
        // The least of a group's key is the key itself. One can tell: WITH FILL fills it (as in ClickHouse).
        if ["min", "max", "any"].iter().any(|name| call.name.eq_ignore_ascii_case(name))
            && !scope.keys_may_be_absent
            && let [argument] = aggregated.arguments.as_slice()
            && aggregated.filter.is_none()
            && let Some(key) =
                scope.keys.iter().find(|key| key.value.expr == *argument && key.value.ty == aggregated.ty)
        {
            return Ok(Typed::new(column(&key.id), aggregated.ty));
        }
        Ok(scope.aggregates.add(aggregated, || self.id()))
    }

    fn array_join(&mut self, scope: &mut Scope<'q>, arguments: &'q [Expr]) -> Result<Typed, Refusal> {
        let [argument] = arguments else {
            return Err(Refusal::query("arrayJoin takes one array."));
        };
        if !scope.lambdas.is_empty() {
            return Err(Refusal::query("arrayJoin cannot stand in a lambda."));
        }
        if let Stage::Rows(place @ ("ON" | "ARRAY JOIN" | "LIMIT")) = scope.stage {
            return Err(Refusal::query(format!("arrayJoin cannot stand in {place}.")));
        }
        let array = self.expr(scope, argument)?;
        let Type::Array(element) = &array.ty else {
            return Err(Refusal::query(format!("arrayJoin takes an array, not {}.", array.ty)));
        };
        let list = match scope.stage {
            Stage::Rows(_) | Stage::Ungrouped => &mut scope.exploded,
            Stage::Groups => &mut scope.exploded_late,
        };
        let id = match list.iter().find(|known| known.array == array.expr) {
            Some(known) => known.id.clone(),
            None => {
                let id = self.id();
                list.push(Exploded { array: array.expr, id: id.clone() });
                id
            }
        };
        Ok(Typed::new(column(&id), (**element).clone()))
    }

    /// A subquery as a value: NULL where it has no row, a refusal where it has several.
    fn scalar(&mut self, scope: &mut Scope<'q>, query: &'q Query) -> Result<Typed, Refusal> {
        if let Some((_, known)) = scope.scalars.iter().find(|(known, _)| *known == query) {
            return Ok(known.clone());
        }
        let bound = self.query(query, &scope.definitions, None)?;
        let (plan, ty) = match bound.columns.as_slice() {
            [only] => (bound.plan, only.ty.clone()),
            several => {
                let members =
                    several.iter().map(|column| Typed::new(super::scope::column(&column.id), column.ty.clone()));
                let tuple = operators::tuple(members.collect())?;
                let id = self.id();
                let plan = LogicalPlanBuilder::from(bound.plan).project(vec![tuple.expr.alias(id)]);
                (super::built(plan)?, tuple.ty)
            }
        };
        let plan = self.only_row(plan, &ty)?;
        let typed = Typed::new(scalar_subquery(Arc::new(plan)), ty.nullable());
        scope.scalars.push((query, typed.clone()));
        Ok(typed)
    }

    /// A subquery's only column, refused while it runs where it has several rows.
    fn only_row(&mut self, plan: LogicalPlan, ty: &Type) -> Result<LogicalPlan, Refusal> {
        let value = Plan::Column(plan.schema().columns().into_iter().next().ok_or_else(|| internal("no column"))?);
        let number = self.id();
        let run = |values: &[ColumnarValue], _: usize| {
            let several = match &values[1] {
                ColumnarValue::Array(numbers) => {
                    numbers.as_primitive::<UInt64Type>().iter().any(|number| number > Some(1))
                }
                ColumnarValue::Scalar(number) => *number > ScalarValue::UInt64(Some(1)),
            };
            if several {
                Err(kernel::refused("A scalar subquery gave more than one row."))
            } else {
                Ok(values[0].clone())
            }
        };
        let arguments = vec![value, column(&number)];
        let only = kernel::of_anything("onlyRow", arguments, ty.arrow(), Volatility::Immutable, run);
        let id = self.id();
        let plan = LogicalPlanBuilder::from(plan)
            .limit(0, Some(2))
            .and_then(|builder| builder.window(vec![Plan::from(row_number(Vec::new(), Vec::new())).alias(&number)]))
            .and_then(|builder| builder.project(vec![only.alias(&id)]));
        super::built(plan)
    }

    /// `value IN (SELECT ..)`: rows are joined with the set's distinct values. NULLs in the set match nothing; NULL on the
    /// left gives NULL.
    fn in_query(
        &mut self,
        scope: &mut Scope<'q>,
        value: &'q Expr,
        query: &'q Query,
        negated: bool,
    ) -> Result<Typed, Refusal> {
        if !scope.lambdas.is_empty() {
            return Err(Refusal::query("IN with a subquery cannot stand in a lambda."));
        }
        if let Stage::Rows(place @ ("ON" | "ARRAY JOIN" | "LIMIT")) = scope.stage {
            return Err(Refusal::query(format!("IN with a subquery cannot stand in {place}.")));
        }
        let value = self.expr(scope, value)?;
        let late = scope.stage == Stage::Groups;
        let known = scope.sets.iter().find(|(of, set, over, _)| (of, *set, *over) == (&value, query, late));
        let marker = match known {
            Some((.., marker)) => marker.clone(),
            None => {
                let attached = self.set(&value, query, scope)?;
                let marker = attached.marker.clone();
                scope.sets.push((value.clone(), query, late, marker.clone()));
                if late {
                    scope.attached_late.push(attached)
                } else {
                    scope.attached.push(attached)
                }
                marker
            }
        };
        let found = column(&marker);
        let found = if negated { found.is_null() } else { found.is_not_null() };
        // A tuple with a NULL in it is found nowhere; NULL itself is neither in a set nor out of it.
        if !value.ty.is_nullable() {
            return Ok(Typed::flag(found, false));
        }
        let null = Plan::Literal(ScalarValue::Boolean(None), None);
        let flag = when(value.expr.is_null(), null).otherwise(found).map_err(|error| internal(error.to_string()))?;
        Ok(Typed::flag(flag, true))
    }

    /// The distinct values of a subquery, ready to be joined with what is looked up in it.
    pub(super) fn set(&mut self, value: &Typed, query: &'q Query, scope: &Scope<'q>) -> Result<Attached, Refusal> {
        let bound = self.query(query, &scope.definitions, None)?;
        let parts = match operators::members(value) {
            Some(members) if bound.columns.len() > 1 => members,
            _ => vec![value.clone()],
        };
        if parts.len() != bound.columns.len() {
            return Err(Refusal::query(format!(
                "IN compares {} values with the {} columns of its subquery.",
                parts.len(),
                bound.columns.len()
            )));
        }
        let mut on = Vec::new();
        let mut projected = Vec::new();
        let mut known = Vec::new();
        for (part, found) in parts.into_iter().zip(&bound.columns) {
            let (left, right) = operators::comparable(part, Typed::new(column(&found.id), found.ty.clone()))?;
            let id = self.id();
            projected.push(right.expr.alias(&id));
            if right.ty.is_nullable() {
                known.push(column(&id).is_not_null());
            }
            on.push((left.expr, id));
        }
        let marker = self.id();
        let mut plan = super::built(LogicalPlanBuilder::from(bound.plan).project(projected))?;
        if let Some(known) = known.into_iter().reduce(Plan::and) {
            plan = super::built(LogicalPlanBuilder::from(plan).filter(known))?;
        }
        let plan = super::built(LogicalPlanBuilder::from(plan).distinct())?;
        let mut columns: Vec<Plan> = on.iter().map(|(_, id)| column(id)).collect();
        // It is the same in every row of the set, and yet it is no constant of the rows that are joined with it.
        let found = Typed::literal(ScalarValue::Boolean(Some(true)), Type::Bool);
        columns.push(kernel::opaque(&marker, found).alias(&marker));
        let set = super::built(LogicalPlanBuilder::from(plan).project(columns))?;
        Ok(Attached { set, on, marker })
    }

    /// Whether a SELECT's expression aggregates, counting what WITH defines and the aliases that it names.
    pub(super) fn aggregates(&self, scope: &Scope<'q>, root: &'q Expr) -> bool {
        let mut found = false;
        let mut seen: HashSet<&str> = HashSet::new();
        let mut left = vec![root];
        while let Some(next) = left.pop() {
            walk(next, &mut |expr| match &expr.kind {
                Kind::Call(call) if call.over.is_none() && aggregates::find(&call.name).is_some() => found = true,
                Kind::Name(path) => {
                    if let [name] = path.as_slice()
                        && seen.insert(name)
                    {
                        left.extend(
                            scope
                                .aliases
                                .get(name.as_str())
                                .copied()
                                .or_else(|| scope.definitions.scalar(name).map(|(value, _)| value)),
                        );
                    }
                }
                _ => {}
            });
        }
        found
    }
}

impl Scope<'_> {
    fn mark(&self) -> Mark {
        Mark {
            aggregates: self.aggregates.all.len(),
            windows: self.windows.all.len(),
            exploded: self.exploded.len(),
            exploded_late: self.exploded_late.len(),
            attached: self.attached.len(),
            attached_late: self.attached_late.len(),
            sets: self.sets.len(),
            scalars: self.scalars.len(),
        }
    }

    fn reset(&mut self, mark: Mark) {
        let Mark { aggregates, windows, exploded, exploded_late, attached, attached_late, sets, scalars } = mark;
        self.aggregates.all.truncate(aggregates);
        self.windows.all.truncate(windows);
        self.exploded.truncate(exploded);
        self.exploded_late.truncate(exploded_late);
        self.attached.truncate(attached);
        self.attached_late.truncate(attached_late);
        self.sets.truncate(sets);
        self.scalars.truncate(scalars);
    }
}

/// A text of exactly so many bytes: filled up with zeros, refused where it is longer.
fn padded(text: Typed, width: u8) -> Result<Typed, Refusal> {
    let ty = text.ty.clone();
    kernel::map("padded", width.to_string(), vec![text], ty, move |columns| {
        let width = usize::from(width);
        let padded = columns[0].as_string_view().iter().map(|text| match text {
            Some(text) if text.len() > width => {
                Err(kernel::refused(format!("A text of {} bytes is too long for a FixedString({width}).", text.len())))
            }
            text => Ok(text.map(|text| format!("{text:\0<fill$}", fill = text.chars().count() + width - text.len()))),
        });
        Ok(Arc::new(padded.collect::<datafusion::common::Result<StringViewArray>>()?))
    })
}

/// Joins conditions as a balanced tree: a thousand of them make no deep one.
fn balanced(mut parts: Vec<Typed>, join: fn(Typed, Typed) -> Result<Typed, Refusal>) -> Result<Typed, Refusal> {
    while parts.len() > 1 {
        let mut next = Vec::with_capacity(parts.len().div_ceil(2));
        let mut all = parts.into_iter();
        while let Some(left) = all.next() {
            next.push(match all.next() {
                Some(right) => join(left, right)?,
                None => left,
            });
        }
        parts = next;
    }
    parts.pop().ok_or_else(|| internal("nothing to join"))
}
