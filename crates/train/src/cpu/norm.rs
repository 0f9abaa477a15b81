//! RMSNorm with gain, forward and backward, row by row.

use super::simd::{kernel, stream, sum_products};
use crate::engine::NORM_EPSILON;

kernel! {
    /// `out = x * inverse * gain` per row of `width`, where `inverse` is one over the root mean square.
    fn norm_forward(simd, x: &'a [f32], gain: &'a [f32], out: &'a mut [f32], inverse: &'a mut [f32]) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(inverse);
        for ((x, out), inverse) in rows {
            let mean = sum_products(simd, x, x) / width as f32;
            *inverse = 1.0 / (mean + NORM_EPSILON as f32).sqrt();
            let scale = simd.splat(*inverse);
            stream(simd, [x, gain], [out], #[inline(always)] |[x, gain], [_]| [simd.mul(simd.mul(x, scale), gain)]);
        }
    }
}

kernel! {
    /// Adds to `dx` and `d_gain` what `d_out` says.
    ///
    /// With y = x r g and r = (mean x^2 + eps)^(-1/2): dx_j = r g_j dy_j - x_j r^3 / width * sum_i dy_i g_i x_i.
    fn norm_backward(
        simd, x: &'a [f32], gain: &'a [f32], inverse: &'a [f32], d_out: &'a [f32], dx: &'a mut [f32],
        d_gain: &'a mut [f32],
    ) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(d_out.chunks_exact(width)).zip(dx.chunks_exact_mut(width)).zip(inverse);
        for (((x, dy), dx), &inverse) in rows {
            let scale = simd.splat(inverse);
            let mut along = simd.splat(0.0);
            stream(simd, [x, dy, gain], [&mut *d_gain], #[inline(always)] |[x, dy, gain], [d_gain]| {
                let product = simd.mul(x, dy);
                along = simd.fma(product, gain, along);
                [simd.fma(product, scale, d_gain)]
            });
            let pull = simd.splat(-simd.sum(along) * inverse * inverse * inverse / width as f32);
            stream(simd, [x, dy, gain], [dx], #[inline(always)] |[x, dy, gain], [dx]| {
                [simd.fma(x, pull, simd.fma(simd.mul(dy, gain), scale, dx))]
            });
        }
    }
}
