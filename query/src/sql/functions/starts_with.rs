//! `startsWith(s, prefix)` and `endsWith(s, suffix)`.
//!
//! ClickHouse: bytes of text; everything starts and ends with `''`. A constant prefix becomes a LIKE, which statistics can
//! answer. Arrays are refused, which ClickHouse also takes.

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::kernels::comparison;

use super::super::kernel;
use super::super::operators;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Function, arguments};
use crate::error::Refusal;

pub(super) const STARTS_WITH: Function =
    Function { name: "startsWith", case_sensitive: true, call: |_, given| call("startsWith", given) };
pub(super) const ENDS_WITH: Function =
    Function { name: "endsWith", case_sensitive: true, call: |_, given| call("endsWith", given) };

fn call(name: &'static str, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [text, part] = arguments::exactly(name, given)?;
    if text.ty == Type::Nothing || part.ty == Type::Nothing {
        return Ok(operators::null());
    }
    if let Some(other) = [&text, &part].into_iter().find(|argument| *argument.ty.inner() != Type::String) {
        return Err(arguments::illegal(name, "two texts", other));
    }
    if let Some(part) = part.as_text() {
        let mut pattern = String::with_capacity(part.len() + 1);
        for c in part.chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        let pattern = if name == "startsWith" { pattern + "%" } else { format!("%{pattern}") };
        return operators::like(text, Typed::text(&pattern));
    }
    kernel::test(name, String::new(), vec![text, part], move |columns: &[ArrayRef]| -> Result<BooleanArray, _> {
        let (texts, parts) = (columns[0].as_string_view(), columns[1].as_string_view());
        Ok(if name == "startsWith" {
            comparison::starts_with(texts, parts)?
        } else {
            comparison::ends_with(texts, parts)?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn beginnings_and_ends() {
        cases(
            r#"
            startsWith('abc','ab') => UInt8 "1"
            startsWith('abc','') => UInt8 "1"
            startsWith('abc','abcd') => UInt8 "0"
            startsWith('abc',materialize('b')) => UInt8 "0"
            startsWith(5,'a') => refused
            startsWith('5',5) => refused
            startsWith([1,2],[1]) => refused
            startsWith(NULL,'a') => Nullable(Nothing) NULL
            startsWith('a',NULL) => Nullable(Nothing) NULL
            endsWith('abc','bc') => UInt8 "1"
            endsWith('abc','') => UInt8 "1"
            endsWith([1,2],[2]) => refused
            startsWith('abc') => refused
            "#,
        );
    }
    // TABLE END
}
