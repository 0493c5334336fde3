//! Which rows of a batch an aggregate takes, and into which group each goes.

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::buffer::NullBuffer;

/// The rows of a batch that count: those that a filter lets through and in which no argument is NULL.
pub struct Rows<'a> {
    length: usize,
    /// The group of every row; without, all go into group 0.
    groups: Option<&'a [usize]>,
    nulls: Option<NullBuffer>,
    filter: Option<&'a BooleanArray>,
}

impl<'a> Rows<'a> {
    /// The rows of these columns.
    pub fn new(columns: &[ArrayRef], groups: Option<&'a [usize]>, filter: Option<&'a BooleanArray>) -> Rows<'a> {
        let nulls = columns
            .iter()
            .fold(None, |nulls, column| NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        Rows { length: columns.first().map_or(0, |column| column.len()), groups, nulls, filter }
    }

    /// Hands out each row and its group, in order.
    pub fn each(&self, mut take: impl FnMut(usize, usize)) {
        let all = self.nulls.is_none() && self.filter.is_none();
        match self.groups {
            Some(groups) if all => groups.iter().enumerate().for_each(|(row, &group)| take(row, group)),
            None if all => (0..self.length).for_each(|row| take(row, 0)),
            _ => {
                for row in 0..self.length {
                    let passes = self.filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
                    if passes && self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                        take(row, self.groups.map_or(0, |groups| groups[row]));
                    }
                }
            }
        }
    }

    /// How many rows there are where all go into one group; `None` where that takes a look at each.
    pub fn in_one_group(&self) -> Option<usize> {
        match (&self.groups, &self.filter) {
            (None, None) => Some(self.length - self.nulls.as_ref().map_or(0, NullBuffer::null_count)),
            _ => None,
        }
    }
}
