//! The speed limit of this machine: fused multiply-adds on registers alone.

use std::hint::black_box;
use std::time::Instant;

use super::simd::{Level, Simd, kernel};

/// Chains side by side: enough to hide the latency of one multiply-add, few enough for the registers.
const CHAINS: usize = 12;

kernel! {
    /// Runs `rounds` of [`CHAINS`] multiply-adds on each lane; returns the operations made.
    fn multiply_adds(simd, rounds: usize, seed: &'a [f32; 2]) -> f64 {
        let (x, y) = (simd.splat(seed[0]), simd.splat(seed[1]));
        let mut sums = [simd.splat(0.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = simd.fma(*sum, x, y);
            }
        }
        let total = sums.iter().fold(simd.splat(0.0), |total, &sum| simd.add(total, sum));
        black_box(simd.sum(total));
        (2 * CHAINS * lanes(simd) * rounds) as f64
    }
}

#[inline(always)]
fn lanes<S: Simd>(_: S) -> usize {
    S::LANES
}

/// Best of many short bursts on this thread, in GFLOP/s, and the instruction set that made it.
pub(crate) fn fma_peak() -> (f64, &'static str) {
    const BURSTS: usize = 100;
    const ROUNDS: usize = 50_000;
    let level = Level::detect();
    let burst = |_| {
        let start = Instant::now();
        let flops = multiply_adds(level, ROUNDS, black_box(&[0.999, 1e-3]));
        flops / start.elapsed().as_secs_f64() / 1e9
    };
    ((0..BURSTS).map(burst).fold(0.0, f64::max), level.name())
}
