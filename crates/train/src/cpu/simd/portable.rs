//! Four lanes in plain arrays, which the compiler turns into SSE2 or NEON.

#![expect(unsafe_code, reason = "the trait's memory operations take pointers")]

use super::{Simd, bf16_bits};

/// Needs nothing of the processor.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Portable;

const LANES: usize = 4;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    [f(0), f(1), f(2), f(3)]
}

// SAFETY: no special instructions; partial operations touch the masked elements only.
unsafe impl Simd for Portable {
    type V = [f32; LANES];
    type Mask = usize;
    const LANES: usize = LANES;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn mask(self, count: usize) -> usize {
        count
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, count: usize) -> Self::V {
        if count == LANES {
            return unsafe { self.load(from) };
        }
        let mut v = [0.0; LANES];
        for (i, x) in v.iter_mut().enumerate().take(count) {
            *x = unsafe { from.add(i).read() };
        }
        v
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::V) {
        unsafe { to.cast::<Self::V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, v: Self::V, count: usize) {
        if count == LANES {
            return unsafe { self.store(to, v) };
        }
        for (i, x) in v.iter().enumerate().take(count) {
            unsafe { to.add(i).write(*x) }
        }
    }
    #[inline(always)]
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: both squares are valid by the caller's promise.
                unsafe { to.add(i * to_stride + j).write(*from.add(j * from_stride + i)) }
            }
        }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| a[i] + b[i],
        )
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| a[i] - b[i],
        )
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| a[i] * b[i],
        )
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| a[i] / b[i],
        )
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| if a[i] > b[i] { a[i] } else { b[i] },
        )
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| if a[i] < b[i] { a[i] } else { b[i] },
        )
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Without the instruction a fused multiply-add is a slow call into the C library.
        if cfg!(target_arch = "aarch64") {
            each(
                #[inline(always)]
                |i| a[i].mul_add(b[i], c[i]),
            )
        } else {
            each(
                #[inline(always)]
                |i| a[i] * b[i] + c[i],
            )
        }
    }
    #[inline(always)]
    fn scale(self, a: Self::V, power: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| f32::from_bits(a[i].to_bits().wrapping_add(power[i].to_bits() << 23)),
        )
    }
    #[inline(always)]
    fn zero_below(self, a: Self::V, x: Self::V, bound: f32) -> Self::V {
        each(
            #[inline(always)]
            |i| if x[i] < bound { 0.0 } else { a[i] },
        )
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn maximum(self, a: Self::V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| c[i] + lower(a[i]) * lower(b[i]) + upper(a[i]) * upper(b[i]),
        )
    }
    #[inline(always)]
    fn pair(self, low: Self::V, high: Self::V) -> Self::V {
        each(
            #[inline(always)]
            |i| f32::from_bits(bf16_bits(low[i]) | bf16_bits(high[i]) << 16),
        )
    }
    #[inline(always)]
    fn narrow(self, a: Self::V, b: Self::V) -> Self::V {
        let all = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
        each(
            #[inline(always)]
            |i| f32::from_bits(bf16_bits(all[2 * i]) | bf16_bits(all[2 * i + 1]) << 16),
        )
    }
}

/// The high bf16 of a lane.
#[inline(always)]
fn upper(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & 0xffff_0000)
}

/// The low bf16 of a lane.
#[inline(always)]
fn lower(x: f32) -> f32 {
    f32::from_bits(x.to_bits() << 16)
}
