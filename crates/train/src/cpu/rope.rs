//! Rotary positions (Su 2104.09864): elements `i` and `i + half` of each head turn by an angle of their own.

use super::simd::{Level, kernel, stream};
use crate::engine::ROPE_THETA;

/// Cosines and sines of every position.
pub(super) struct Rope {
    half: usize,
    /// `[context, half]`.
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

/// Which way to turn, and a factor on the result.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// 1 for the forward pass, -1 for its gradient.
    pub(super) sign: f32,
    pub(super) scale: f32,
}

impl Rope {
    pub(super) fn new(context: usize, head_width: usize) -> Self {
        let half = head_width / 2;
        let angle = |position: usize, i: usize| position as f64 * ROPE_THETA.powf(-2.0 * i as f64 / head_width as f64);
        let table = |f: fn(f64) -> f64| {
            (0..context).flat_map(|position| (0..half).map(move |i| f(angle(position, i)) as f32)).collect()
        };
        Self { half, cosines: table(f64::cos), sines: table(f64::sin) }
    }

    /// Turns the `width` columns of `x` that start at `first`, rows `stride` apart, one row a position.
    pub(super) fn turn(&self, level: Level, x: &mut [f32], stride: usize, first: usize, width: usize, turn: Turn) {
        rotate(level, self.half, &self.cosines, &self.sines, x, stride, first, width, turn);
    }
}

kernel! {
    fn rotate(
        simd, half: usize, cosines: &'a [f32], sines: &'a [f32], x: &'a mut [f32], stride: usize, first: usize,
        width: usize, turn: Turn,
    ) {
        let (scale, sign) = (simd.splat(turn.scale), simd.splat(turn.scale * turn.sign));
        let tables = cosines.chunks_exact(half).zip(sines.chunks_exact(half));
        for (row, (cosine, sine)) in x.chunks_mut(stride).zip(tables) {
            for head in row[first..first + width].chunks_exact_mut(2 * half) {
                let (low, high) = head.split_at_mut(half);
                stream(simd, [cosine, sine], [low, high], #[inline(always)] |[cosine, sine], [low, high]| {
                    let (cosine, sine) = (simd.mul(cosine, scale), simd.mul(sine, sign));
                    let turned = simd.sub(simd.mul(low, cosine), simd.mul(high, sine));
                    [turned, simd.fma(high, cosine, simd.mul(low, sine))]
                });
            }
        }
    }
}
