//! Elementwise passes over slices: whole vectors, then one masked tail. No knowledge of what the numbers mean.

#![expect(unsafe_code, reason = "vector loads and stores; every length is checked first")]

use std::array;

use super::Simd;

/// Runs `f` over equally long slices: it gets the inputs' and the outputs' vectors and returns the outputs' new ones.
/// In the tail, elements beyond the end read as zero and are not written.
#[inline(always)]
pub(in crate::cpu) fn stream<S: Simd, const I: usize, const O: usize>(
    simd: S,
    inputs: [&[f32]; I],
    mut outputs: [&mut [f32]; O],
    mut f: impl FnMut([S::V; I], [S::V; O]) -> [S::V; O],
) {
    let len = if I > 0 { inputs[0].len() } else { outputs[0].len() };
    assert!(inputs.iter().all(|x| x.len() == len) && outputs.iter().all(|x| x.len() == len));
    let inputs: [*const f32; I] = array::from_fn(
        #[inline(always)]
        |i| inputs[i].as_ptr(),
    );
    let outputs: [*mut f32; O] = array::from_fn(
        #[inline(always)]
        |o| outputs[o].as_mut_ptr(),
    );
    let mut at = 0;
    while at + S::LANES <= len {
        // SAFETY: `at + LANES <= len`, the length of every slice; distinct outputs do not overlap, being `&mut`.
        unsafe {
            let x = array::from_fn(
                #[inline(always)]
                |i| simd.load(inputs[i].add(at)),
            );
            let y = array::from_fn(
                #[inline(always)]
                |o| simd.load(outputs[o].add(at)),
            );
            let y = f(x, y);
            for o in 0..O {
                simd.store(outputs[o].add(at), y[o]);
            }
        }
        at += S::LANES;
    }
    if at < len {
        let mask = simd.mask(len - at);
        // SAFETY: the mask holds the `len - at` elements that are left.
        unsafe {
            let x = array::from_fn(
                #[inline(always)]
                |i| simd.load_part(inputs[i].add(at), mask),
            );
            let y = array::from_fn(
                #[inline(always)]
                |o| simd.load_part(outputs[o].add(at), mask),
            );
            let y = f(x, y);
            for o in 0..O {
                simd.store_part(outputs[o].add(at), y[o], mask);
            }
        }
    }
}

/// Sum of products of two slices.
#[inline(always)]
pub(in crate::cpu) fn sum_products<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    stream(
        simd,
        [x, y],
        [],
        #[inline(always)]
        |[x, y], []| {
            sum = simd.fma(x, y, sum);
            []
        },
    );
    simd.sum(sum)
}

/// Largest element; negative infinity when there is none.
#[inline(always)]
pub(in crate::cpu) fn maximum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (whole, rest) = x.split_at(x.len() / S::LANES * S::LANES);
    let mut most = simd.splat(f32::NEG_INFINITY);
    stream(
        simd,
        [whole],
        [],
        #[inline(always)]
        |[x], []| {
            most = simd.max(x, most);
            []
        },
    );
    rest.iter().copied().fold(simd.maximum(most), f32::max)
}

/// `x` becomes `exp(x - shift)`; returns the sum.
#[inline(always)]
pub(in crate::cpu) fn exp_sum<S: Simd>(simd: S, x: &mut [f32], shift: f32) -> f32 {
    let (whole, rest) = x.split_at_mut(x.len() / S::LANES * S::LANES);
    let shift = simd.splat(shift);
    let mut sum = simd.splat(0.0);
    stream(
        simd,
        [],
        [whole],
        #[inline(always)]
        |[], [x]| {
            let e = exp(simd, simd.sub(x, shift));
            sum = simd.add(sum, e);
            [e]
        },
    );
    let sum = simd.sum(sum);
    if rest.is_empty() {
        return sum;
    }
    stream(
        simd,
        [],
        [&mut *rest],
        #[inline(always)]
        |[], [x]| [exp(simd, simd.sub(x, shift))],
    );
    sum + rest.iter().sum::<f32>()
}

/// e^x to about 1 ulp for x in [-87, 88]; zero below, saturating above.
///
/// Cody-Waite reduction by ln 2 in two parts, then the degree-5 minimax polynomial of Cephes `expf` (Moshier).
#[inline(always)]
pub(in crate::cpu) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    /// 1.5 * 2^23: adding it rounds to an integer, left in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.0;
    const HIGHEST: f32 = 88.0;
    let clamped = simd.max(simd.splat(LOWEST), simd.min(simd.splat(HIGHEST), x));
    let power = simd.fma(clamped, simd.splat(std::f32::consts::LOG2_E), simd.splat(ROUND));
    let n = simd.sub(power, simd.splat(ROUND));
    let r = simd.fma(n, simd.splat(-0.693_359_4), clamped);
    let r = simd.fma(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = simd.fma(p, r, simd.splat(coefficient));
    }
    let p = simd.add(simd.fma(p, simd.mul(r, r), r), simd.splat(1.0));
    simd.zero_below(simd.scale(p, power), x, LOWEST)
}
