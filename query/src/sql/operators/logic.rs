//! AND, OR, NOT over conditions with three values, and IS NULL (AN-SEM-06, AN-SEM-08, AN-JSON-03).

use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, Operator, binary_expr};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::literal;
use crate::error::Refusal;

/// `a AND b`: any number is a condition. A Bool where either side is one, else a flag.
pub fn and(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    join(Operator::And, "and", a, b)
}

/// `a OR b`, as [`and`].
pub fn or(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    join(Operator::Or, "or", a, b)
}

fn join(operator: Operator, name: &str, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    let nullable = a.ty.is_nullable() || b.ty.is_nullable();
    let bool = *a.ty.inner() == Type::Bool || *b.ty.inner() == Type::Bool;
    let condition = binary_expr(condition(name, &a)?, operator, condition(name, &b)?);
    kernel::fold(truth(condition, bool, nullable))
}

/// `NOT a`: NULL of NULL.
pub fn not(a: Typed) -> Result<Typed, Refusal> {
    if a.ty == Type::Nothing {
        return Ok(literal::null());
    }
    let (bool, nullable) = (*a.ty.inner() == Type::Bool, a.ty.is_nullable());
    let condition = Expr::Not(Box::new(condition("not", &a)?));
    kernel::fold(truth(condition, bool, nullable))
}

fn condition(operator: &str, a: &Typed) -> Result<Expr, Refusal> {
    a.condition().ok_or_else(|| Refusal::query(format!("operator {operator} takes a condition, not {}", a.ty)))
}

fn truth(condition: Expr, bool: bool, nullable: bool) -> Typed {
    if bool {
        Typed::new(condition, if nullable { Type::Bool.nullable() } else { Type::Bool })
    } else {
        Typed::flag(condition, nullable)
    }
}

/// `a IS NULL`.
pub fn is_null(a: Typed) -> Result<Typed, Refusal> {
    nullness(a, true)
}

/// `a IS NOT NULL`.
pub fn is_not_null(a: Typed) -> Result<Typed, Refusal> {
    nullness(a, false)
}

fn nullness(a: Typed, asked: bool) -> Result<Typed, Refusal> {
    if a.ty == Type::Nothing || !a.ty.is_nullable() {
        let outcome = (a.ty == Type::Nothing) == asked;
        return Ok(Typed::literal(ScalarValue::UInt8(Some(u8::from(outcome))), Type::UInt8));
    }
    let condition = if asked { a.expr.is_null() } else { a.expr.is_not_null() };
    kernel::fold(Typed::flag(condition, false))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn three_values() {
        cases(
            r#"
            1 and 2 => UInt8 "1"
            1 and 0 => UInt8 "0"
            1 or NULL => Nullable(UInt8) "1"
            0 and NULL => Nullable(UInt8) "0"
            1 and NULL => Nullable(UInt8) NULL
            NULL and NULL => Nullable(UInt8) NULL
            NULL or NULL => Nullable(UInt8) NULL
            not NULL => Nullable(Nothing) NULL
            not 5 => UInt8 "0"
            not 0 => UInt8 "1"
            not true => Bool "false"
            true and 1 => Bool "true"
            true and true => Bool "true"
            1.5 and 1 => UInt8 "1"
            'a' and 1 => refused
            toDate('2020-01-01') and 1 => refused
            not 'a' => refused
            not 1.5 => UInt8 "0"
            NULL is null => UInt8 "1"
            1 is null => UInt8 "0"
            materialize(toNullable(1)) is null => UInt8 "0"
            (1,2) is null => UInt8 "0"
            [1] is null => UInt8 "0"
            "#,
        );
    }
    // TABLE END
}
