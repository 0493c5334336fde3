//! Columns that hold one text in all rows: the region, often the workspace. What is done for each row of a column need not
//! be done for those.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};

/// Whether these columns of texts, one after another, hold one text only. `false` where it would take a look at the texts
/// to tell: equal texts of a batch share a view if its columns were built here.
pub(crate) fn is_constant<'a>(columns: impl IntoIterator<Item = &'a ArrayRef>) -> bool {
    let mut first: Option<&str> = None;
    columns.into_iter().all(|column| {
        let Some(texts) = column.as_string_view_opt().filter(|texts| texts.null_count() == 0) else { return false };
        let Some(text) = only_text(texts) else { return texts.is_empty() };
        *first.get_or_insert(text) == text
    })
}

fn only_text(texts: &StringViewArray) -> Option<&str> {
    let (view, rest) = texts.views().split_first()?;
    rest.iter().all(|other| other == view).then(|| texts.value(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn texts(texts: &[&str]) -> ArrayRef {
        let mut built = datafusion::arrow::array::StringViewBuilder::new().with_deduplicate_strings();
        texts.iter().for_each(|text| built.append_value(text));
        Arc::new(built.finish())
    }

    #[test]
    fn one_text_throughout_is_constant_whatever_lies_beside_it() {
        let long = "a text that is longer than a view";
        let other = "a text that is longer than a room";
        assert!(is_constant(&[texts(&[long, long]), texts(&[]), texts(&[long])]));
        assert!(is_constant(&[texts(&["", ""])]));
        assert!(!is_constant(&[texts(&[long, long]), texts(&[other])]));
        assert!(!is_constant(&[texts(&[long, other])]));
        assert!(!is_constant(&[texts(&["a"]), texts(&[""])]));
    }
}
