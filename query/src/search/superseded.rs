//! Rows of the index that newer ones have taken the place of, until they are taken out.
//!
//! To take a row out costs a look into every segment for it, and a list of what is left of each segment where there was one.
//! No search depends on it: a row that is out of date leads to a record that says so. So this is done for many rows at
//! once, each key once however often it changed, in the order of the dictionaries.
//!
//! A crash forgets what was not taken out yet. Such rows go when their key changes again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_storage::ids::{KeyId, WorkspaceNo};
use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{BitSet, DocId, Score, SegmentReader};

use super::schema::{self, Fields, HIGH, LOW, STAMP};

/// Longest that a row out of date stays while the server runs.
const STAY: Duration = Duration::from_secs(30);
/// Keys and events that are remembered; with so many the rows are taken out.
const ROWS_MAX: usize = 16_384;

/// By the bytes of a term and, where that is not unique, a row's order: below which stamp rows are out of date.
type Rows = BTreeMap<(Vec<u8>, Option<u128>), u64>;

/// What is to be taken out.
#[derive(Debug, Default)]
pub struct Superseded {
    rows: Rows,
    since: Option<Instant>,
}

impl Superseded {
    /// Rows of a key that are older than `stamp`.
    pub fn key(&mut self, workspace: WorkspaceNo, id: KeyId, stamp: u64) {
        self.note((Fields::key_bytes(workspace, id), Some(schema::key_order(id))), stamp);
    }

    /// Rows of an event that are older than `stamp`.
    pub fn event(&mut self, workspace: WorkspaceNo, sequence: u64, stamp: u64) {
        self.note((Fields::event_bytes(workspace, sequence), None), stamp);
    }

