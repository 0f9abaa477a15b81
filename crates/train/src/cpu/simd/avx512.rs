//! 16 lanes by AVX-512F; with `BF16`, products of bf16 pairs by AVX512_BF16, without it by shifts and multiply-adds.

#![expect(unsafe_code, reason = "intrinsics: an `Avx512` exists only where detection found its instructions")]

use std::arch::x86_64::*;
use std::mem::transmute;

use super::avx2::transpose8;
use super::{Kernel, Simd};

/// Proof that the processor has AVX-512F, AVX2 and FMA, and AVX512_BF16 where `BF16`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Avx512<const BF16: bool>(());

impl<const BF16: bool> Avx512<BF16> {
    pub(super) fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        (found && (!BF16 || is_x86_feature_detected!("avx512bf16"))).then_some(Self(()))
    }
}

/// # Safety
/// The processor must have the named instructions, which the token proves.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) unsafe fn enter<K: Kernel>(simd: Avx512<false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// # Safety
/// The processor must have the named instructions, which the token proves.
#[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
pub(super) unsafe fn enter_bf16<K: Kernel>(simd: Avx512<true>, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// The high bf16 of each lane as f32.
#[inline(always)]
unsafe fn upper(x: __m512) -> __m512 {
    unsafe {
        let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), high))
    }
}

/// The low bf16 of each lane as f32.
#[inline(always)]
unsafe fn lower(x: __m512) -> __m512 {
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(x))) }
}

/// The bf16 nearest to each element, in the low half of its lane, by AVX512_BF16.
#[inline(always)]
unsafe fn widened(x: __m512) -> __m512i {
    unsafe { _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x))) }
}

/// The same without it.
#[inline(always)]
unsafe fn shifted(x: __m512) -> __m512i {
    unsafe {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let unordered = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        let nearest = _mm512_mask_or_epi32(sum, unordered, bits, _mm512_set1_epi32(0x40_0000));
        _mm512_srli_epi32::<16>(nearest)
    }
}

// SAFETY: values come from `detect` alone; masked operations touch the masked elements only.
unsafe impl<const BF16: bool> Simd for Avx512<BF16> {
    type V = __m512;
    type Mask = __mmask16;
    const LANES: usize = 16;
    const TILE: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn mask(self, count: usize) -> __mmask16 {
        ((1u32 << count) - 1) as __mmask16
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, mask: __mmask16) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(to, v) }
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, v: __m512, mask: __mmask16) {
        unsafe { _mm512_mask_storeu_ps(to, mask, v) }
    }
    #[inline(always)]
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's promise; detection found AVX2 too.
        unsafe { transpose8(from, from_stride, to, to_stride) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn scale(self, a: __m512, power: __m512) -> __m512 {
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(power));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), shifted))
        }
    }
    #[inline(always)]
    fn zero_below(self, a: __m512, x: __m512, bound: f32) -> __m512 {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(bound));
            _mm512_maskz_mov_ps(kept, a)
        }
    }
    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn maximum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    fn dot(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe {
            if BF16 {
                return _mm512_dpbf16_ps(c, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b));
            }
            _mm512_fmadd_ps(upper(a), upper(b), _mm512_fmadd_ps(lower(a), lower(b), c))
        }
    }
    #[inline(always)]
    fn pair(self, low: __m512, high: __m512) -> __m512 {
        unsafe {
            let (low, high) = if BF16 { (widened(low), widened(high)) } else { (shifted(low), shifted(high)) };
            _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32::<16>(high)))
        }
    }
    #[inline(always)]
    fn narrow(self, a: __m512, b: __m512) -> __m512 {
        unsafe {
            if BF16 {
                return transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(b, a));
            }
            let (a, b) = (_mm512_cvtepi32_epi16(shifted(a)), _mm512_cvtepi32_epi16(shifted(b)));
            _mm512_castsi512_ps(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b))
        }
    }
}
