//! IN with a list: each element is brought to the type of the left side, and one that is no value of it matches nothing.

use datafusion::arrow::array::Array;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::InList;

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::arrays::members;
use super::compare::{self, equals};
use super::convert::convert;
use super::{arrays, literal, logic};
use crate::error::Refusal;

/// `a IN (list)`; an array literal on the right is the list of its elements, and beside a tuple a list of its members is
/// that one tuple. NULL in the list matches nothing; of a NULL on the left the answer is NULL.
pub fn in_list(a: Typed, list: Vec<Typed>) -> Result<Typed, Refusal> {
    contains(a, list, false)
}

/// `a NOT IN (list)`.
pub fn not_in_list(a: Typed, list: Vec<Typed>) -> Result<Typed, Refusal> {
    contains(a, list, true)
}

fn contains(a: Typed, list: Vec<Typed>, negated: bool) -> Result<Typed, Refusal> {
    if a.ty == Type::Nothing {
        return Ok(literal::null());
    }
    let list = elements(&a, list)?;
    let mut constants = Vec::with_capacity(list.len());
    let mut others = Vec::new();
    for element in list {
        match constant(&a, &element)? {
            Element::Value(value) => constants.push(Expr::Literal(value, None)),
            Element::Never => {}
            Element::Compared => others.push(equals(a.clone(), element)?),
        }
    }
    let nullable = a.ty.is_nullable();
    // Both zeros are one value, which Arrow's comparison of floats does not know.
    let zero = |value: &Expr| matches!(value, Expr::Literal(ScalarValue::Float64(Some(value)), _) if *value == 0.0);
    if constants.iter().any(zero) {
        constants.push(Expr::Literal(ScalarValue::Float64(Some(0.0)), None));
        constants.push(Expr::Literal(ScalarValue::Float64(Some(-0.0)), None));
    }
    if !constants.is_empty() {
        let listed = InList::new(Box::new(a.expr.clone()), constants, false);
        others.push(kernel::fold(Typed::flag(Expr::InList(listed), nullable))?);
    }
    let found = match any_of(others)? {
        Some(found) => found,
        None if nullable => {
            let null = Expr::Literal(ScalarValue::Boolean(None), None);
            kernel::fold(Typed::flag(a.expr.is_null().and(null), true))?
        }
        None => Typed::literal(ScalarValue::UInt8(Some(0)), Type::UInt8),
    };
    if negated { logic::not(found) } else { Ok(found) }
}

/// The elements that a list stands for.
fn elements(a: &Typed, list: Vec<Typed>) -> Result<Vec<Typed>, Refusal> {
    let is_array = matches!(a.ty, Type::Array(_));
    if let [one] = list.as_slice()
        && let (Type::Array(element), false) = (&one.ty, is_array)
    {
        return match one.as_literal() {
            Some(ScalarValue::List(array)) => {
                let values = array.values();
                (0..values.len())
                    .map(|at| match ScalarValue::try_from_array(values, at) {
                        Ok(value) if value.is_null() => Ok(literal::null()),
                        Ok(value) => Ok(Typed::literal(value, element.inner().clone())),
                        Err(error) => Err(kernel::refusal(&error)),
                    })
                    .collect()
            }
            _ => Err(Refusal::query("operator in takes a list of constants or a subquery on its right")),
        };
    }
    if let Type::Tuple(of) = &a.ty
        && of.len() == list.len()
        && !list.iter().any(|element| matches!(element.ty, Type::Tuple(_)))
    {
        return Ok(vec![arrays::tuple(list)?]);
    }
    Ok(list)
}

/// Joined by OR in pairs of pairs, so that a long list makes no deep tree.
fn any_of(mut terms: Vec<Typed>) -> Result<Option<Typed>, Refusal> {
    while terms.len() > 1 {
        let mut joined = Vec::with_capacity(terms.len().div_ceil(2));
        let mut rest = terms.into_iter();
        while let Some(term) = rest.next() {
            joined.push(match rest.next() {
                Some(next) => logic::or(term, next)?,
                None => term,
            });
        }
        terms = joined;
    }
    Ok(terms.pop())
}

enum Element {
    /// It is this value of the left side's type.
    Value(ScalarValue),
    /// It equals no value of it.
    Never,
    /// It is compared as `=` does.
    Compared,
}

