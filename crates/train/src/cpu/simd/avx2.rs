//! 8 lanes by AVX2 and FMA.

#![expect(unsafe_code, reason = "intrinsics: an `Avx2` exists only where detection found its instructions")]

use std::arch::x86_64::*;
use std::array;

use super::{Kernel, Simd};

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

/// # Safety
/// The processor must have the named instructions, which the token proves.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn enter<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// The high bf16 of each lane as f32.
#[inline(always)]
unsafe fn upper(x: __m256) -> __m256 {
    unsafe { _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32))) }
}

/// The low bf16 of each lane as f32.
#[inline(always)]
unsafe fn lower(x: __m256) -> __m256 {
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(x))) }
}

/// The bf16 nearest to each element, in the low half of its lane.
#[inline(always)]
unsafe fn shifted(x: __m256) -> __m256i {
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let unordered = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(sum, quiet, unordered))
    }
}

/// Pairs, then quads, then halves of rows change places.
///
/// # Safety
/// Eight rows of eight elements must be valid at `from` for reading, at `to` for writing; AVX2 must be there.
#[inline(always)]
pub(super) unsafe fn transpose8(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    unsafe {
        let row: [__m256; 8] = array::from_fn(
            #[inline(always)]
            |i| _mm256_loadu_ps(from.add(i * from_stride)),
        );
        let pair: [__m256; 8] = array::from_fn(
            #[inline(always)]
            |i| {
                let (a, b) = (row[i / 2 * 2], row[i / 2 * 2 + 1]);
                if i % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
            },
        );
        let quad: [__m256; 8] = array::from_fn(
            #[inline(always)]
            |i| {
                let first = i / 4 * 4 + i % 4 / 2;
                let (a, b) = (pair[first], pair[first + 2]);
                if i % 2 == 0 { _mm256_shuffle_ps::<0x44>(a, b) } else { _mm256_shuffle_ps::<0xee>(a, b) }
            },
        );
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * to_stride), _mm256_permute2f128_ps::<0x20>(quad[i], quad[i + 4]));
            _mm256_storeu_ps(to.add((i + 4) * to_stride), _mm256_permute2f128_ps::<0x31>(quad[i], quad[i + 4]));
        }
    }
}

/// Eight ones and eight zeros: a mask of `count` starts at `8 - count`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY: values come from `detect` alone; partial operations touch the masked elements only.
unsafe impl Simd for Avx2 {
    type V = __m256;
    type Mask = (usize, __m256i);
    const LANES: usize = 8;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn mask(self, count: usize) -> (usize, __m256i) {
        let window = &MASKS[8 - count..][..8];
        // SAFETY: the window has eight elements.
        (count, unsafe { _mm256_loadu_si256(window.as_ptr().cast()) })
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, (_, mask): (usize, __m256i)) -> __m256 {
        unsafe { _mm256_maskload_ps(from, mask) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, v: __m256, (count, _): (usize, __m256i)) {
        // Masked stores are microcoded on AMD before Zen 4; going through memory is quicker.
        if count == 8 {
            unsafe { _mm256_storeu_ps(to, v) }
        } else {
            let mut parts = [0f32; 8];
            unsafe {
                _mm256_storeu_ps(parts.as_mut_ptr(), v);
                std::ptr::copy_nonoverlapping(parts.as_ptr(), to, count);
            }
        }
    }
    #[inline(always)]
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's promise.
        unsafe { transpose8(from, from_stride, to, to_stride) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn scale(self, a: __m256, power: __m256) -> __m256 {
        unsafe {
            let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(power));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), shifted))
        }
    }
    #[inline(always)]
    fn zero_below(self, a: __m256, x: __m256, bound: f32) -> __m256 {
        unsafe { _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(bound))) }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn maximum(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn dot(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(upper(a), upper(b), _mm256_fmadd_ps(lower(a), lower(b), c)) }
    }
    #[inline(always)]
    fn pair(self, low: __m256, high: __m256) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_or_si256(shifted(low), _mm256_slli_epi32::<16>(shifted(high)))) }
    }
    #[inline(always)]
    fn narrow(self, a: __m256, b: __m256) -> __m256 {
        unsafe {
            // Packing works within each 128-bit half, so its quarters come out as a, b, a, b.
            let packed = _mm256_packus_epi32(shifted(a), shifted(b));
            _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0b11_01_10_00>(packed))
        }
    }
}
