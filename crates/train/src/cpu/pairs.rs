//! Matrices in bf16: two neighbours along the summed dimension share 32 bits, as the dot-product instructions want them.
//!
//! A matrix `[m, k]` that stands left is packed along its rows, `[m, k / 2]`; one that stands right, `[k, n]`, along its
//! columns, `[k / 2, n]`. Packing rounds and nothing else; an odd end is filled up with zero.

use bytemuck::{Pod, Zeroable};

use super::simd::Level;
use super::simd::{Simd, bf16_bits, kernel};
use super::transpose::transpose;

/// Two bf16, the earlier in the low half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub(super) struct Pair(u32);

impl Pair {
    #[inline(always)]
    pub(super) fn of(low: f32, high: f32) -> Self {
        Self(bf16_bits(low) | bf16_bits(high) << 16)
    }

    /// Both values.
    #[cfg(test)]
    pub(super) fn values(self) -> [f32; 2] {
        [f32::from_bits(self.0 << 16), f32::from_bits(self.0 & 0xffff_0000)]
    }
}

/// Pairs that `count` elements take.
pub(super) fn halved(count: usize) -> usize {
    count.div_ceil(2)
}

kernel! {
    /// `to [m, k / 2]` from `from [m, k]`, rows `stride` and `to_stride` apart: neighbours in a row become a pair.
    fn pack_rows(simd, m: usize, k: usize, from: &'a [f32], stride: usize, to: &'a mut [Pair], to_stride: usize) {
        for (from, to) in from.chunks(stride).zip(to.chunks_mut(to_stride)).take(m) {
            pack_row(simd, &from[..k], &mut to[..halved(k)]);
        }
    }
}

/// One row of [`pack_rows`].
#[inline(always)]
pub(super) fn pack_row<S: Simd>(simd: S, from: &[f32], to: &mut [Pair]) {
    let whole = from.len() / (2 * S::LANES);
    let (wide, rest) = from.split_at(whole * 2 * S::LANES);
    let (to_wide, to_rest) = to.split_at_mut(whole * S::LANES);
    let lanes: &mut [f32] = bytemuck::cast_slice_mut(to_wide);
    narrow_all(simd, wide, lanes);
    for (pair, to) in rest.chunks(2).zip(to_rest) {
        *to = Pair::of(pair[0], pair.get(1).copied().unwrap_or(0.0));
    }
}

/// `to` gets the elements of `from`, two to a lane; `from` is twice as long and both are whole vectors.
#[inline(always)]
#[expect(unsafe_code, reason = "vector loads and stores; the lengths are checked first")]
fn narrow_all<S: Simd>(simd: S, from: &[f32], to: &mut [f32]) {
    assert!(from.len() == 2 * to.len() && to.len().is_multiple_of(S::LANES));
    for at in (0..to.len()).step_by(S::LANES) {
        // SAFETY: `at + LANES <= to.len()`, and `from` is twice as long.
        unsafe {
            let (a, b) = (simd.load(from.as_ptr().add(2 * at)), simd.load(from.as_ptr().add(2 * at + S::LANES)));
            simd.store(to.as_mut_ptr().add(at), simd.narrow(a, b));
        }
    }
}

kernel! {
    /// `to [k / 2, n]` from `from [k, n]`, rows `stride` and `to_stride` apart: two rows become one of pairs.
    fn pack_columns(simd, k: usize, n: usize, from: &'a [f32], stride: usize, to: &'a mut [Pair], to_stride: usize) {
        for (i, to) in to.chunks_mut(to_stride).enumerate().take(halved(k)) {
            let low = &from[2 * i * stride..][..n];
            let to = &mut to[..n];
            if 2 * i + 1 < k {
                pack_two(simd, low, &from[(2 * i + 1) * stride..][..n], to);
            } else {
                low.iter().zip(to).for_each(|(&low, to)| *to = Pair::of(low, 0.0));
            }
        }
    }
}

/// Two rows as one of pairs.
#[inline(always)]
pub(super) fn pack_two<S: Simd>(simd: S, low: &[f32], high: &[f32], to: &mut [Pair]) {
    let to: &mut [f32] = bytemuck::cast_slice_mut(to);
    super::simd::stream(
        simd,
        [low, high],
        [to],
        #[inline(always)]
        |[low, high], [_]| [simd.pair(low, high)],
    );
}

/// `to [k / 2, m]` from the packed rows `from [m, k / 2]`: the transpose, packed along its columns.
pub(super) fn flip_rows(
    level: Level,
    m: usize,
    half: usize,
    from: &[Pair],
    stride: usize,
    to: &mut [Pair],
    to_stride: usize,
) {
    transpose(level, m, half, bytemuck::cast_slice(from), stride, bytemuck::cast_slice_mut(to), to_stride);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 7.3 - 6.1).collect()
    }

    #[test]
    fn rounding_is_to_nearest_even_and_keeps_what_is_not_a_number() {
        assert_eq!(Pair::of(1.0, -2.5).values(), [1.0, -2.5]);
        let half = f32::from_bits(0x3f80_8000);
        assert_eq!(Pair::of(half, f32::from_bits(0x3f81_8000)).values(), [1.0, f32::from_bits(0x3f82_0000)]);
        let [low, high] = Pair::of(f32::NAN, f32::INFINITY).values();
        assert!(low.is_nan() && high == f32::INFINITY);
        assert!(Pair::of(f32::from_bits(0x7f80_0001), 0.0).values()[0].is_nan());
    }

    #[test]
    fn packing_puts_every_element_in_its_place_on_every_path() {
        for level in Level::available() {
            for (m, k) in [(1, 1), (3, 2), (5, 33), (7, 64), (6, 101), (9, 16)] {
                let (from, stride, wide) = (numbers(m * (k + 3)), k + 3, halved(k) + 2);
                let mut found = vec![Pair::of(9.0, 9.0); m * wide];
                pack_rows(level, m, k, &from, stride, &mut found, wide);
                let at = |i: usize, j: usize| if j < k { from[i * stride + j] } else { 0.0 };
                for i in 0..m {
                    for j in 0..halved(k) {
                        assert_eq!(found[i * wide + j], Pair::of(at(i, 2 * j), at(i, 2 * j + 1)), "{}", level.name());
                    }
                    assert_eq!(found[i * wide + halved(k)], Pair::of(9.0, 9.0), "{} wrote beyond", level.name());
                }
                let mut columns = vec![Pair::default(); halved(m) * k];
                pack_columns(level, m, k, &from, stride, &mut columns, k);
                for (place, pair) in columns.iter().enumerate() {
                    let (i, j) = (place / k, place % k);
                    let high = if 2 * i + 1 < m { at(2 * i + 1, j) } else { 0.0 };
                    assert_eq!(*pair, Pair::of(at(2 * i, j), high), "{}", level.name());
                }
                let mut flipped = vec![Pair::default(); halved(k) * m];
                flip_rows(level, m, halved(k), &found, wide, &mut flipped, m);
                assert!((0..m).all(|i| (0..halved(k)).all(|j| flipped[j * m + i] == found[i * wide + j])));
            }
        }
    }
}
