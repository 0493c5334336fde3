//! The index as it stood at a commit: which rows may have what is searched for, in order.
//!
//! It finds candidates, and all that are found by a query are among them. What is one is said by the records.

use std::sync::Arc;

use keyward_storage::ids::WorkspaceNo;
use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::ColumnValues;
use tantivy::query::{
    BitSetDocSet, BooleanQuery, ConstScorer, EnableScoring, Explanation, Occur, Query, Scorer, TermQuery, Weight,
};
use tantivy::schema::{IndexRecordOption, Term};
use tantivy::{BitSet, DocId, Score, Searcher, SegmentOrdinal, SegmentReader};

use super::schema::{self, Fields, HIGH, Kind, LETTERS_MAX, LOW, Tag, WORD_BYTES_MAX};
use super::words::{START_LETTERS, Words};

/// Most terms that one beginning of a word stands for, in a segment. Where it is more, fewer letters are asked for, and the
/// candidates are more than what is found.
const BEGINNINGS_MAX: usize = 20_000;
/// Most words that candidates are asked for; all words are then looked for in the rows.
const WORDS_ASKED_MAX: usize = 16;

/// What a segment's rows are ordered by, in memory.
type Order = (Arc<dyn ColumnValues<u64>>, Arc<dyn ColumnValues<u64>>);

/// A commit of the index.
pub struct View {
    searcher: Searcher,
    orders: Arc<[Order]>,
    fields: Fields,
    /// Whether it has everything up to some moment; else it is being made.
    pub complete: bool,
}

/// What candidates have in common.
pub struct Ask<'a> {
    /// Which kind of row.
    pub kind: Kind,
    /// Whose.
    pub workspace: WorkspaceNo,
    /// What is in them; none asks for every row.
    pub words: Option<&'a Words>,
    /// Exact values: of each list, one must be there.
    pub any_of: Vec<Vec<Term>>,
    /// Least and greatest order.
    pub between: (u128, u128),
    /// From the greatest down; else from the least up.
    pub descending: bool,
}

