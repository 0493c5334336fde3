//! Which terms a log has, and where two logs part.
//!
//! Two logs that have an entry of the same term at the same position are the same up to there: D. Ongaro, J. Ousterhout, *In
//! Search of an Understandable Consensus Algorithm*, USENIX ATC 2014, section 5.3 (the Log Matching Property). There a leader
//! finds that place by trying one entry after another; here both sides know where each term begins, so one comparison of the two
//! lists finds it. Terms are not elected here but given by an operator, who can give the same number twice; so each has a random
//! id as well, and only terms with the same id are the same.

use crate::error::ReadError;
use crate::position::{Position, Term};
use crate::records::codec::part;
use crate::records::term;
use crate::store::Read;

part! {
    /// A term, and where it begins.
    #[derive(Copy)]
    pub struct Reign {
        /// Its number.
        term: u64,
        /// The position of its first record.
        first: u64,
        /// Tells it from others with the same number; zeros for the first term of a store.
        id: [u8; 16],
    }
}

impl Reign {
    /// The term a store begins with.
    const FIRST: Reign = Reign { term: 1, first: 1, id: [0; 16] };
}

/// The terms of a log and its newest position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Oldest first; one at least.
    reigns: Vec<Reign>,
    last: Position,
}

/// How a follower's log stands to its leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The leader's goes on where the follower's ends.
    Follows,
    /// They are the same up to here; what the follower has beyond it the leader has not.
    After(Position),
    /// The follower has a term that is newer than the leader's newest: the leader's reign is over.
    LeaderIsOver(Term),
    /// In the leader's own term the follower has more than the leader, which must have lost it: there is nobody to follow.
    LeaderLost(Position),
}

impl History {
    /// The history of these records.
    ///
    /// # Errors
    /// What reading the rows of terms says.
    pub fn read(read: &impl Read, last: Position) -> Result<History, ReadError> {
        let mut reigns = vec![Reign::FIRST];
        for (Term(term), row) in term::all(read)? {
            reigns.push(Reign { term, first: row.first, id: row.id });
        }
        Ok(History { reigns, last })
    }

    /// A history as another node tells it. `None` where it is none: terms and positions must rise, from the first on, and none may
    /// begin after the end.
    pub fn told(reigns: Vec<Reign>, last: Position) -> Option<History> {
        let rises = |pair: &[Reign]| pair[0].term < pair[1].term && pair[0].first < pair[1].first;
        let begins = reigns.first() == Some(&Reign::FIRST);
        let ends = reigns.len() == 1 || reigns.last().is_some_and(|newest| newest.first <= last.0);
        (begins && ends && reigns.windows(2).all(rises)).then_some(History { reigns, last })
    }

    /// Its terms.
    pub fn reigns(&self) -> &[Reign] {
        &self.reigns
    }

    /// Its newest position.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The same log with this newest position, in the same term.
    pub fn at(&self, last: Position) -> History {
        History { last, ..self.clone() }
    }

    /// Its newest term.
    pub fn term(&self) -> Term {
        Term(self.newest().term)
    }

    fn newest(&self) -> &Reign {
        self.reigns.last().expect("there is one at least")
    }

    /// Where the term at `at` ends.
    fn end(&self, at: usize) -> Position {
        self.reigns.get(at + 1).map_or(self.last, |next| Position(next.first - 1))
    }

    /// The term that two nodes were promoted to without knowing of each other: in both histories there is one of that number, and
    /// they are not the same. `None` where the logs part without that.
    pub fn twin(&self, other: &History) -> Option<Term> {
        let (one, other) = self.reigns.iter().zip(&other.reigns).find(|(one, other)| one != other)?;
        (one.term == other.term).then_some(Term(one.term))
    }

