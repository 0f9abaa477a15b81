//! Out-of-place transposition, by squares of eight.

#![expect(unsafe_code, reason = "squares move through pointers; extents are checked first")]

use super::simd::kernel;

kernel! {
    /// `to[j, i] = from[i, j]` for `from` `[height, width]`, rows `from_stride` and `to_stride` apart.
    fn transpose(
        simd, height: usize, width: usize, from: &'a [f32], from_stride: usize, to: &'a mut [f32], to_stride: usize,
    ) {
        if height == 0 || width == 0 {
            return;
        }
        assert!((height - 1) * from_stride + width <= from.len(), "the source is too small");
        assert!((width - 1) * to_stride + height <= to.len(), "the target is too small");
        let (squares_down, squares_across) = (height / 8 * 8, width / 8 * 8);
        for i in (0..squares_down).step_by(8) {
            for j in (0..squares_across).step_by(8) {
                // SAFETY: rows i..i+8 and columns j..j+8 lie inside both matrices, whose extents are checked above.
                unsafe {
                    let source = from.as_ptr().add(i * from_stride + j);
                    simd.transpose8(source, from_stride, to.as_mut_ptr().add(j * to_stride + i), to_stride);
                }
            }
            for j in squares_across..width {
                for i in i..i + 8 {
                    to[j * to_stride + i] = from[i * from_stride + j];
                }
            }
        }
        for i in squares_down..height {
            for j in 0..width {
                to[j * to_stride + i] = from[i * from_stride + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Level;

    #[test]
    fn every_path_moves_every_element_and_no_other() {
        for level in Level::available() {
            for (height, width) in [(1, 1), (8, 8), (7, 9), (16, 24), (19, 33), (256, 20)] {
                let from: Vec<f32> = (0..height * (width + 3)).map(|i| i as f32).collect();
                let mut to = vec![-1.0; width * (height + 2)];
                transpose(level, height, width, &from, width + 3, &mut to, height + 2);
                for (at, &found) in to.iter().enumerate() {
                    let (j, i) = (at / (height + 2), at % (height + 2));
                    let expected = if i < height { from[i * (width + 3) + j] } else { -1.0 };
                    assert_eq!(found, expected, "{} [{height}, {width}] at ({j}, {i})", level.name());
                }
            }
        }
    }
}