    fn note(&mut self, row: (Vec<u8>, Option<u128>), stamp: u64) {
        self.rows.insert(row, stamp);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether it is time to take rows out, or there is something to take out and no later time.
    pub fn is_due(&self, no_later: bool) -> bool {
        self.rows.len() >= ROWS_MAX || self.since.is_some_and(|since| no_later || since.elapsed() >= STAY)
    }

    /// What the rows have in common, for an index to delete; after that nothing is remembered.
    pub fn take(&mut self, fields: &Fields) -> Box<dyn Query> {
        self.since = None;
        Box::new(OutOfDate { terms: fields.terms(), rows: Arc::new(std::mem::take(&mut self.rows)) })
    }
}

/// Rows that are out of date.
#[derive(Debug, Clone)]
struct OutOfDate {
    terms: Field,
    rows: Arc<Rows>,
}

impl Query for OutOfDate {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for OutOfDate {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let inverted = reader.inverted_index(self.terms)?;
        let column = |name| reader.fast_fields().column_first_or_default::<u64>(name);
        let (high, low, stamps) = (column(HIGH)?, column(LOW)?, column(STAMP)?);
        let mut found = BitSet::with_max_value(reader.max_doc());
        for ((term, order), stamp) in self.rows.iter() {
            let Some(term) = inverted.terms().get(term)? else { continue };
            let mut postings = inverted.read_block_postings_from_terminfo(&term, IndexRecordOption::Basic)?;
            while !postings.docs().is_empty() {
                for &row in postings.docs() {
                    let is_it =
                        |order: u128| order == u128::from(high.get_val(row)) << 64 | u128::from(low.get_val(row));
                    if stamps.get_val(row) < *stamp && order.is_none_or(is_it) {
                        found.insert(row);
                    }
                }
                postings.advance();
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(found), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("a newer row is there", 1.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keyward_storage::ids::IdText;
    use tantivy::collector::DocSetCollector;
    use tantivy::query::TermQuery;
    use tantivy::schema::Term;
    use tantivy::{Index, IndexWriter, TantivyDocument};

    use super::*;

    const WORKSPACE: WorkspaceNo = WorkspaceNo(1);

    /// Every time rows are taken out, of each key and event there is left what was written last, and nothing else: among them
    /// ids that differ in case only, which share a term.
    #[test]
    fn what_was_written_last_stays() {
        let (schema, fields) = schema::schema();
        let index = Index::create_in_ram(schema);
        let mut writer: IndexWriter = index.writer_with_num_threads(1, 16 << 20).expect("a writer");
        let id = |number: usize| {
            let text = if number.is_multiple_of(2) { *b"AbcdefghijklmnoP" } else { *b"aBCDEFGHIJKLMNOp" };
            let text = text.map(|sign| if sign.eq_ignore_ascii_case(&b'c') { b'0' + (number / 2) as u8 } else { sign });
            KeyId(IdText::from_bytes(text).expect("letters"))
        };
        let terms = schema::schema().0.get_field("terms").expect("the field of terms");
        let stamps = |bytes: &[u8], order: Option<u128>| -> Vec<u64> {
            let searcher = index.reader().expect("a reader").searcher();
            let query = TermQuery::new(Term::from_field_bytes(terms, bytes), IndexRecordOption::Basic);
            let rows = searcher.search(&query, &DocSetCollector).expect("an index in memory");
            let of = |row: tantivy::DocAddress| {
                let columns = searcher.segment_reader(row.segment_ord).fast_fields();
                let [high, low, stamp] =
                    [HIGH, LOW, STAMP].map(|name| columns.u64(name).expect("a column").first(row.doc_id));
                (u128::from(high.unwrap_or(0)) << 64 | u128::from(low.unwrap_or(0)), stamp.unwrap_or(0))
            };
            rows.into_iter()
                .map(of)
                .filter(|(of, _)| order.is_none_or(|order| order == *of))
                .map(|(_, at)| at)
                .collect()
        };
        let row = |number: usize, is_event: bool, stamp: u64| {
            let (order, term) = match is_event {
                true => (schema::event_order(5, number as u64), Fields::event_bytes(WORKSPACE, number as u64)),
                false => (schema::key_order(id(number)), Fields::key_bytes(WORKSPACE, id(number))),
            };
            let mut document = TantivyDocument::new();
            document.add_bytes(terms, &term);
            let schema = index.schema();
            for (name, value) in [(HIGH, (order >> 64) as u64), (LOW, order as u64), (STAMP, stamp)] {
                document.add_u64(schema.get_field(name).expect("a column"), value);
            }
            document
        };
        let mut superseded = Superseded::default();
        let mut model: BTreeMap<(bool, usize), Option<u64>> = BTreeMap::new();
        let mut dice = 7_u64;
        for stamp in 1..2000_u64 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let roll = (dice >> 33) as usize;
            let (is_event, number, is_gone) = (roll.is_multiple_of(3), roll / 3 % 12, (roll / 36).is_multiple_of(5));
            match is_event {
                true => superseded.event(WORKSPACE, number as u64, stamp),
                false => superseded.key(WORKSPACE, id(number), stamp),
            }
            if !is_gone {
                writer.add_document(row(number, is_event, stamp)).expect("room");
            }
            model.insert((is_event, number), (!is_gone).then_some(stamp));
            match roll / 180 % 40 {
                0 => {
                    writer.delete_query(superseded.take(&fields)).expect("a query");
                    writer.commit().expect("room");
                    assert!(!superseded.is_due(true));
                    for (&(is_event, number), newest) in &model {
                        let found = match is_event {
                            true => stamps(&Fields::event_bytes(WORKSPACE, number as u64), None),
                            false => {
                                let id = id(number);
                                stamps(&Fields::key_bytes(WORKSPACE, id), Some(schema::key_order(id)))
                            }
                        };
                        assert_eq!(found, newest.iter().copied().collect::<Vec<_>>(), "{is_event} {number} at {stamp}");
                    }
                }
                1..4 => drop(writer.commit().expect("room")),
                _ => {}
            }
        }
        assert!(model.len() == 24);
    }
}
