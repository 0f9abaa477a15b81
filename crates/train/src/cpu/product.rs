//! Matrix products `C (+)= A B` on strided views: one register-tiled kernel for every instruction set.
//!
//! A is read element by element, so it may be a transpose; B and C are row-major. Nothing is packed: the operands of
//! these models sit in cache as they are. In bf16 an element of A and B is a [`Pair`], two neighbours along the summed
//! dimension, and everything else is the same.

#![expect(unsafe_code, reason = "the inner loop runs on pointers; `ready` checks the extents of all three views first")]

use super::pairs::Pair;
use super::simd::{Simd, kernel};

#[cfg(test)]
mod tests;

/// Rows of B that one pass over C takes, so that its panel stays near the first-level cache.
const DEPTH: usize = 256;

/// A matrix read by element: element (i, j) at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T = f32> {
    data: &'a [T],
    row: usize,
    column: usize,
}

/// Row-major A with rows `stride` apart.
pub(super) fn rows<T>(data: &[T], stride: usize) -> Left<'_, T> {
    Left { data, row: stride, column: 1 }
}

/// The transpose of a row-major matrix with rows `stride` apart.
pub(super) fn transposed<T>(data: &[T], stride: usize) -> Left<'_, T> {
    Left { data, row: 1, column: stride }
}

/// Rows, columns and the summed dimension of a product.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

kernel! {
    /// `c = a b`, or `c += a b` with `add`; `b` is `[k, n]` and `c` `[m, n]`, rows `b_stride` and `c_stride` apart.
    fn product(
        simd, extent: Extent, a: Left<'a>, b: &'a [f32], b_stride: usize, c: &'a mut [f32], c_stride: usize, add: bool,
    ) {
        if ready(extent, a, b, b_stride, c, c_stride, add) {
            let (a_from, b_from) = (a.data.as_ptr(), b.as_ptr());
            // SAFETY: `ready` has checked every element of the three views.
            unsafe { depths::<_, false>(simd, extent, a_from, [a.row, a.column], b_from, b_stride, c, c_stride, add) };
        }
    }
}

kernel! {
    /// The same on pairs of bf16, summed in f32: `k` counts pairs, `b` is `[k, n]` of them.
    fn product_of_pairs(
        simd, extent: Extent, a: Left<'a, Pair>, b: &'a [Pair], b_stride: usize, c: &'a mut [f32], c_stride: usize,
        add: bool,
    ) {
        if ready(extent, a, b, b_stride, c, c_stride, add) {
            let (a_from, b_from) = (a.data.as_ptr().cast(), b.as_ptr().cast());
            // SAFETY: as above; a pair has the size and alignment of an f32, and every bit pattern is one.
            unsafe { depths::<_, true>(simd, extent, a_from, [a.row, a.column], b_from, b_stride, c, c_stride, add) };
        }
    }
}