impl View {
    /// Opens what was committed.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn open(searcher: Searcher, fields: Fields, complete: bool) -> tantivy::Result<View> {
        let order = |segment: &SegmentReader| -> tantivy::Result<Order> {
            let column = |name| segment.fast_fields().column_first_or_default::<u64>(name);
            // The dictionary is read now, and not by the first who searches.
            segment.inverted_index(fields.terms())?;
            Ok((column(HIGH)?, column(LOW)?))
        };
        let orders = searcher.segment_readers().iter().map(order).collect::<tantivy::Result<_>>()?;
        Ok(View { searcher, orders, fields, complete })
    }

    /// Rows in it.
    pub fn rows(&self) -> u64 {
        self.searcher.num_docs()
    }

    /// Segments it consists of.
    pub fn segments(&self) -> usize {
        self.orders.len()
    }

    /// The fields of its terms.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The orders of at most `most` candidates, and whether there may be more.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn candidates(&self, ask: &Ask<'_>, most: usize) -> tantivy::Result<(Vec<u128>, bool)> {
        let most = most.max(1);
        let mut clauses: Vec<Box<dyn Query>> = Vec::new();
        if let Some(words) = ask.words {
            if words.is_empty() {
                return Ok((Vec::new(), false));
            }
            clauses.extend(self.words(ask, words));
        }
        for terms in &ask.any_of {
            match &terms[..] {
                [] => return Ok((Vec::new(), false)),
                [one] => clauses.push(exactly(one.clone())),
                several => {
                    clauses.push(Box::new(BooleanQuery::union(several.iter().cloned().map(exactly).collect())));
                }
            }
        }
        if clauses.is_empty() {
            clauses.push(exactly(self.fields.term(ask.kind, Tag::Any, ask.workspace, &[])));
        }
        let query: Box<dyn Query> = match clauses.len() {
            1 => clauses.remove(0),
            _ => Box::new(BooleanQuery::new(clauses.into_iter().map(|clause| (Occur::Must, clause)).collect())),
        };
        let (least, greatest) = ask.between;
        let (least, greatest) = if ask.descending { (!greatest, !least) } else { (least, greatest) };
        let smallest = Smallest { orders: Arc::clone(&self.orders), flip: ask.descending, least, greatest, most };
        let (found, more) = self.searcher.search(&*query, &smallest)?;
        Ok((found.into_iter().map(|order| if ask.descending { !order } else { order }).collect(), more))
    }

    /// Queries that every row with these words meets.
    fn words(&self, ask: &Ask<'_>, words: &Words) -> Vec<Box<dyn Query>> {
        let mut asked: Vec<Asked<'_>> = Vec::new();
        for phrase in words.phrases() {
            // The prefix of an id is no term.
            let skipped = usize::from(ask.kind == Kind::Key && phrase.words.len() > 1 && phrase.words[0] == "key");
            let last = phrase.words.len() - 1;
            asked.extend(phrase.words.iter().enumerate().skip(skipped).map(|(at, word)| Asked {
                word,
                open: phrase.open && at == last,
                may_go_on: ask.kind == Kind::Key && at == last && at > 0,
            }));
        }
        // Long words are rare ones.
        asked.sort_unstable_by_key(|asked| {
            (std::cmp::Reverse(asked.word.len()), asked.open, asked.may_go_on, asked.word)
        });
        asked.dedup();
        asked.truncate(WORDS_ASKED_MAX);
        asked.into_iter().map(|asked| self.word(ask, asked)).collect()
    }

    /// A query that every row with this word meets.
    fn word(&self, ask: &Ask<'_>, Asked { word, open, may_go_on }: Asked<'_>) -> Box<dyn Query> {
        let term = |bytes: &[u8]| schema::term_bytes(ask.kind, Tag::Word, ask.workspace, bytes);
        let begins = |with: &str| -> Box<dyn Query> {
            let (beginning, letters) = (term(with.as_bytes()), schema::letters(with, LETTERS_MAX));
            if letters == with.len() {
                return exactly(self.fields.term_of(&beginning));
            }
            Box::new(Beginning { fields: self.fields, letters: term(&with.as_bytes()[..letters]), beginning })
        };
        let query: Box<dyn Query> = if !open || word.len() >= WORD_BYTES_MAX {
            exactly(self.fields.term_of(&term(&schema::whole(word))))
        } else {
            begins(word)
        };
        let start = schema::letters(word, START_LETTERS);
        if !may_go_on || start == word.len() {
            return query;
        }
        // More of a key than was kept of it: a start ends here, or anywhere behind it where it was kept longer.
        Box::new(BooleanQuery::union(vec![query, begins(&word[..start])]))
    }

    /// The greatest sequence number of a workspace's events in the index.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn last_event(&self, workspace: WorkspaceNo) -> tantivy::Result<u64> {
        let query = TermQuery::new(self.fields.term(Kind::Event, Tag::Any, workspace, &[]), IndexRecordOption::Basic);
        self.searcher.search(&query, &Newest { orders: Arc::clone(&self.orders) })
    }
}

/// A word that rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked<'a> {
    word: &'a str,
    /// Whether it may go on in the text.
    open: bool,
    /// Whether the text may end in the middle of it.
    may_go_on: bool,
}

fn exactly(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

/// Rows with a word that begins like this, or perhaps, where there are very many such words, with fewer of its letters.
#[derive(Debug, Clone)]
struct Beginning {
    fields: Fields,
    /// The term of its first letters.
    letters: Vec<u8>,
    /// What the terms of whole words begin with.
    beginning: Vec<u8>,
}

impl Query for Beginning {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        let letters = TermQuery::new(self.fields.term_of(&self.letters), IndexRecordOption::Basic).weight(scoring)?;
        Ok(Box::new(BeginningWeight { beginning: self.clone(), letters }))
    }
}

struct BeginningWeight {
    beginning: Beginning,
    letters: Box<dyn Weight>,
}

