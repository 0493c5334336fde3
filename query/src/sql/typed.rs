//! An expression with its ClickHouse type: what the binder passes around.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Cast, Expr, Operator, cast};

use super::types::Type;

/// A DataFusion expression and the ClickHouse type of its value. The expression's Arrow type is `ty.arrow()`.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    /// How to compute it.
    pub expr: Expr,
    /// What it means.
    pub ty: Type,
}

impl Typed {
    /// An expression known to be of this type.
    pub fn new(expr: Expr, ty: Type) -> Typed {
        Typed { expr, ty }
    }

    /// A constant.
    pub fn literal(value: ScalarValue, ty: Type) -> Typed {
        Typed { expr: Expr::Literal(value, None), ty }
    }

    /// A text constant.
    pub fn text(value: &str) -> Typed {
        Typed::literal(ScalarValue::Utf8View(Some(value.to_owned())), Type::String)
    }

    /// What a predicate gives: a boolean expression seen as ClickHouse's UInt8 (AN-JSON-04).
    pub fn flag(condition: Expr, nullable: bool) -> Typed {
        let ty = if nullable { Type::UInt8.nullable() } else { Type::UInt8 };
        Typed { expr: cast(condition, DataType::UInt8), ty }
    }

    /// The constant's value, where this is one.
    pub fn as_literal(&self) -> Option<&ScalarValue> {
        match &self.expr {
            Expr::Literal(value, _) => Some(value),
            _ => None,
        }
    }

    /// The text of a constant String.
    pub fn as_text(&self) -> Option<&str> {
        match self.as_literal()? {
            ScalarValue::Utf8View(Some(text)) | ScalarValue::Utf8(Some(text)) => Some(text),
            _ => None,
        }
    }

    /// The value as DataFusion's boolean, for WHERE, HAVING, AND, OR, NOT, `if` and FILTER: a flag sheds its cast, any
    /// other number is compared with zero. `None` where the type is no condition (a String, a Date).
    pub fn condition(&self) -> Option<Expr> {
        match self.ty.inner() {
            Type::Bool => Some(self.expr.clone()),
            Type::Nothing => Some(cast(self.expr.clone(), DataType::Boolean)),
            inner if inner.is_integer() || inner.is_float() => {
                if let Expr::Cast(Cast { expr, field }) = &self.expr
                    && *field.data_type() == DataType::UInt8
                    && is_boolean(expr)
                {
                    return Some((**expr).clone());
                }
                let zero = ScalarValue::new_zero(&inner.arrow()).ok()?;
                Some(self.expr.clone().not_eq(Expr::Literal(zero, None)))
            }
            _ => None,
        }
    }
}

/// Whether an expression made here is boolean by its form; columns never are: they hold what their type says.
fn is_boolean(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => {
            use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
            binary.op.is_logic_operator()
                || matches!(binary.op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
        }
        Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::InList(_)
        | Expr::InSubquery(_)
        | Expr::Between(_)
        | Expr::Like(_) => true,
        Expr::ScalarFunction(call) => call.func.return_type(&[]).is_ok_and(|returns| returns == DataType::Boolean),
        Expr::Literal(value, _) => value.data_type() == DataType::Boolean,
        _ => false,
    }
}
