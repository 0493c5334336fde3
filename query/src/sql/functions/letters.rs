//! `lower(s)` and `upper(s)` (AN-SEM-12).
//!
//! ClickHouse: only ASCII letters change. Anything but text is refused.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};

use super::super::kernel;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Function, arguments};
use crate::error::Refusal;

pub(super) const LOWER: Function = Function {
    name: "lower",
    case_sensitive: false,
    call: |_, given| call("lower", given, u8::is_ascii_uppercase, str::make_ascii_lowercase),
};
pub(super) const UPPER: Function = Function {
    name: "upper",
    case_sensitive: false,
    call: |_, given| call("upper", given, u8::is_ascii_lowercase, str::make_ascii_uppercase),
};

fn call(
    name: &'static str,
    given: Vec<Typed>,
    changes: fn(&u8) -> bool,
    change: fn(&mut str),
) -> Result<Typed, Refusal> {
    let [text] = arguments::exactly(name, given)?;
    match text.ty.inner() {
        Type::Nothing => return Ok(text),
        Type::String => {}
        _ => return Err(arguments::illegal(name, "text", &text)),
    }
    let ty = text.ty.clone();
    kernel::map(name, String::new(), vec![text], ty, move |columns| {
        let texts = columns[0].as_string_view();
        if !texts.iter().flatten().any(|text| text.as_bytes().iter().any(changes)) {
            return Ok(Arc::clone(&columns[0]));
        }
        let mut built = StringViewBuilder::with_capacity(texts.len());
        let mut changed = String::new();
        for text in texts {
            match text {
                Some(text) => {
                    changed.clear();
                    changed.push_str(text);
                    change(&mut changed);
                    built.append_value(&changed);
                }
                None => built.append_null(),
            }
        }
        Ok(Arc::new(built.finish()) as ArrayRef)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn only_ascii_letters_change() {
        cases(
            r#"
            lower('ABCÄ') => String "abcÄ"
            upper('abcä') => String "ABCä"
            lower(5) => refused
            lower(NULL) => Nullable(Nothing) NULL
            lower(['A']) => refused
            lower('a','b') => refused
            lower(toDate('2020-01-01')) => refused
            "#,
        );
    }
    // TABLE END
}