fn constant(a: &Typed, element: &Typed) -> Result<Element, Refusal> {
    let ty = a.ty.inner();
    let refusal = || Refusal::query(format!("operator in does not find values of type {} among {}", element.ty, a.ty));
    if element.ty == Type::Nothing {
        return Ok(Element::Never);
    }
    if let (Type::Tuple(left), Type::Tuple(right)) = (ty, element.ty.inner()) {
        if left.len() != right.len() {
            return Err(refusal());
        }
        let null = members(element).is_some_and(|members| members.iter().any(|member| member.ty == Type::Nothing));
        return Ok(if null { Element::Never } else { Element::Compared });
    }
    let Some(value) = element.as_literal() else { return Ok(Element::Compared) };
    if value.is_null() {
        return Ok(Element::Never);
    }
    let from = element.ty.inner();
    let converted = |to: &Type| {
        let converted = convert(Typed::literal(value.clone(), from.clone()), to)?;
        converted.as_literal().cloned().map(Element::Value).ok_or_else(refusal)
    };
    match ty {
        Type::String if *from == Type::String => Ok(Element::Value(value.clone())),
        Type::String if from.is_number() => converted(&Type::String),
        Type::Bool if *from == Type::Bool => Ok(Element::Value(value.clone())),
        Type::Bool | Type::Date | Type::DateTime(_) | Type::DateTime64(..) if *from == Type::String => {
            let text = element.as_text().unwrap_or_default();
            compare::read(text, ty)
                .map(Element::Value)
                .ok_or_else(|| Refusal::query(format!("the text '{text}' cannot be read as {ty}")))
        }
        Type::Bool if from.is_number() => Ok(match compare::exact(value) {
            Some((truth @ (0 | 1), false)) => Element::Value(ScalarValue::Boolean(Some(truth == 1))),
            _ => Element::Never,
        }),
        Type::Date | Type::DateTime(_) | Type::DateTime64(..) if from.is_time() || from.is_integer() => converted(ty),
        Type::Float64 | Type::Float32 if from.is_number() => {
            let Element::Value(value) = converted(&Type::Float64)? else { return Ok(Element::Never) };
            match value {
                ScalarValue::Float64(Some(number)) if number.is_nan() => Ok(Element::Never),
                value => Ok(Element::Value(value.cast_to(&ty.arrow()).map_err(|error| kernel::refusal(&error))?)),
            }
        }
        _ if ty.is_integer() && from.is_number() => Ok(match compare::exact(value) {
            Some((whole, false)) => compare::fit(whole, ty).map_or(Element::Never, Element::Value),
            _ => Element::Never,
        }),
        Type::Array(_) if matches!(from, Type::Array(_)) => Ok(Element::Compared),
        Type::Interval(_) | Type::Decimal(..) => Ok(Element::Compared),
        _ => Err(refusal()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn lists_are_brought_to_the_left_type() {
        cases(
            r#"
            1 in (1,2) => UInt8 "1"
            1 in (1,'2') => refused
            1 in ('1') => refused
            1 in ('a') => refused
            1 in (NULL, 1) => UInt8 "1"
            NULL in (1) => Nullable(Nothing) NULL
            toNullable(1) in (1) => Nullable(UInt8) "1"
            materialize(toNullable(3)) in (1) => Nullable(UInt8) "0"
            1 in (256) => UInt8 "0"
            toUInt8(1) in (257) => UInt8 "0"
            toInt64(1) in (1.5, 1.0) => UInt8 "1"
            1 in (1.0) => UInt8 "1"
            1.5 in (1, 1.5) => UInt8 "1"
            'a' in ('a','b') => UInt8 "1"
            'a' in (1) => UInt8 "0"
            '1' in (1) => UInt8 "1"
            toDate('2026-03-18') in ('2026-03-18') => UInt8 "1"
            toDate('2026-03-18') in ('abc') => refused
            toDateTime('2026-03-18 00:00:00') in ('2026-03-18 00:00:00') => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') in (1773792000) => UInt8 "1"
            toDateTime('2026-03-18 00:00:00') in (toDate('2026-03-18')) => UInt8 "1"
            toDate('2026-03-18') in (toDateTime('2026-03-18 00:00:00')) => UInt8 "1"
            toDate('2026-03-18') in (20530) => UInt8 "1"
            true in (1) => UInt8 "1"
            true in ('true') => UInt8 "1"
            (1,2) in ((1,2),(3,4)) => UInt8 "1"
            (1,2) in ((1,3),(3,4)) => UInt8 "0"
            (1,'a') in ((1,'a')) => UInt8 "1"
            (1,2) in (1,2) => UInt8 "1"
            (1,2) in ((1,2)) => UInt8 "1"
            (1,NULL) in ((1,NULL)) => UInt8 "0"
            (1,2) in ((1,2,3)) => refused
            [1] in ([1],[2]) => UInt8 "1"
            1 not in (1,2) => UInt8 "0"
            1 in (1, toUInt8(2)) => UInt8 "1"
            1 in (1+1, 1) => UInt8 "1"
            0/0 in (nan) => UInt8 "0"
            '2026-03-18' in (toDate('2026-03-18')) => refused
            toInt64(5) in (-5, 5) => UInt8 "1"
            toUInt64(5) in (-5, 5) => UInt8 "1"
            "#,
        );
    }
    // TABLE END
}
