//! A keyed permutation of `0..n` that needs no table: any place of a shuffled order in constant time and memory.

use crate::mix::{mix, mix_all};

/// Rounds of the Feistel network. Four make a random-looking permutation (Luby & Rackoff 1988); two more because
/// the halves of a small domain are only a few bits wide.
const ROUNDS: usize = 6;

/// A balanced Feistel network over the next even number of bits, with cycle walking back into the domain
/// (Black & Rogaway 2002).
#[derive(Debug, Clone)]
pub(crate) struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that `key` names; `len` is at least 1.
    pub(crate) fn new(len: u64, key: u64) -> Self {
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        Self {
            len,
            half_bits: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|round| mix_all(&[key, round as u64])),
        }
    }

    /// Where `index` goes.
    pub(crate) fn get(&self, index: u64) -> u64 {
        assert!(index < self.len, "index {index} of a permutation of {}", self.len);
        let mut place = self.scramble(index);
        // The cycle through `index` returns into the domain: at most 4 times its length is outside, so this ends soon.
        while place >= self.len {
            place = self.scramble(place);
        }
        place
    }

    fn scramble(&self, word: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (word >> self.half_bits, word & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_permuted_and_keys_differ() {
        for len in (1..70).chain([255, 256, 257, 1000, 4097]) {
            let permutation = Permutation::new(len, 5);
            let mut places: Vec<u64> = (0..len).map(|index| permutation.get(index)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..len), "length {len}");
        }
        let order = |key| (0..100).map(|index| Permutation::new(100, key).get(index)).collect::<Vec<_>>();
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn places_are_spread_evenly() {
        // Over many keys each index goes to each place equally often: chi-square with 99 degrees of freedom.
        let mut counts = [0u32; 100];
        for key in 0..20_000 {
            counts[Permutation::new(100, key).get(17) as usize] += 1;
        }
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 200.0).powi(2) / 200.0).sum();
        assert!(chi < 150.0, "chi-square {chi}");
    }
}
