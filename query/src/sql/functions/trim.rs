//! `trim(s[, characters])` (AN-SEM-12).
//!
//! ClickHouse: takes blanks off both ends, no other white space; or the ASCII characters of a constant second argument.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};

use super::super::kernel;
use super::super::operators;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const TRIM: Function = Function { name: "trim", case_sensitive: false, call };

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("trim", &given, 1, 2)?;
    if arguments::any_null(&given) {
        return Ok(operators::null());
    }
    let characters = given.get(1).map_or(Ok(" "), |characters| arguments::text("trim", "characters", characters))?;
    let characters: Vec<char> = characters.chars().collect();
    if *given[0].ty.inner() != Type::String {
        return Err(arguments::illegal("trim", "text", &given[0]));
    }
    let ty = given[0].ty.clone();
    kernel::map("trim", format!("{characters:?}"), given.into_iter().take(1).collect(), ty, move |columns| {
        let texts = columns[0].as_string_view();
        let ends = |text: &str| text.starts_with(characters.as_slice()) || text.ends_with(characters.as_slice());
        if !texts.iter().flatten().any(ends) {
            return Ok(Arc::clone(&columns[0]));
        }
        let mut built = StringViewBuilder::with_capacity(texts.len());
        for text in texts {
            built.append_option(text.map(|text| text.trim_matches(characters.as_slice())));
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
    fn blanks_at_both_ends() {
        cases(
            r#"
            trim('  a b  ') => String "a b"
            trim('\t a \n') => String "\t a \n"
            trim(5) => refused
            trim('xxaxx','x') => String "a"
            trim(NULL) => Nullable(Nothing) NULL
            trim(toNullable(' a ')) => Nullable(String) "a"
            "#,
        );
    }
    // TABLE END
}
