//! Aggregates as window functions (AN-WIN-01).

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr as Plan, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition, cast,
};

use super::scope::{Definitions, Scope, Stage};
use super::select::or_empty;
use super::stage::WindowCall;
use super::{Binder, built, sort};
use crate::error::Refusal;
use crate::sql::gate::tree::{Bound, Call, Expr, Frame, Over, SortKey, Window};
use crate::sql::kernel;
use crate::sql::nodes::sliding;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

/// A window with what it takes over from the one it is based on.
struct Spelled<'q> {
    partition_by: Vec<&'q Expr>,
    order_by: Vec<&'q SortKey>,
    frame: Option<&'q Frame>,
}

impl<'q> Binder<'_, 'q> {
    pub(super) fn window_call(
        &mut self,
        scope: &mut Scope<'q>,
        call: &'q Call,
        over: &'q Over,
    ) -> Result<Typed, Refusal> {
        if let Stage::Rows(place) = scope.stage {
            return Err(Refusal::query(format!("The window function `{}` cannot stand in {place}.", call.name)));
        }
        if !scope.lambdas.is_empty() {
            return Err(Refusal::query(format!("The window function `{}` cannot stand in a lambda.", call.name)));
        }
        let windows_before = scope.windows.all.len();
        let aggregated = self.aggregated(scope, call)?;
        let spelled = match over {
            Over::Named(name) => spell(scope, named(scope, name)?, 0)?,
            Over::Window(window) => spell(scope, window, 0)?,
        };
        let mut partition_by = Vec::new();
        for expr in spelled.partition_by {
            partition_by.push(self.expr(scope, expr)?.expr);
        }
        let mut keys = Vec::new();
        for key in &spelled.order_by {
            keys.push((self.expr(scope, &key.value)?, *key));
        }
        if scope.windows.all.len() > windows_before {
            return Err(Refusal::query("A window function cannot stand inside another."));
        }
        let definitions = scope.definitions.clone();
        let (frame, keys) = self.frame(spelled.frame, keys, &definitions)?;
        let order_by: Vec<Sort> = keys
            .into_iter()
            .flat_map(|(value, key)| sort::sort(value.expr, &value.ty, key.descending, key.nulls_first))
            .collect();
        let call = WindowCall {
            function: Arc::new(sliding::wrap(&aggregated.function)),
            arguments: aggregated.arguments,
            distinct: aggregated.distinct,
            filter: aggregated.filter,
            partition_by,
            order_by,
            frame,
            ty: aggregated.ty,
            empty: aggregated.empty,
            id: self.id(),
        };
        Ok(scope.windows.add(call))
    }

    /// The frame in DataFusion's terms; with offsets in a RANGE, the key as the number they are counted in.
    #[allow(clippy::type_complexity)]
    fn frame(
        &mut self,
        frame: Option<&'q Frame>,
        keys: Vec<(Typed, &'q SortKey)>,
        definitions: &Definitions<'q>,
    ) -> Result<(WindowFrame, Vec<(Typed, &'q SortKey)>), Refusal> {
        let Some(Frame { range, start, end }) = frame else {
            // From the partition's start to the current row and its peers; without an order all rows are peers.
            return Ok((WindowFrame::new((!keys.is_empty()).then_some(false)), keys));
        };
        if matches!(start, Bound::Unbounded { following: true }) || matches!(end, Bound::Unbounded { following: false })
        {
            return Err(Refusal::query("The frame of a window begins after its end."));
        }
        let offset = |bound: &Bound| matches!(bound, Bound::Offset { .. });
        let mut keys = keys;
        let mut key_type = DataType::UInt64;
        if *range && (offset(start) || offset(end)) {
            let [(key, _)] = keys.as_mut_slice() else {
                return Err(Refusal::query("A RANGE with an offset needs exactly one key in ORDER BY."));
            };
            *key = counted(key)?;
            key_type = key.ty.inner().arrow();
        }
        let unordered_range = *range && keys.is_empty();
        let start = self.bound(start, &key_type, unordered_range, false, definitions)?;
        let end = self.bound(end, &key_type, unordered_range, true, definitions)?;
        let units = if *range { WindowFrameUnits::Range } else { WindowFrameUnits::Rows };
        let crossed = match (&start, &end) {
            (WindowFrameBound::Preceding(start), WindowFrameBound::Preceding(end)) => {
                !start.is_null() && !end.is_null() && start < end
            }
            (WindowFrameBound::Following(start), WindowFrameBound::Following(end)) => {
                !start.is_null() && !end.is_null() && start > end
            }
            _ => order(&start) > order(&end),
        };
        if crossed {
            return Err(Refusal::query("The frame of a window begins after its end."));
        }
        Ok((WindowFrame::new_bounds(units, start, end), keys))
    }

    fn bound(
        &mut self,
        bound: &'q Bound,
        key_type: &DataType,
        all_are_peers: bool,
        is_end: bool,
        definitions: &Definitions<'q>,
    ) -> Result<WindowFrameBound, Refusal> {
        let unbounded = ScalarValue::try_from(key_type).unwrap_or(ScalarValue::UInt64(None));
        Ok(match bound {
            Bound::Unbounded { following: false } => WindowFrameBound::Preceding(unbounded),
            Bound::Unbounded { following: true } => WindowFrameBound::Following(unbounded),
            Bound::Current if all_are_peers && is_end => WindowFrameBound::Following(unbounded),
            Bound::Current if all_are_peers => WindowFrameBound::Preceding(unbounded),
            Bound::Current => WindowFrameBound::CurrentRow,
            Bound::Offset { by, following } => {
                let nothing = self.from(None, definitions)?;
                let mut scope = Scope::new(definitions.clone(), &nothing, Stage::Rows("LIMIT"));
                let by = kernel::fold(self.expr(&mut scope, by)?)?;
                let value = by.as_literal().filter(|_| by.ty.is_integer() || by.ty.is_float()).cloned();
                let value =
                    value.ok_or_else(|| Refusal::query("The offset of a window's frame is a constant number."))?;
                if value < ScalarValue::new_zero(&value.data_type()).unwrap_or(ScalarValue::Null) {
                    return Err(Refusal::query("The offset of a window's frame cannot be negative."));
                }
                let value = value
                    .cast_to(key_type)
                    .map_err(|_| Refusal::query("The offset of a window's frame does not fit its key."))?;
                if *following { WindowFrameBound::Following(value) } else { WindowFrameBound::Preceding(value) }
            }
        })
    }

    /// Computes the window functions of a SELECT.
    pub(super) fn windowed(&mut self, scope: &Scope<'q>, plan: LogicalPlan) -> Result<LogicalPlan, Refusal> {
        let mut plan = plan;
        // Windows with one partitioning and order share a sort.
        let mut left: Vec<&WindowCall> = scope.windows.all.iter().collect();
        while let Some(first) = left.first().copied() {
            let (these, others): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|call| call.partition_by == first.partition_by && call.order_by == first.order_by);
            left = others;
            let kept = super::from::everything(&plan);
            let mut computed = Vec::new();
            let mut projected = kept;
            for call in these {
                let function = WindowFunctionDefinition::AggregateUDF(Arc::clone(&call.function));
                let mut window = WindowFunction::new(function, call.arguments.clone());
                window.params.partition_by = call.partition_by.clone();
                window.params.order_by = call.order_by.clone();
                window.params.window_frame = call.frame.clone();
                window.params.filter = call.filter.clone().map(Box::new);
                window.params.distinct = call.distinct;
                computed.push(Plan::from(window).alias(&call.id));
                projected.push(or_empty(super::scope::column(&call.id), call.empty.as_ref())?.alias(&call.id));
            }
            let windowed =
                LogicalPlanBuilder::from(plan).window(computed).and_then(|builder| builder.project(projected));
            plan = built(windowed)?;
        }
        Ok(plan)
    }
}

