//! One vector instruction set, chosen once at run time, behind a small trait; kernels are written once against it.
//!
//! A value of a [`Simd`] type is proof that the processor has its instructions: only [`Level`] makes them. Kernels are
//! declared with `kernel!` and run through [`Level::run`], the single place where a caller without the instructions
//! enters code compiled with them. No arithmetic of the model here.

#![expect(unsafe_code, reason = "entering code compiled for instructions that were detected at run time")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
mod stream;
#[cfg(test)]
mod tests;

pub(super) use stream::{exp, exp_sum, maximum, stream, sum_products};

/// A vector of f32 and what the engine does with it.
///
/// # Safety
/// An implementation's value must exist only where its instructions do, and the memory operations must touch no more
/// than the elements they name.
pub(super) unsafe trait Simd: Copy {
    type V: Copy;
    /// Says which of a vector's first elements take part.
    type Mask: Copy;
    const LANES: usize;
    /// Vectors across the widest tile of a matrix product: set by the number of registers.
    const TILE: usize;

    fn splat(self, x: f32) -> Self::V;
    /// The first `count` elements, at most `LANES`.
    fn mask(self, count: usize) -> Self::Mask;
    /// # Safety
    /// `from` must be valid for reading `LANES` elements.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// Elements beyond the mask are zero.
    /// # Safety
    /// `from` must be valid for reading the elements in the mask.
    unsafe fn load_part(self, from: *const f32, mask: Self::Mask) -> Self::V;
    /// # Safety
    /// `to` must be valid for writing `LANES` elements.
    unsafe fn store(self, to: *mut f32, v: Self::V);
    /// # Safety
    /// `to` must be valid for writing the elements in the mask.
    unsafe fn store_part(self, to: *mut f32, v: Self::V, mask: Self::Mask);
    /// Transposes the 8 by 8 square at `from` into `to`.
    /// # Safety
    /// Eight rows of eight elements must be valid at `from` for reading, at `to` for writing.
    unsafe fn transpose8(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the hardware can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Adds the integer in the low bits of `power` to the exponent of `a`: `a * 2^n` for normal results.
    fn scale(self, a: Self::V, power: Self::V) -> Self::V;
    /// `a` where `x >= bound` and where `x` is not a number, zero elsewhere.
    fn zero_below(self, a: Self::V, x: Self::V, bound: f32) -> Self::V;
    fn sum(self, a: Self::V) -> f32;
    fn maximum(self, a: Self::V) -> f32;

    /// `c` plus, lane by lane, the products of the two bf16 that a lane of `a` and of `b` holds.
    fn dot(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Both vectors rounded to bf16 (nearest, ties to even), `low` in the low half of each lane.
    fn pair(self, low: Self::V, high: Self::V) -> Self::V;
    /// The elements of `a` and then of `b` rounded to bf16, neighbours sharing a lane.
    fn narrow(self, a: Self::V, b: Self::V) -> Self::V;
}

/// Bits of the bf16 nearest to `x`, ties to even; what is not a number stays so.
#[inline(always)]
pub(super) fn bf16_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return bits >> 16 | 0x40;
    }
    (bits + (0x7fff + (bits >> 16 & 1))) >> 16
}

/// Work written against any instruction set.
pub(super) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction set in use.
#[derive(Clone, Copy)]
pub(super) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(avx512::Avx512<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    Portable(portable::Portable),
}

impl Level {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(avx512::Avx512::<true>::detect().map(Self::Avx512Bf16));
            levels.extend(avx512::Avx512::<false>::detect().map(Self::Avx512));
            levels.extend(avx2::Avx2::detect().map(Self::Avx2));
        }
        levels.push(Self::Portable(portable::Portable));
        levels
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => "avx512+bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2+fma",
            Self::Portable(_) => "portable",
        }
    }

    #[inline]
    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: the token exists, so the processor has the instructions that `enter` is compiled with.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(simd) => unsafe { avx512::enter_bf16(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => unsafe { avx512::enter(simd, kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => unsafe { avx2::enter(simd, kernel) },
            Self::Portable(simd) => kernel.run(simd),
        }
    }
}

/// Declares a function whose body is compiled for every instruction set and dispatched on its first argument.
/// Borrowed arguments carry the lifetime `'a`.
macro_rules! kernel {
    ($(#[$meta:meta])* fn $name:ident($simd:ident $(, $arg:ident: $type:ty)* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$meta])*
        pub(super) fn $name<'a>(level: $crate::cpu::simd::Level $(, $arg: $type)*) $(-> $output)? {
            struct Call<'a> {
                $($arg: $type,)*
                lifetime: std::marker::PhantomData<&'a ()>,
            }
            impl<'a> $crate::cpu::simd::Kernel for Call<'a> {
                type Output = $crate::cpu::simd::output!($($output)?);
                #[inline(always)]
                fn run<S: $crate::cpu::simd::Simd>(self, $simd: S) -> Self::Output {
                    let Call { $($arg,)* .. } = self;
                    $body
                }
            }
            level.run(Call { $($arg,)* lifetime: std::marker::PhantomData })
        }
    };
}

macro_rules! output {
    () => {
        ()
    };
    ($output:ty) => {
        $output
    };
}

pub(super) use {kernel, output};