/// Checks the extents of the three views; false when there is nothing to sum, which is then done.
#[inline(always)]
fn ready<T>(
    extent: Extent,
    a: Left<'_, T>,
    b: &[T],
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) -> bool {
    let Extent { m, n, k } = extent;
    if m == 0 || n == 0 {
        return false;
    }
    assert!(m == 1 || n <= c_stride, "rows of c overlap");
    assert!((m - 1) * c_stride + n <= c.len(), "c is too small");
    if k == 0 {
        if !add {
            c.chunks_mut(c_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return false;
    }
    assert!((m - 1) * a.row + (k - 1) * a.column < a.data.len(), "a is too small");
    assert!((k - 1) * b_stride + n <= b.len(), "b is too small");
    true
}

/// The product, some rows of B at a time.
///
/// # Safety
/// All elements of the three views must be there, as [`ready`] checks.
#[inline(always)]
unsafe fn depths<S: Simd, const PAIRS: bool>(
    simd: S,
    extent: Extent,
    a: *const f32,
    [a_row, a_column]: [usize; 2],
    b: *const f32,
    b_stride: usize,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) {
    let Extent { m, n, k } = extent;
    let mut done = 0;
    while done < k {
        let depth = DEPTH.min(k - done);
        // SAFETY: the caller's promise; the parts stay inside the views.
        unsafe {
            let operands = Operands {
                k: depth,
                a: a.add(done * a_column),
                a_row,
                a_column,
                b: b.add(done * b_stride),
                b_stride,
                c: c.as_mut_ptr(),
                c_stride,
                add: add || done > 0,
            };
            panels::<S, PAIRS>(simd, m, n, operands);
        }
        done += depth;
    }
}

/// Where a part of the product starts.
#[derive(Clone, Copy)]
struct Operands {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
}

impl Operands {
    /// The same, from `row` on.
    ///
    /// # Safety
    /// A and C must have that row.
    #[inline(always)]
    unsafe fn down(self, row: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { a: self.a.add(row * self.a_row), c: self.c.add(row * self.c_stride), ..self } }
    }
}

/// Cuts the columns into panels as wide as a tile.
///
/// # Safety
/// The views of an `m` by `n` product must be readable and C writable.
#[inline(always)]
unsafe fn panels<S: Simd, const PAIRS: bool>(simd: S, m: usize, n: usize, all: Operands) {
    let mut column = 0;
    while column < n {
        let wide = (n - column).min(S::TILE * S::LANES);
        let vectors = wide.div_ceil(S::LANES);
        let mask = simd.mask(wide - (vectors - 1) * S::LANES);
        // SAFETY: `column < n`; each panel covers `wide <= n - column` columns, the last vector through its mask. Tile
        // heights fill the registers: 32 vector registers hold 24 sums, 16 hold 12.
        unsafe {
            let part = Operands { b: all.b.add(column), c: all.c.add(column), ..all };
            match vectors {
                4 => panel::<S, 6, 4, PAIRS>(simd, m, part, mask),
                3 => panel::<S, 8, 3, PAIRS>(simd, m, part, mask),
                2 if S::TILE == 4 => panel::<S, 12, 2, PAIRS>(simd, m, part, mask),
                2 => panel::<S, 6, 2, PAIRS>(simd, m, part, mask),
                _ => panel::<S, 12, 1, PAIRS>(simd, m, part, mask),
            }
        }
        column += wide;
    }
}

/// One panel, by tiles of `R` rows and then by 8, 4, 2 and 1.
///
/// # Safety
/// As [`panels`], with `C - 1` whole vectors of columns and the mask's.
#[inline(always)]
unsafe fn panel<S: Simd, const R: usize, const C: usize, const PAIRS: bool>(
    simd: S,
    m: usize,
    part: Operands,
    mask: S::Mask,
) {
    let mut row = 0;
    // SAFETY: a tile starts at `row` only when its rows are below `m`.
    unsafe {
        while row + R <= m {
            tile::<S, R, C, PAIRS>(simd, part.down(row), mask);
            row += R;
        }
        if R > 8 && row + 8 <= m {
            tile::<S, 8, C, PAIRS>(simd, part.down(row), mask);
            row += 8;
        }
        if row + 4 <= m {
            tile::<S, 4, C, PAIRS>(simd, part.down(row), mask);
            row += 4;
        }
        if row + 2 <= m {
            tile::<S, 2, C, PAIRS>(simd, part.down(row), mask);
            row += 2;
        }
        if row < m {
            tile::<S, 1, C, PAIRS>(simd, part.down(row), mask);
        }
    }
}

/// `R` rows by `C` vectors of C, summed in registers over k.
///
/// # Safety
/// As [`panel`], for exactly `R` rows.
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const C: usize, const PAIRS: bool>(simd: S, part: Operands, mask: S::Mask) {
    let mut sums = [[simd.splat(0.0); C]; R];
    let (mut a, mut b) = (part.a, part.b);
    // SAFETY: row i of A is at `a + i * a_row`, row k of B at `b`, and both end before the views do: the pointers are
    // advanced past the last element only after its use, with wrapping arithmetic.
    unsafe {
        for _ in 0..part.k {
            let mut columns = [simd.splat(0.0); C];
            for (j, column) in columns.iter_mut().enumerate() {
                let from = b.add(j * S::LANES);
                *column = if j + 1 == C { simd.load_part(from, mask) } else { simd.load(from) };
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let x = simd.splat(*a.add(i * part.a_row));
                for j in 0..C {
                    row[j] = if PAIRS { simd.dot(x, columns[j], row[j]) } else { simd.fma(x, columns[j], row[j]) };
                }
            }
            a = a.wrapping_add(part.a_column);
            b = b.wrapping_add(part.b_stride);
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, &sum) in row.iter().enumerate() {
                let to = part.c.add(i * part.c_stride + j * S::LANES);
                if j + 1 == C {
                    let sum = if part.add { simd.add(simd.load_part(to, mask), sum) } else { sum };
                    simd.store_part(to, sum, mask);
                } else {
                    let sum = if part.add { simd.add(simd.load(to), sum) } else { sum };
                    simd.store(to, sum);
                }
            }
        }
    }
}
