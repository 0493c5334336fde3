//! Sets of values by their hashes: exact ones by 128 bits, and samples by 64.

use datafusion::arrow::array::types::UInt64Type;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt64Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::Result;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use std::sync::Arc;

const FIRST: QualityRandomState = QualityRandomState::with_seed(0x6b65_7977_6172_6431);
const SECOND: QualityRandomState = QualityRandomState::with_seed(0x6b65_7977_6172_6432);

/// What a set is keyed by: bits that are as good as random.
pub trait Key: Copy + PartialEq {
    /// The key that marks a free slot.
    const FREE: Self;

    /// The bits that choose the slot, most significant first.
    fn place(self) -> u64;
}

impl Key for u64 {
    const FREE: u64 = 0;

    fn place(self) -> u64 {
        self
    }
}

impl Key for u128 {
    const FREE: u128 = 0;

    fn place(self) -> u64 {
        (self >> 64) as u64
    }
}

/// A set of keys in open addressing with linear probing, at most three quarters full; empty it holds no memory.
pub struct KeySet<K> {
    slots: Vec<K>,
    taken: usize,
    /// Whether the key that marks free slots is a member.
    has_free: bool,
}

impl<K: Key> KeySet<K> {
    const SLOTS_MIN: usize = 4;

    /// An empty set.
    pub fn new() -> KeySet<K> {
        KeySet { slots: Vec::new(), taken: 0, has_free: false }
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.taken + usize::from(self.has_free)
    }

    /// Bytes it holds beside itself.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<K>()
    }

    /// Its keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = K> + '_ {
        let free = self.has_free.then_some(K::FREE);
        self.slots.iter().copied().filter(|&key| key != K::FREE).chain(free)
    }

    /// Adds a key; whether it was new.
    pub fn insert(&mut self, key: K) -> bool {
        if key == K::FREE {
            return !std::mem::replace(&mut self.has_free, true);
        }
        if self.taken * 4 >= self.slots.len() * 3 {
            self.rebuild((self.slots.len() * 2).max(Self::SLOTS_MIN), |_| true);
        }
        let mask = self.slots.len() - 1;
        let mut at = self.slot(key);
        loop {
            if self.slots[at] == key {
                return false;
            }
            if self.slots[at] == K::FREE {
                self.slots[at] = key;
                self.taken += 1;
                return true;
            }
            at = (at + 1) & mask;
        }
    }

    /// Keeps the keys that pass.
    pub fn retain(&mut self, keep: impl Fn(K) -> bool) {
        self.has_free = self.has_free && keep(K::FREE);
        self.rebuild(self.slots.len(), keep);
    }

    fn slot(&self, key: K) -> usize {
        // The number of slots is a power of two of at least four.
        (key.place() >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    fn rebuild(&mut self, slots: usize, keep: impl Fn(K) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![K::FREE; slots]);
        self.taken = 0;
        let mask = slots.saturating_sub(1);
        for key in old.into_iter().filter(|&key| key != K::FREE && keep(key)) {
            let mut at = self.slot(key);
            while self.slots[at] != K::FREE {
                at = (at + 1) & mask;
            }
            self.slots[at] = key;
            self.taken += 1;
        }
    }
}

/// Hashes of rows, in buffers that live as long as the aggregate.
#[derive(Default)]
pub struct Hashes {
    first: Vec<u64>,
    second: Vec<u64>,
}

impl Hashes {
    /// 64 bits per row.
    pub fn short(&mut self, columns: &[ArrayRef]) -> Result<&[u64]> {
        let rows = columns.first().map_or(0, |column| column.len());
        // An array's hash goes on from what the buffer holds: it must hold zero.
        self.first.clear();
        self.first.resize(rows, 0);
        Ok(create_hashes(columns, &FIRST, &mut self.first)?)
    }

    /// 128 bits per row: of n different values two share them with a probability of n^2 / 2^129.
    pub fn long(&mut self, columns: &[ArrayRef]) -> Result<impl Fn(usize) -> u128 + '_> {
        let rows = columns.first().map_or(0, |column| column.len());
        self.first.clear();
        self.second.clear();
        self.first.resize(rows, 0);
        self.second.resize(rows, 0);
        create_hashes(columns, &FIRST, &mut self.first)?;
        create_hashes(columns, &SECOND, &mut self.second)?;
        Ok(|row: usize| (u128::from(self.first[row]) << 64) | u128::from(self.second[row]))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        (self.first.capacity() + self.second.capacity()) * size_of::<u64>()
    }
}

/// The Arrow type of a list of 64-bit words.
pub fn words_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::UInt64, true)))
}

/// One list of words per group.
pub fn words(groups: impl Iterator<Item = Vec<u64>>) -> ArrayRef {
    let mut lengths = Vec::new();
    let mut all = Vec::new();
    for group in groups {
        lengths.push(group.len());
        all.extend(group);
    }
    let field = Arc::new(Field::new("item", DataType::UInt64, true));
    let values = Arc::new(UInt64Array::from(all));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None))
}

/// The words of each row's list.
pub fn each_words(lists: &ArrayRef, mut take: impl FnMut(usize, &[u64])) {
    let lists = lists.as_list::<i32>();
    let values = lists.values().as_primitive::<UInt64Type>().values();
    for row in 0..lists.len() {
        let (from, to) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        take(row, &values[from..to]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the standard library's set, the free mark included.
        #[test]
        fn a_set_of_keys_is_a_set(keys in proptest::collection::vec(0u64..300, 0..900), bit in 0u64..64) {
            let keys: Vec<u64> = keys.into_iter().map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            let mut set = KeySet::new();
            let mut model = HashSet::new();
            for &key in &keys {
                prop_assert_eq!(set.insert(key), model.insert(key));
            }
            prop_assert_eq!(set.len(), model.len());
            set.retain(|key| key >> bit & 1 == 0);
            model.retain(|key| key >> bit & 1 == 0);
            prop_assert_eq!(set.iter().collect::<HashSet<_>>(), model);
        }
    }
}
