//! A scalar function of DataFusion made from a closure over columns: what every function of the dialect lowers to where
//! no expression of DataFusion's means the same.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::create_physical_expr;

use super::run::watch;
use super::typed::Typed;
use super::types::Type;
use crate::error::Refusal;

/// What a kernel does with the columns of a batch of `rows` rows: constants come as [`ColumnarValue::Scalar`], and a result
/// that is the same for every row may be one.
pub type Run = dyn Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync;

/// A named computation with a fixed result type. Two kernels are the same where name, parameters and result type are:
/// what a closure captures beyond its arguments must therefore stand in `parameters`.
struct Kernel {
    name: &'static str,
    parameters: String,
    returns: DataType,
    signature: Signature,
    /// Whether a whole column may be NULL without a type.
    takes_null: bool,
    run: Arc<Run>,
}

/// `name` over `arguments`, giving `returns`. The closure is handed exactly the arguments, already of the Arrow types that
/// their ClickHouse types say.
pub fn call(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Typed>,
    returns: Type,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Typed {
    let takes_null = has_nothing(&arguments);
    let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
    let expr = made(name, parameters.into(), arguments, returns.arrow(), Volatility::Immutable, takes_null, run);
    Typed::new(expr, returns)
}

/// As [`call`], for a predicate: the closure gives booleans, and the result is a flag (AN-JSON-04) that WHERE takes as it is.
pub fn predicate(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Typed>,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Typed {
    let nullable = arguments.iter().any(|argument| argument.ty.is_nullable());
    let takes_null = has_nothing(&arguments);
    let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
    let expr = made(name, parameters.into(), arguments, DataType::Boolean, Volatility::Immutable, takes_null, run);
    Typed::flag(expr, nullable)
}

/// The bare expression, for operators that need another volatility or an Arrow type of their own.
pub fn expression(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Expr>,
    returns: DataType,
    volatility: Volatility,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Expr {
    made(name, parameters.into(), arguments, returns, volatility, false, run)
}

/// As [`expression`], for closures that take columns of any type as they come, also of no type but NULL.
pub fn of_anything(
    name: &'static str,
    arguments: Vec<Expr>,
    returns: DataType,
    volatility: Volatility,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Expr {
    made(name, String::new(), arguments, returns, volatility, true, run)
}

/// A value of which DataFusion cannot tell that it is the same in every row, or the same as another one. `id` is its own.
pub fn opaque(id: &str, value: Typed) -> Expr {
    // What has no arguments and is volatile is no constant, and neither is what depends on it.
    let mark = Kernel {
        name: "mark",
        parameters: String::new(),
        returns: DataType::Boolean,
        signature: Signature::nullary(Volatility::Volatile),
        takes_null: true,
        run: Arc::new(|_, _| Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))))),
    };
    let mark = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(mark)), Vec::new()));
    let arguments = vec![value.expr, mark];
    made("opaque", id.to_owned(), arguments, value.ty.arrow(), Volatility::Immutable, true, |values, _| {
        Ok(values[0].clone())
    })
}

fn has_nothing(arguments: &[Typed]) -> bool {
    arguments.iter().any(|argument| *argument.ty.inner() == Type::Nothing)
}

fn made(
    name: &'static str,
    parameters: String,
    arguments: Vec<Expr>,
    returns: DataType,
    volatility: Volatility,
    takes_null: bool,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Expr {
    let signature = Signature::variadic_any(volatility);
    let kernel = Kernel { name, parameters, returns, signature, takes_null, run: Arc::new(run) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(kernel)), arguments))
}

