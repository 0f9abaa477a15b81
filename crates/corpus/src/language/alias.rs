//! A finite law with draws in constant time (Walker's alias method, tables after Vose 1991) and exact surprisals.

use rand::RngCore;

/// A law on `0..n`.
#[derive(Debug, Clone)]
pub(super) struct Alias {
    probabilities: Vec<f64>,
    /// -log2 p.
    surprisals: Vec<f64>,
    /// Share of each bucket, in units of 2^-64, that belongs to its own index.
    keep: Vec<u64>,
    /// Owner of the rest of the bucket.
    other: Vec<u32>,
}

impl Alias {
    /// The law proportional to `weights`: at least one positive, fewer than 2^32. What has no weight is never drawn.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let probabilities: Vec<f64> = weights.iter().map(|w| w / total).collect();
        let count = probabilities.len();
        let mut share: Vec<f64> = probabilities.iter().map(|p| p * count as f64).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|&i| share[i] < 1.0);
        let mut keep = vec![u64::MAX; count];
        let mut other: Vec<u32> = (0..count as u32).collect();
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            keep[low] = (share[low] * 2f64.powi(64)) as u64;
            other[low] = high as u32;
            share[high] -= 1.0 - share[low];
            if share[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        // Rounding may leave a bucket over whose own index has no weight.
        let heaviest = (0..count).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap_or(0);
        for bucket in (0..count).filter(|&i| probabilities[i] == 0.0) {
            if keep[bucket] > 0 {
                keep[bucket] = 0;
                other[bucket] = heaviest as u32;
            }
        }
        Self { surprisals: probabilities.iter().map(|p| -p.log2()).collect(), probabilities, keep, other }
    }

    /// Zipf's law: rank r from 1 has weight r^-exponent.
    pub(super) fn zipf(ranks: usize, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=ranks).map(|rank| (rank as f64).powf(-exponent)).collect();
        Self::new(&weights)
    }

    /// One index and its surprisal in bits. The high half of one product picks the bucket, the low half the owner.
    pub(super) fn draw(&self, rng: &mut impl RngCore) -> (usize, f64) {
        let product = u128::from(rng.next_u64()) * self.keep.len() as u128;
        let bucket = (product >> 64) as usize;
        let index = if (product as u64) < self.keep[bucket] { bucket } else { self.other[bucket] as usize };
        (index, self.surprisals[index])
    }

    pub(super) fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Entropy in bits.
    pub(super) fn entropy(&self) -> f64 {
        self.probabilities.iter().zip(&self.surprisals).filter(|(p, _)| **p > 0.0).map(|(p, bits)| p * bits).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_give_the_law_back_exactly() {
        for alias in [Alias::zipf(300, 1.0), Alias::zipf(1 << 16, 1.5), Alias::new(&[0.3, 0.7])] {
            let count = alias.probabilities.len();
            let mut mass = vec![0.0; count];
            for bucket in 0..count {
                let own = alias.keep[bucket] as f64 / 2f64.powi(64);
                mass[bucket] += own / count as f64;
                mass[alias.other[bucket] as usize] += (1.0 - own) / count as f64;
            }
            for (got, want) in mass.iter().zip(&alias.probabilities) {
                assert!((got - want).abs() < 1e-12, "{got} {want}");
            }
        }
    }
}
