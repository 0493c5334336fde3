//! LIKE and ILIKE (AN-SEM-13): `%` is any text, `_` any character, a backslash takes the meaning off what follows it.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringViewArray};
use datafusion::logical_expr::{Expr, Like};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::literal;
use crate::error::Refusal;

/// `a LIKE pattern`.
pub fn like(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    matches("like", a, pattern, false, false)
}

/// `a ILIKE pattern`: without regard to case.
pub fn ilike(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    matches("ilike", a, pattern, false, true)
}

/// `a NOT LIKE pattern`.
pub fn not_like(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    matches("notLike", a, pattern, true, false)
}

/// `a NOT ILIKE pattern`.
pub fn not_ilike(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    matches("notILike", a, pattern, true, true)
}

fn matches(name: &str, a: Typed, pattern: Typed, negated: bool, any_case: bool) -> Result<Typed, Refusal> {
    if a.ty == Type::Nothing || pattern.ty == Type::Nothing {
        return Ok(literal::null());
    }
    if let Some(other) = [&a, &pattern].into_iter().find(|side| *side.ty.inner() != Type::String) {
        return Err(Refusal::query(format!("operator {name} takes text, not {}", other.ty)));
    }
    let nullable = a.ty.is_nullable() || pattern.ty.is_nullable();
    let ty = pattern.ty.clone();
    let pattern = kernel::map("likePattern", String::new(), vec![pattern], ty, |columns| {
        let patterns = columns[0].as_string_view();
        let escaped = patterns.iter().map(|pattern| pattern.map(escape).transpose()).collect::<Result<Vec<_>, _>>();
        let escaped = escaped.map_err(|refusal| kernel::refused(refusal.to_string()))?;
        Ok(Arc::new(StringViewArray::from_iter(escaped)))
    })?;
    let like = Expr::Like(Like::new(negated, Box::new(a.expr), Box::new(pattern.expr), None, any_case));
    kernel::fold(Typed::flag(like, nullable))
}

/// A pattern in which every backslash is an escape: ClickHouse takes one before an ordinary character for itself.
fn escape(pattern: &str) -> Result<String, Refusal> {
    let mut escaped = String::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        escaped.push(c);
        if c != '\\' {
            continue;
        }
        match rest.next() {
            Some(next @ ('%' | '_' | '\\')) => escaped.push(next),
            Some(next) => {
                escaped.push('\\');
                escaped.push(next);
            }
            None => return Err(Refusal::query(format!("the pattern '{pattern}' ends with a lone backslash"))),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn patterns_and_escapes() {
        cases(
            r#"
            'abc' like 'a%' => UInt8 "1"
            'abc' like 'A%' => UInt8 "0"
            'abc' ilike 'A%' => UInt8 "1"
            'abc' like 'a_c' => UInt8 "1"
            'a%c' like 'a\\%c' => UInt8 "1"
            'abc' like 'a\\%c' => UInt8 "0"
            'a\\c' like 'a\\\\c' => UInt8 "1"
            'a\\bc' like 'a\\bc' => UInt8 "1"
            'abc' like 'a\\bc' => UInt8 "0"
            'abc' like 'abc\\' => refused
            'abc\\' like 'abc\\' => refused
            'äbc' like '_bc' => UInt8 "1"
            'äbc' like '__bc' => UInt8 "0"
            'Äbc' ilike 'äbc' => UInt8 "1"
            'a\nc' like 'a%c' => UInt8 "1"
            'a\nc' like 'a_c' => UInt8 "1"
            1 like '1' => refused
            'a' like 1 => refused
            toNullable('a') like 'a' => Nullable(UInt8) "1"
            NULL like 'a' => Nullable(Nothing) NULL
            'a' like NULL => Nullable(Nothing) NULL
            [1] like 'a' => refused
            'a' like materialize('a%') => UInt8 "1"
            "#,
        );
    }
    // TABLE END
}