/// As [`call`] over whole columns, and folded: constants are spread to as many rows as the batch has, and a call over
/// nothing but constants is computed at once.
pub fn map(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Typed>,
    returns: Type,
    run: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> Result<Typed, Refusal> {
    fold(call(name, parameters, arguments, returns, over_columns(run)))
}

/// As [`predicate`] over whole columns, and folded.
pub fn test(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Typed>,
    run: impl Fn(&[ArrayRef]) -> Result<BooleanArray> + Send + Sync + 'static,
) -> Result<Typed, Refusal> {
    let run = over_columns(move |columns| Ok(Arc::new(run(columns)?)));
    fold(predicate(name, parameters, arguments, run))
}

/// Spreads constants to columns; a call over constants only runs over one row and gives a constant.
fn over_columns(
    run: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static,
) -> impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static {
    move |values, rows| {
        let constant = values.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { rows };
        let columns = spread(values, rows)?;
        let result = run(&columns)?;
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}

/// Values as columns of so many rows. A large constant is not written for each of them.
pub fn spread(values: &[ColumnarValue], rows: usize) -> Result<Vec<ArrayRef>> {
    let column = |value: &ColumnarValue| {
        if let ColumnarValue::Scalar(value @ ScalarValue::List(_)) = value {
            watch::check_bytes(value.size().saturating_mul(rows))?;
        }
        value.to_array(rows)
    };
    values.iter().map(column).collect()
}

/// The value in place of an expression that is made of constants only; any other expression as it is.
pub fn fold(typed: Typed) -> Result<Typed, Refusal> {
    if typed.as_literal().is_some() || !is_constant(&typed.expr) {
        return Ok(typed);
    }
    let value = evaluate(&typed.expr).map_err(|error| refusal(&error))?;
    Ok(Typed::literal(value, typed.ty))
}

/// Whether every leaf is a literal and nothing in it is volatile, an aggregate, a window or a subquery.
fn is_constant(expr: &Expr) -> bool {
    let mut constant = true;
    let visited = expr.apply(|node| {
        constant = match node {
            Expr::Literal(..)
            | Expr::BinaryExpr(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::Cast(_)
            | Expr::TryCast(_)
            | Expr::Case(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::Negative(_) => true,
            Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
            _ => false,
        };
        Ok(if constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    visited.is_ok() && constant
}

fn evaluate(expr: &Expr) -> Result<ScalarValue> {
    let physical =
        create_physical_expr(expr, &DFSchema::empty(), &ExecutionProps::new(), &PhysicalPlanningContext::default())?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    match physical.evaluate(&row)? {
        ColumnarValue::Scalar(value) => Ok(value),
        ColumnarValue::Array(column) => ScalarValue::try_from_array(&column, 0),
    }
}

/// What a kernel refuses while it runs (a text that is no number, a division by zero): the query's fault, not the engine's.
pub fn refused(text: impl Into<String>) -> DataFusionError {
    DataFusionError::External(Box::new(Refusal::query(text)))
}

/// The refusal that a failed evaluation carries, at whatever depth; where the engine itself failed, a refusal without its
/// words, which may name what the sender never wrote (AN-ERR-15).
pub fn refusal(error: &DataFusionError) -> Refusal {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return refusal.clone();
        }
        if let Some(ArrowError::CastError(_)) = error.downcast_ref::<ArrowError>() {
            return Refusal::query("a value does not fit into the type it is converted to");
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ArrowError(inner, _)) => Some(inner.as_ref()),
            Some(DataFusionError::Context(_, inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    Refusal::query("an expression of the query cannot be computed")
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] -> {}", self.name, self.parameters, self.returns)
    }
}

impl PartialEq for Kernel {
    fn eq(&self, other: &Kernel) -> bool {
        self.name == other.name && self.parameters == other.parameters && self.returns == other.returns
    }
}

impl Eq for Kernel {}

impl Hash for Kernel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.parameters.hash(state);
        self.returns.hash(state);
    }
}

impl ScalarUDFImpl for Kernel {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        watch::check()?;
        // To learn whether a condition is false where a side of a join has no row, DataFusion computes it over columns of
        // type Null; it takes an error for "no idea".
        if !self.takes_null && arguments.args.iter().any(|argument| argument.data_type() == DataType::Null) {
            return Err(DataFusionError::Plan(format!("{} does not take NULL without a type", self.name)));
        }
        let bounded = |made: ColumnarValue| {
            if let ColumnarValue::Array(column) = &made {
                watch::check_bytes(column.get_array_memory_size())?;
            }
            Ok(made)
        };
        (self.run)(&arguments.args, arguments.number_rows).and_then(bounded).inspect_err(watch::remember)
    }
}
