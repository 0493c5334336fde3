//! `if`, the ternary, CASE and `coalesce` (AN-SEM-06, AN-SEM-08).

use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::Case;

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{compare, literal, logic, unify};
use crate::error::Refusal;

/// `if(condition, then, otherwise)` and `condition ? then : otherwise`: of the type that both branches share. The condition is
/// a comparison's result, a Bool or a UInt8; NULL counts as not met.
pub fn if_else(condition: Typed, then: Typed, otherwise: Typed) -> Result<Typed, Refusal> {
    choose("if", vec![(condition, then)], otherwise)
}

/// `CASE [operand] WHEN .. THEN .. [ELSE ..] END`: the first branch whose condition is met, or whose value the operand
/// equals; without ELSE the rest is NULL.
pub fn case(operand: Option<Typed>, branches: Vec<(Typed, Typed)>, otherwise: Option<Typed>) -> Result<Typed, Refusal> {
    let branches = match operand {
        None => branches,
        Some(operand) => branches
            .into_iter()
            .map(|(value, then)| {
                let met = if value.ty == Type::Nothing {
                    logic::is_null(operand.clone())?
                } else {
                    compare::equals(operand.clone(), value)?
                };
                Ok((met, then))
            })
            .collect::<Result<_, Refusal>>()?,
    };
    choose("CASE", branches, otherwise.unwrap_or_else(literal::null))
}

fn choose(name: &str, branches: Vec<(Typed, Typed)>, otherwise: Typed) -> Result<Typed, Refusal> {
    let mut types: Vec<Type> = branches.iter().map(|(_, then)| then.ty.clone()).collect();
    types.push(otherwise.ty.clone());
    let ty = unify::super_type(&types)?;
    let branches = branches
        .into_iter()
        .map(|(condition, then)| {
            let met = condition
                .condition()
                .filter(|_| matches!(condition.ty.inner(), Type::UInt8 | Type::Bool | Type::Nothing))
                .ok_or_else(|| {
                    Refusal::query(format!(
                        "{name} takes a comparison, a Bool or 0 or 1 as its condition, not {}",
                        condition.ty
                    ))
                })?;
            Ok((Box::new(met), Box::new(unify::coerce(then, &ty)?.expr)))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let otherwise = unify::coerce(otherwise, &ty)?;
    if branches.is_empty() {
        return Ok(otherwise);
    }
    kernel::fold(Typed::new(Expr::Case(Case::new(None, branches, Some(Box::new(otherwise.expr)))), ty))
}

/// `coalesce(a, b, ..)`: the first that is not NULL; NULL where all are.
pub fn coalesce(arguments: Vec<Typed>) -> Result<Typed, Refusal> {
    let mut chain: Vec<Typed> = Vec::new();
    for argument in arguments {
        if argument.ty == Type::Nothing {
            continue;
        }
        let last = !argument.ty.is_nullable();
        chain.push(argument);
        if last {
            break;
        }
    }
    let Some(last) = chain.pop() else { return Ok(literal::null()) };
    let mut types: Vec<Type> = chain.iter().map(|argument| argument.ty.inner().clone()).collect();
    types.push(last.ty.clone());
    let ty = unify::super_type(&types)?;
    let branches = chain
        .into_iter()
        .map(|argument| {
            let met = argument.expr.clone().is_not_null();
            let target = ty.clone().nullable_as(&argument.ty);
            Ok((Box::new(met), Box::new(unify::coerce(argument, &target)?.expr)))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let last = unify::coerce(last, &ty)?;
    if branches.is_empty() {
        return Ok(last);
    }
    kernel::fold(Typed::new(Expr::Case(Case::new(None, branches, Some(Box::new(last.expr)))), ty))
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn branches() {
        cases(
            r#"
            CASE WHEN 1 THEN 2 END => Nullable(UInt8) "2"
            CASE WHEN 0 THEN 2 END => Nullable(UInt8) NULL
            CASE WHEN 0 THEN 'a' WHEN 1 THEN 'b' ELSE 'c' END => String "b"
            CASE WHEN NULL THEN 1 ELSE 2 END => UInt8 "2"
            CASE 1 WHEN 1 THEN 'a' ELSE 'b' END => String "a"
            CASE 1 WHEN 1 THEN 'a' END => Nullable(String) "a"
            CASE 'x' WHEN 'x' THEN 1 ELSE 2 END => UInt8 "1"
            CASE NULL WHEN NULL THEN 1 ELSE 2 END => UInt8 "1"
            CASE 1 WHEN '1' THEN 1 ELSE 2 END => refused
            CASE 5 WHEN 1 THEN 1 WHEN 2 THEN 2 END => Nullable(UInt8) NULL
            CASE WHEN 1 THEN 2 ELSE NULL END => Nullable(UInt8) "2"
            CASE WHEN 5 THEN 1 ELSE 2 END => UInt8 "1"
            CASE WHEN toInt64(5) THEN 1 ELSE 2 END => refused
            CASE WHEN materialize(toInt64(5)) THEN 1 ELSE 2 END => refused
            CASE WHEN 'a' THEN 1 ELSE 2 END => refused
            CASE materialize('x') WHEN 'x' THEN 'X' WHEN 'y' THEN 'Y' ELSE 'Z' END => String "X"
            "#,
        );
    }
    // TABLE END
}
