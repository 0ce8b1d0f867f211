//! Where in a table a difference lies: sums over ranges of its primary key.
//!
//! A range holds as many keys as a power of two says, so that what two snapshots with other extremes of the
//! key have cut finer and coarser can still be compared.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Into how many ranges a table's keys are cut, at most twice as many.
const RANGES: u32 = 32;

/// The widest range that is: 2^62 keys.
const MOST: u32 = 62;

/// A primary key that is one integer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The column.
    pub column: String,
    /// Keys are shifted to the right by this; what is left is the number of the range.
    pub shift: u32,
}

impl Key {
    /// Cuts the keys between these two.
    #[must_use]
    pub fn between(column: String, first: i64, last: i64) -> Self {
        let width = i128::from(last) - i128::from(first);
        let mut shift = 0;
        while width >> shift >= i128::from(RANGES) {
            shift += 1;
        }
        Self { column, shift }
    }
}

/// Where a difference lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPosition {
    /// The key's column.
    pub column: String,
    /// First key of the first range that differs.
    pub from: i64,
    /// Its last key.
    pub to: i64,
    /// How many ranges differ, and of how many.
    pub ranges: (usize, usize),
}

impl fmt::Display for KeyPosition {
    /// `first among pk 4096 to 8191, in 2 of 25 ranges of keys`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            column,
            from,
            to,
            ranges: (some, all),
        } = self;
        write!(
            f,
            "first among {column} {from} to {to}, in {some} of {all} ranges of keys"
        )
    }
}

/// Sums of a table's rows, by ranges of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRanges {
    /// The column.
    pub column: String,
    /// As [`Key::shift`].
    pub shift: u32,
    /// By number of the range: the rows' sum, 16 hex digits.
    pub sums: BTreeMap<i64, String>,
}

impl KeyRanges {
    /// Takes the sums of the ranges.
    #[must_use]
    pub fn new(key: &Key, sums: &BTreeMap<i64, u64>) -> Self {
        Self {
            column: key.column.clone(),
            shift: key.shift,
            sums: sums
                .iter()
                .map(|(range, sum)| (*range, format!("{sum:016x}")))
                .collect(),
        }
    }

    fn at(&self, shift: u32) -> BTreeMap<i64, u64> {
        let mut coarse: BTreeMap<i64, u64> = BTreeMap::new();
        for (range, sum) in &self.sums {
            let sum = u64::from_str_radix(sum, 16).unwrap_or_default();
            let into = coarse.entry(range >> (shift - self.shift)).or_default();
            *into = into.wrapping_add(sum);
        }
        coarse
    }

    /// Says where the first difference is. `None` where the keys are other ones, or no range differs.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<KeyPosition> {
        let shift = self.shift.max(other.shift);
        // A snapshot may come out of a file.
        if self.column != other.column || shift > MOST {
            return None;
        }
        let (ours, theirs) = (self.at(shift), other.at(shift));
        let mut all: Vec<i64> = ours.keys().chain(theirs.keys()).copied().collect();
        all.sort_unstable();
        all.dedup();
        let differs = |range: &&i64| ours.get(range) != theirs.get(range);
        let found: Vec<&i64> = all.iter().filter(differs).collect();
        let first = **found.first()?;
        let from = first << shift;
        Some(KeyPosition {
            column: self.column.clone(),
            from,
            to: from.saturating_add((1 << shift) - 1),
            ranges: (found.len(), all.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(first: i64, last: i64, changed: Option<i64>) -> KeyRanges {
        let key = Key::between("pk".into(), first, last);
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        for pk in first..=last {
            let sum = sums.entry(pk >> key.shift).or_default();
            let row = (pk as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *sum = sum.wrapping_add(row + u64::from(changed == Some(pk)));
        }
        KeyRanges::new(&key, &sums)
    }

    #[test]
    fn a_changed_row_is_found_among_few_keys() {
        let before = ranges(1, 1000, None);
        assert!((32..=64).contains(&before.sums.len()), "{before:?}");
        assert_eq!(before.first_difference(&ranges(1, 1000, None)), None);
        let place = before.first_difference(&ranges(1, 1000, Some(700)));
        assert_eq!(
            place.map(|place| place.to_string()).as_deref(),
            Some("first among pk 672 to 703, in 1 of 32 ranges of keys")
        );
    }

    #[test]
    fn finer_and_coarser_ranges_are_compared() {
        let place = ranges(-500, 499, None).first_difference(&ranges(-500, 4000, None));
        assert_eq!(
            place.map(|place| place.to_string()).as_deref(),
            Some("first among pk 256 to 511, in 15 of 18 ranges of keys")
        );
        assert_eq!(Key::between("pk".into(), i64::MIN, i64::MAX).shift, 59);
        let strange = KeyRanges {
            shift: 64,
            ..ranges(1, 9, None)
        };
        assert_eq!(ranges(1, 9, Some(1)).first_difference(&strange), None);
    }
}