/// A key as the number that offsets are counted in: days of a Date, seconds of a DateTime.
fn counted(key: &Typed) -> Result<Typed, Refusal> {
    let (arrow, ty) = match key.ty.inner() {
        Type::Date => (DataType::Int32, Type::Int32),
        Type::DateTime(_) => (DataType::Int64, Type::Int64),
        ty if ty.is_integer() || ty.is_float() => return Ok(key.clone()),
        ty => return Err(Refusal::query(format!("A RANGE with an offset cannot be ordered by a {ty}."))),
    };
    Ok(Typed::new(cast(key.expr.clone(), arrow), ty.nullable_as(&key.ty)))
}

/// Where a bound lies, roughly, to tell a frame that ends before it begins.
fn order(bound: &WindowFrameBound) -> u8 {
    match bound {
        WindowFrameBound::Preceding(value) if value.is_null() => 0,
        WindowFrameBound::Preceding(_) => 1,
        WindowFrameBound::CurrentRow => 2,
        WindowFrameBound::Following(value) if value.is_null() => 4,
        WindowFrameBound::Following(_) => 3,
    }
}

fn named<'q>(scope: &Scope<'q>, name: &str) -> Result<&'q Window, Refusal> {
    let found = scope.windows_named.iter().find(|(defined, _)| defined == name);
    found.map(|(_, window)| window).ok_or_else(|| Refusal::query(format!("Unknown window `{name}`.")))
}

fn spell<'q>(scope: &Scope<'q>, window: &'q Window, depth: usize) -> Result<Spelled<'q>, Refusal> {
    let Window { base, partition_by, order_by, frame } = window;
    let mut spelled = match base {
        None => Spelled { partition_by: Vec::new(), order_by: Vec::new(), frame: None },
        Some(_) if depth > scope.windows_named.len() => {
            return Err(Refusal::query("The windows of the query are based on each other in a circle."));
        }
        Some(base) => spell(scope, named(scope, base)?, depth + 1)?,
    };
    if base.is_some() && (!partition_by.is_empty() || (!order_by.is_empty() && !spelled.order_by.is_empty())) {
        return Err(Refusal::query("A window cannot replace the PARTITION BY or ORDER BY of the one it is based on."));
    }
    spelled.partition_by.extend(partition_by);
    spelled.order_by.extend(order_by);
    spelled.frame = frame.as_ref().or(spelled.frame);
    Ok(spelled)
}
