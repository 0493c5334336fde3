//! A scalar function of DataFusion made from a closure over columns: what every function of the dialect lowers to where
//! no expression of DataFusion's means the same.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::typed::Typed;
use super::types::Type;

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
    let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
    Typed::new(expression(name, parameters, arguments, returns.arrow(), Volatility::Immutable, run), returns)
}

/// As [`call`], for a predicate: the closure gives booleans, and the result is a flag (AN-JSON-04) that WHERE takes as it is.
pub fn predicate(
    name: &'static str,
    parameters: impl Into<String>,
    arguments: Vec<Typed>,
    run: impl Fn(&[ColumnarValue], usize) -> Result<ColumnarValue> + Send + Sync + 'static,
) -> Typed {
    let nullable = arguments.iter().any(|argument| argument.ty.is_nullable());
    let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
    Typed::flag(expression(name, parameters, arguments, DataType::Boolean, Volatility::Immutable, run), nullable)
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
    let signature = Signature::variadic_any(volatility);
    let kernel = Kernel { name, parameters: parameters.into(), returns, signature, run: Arc::new(run) };
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(kernel)), arguments))
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
        (self.run)(&arguments.args, arguments.number_rows)
    }
}
