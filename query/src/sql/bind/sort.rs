//! The tail of a SELECT: DISTINCT, ORDER BY, LIMIT BY, WITH FILL, LIMIT.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::nullif;
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{ColumnarValue, Expr as Plan, LogicalPlan, LogicalPlanBuilder, Volatility, lit};

use super::from::row_number;
use super::query::{Output, Queried};
use super::scope::{Column, Definitions, Relation, Scope, Stage, column};
use super::select::position;
use super::{Binder, built, internal};
use crate::error::Refusal;
use crate::sql::gate::tree::{Distinct, Expr, Interpolate, Kind, LimitBy, OrderBy, Select, SortKey};
use crate::sql::kernel;
use crate::sql::nodes::fill::{Fill, Filled};
use crate::sql::operators;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// What the tail of a SELECT works with: columns of the result, and others that only it needs.
pub(super) struct Tail<'q> {
    extra: Vec<(String, Plan)>,
    keys: Vec<Ordered<'q>>,
    /// The columns of LIMIT BY or DISTINCT ON.
    groups: Vec<String>,
}

/// A key of ORDER BY.
struct Ordered<'q> {
    /// Its column.
    id: String,
    ty: Type,
    descending: bool,
    nulls_first: bool,
    fill: Option<&'q crate::sql::gate::tree::Fill>,
}

