//! Which parts to merge into one.
//!
//! Roll-ups of a day (a month for months) are merged until there is one part: then a scan gives each group key once
//! without work. Merging after every seal would write a busy day over and over, so while a day grows parts wait until there
//! are some of about the same size: a row is then written again when its part has doubled at least, and a day has a few
//! parts for each doubling (O'Neil et al., "The log-structured merge-tree", 1996; size-tiered, as others call it). Raw rows
//! need no merging for their meaning, only fewer files.

use std::sync::Arc;

use super::live::PartMap;
use super::parts::Part;
use super::tables::Level;

/// Most parts that are merged at once.
const INPUTS_MAX: usize = 32;
/// Parts of a day that wait for each other.
const MANY: usize = 8;
/// Rows that are merged without further thought.
const CHEAP_ROWS: u64 = 10_000;
/// A raw part of so many rows is large enough.
const RAW_ROWS: u64 = 1_000_000;

/// How much is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eagerness {
    /// What pays off while more is coming.
    Busy,
    /// Also what is left when nothing has come for a while.
    Quiet,
    /// All there is.
    All,
}

/// The next parts to merge, all of one table, workspace and day; `None` where nothing is worth it.
pub(crate) fn choose(parts: &PartMap, eager: Eagerness) -> Option<Vec<Arc<Part>>> {
    parts.iter().find_map(|((table, _), list)| {
        let mut days = list.chunk_by(|one, other| one.info.day == other.info.day);
        let newest = list.last().map(|part| part.info.day);
        match table.level {
            Level::Raw => days.find_map(|day| raw(day, newest != Some(day[0].info.day), eager)),
            _ => days.find_map(|day| rolled(day, eager)),
        }
    })
}

fn rolled(day: &[Arc<Part>], eager: Eagerness) -> Option<Vec<Arc<Part>>> {
    if day.len() < 2 {
        return None;
    }
    let mut chosen = smallest(day.iter());
    let rows: u64 = day.iter().map(|part| part.info.rows).sum();
    if eager == Eagerness::Busy && rows > CHEAP_ROWS {
        // The smallest ones, up to the last that those before it outweigh together.
        let (mut before, mut alike) = (0, 0);
        for (at, part) in chosen.iter().enumerate() {
            if part.info.rows <= before {
                alike = at + 1;
            }
            before += part.info.rows;
        }
        chosen.truncate(alike);
        if alike < MANY {
            return None;
        }
    }
    Some(chosen)
}

fn raw(day: &[Arc<Part>], past: bool, eager: Eagerness) -> Option<Vec<Arc<Part>>> {
    let small: Vec<&Arc<Part>> = day.iter().filter(|part| part.info.rows < RAW_ROWS).collect();
    let enough = match eager {
        Eagerness::All => 2,
        Eagerness::Quiet if past => 2,
        Eagerness::Busy | Eagerness::Quiet => MANY,
    };
    (small.len() >= enough).then(|| {
        let mut chosen = smallest(small.into_iter());
        // Stop at a size that is not worth rewriting again, but never below two.
        let mut rows = 0;
        let fits = chosen.iter().take_while(|part| {
            let before = rows;
            rows += part.info.rows;
            before < RAW_ROWS
        });
        let fits = fits.count().max(2);
        chosen.truncate(fits);
        chosen
    })
}

fn smallest<'a>(parts: impl Iterator<Item = &'a Arc<Part>>) -> Vec<Arc<Part>> {
    let mut chosen: Vec<Arc<Part>> = parts.cloned().collect();
    chosen.sort_by_key(|part| (part.info.rows, part.info.no));
    chosen.truncate(INPUTS_MAX);
    chosen
}
