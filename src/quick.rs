// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables of numbers that the kernel has chosen: tokens, cookies, inodes.
//! Nobody can choose them so that they collide, and the standard library's
//! hash, made against that, costs several times as much.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A table.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;
/// A set.
pub type Set<K> = HashSet<K, BuildHasherDefault<Quick>>;

/// Multiplies what it is given into one word.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quick(u64);

/// Odd, with its bits well mixed: of the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Quick {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ FACTOR).wrapping_mul(u128::from(FACTOR));
        // Both halves: the low one alone forgets high bits.
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(word.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
        }
        let rest = words.remainder();
        if !rest.is_empty() {
            self.add(rest.iter().rev().fold(rest.len() as u64, |sum, byte| sum << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.add(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.add(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    #[test]
    fn neighbours_spread_over_both_ends_of_the_word() {
        let hash = |number: u64| {
            let mut hasher = Quick::default();
            (number, number + 1).hash(&mut hasher);
            hasher.finish()
        };
        let all: HashSet<u64> = (0..20_000).map(hash).collect();
        assert_eq!(all.len(), 20_000);
        // A table takes the low bits for the place and the high ones for a tag.
        let low: HashSet<u64> = (0..4096).map(|n| hash(n) & 0xfff).collect();
        let high: HashSet<u64> = (0..4096).map(|n| hash(n) >> 57).collect();
        assert!(low.len() > 2000 && high.len() == 128, "{} {}", low.len(), high.len());
    }
}
