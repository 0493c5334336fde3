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
