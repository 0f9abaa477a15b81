//! Cross-entropy of rows of logits.

use super::simd::{exp_sum, kernel, maximum, stream};

kernel! {
    /// Nats of each row's target. The logits are spoilt.
    fn entropy(simd, vocab: usize, logits: &'a mut [f32], targets: &'a [u32], nats: &'a mut [f32]) {
        for ((row, &target), nats) in logits.chunks_exact_mut(vocab).zip(targets).zip(nats) {
            let most = maximum(simd, row);
            let chosen = row[target as usize] - most;
            *nats = exp_sum(simd, row, most).ln() - chosen;
        }
    }
}

kernel! {
    /// As [`entropy`], and the logits become `scale` times their gradient: softmax less the target's one.
    fn entropy_gradient(
        simd, vocab: usize, scale: f32, logits: &'a mut [f32], targets: &'a [u32], nats: &'a mut [f32],
    ) {
        for ((row, &target), nats) in logits.chunks_exact_mut(vocab).zip(targets).zip(nats) {
            let most = maximum(simd, row);
            let chosen = row[target as usize] - most;
            let sum = exp_sum(simd, row, most);
            *nats = sum.ln() - chosen;
            let factor = simd.splat(scale / sum);
            stream(simd, [], [&mut *row], #[inline(always)] |[], [e]| [simd.mul(e, factor)]);
            row[target as usize] -= scale;
        }
    }
}