impl Weight for BeginningWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let inverted = reader.inverted_index(self.beginning.fields.terms())?;
        let (from, mut to) = (&self.beginning.beginning, self.beginning.beginning.clone());
        // No text has such a byte.
        to.push(0xff);
        let mut terms = inverted.terms().range().ge(from).lt(&to).into_stream()?;
        let mut found = Vec::new();
        while terms.advance() {
            found.push(terms.value().clone());
            if found.len() > BEGINNINGS_MAX {
                return self.letters.scorer(reader, boost);
            }
        }
        let mut rows = BitSet::with_max_value(reader.max_doc());
        for term in &found {
            let mut postings = inverted.read_block_postings_from_terminfo(term, IndexRecordOption::Basic)?;
            while !postings.docs().is_empty() {
                for &row in postings.docs() {
                    rows.insert(row);
                }
                postings.advance();
            }
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(rows), boost)))
    }

    fn explain(&self, _: &SegmentReader, _: DocId) -> tantivy::Result<Explanation> {
        Ok(Explanation::new("a word begins so", 1.0))
    }
}

/// Collects the rows of the smallest orders within bounds.
struct Smallest {
    orders: Arc<[Order]>,
    flip: bool,
    least: u128,
    greatest: u128,
    most: usize,
}

struct SmallestOfSegment {
    order: Order,
    flip: bool,
    least: u128,
    greatest: u128,
    most: usize,
    /// Up to twice as many as are wanted: putting the lesser half in front now and then costs less than keeping order.
    kept: Vec<u128>,
}

impl SmallestOfSegment {
    fn tidy(&mut self) {
        if self.kept.len() > self.most {
            let (_, greatest, _) = self.kept.select_nth_unstable(self.most - 1);
            // What is greater than all that is kept need not be looked at.
            self.greatest = *greatest;
            self.kept.truncate(self.most);
        }
    }
}

impl Collector for Smallest {
    type Fruit = (Vec<u128>, bool);
    type Child = SmallestOfSegment;

    fn for_segment(&self, segment: SegmentOrdinal, _: &SegmentReader) -> tantivy::Result<SmallestOfSegment> {
        Ok(SmallestOfSegment {
            order: self.orders[segment as usize].clone(),
            flip: self.flip,
            least: self.least,
            greatest: self.greatest,
            most: self.most,
            kept: Vec::with_capacity(2 * self.most),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, of_segments: Vec<Vec<u128>>) -> tantivy::Result<(Vec<u128>, bool)> {
        let mut all = of_segments.concat();
        let more = all.len() >= self.most;
        all.sort_unstable();
        all.truncate(self.most);
        // A row that is just being replaced may be there twice.
        all.dedup();
        Ok((all, more))
    }
}

impl SegmentCollector for SmallestOfSegment {
    type Fruit = Vec<u128>;

    fn collect(&mut self, row: DocId, _: Score) {
        let (high, low) = (self.order.0.get_val(row), &self.order.1);
        let high = if self.flip { !high } else { high };
        // Most are out of bounds by their greater half.
        if high > (self.greatest >> 64) as u64 || high < (self.least >> 64) as u64 {
            return;
        }
        let low = low.get_val(row);
        let order = u128::from(high) << 64 | u128::from(if self.flip { !low } else { low });
        if order < self.least || order > self.greatest {
            return;
        }
        self.kept.push(order);
        if self.kept.len() == 2 * self.most {
            self.tidy();
        }
    }

    fn harvest(mut self) -> Vec<u128> {
        self.tidy();
        self.kept
    }
}

/// Collects the greatest lower half.
struct Newest {
    orders: Arc<[Order]>,
}

struct NewestOfSegment {
    order: Order,
    greatest: u64,
}

impl Collector for Newest {
    type Fruit = u64;
    type Child = NewestOfSegment;

    fn for_segment(&self, segment: SegmentOrdinal, _: &SegmentReader) -> tantivy::Result<NewestOfSegment> {
        Ok(NewestOfSegment { order: self.orders[segment as usize].clone(), greatest: 0 })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, of_segments: Vec<u64>) -> tantivy::Result<u64> {
        Ok(of_segments.into_iter().max().unwrap_or(0))
    }
}

impl SegmentCollector for NewestOfSegment {
    type Fruit = u64;

    fn collect(&mut self, row: DocId, _: Score) {
        self.greatest = self.greatest.max(self.order.1.get_val(row));
    }

    fn harvest(self) -> u64 {
        self.greatest
    }
}