impl<'q> Binder<'_, 'q> {
    /// Binds what the tail needs computed.
    pub(super) fn tail(
        &mut self,
        scope: &mut Scope<'q>,
        select: &'q Select,
        outputs: &[(Output, Typed)],
    ) -> Result<Tail<'q>, Refusal> {
        let mut tail = Tail { extra: Vec::new(), keys: Vec::new(), groups: Vec::new() };
        match &select.order_by {
            OrderBy::All { descending } => {
                for (output, value) in outputs {
                    tail.keys.push(Ordered {
                        id: output.id.clone(),
                        ty: value.ty.clone(),
                        descending: *descending,
                        nulls_first: false,
                        fill: None,
                    });
                }
            }
            OrderBy::Keys(keys, _) => {
                for SortKey { value, descending, nulls_first, fill } in keys {
                    let (id, ty) = self.tail_column(scope, &mut tail.extra, value, outputs, "ORDER BY")?;
                    let (descending, nulls_first) = (*descending, *nulls_first);
                    tail.keys.push(Ordered { id, ty, descending, nulls_first, fill: fill.as_ref() });
                }
            }
        }
        let groups: &[Expr] = match (&select.distinct, &select.limit_by) {
            (Distinct::On(_), Some(_)) => return Err(Refusal::query("DISTINCT ON and LIMIT BY exclude each other.")),
            (Distinct::On(keys), None) => keys,
            (_, Some(LimitBy { limit: _, offset: _, keys })) => keys,
            (_, None) => &[],
        };
        for group in groups {
            let (id, _) = self.tail_column(scope, &mut tail.extra, group, outputs, "LIMIT BY")?;
            tail.groups.push(id);
        }
        Ok(tail)
    }

    /// The column that holds an expression: one of the result where it is selected anyway, else one more.
    fn tail_column(
        &mut self,
        scope: &mut Scope<'q>,
        extra: &mut Vec<(String, Plan)>,
        expr: &'q Expr,
        outputs: &[(Output, Typed)],
        clause: &str,
    ) -> Result<(String, Type), Refusal> {
        if let Some(at) = position(expr, outputs.len(), clause)? {
            let (output, value) = &outputs[at];
            return Ok((output.id.clone(), value.ty.clone()));
        }
        let value = self.expr(scope, expr)?;
        if let Some((output, _)) = outputs.iter().find(|(_, selected)| *selected == value) {
            return Ok((output.id.clone(), value.ty));
        }
        if let Some((id, _)) = extra.iter().find(|(_, known)| *known == value.expr) {
            return Ok((id.clone(), value.ty));
        }
        let id = self.id();
        extra.push((id.clone(), value.expr));
        Ok((id, value.ty))
    }

    /// Computes the result's columns and everything behind them.
    pub(super) fn finished(
        &mut self,
        plan: LogicalPlan,
        outputs: Vec<(Output, Typed)>,
        tail: Tail<'q>,
        select: &'q Select,
        definitions: &Definitions<'q>,
        rows_max: Option<u64>,
    ) -> Result<Queried, Refusal> {
        // What is selected twice is computed once where rows are filled: a point that is added is then the same in both.
        let fills = tail.keys.iter().any(|key| key.fill.is_some());
        let mut twins: Vec<(String, String)> = Vec::new();
        let mut projected: Vec<Plan> = Vec::new();
        for (at, (output, value)) in outputs.iter().enumerate() {
            match outputs[..at].iter().find(|(_, earlier)| fills && earlier == value) {
                Some((first, _)) => twins.push((output.id.clone(), first.id.clone())),
                None => projected.push(value.expr.clone().alias(&output.id)),
            }
        }
        projected.extend(tail.extra.iter().map(|(id, expr)| expr.clone().alias(id)));
        let columns: Vec<Output> = outputs.into_iter().map(|(output, _)| output).collect();
        let mut plan = built(LogicalPlanBuilder::from(plan).project(projected))?;
        let order: Vec<Sort> =
            tail.keys.iter().flat_map(|key| sort(column(&key.id), &key.ty, key.descending, key.nulls_first)).collect();
        if select.distinct == Distinct::Rows {
            plan = if tail.extra.is_empty() {
                built(LogicalPlanBuilder::from(plan).distinct())?
            } else {
                let all: Vec<String> = columns.iter().map(|column| column.id.clone()).collect();
                self.first_of_each(plan, &all, &order, 0, 1)?
            };
        }
        match (&select.distinct, &select.limit_by) {
            (Distinct::On(_), _) => plan = self.first_of_each(plan, &tail.groups, &order, 0, 1)?,
            (_, Some(LimitBy { limit, offset, keys: _ })) => {
                let limit = self.count(limit, definitions, "LIMIT BY")?;
                let offset = offset.as_ref().map_or(Ok(0), |offset| self.count(offset, definitions, "OFFSET"))?;
                plan = self.first_of_each(plan, &tail.groups, &order, offset, limit)?;
            }
            (_, None) => {}
        }
        if !order.is_empty() {
            plan = built(LogicalPlanBuilder::from(plan).sort(order.clone()))?;
        }
        let computed: Vec<Output> = columns
            .iter()
            .map(|output| {
                let twin = twins.iter().find(|(id, _)| *id == output.id);
                Output { id: twin.map_or_else(|| output.id.clone(), |(_, first)| first.clone()), ..output.clone() }
            })
            .collect();
        plan = self.filled(plan, &tail, &computed, select, definitions)?;
        let limit = match (&select.limit, rows_max) {
            (Some(Expr { kind: Kind::Number(number), .. }), Some(max)) if !number.starts_with('-') => {
                let Some(limit) = select.limit.as_ref() else { return Err(internal("a limit is gone")) };
                Some(self.count(limit, definitions, "LIMIT")?.min(max))
            }
            // Anything else than a number counts as the largest one (AN-LIM-01).
            (_, Some(max)) => Some(max),
            (Some(limit), None) => Some(self.count(limit, definitions, "LIMIT")?),
            (None, None) => None,
        };
        let offset = select.offset.as_ref().map_or(Ok(0), |offset| self.count(offset, definitions, "OFFSET"))?;
        if limit.is_some() || offset > 0 {
            let rows = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
            plan = built(LogicalPlanBuilder::from(plan).limit(rows(offset), limit.map(rows)))?;
        }
        if !twins.is_empty() || plan.schema().fields().len() > columns.len() {
            let twin = |output: &Output| twins.iter().find(|(id, _)| *id == output.id);
            let selected = columns.iter().map(|output| match twin(output) {
                Some((id, first)) => column(first).alias(id),
                None => column(&output.id),
            });
            let selected: Vec<Plan> = selected.collect();
            plan = built(LogicalPlanBuilder::from(plan).project(selected))?;
        }
        // Keys that are no columns of the result end with it, and so does the order by them.
        let shown = |key: &Ordered| columns.iter().any(|output| output.id == key.id);
        let order = if tail.keys.iter().all(shown) { order } else { Vec::new() };
        Ok(Queried { plan, columns, order })
    }

    /// A constant number of rows.
    fn count(&mut self, expr: &'q Expr, definitions: &Definitions<'q>, clause: &'static str) -> Result<u64, Refusal> {
        let value = self.constant(expr, definitions)?;
        let count = value.as_literal().filter(|_| value.ty.is_integer()).and_then(|literal| {
            let text = literal.to_string();
            text.parse::<u64>().ok()
        });
        count.ok_or_else(|| Refusal::query(format!("{clause} takes a whole number from 0.")))
    }

    /// A constant: an expression without columns, computed.
    fn constant(&mut self, expr: &'q Expr, definitions: &Definitions<'q>) -> Result<Typed, Refusal> {
        let nothing = self.from(None, definitions)?;
        let mut scope = Scope::new(definitions.clone(), &nothing, Stage::Rows("LIMIT"));
        let value = self.expr(&mut scope, expr)?;
        kernel::fold(value)
    }

    /// Some rows of each group, in an order.
    fn first_of_each(
        &mut self,
        plan: LogicalPlan,
        groups: &[String],
        order: &[Sort],
        offset: u64,
        limit: u64,
    ) -> Result<LogicalPlan, Refusal> {
        let kept: Vec<Plan> = super::from::everything(&plan);
        let id = self.id();
        let groups = groups.iter().map(|group| column(group)).collect();
        let number = Plan::from(row_number(groups, order.to_vec())).alias(&id);
        let last = offset.saturating_add(limit);
        let mut condition = column(&id).lt_eq(lit(last));
        if offset > 0 {
            condition = condition.and(column(&id).gt(lit(offset)));
        }
        let plan = LogicalPlanBuilder::from(plan)
            .window(vec![number])
            .and_then(|builder| builder.filter(condition))
            .and_then(|builder| builder.project(kept));
        built(plan)
    }

    /// WITH FILL and INTERPOLATE.
    fn filled(
        &mut self,
        plan: LogicalPlan,
        tail: &Tail<'q>,
        columns: &[Output],
        select: &'q Select,
        definitions: &Definitions<'q>,
    ) -> Result<LogicalPlan, Refusal> {
        let Some(first) = tail.keys.iter().position(|key| key.fill.is_some()) else {
            let interpolates = matches!(&select.order_by, OrderBy::Keys(_, Some(_)));
            return if interpolates { Err(Refusal::query("INTERPOLATE needs WITH FILL.")) } else { Ok(plan) };
        };
        let mut keys = Vec::new();
        let mut ended = false;
        for key in &tail.keys[first..] {
            match key.fill {
                None => ended = true,
                Some(_) if ended => {
                    return Err(Refusal::query("The keys WITH FILL must stand next to each other in ORDER BY."));
                }
                Some(crate::sql::gate::tree::Fill { from, to, step }) => {
                    let mut bound =
                        |part: &'q Option<Expr>| part.as_ref().map(|part| self.constant(part, definitions)).transpose();
                    let (from, to, step) = (bound(from)?, bound(to)?, bound(step)?);
                    keys.push(Filled::new(&key.id, &key.ty, key.descending, from, to, step)?);
                }
            }
        }
        let interpolated = match &select.order_by {
            OrderBy::Keys(_, Some(interpolate)) => self.interpolated(tail, columns, interpolate, definitions)?,
            _ => Vec::new(),
        };
        let defaults = plan
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let output = columns.iter().find(|output| output.id == *field.name());
                match output {
                    Some(output) => Ok(operators::default_of(&output.ty)),
                    None => datafusion::common::ScalarValue::new_default(field.data_type()),
                }
            })
            .collect::<Result<_, _>>()
            .map_err(|error: datafusion::common::DataFusionError| internal(error.to_string()))?;
        let prefix = tail.keys[..first].iter().map(|key| key.id.clone()).collect();
        let order =
            tail.keys.iter().flat_map(|key| sort(column(&key.id), &key.ty, key.descending, key.nulls_first)).collect();
        Ok(Fill { input: plan, order, prefix, keys, defaults, interpolated }.into_plan())
    }

    /// What each column of INTERPOLATE is computed from: the result's columns in the row before.
    fn interpolated(
        &mut self,
        tail: &Tail<'q>,
        columns: &[Output],
        interpolate: &'q [Interpolate],
        definitions: &Definitions<'q>,
    ) -> Result<Vec<(String, Plan)>, Refusal> {
        let is_key = |output: &Output| tail.keys.iter().any(|key| key.id == output.id);
        if interpolate.is_empty() {
            let mut all: Vec<(String, Plan)> = Vec::new();
            for output in columns.iter().filter(|output| !is_key(output)) {
                if all.iter().all(|(id, _)| *id != output.id) {
                    all.push((output.id.clone(), column(&output.id)));
                }
            }
            return Ok(all);
        }
        let relation = Relation {
            plan: LogicalPlanBuilder::empty(true).build().map_err(|error| internal(error.to_string()))?,
            columns: columns
                .iter()
                .map(|output| Column {
                    qualifier: None,
                    table: None,
                    name: output.name.clone(),
                    id: output.id.clone(),
                    ty: output.ty.clone(),
                    merged: false,
                })
                .collect(),
            joins: 0,
            order: Vec::new(),
        };
        let mut all = Vec::new();
        for Interpolate { column: name, value, at: _ } in interpolate {
            let output = columns.iter().find(|output| output.name == *name);
            let output = output.ok_or_else(|| super::scope::unknown(std::slice::from_ref(name)))?;
            if is_key(output) {
                return Err(Refusal::query(format!("`{name}` is a key of ORDER BY: it cannot be interpolated.")));
            }
            let value = match value {
                None => column(&output.id),
                Some(value) => {
                    let mut scope = Scope::new(definitions.clone(), &relation, Stage::Rows("INTERPOLATE"));
                    let bound = self.expr(&mut scope, value)?;
                    operators::convert(bound, &output.ty)?.expr
                }
            };
            all.push((output.id.clone(), value));
        }
        Ok(all)
    }
}

/// How to sort by a value: NULL last in either direction, and NaN with it (AN-SEM-06).
pub(super) fn sort(value: Plan, ty: &Type, descending: bool, nulls_first: bool) -> Vec<Sort> {
    let value = if ty.inner().is_float() && !nulls_first { without_nan(value, ty) } else { value };
    vec![Sort::new(value, !descending, nulls_first)]
}

/// A float with NULL for NaN.
fn without_nan(value: Plan, ty: &Type) -> Plan {
    kernel::expression("nanAsNull", "", vec![value], ty.arrow(), Volatility::Immutable, |values, rows| {
        let column = values[0].to_array(rows)?;
        let nan = match column.data_type() {
            DataType::Float32 => {
                column.as_primitive::<Float32Type>().iter().map(|x| Some(x.is_some_and(f32::is_nan))).collect()
            }
            _ => column.as_primitive::<Float64Type>().iter().map(|x| Some(x.is_some_and(f64::is_nan))).collect(),
        };
        Ok(ColumnarValue::Array(nullif(&column, &nan)?))
    })
}