    /// How a follower with that history stands to a leader with this one.
    pub fn parting(&self, follower: &History) -> Parting {
        if follower.term() > self.term() {
            return Parting::LeaderIsOver(follower.term());
        }
        // Both begin with the first term, and what is the same once is the same before.
        let same = self.reigns.iter().zip(&follower.reigns).take_while(|(one, other)| one == other).count();
        let Some(common) = same.checked_sub(1) else { return Parting::After(Position::START) };
        let (leader_end, follower_end) = (self.end(common), follower.end(common));
        if follower.last <= leader_end.min(follower_end) {
            return Parting::Follows;
        }
        if common + 1 == self.reigns.len() && common + 1 == follower.reigns.len() {
            return Parting::LeaderLost(leader_end);
        }
        Parting::After(leader_end.min(follower_end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::SplitMix;

    fn history(reigns: &[(u64, u64, u8)], last: u64) -> History {
        let reigns = reigns.iter().map(|&(term, first, id)| Reign { term, first, id: [id; 16] });
        let reigns = std::iter::once(Reign::FIRST).chain(reigns).collect();
        History::told(reigns, Position(last)).expect("a history")
    }

    #[test]
    fn the_place_where_two_logs_part_is_found() {
        let leader = history(&[(2, 11, 7), (4, 21, 8)], 30);
        let stands = |reigns: &[(u64, u64, u8)], last| leader.parting(&history(reigns, last));
        assert_eq!(stands(&[], 0), Parting::Follows, "an empty one");
        assert_eq!(stands(&[], 10), Parting::Follows);
        assert_eq!(stands(&[], 13), Parting::After(Position(10)), "the old leader took three more");
        assert_eq!(stands(&[(2, 11, 7)], 15), Parting::Follows);
        assert_eq!(stands(&[(2, 11, 7)], 25), Parting::After(Position(20)));
        assert_eq!(stands(&[(2, 11, 9)], 12), Parting::After(Position(10)), "another term of the same number");
        assert_eq!(stands(&[(2, 9, 9)], 9), Parting::After(Position(8)), "and an earlier one");
        assert_eq!(stands(&[(2, 11, 7), (3, 18, 1)], 19), Parting::After(Position(17)));
        assert_eq!(stands(&[(2, 11, 7), (4, 21, 8)], 30), Parting::Follows);
        assert_eq!(stands(&[(2, 11, 7), (4, 21, 8)], 31), Parting::LeaderLost(Position(30)));
        assert_eq!(stands(&[(5, 3, 1)], 3), Parting::LeaderIsOver(Term(5)));
        assert_eq!(history(&[], 5).parting(&history(&[], 6)), Parting::LeaderLost(Position(5)));
    }

    /// What a node tells is judged before it is compared.
    #[test]
    fn a_history_that_is_none_is_refused() {
        let reign = |term, first| Reign { term, first, id: [1; 16] };
        for bad in [
            vec![],
            vec![reign(1, 1)],
            vec![Reign::FIRST, reign(2, 3), reign(2, 4)],
            vec![Reign::FIRST, reign(3, 3), reign(2, 4)],
            vec![Reign::FIRST, reign(2, 4), reign(3, 4)],
            vec![Reign::FIRST, reign(2, 1)],
            vec![Reign::FIRST, reign(2, 6)],
        ] {
            assert_eq!(History::told(bad.clone(), Position(5)), None, "{bad:?}");
        }
    }

    /// Against logs that are written out: however two nodes were promoted, the place is the length of their common beginning.
    #[test]
    fn it_is_the_length_of_the_common_beginning() {
        let mut dice = SplitMix(5);
        for _ in 0..2000 {
            // A tree of logs: each is a list of the reigns its records were written in.
            let mut logs: Vec<Vec<(u64, u8)>> = vec![vec![(1, 0); dice.below(4) as usize]];
            for id in 1..=dice.below(6) as u8 {
                let mut log = logs[dice.below(logs.len() as u64) as usize].clone();
                log.truncate(log.len() - dice.below(log.len() as u64 + 1) as usize);
                let term = log.last().map_or(1, |(term, _)| *term) + 1 + dice.below(2);
                for _ in 0..=dice.below(3) {
                    log.push((term, id));
                }
                logs.push(log);
            }
            let told = |log: &[(u64, u8)]| {
                let mut reigns = vec![Reign::FIRST];
                for (at, &(term, id)) in log.iter().enumerate() {
                    if reigns.last().is_some_and(|newest| newest.id != [id; 16]) {
                        reigns.push(Reign { term, first: at as u64 + 1, id: [id; 16] });
                    }
                }
                // A log that begins with a promotion has a first term without records, which begins where the next does.
                (reigns.len() < 2 || reigns[1].first > 1).then(|| History::told(reigns, Position(log.len() as u64)))
            };
            for leader in &logs {
                for follower in &logs {
                    let (Some(Some(one)), Some(Some(other))) = (told(leader), told(follower)) else { continue };
                    let common = leader.iter().zip(follower).take_while(|(one, other)| one == other).count();
                    let expected = if other.term() > one.term() {
                        Parting::LeaderIsOver(other.term())
                    } else if common == follower.len() {
                        Parting::Follows
                    } else if one.reigns == other.reigns {
                        Parting::LeaderLost(Position(common as u64))
                    } else {
                        Parting::After(Position(common as u64))
                    };
                    assert_eq!(one.parting(&other), expected, "{leader:?} and {follower:?}");
                }
            }
        }
    }
}
