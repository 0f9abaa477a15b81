//! Small dense symmetric systems on the stack: Cholesky and eigenvalues. Not for more than a handful of unknowns.

use crate::law::PARAMETERS_MAX;
use crate::problem::{Matrix, Vector};

/// Solves `matrix x = right` over the unknowns in `free`; `None` where that part is not positive definite.
pub(crate) fn solve(matrix: &Matrix, right: &Vector, free: &[usize]) -> Option<Vector> {
    let n = free.len();
    let mut lower = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let rest = matrix[free[i]][free[j]] - dot;
            if i == j {
                // Relative to the diagonal, so that rounding alone cannot pass for definiteness.
                if rest.is_nan() || rest <= 1e-15 * matrix[free[i]][free[i]] || rest <= 0.0 {
                    return None;
                }
                lower[i][i] = rest.sqrt();
            } else {
                lower[i][j] = rest / lower[j][j];
            }
        }
    }
    let mut half = [0.0; PARAMETERS_MAX];
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| lower[i][k] * half[k]).sum();
        half[i] = (right[free[i]] - dot) / lower[i][i];
    }
    let mut solution = [0.0; PARAMETERS_MAX];
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| lower[k][i] * solution[free[k]]).sum();
        solution[free[i]] = (half[i] - dot) / lower[i][i];
    }
    Some(solution)
}

/// Copies the upper triangle of the leading `n` by `n` part to the lower.
pub(crate) fn mirror(matrix: &mut Matrix, n: usize) {
    for i in 1..n {
        let column: Vector = std::array::from_fn(|j| matrix[j][i]);
        matrix[i][..i].copy_from_slice(&column[..i]);
    }
}

/// Eigenvalues of the leading `n` by `n` part, by Jacobi rotations, in no order.
pub(crate) fn eigenvalues(matrix: &Matrix, n: usize) -> Vec<f64> {
    let mut m = *matrix;
    for _ in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| m[i][j] * m[i][j]).sum();
        if off < 1e-30 {
            break;
        }
        for i in 1..n {
            for j in 0..i {
                rotate(&mut m, n, j, i);
            }
        }
    }
    (0..n).map(|i| m[i][i]).collect()
}

/// One Jacobi rotation that zeroes `m[a][b]`.
fn rotate(m: &mut Matrix, n: usize, a: usize, b: usize) {
    if m[a][b] == 0.0 {
        return;
    }
    let ratio = (m[b][b] - m[a][a]) / (2.0 * m[a][b]);
    let t = ratio.signum() / (ratio.abs() + (1.0 + ratio * ratio).sqrt());
    let (cos, sin) = {
        let c = 1.0 / (1.0 + t * t).sqrt();
        (c, t * c)
    };
    for row in m.iter_mut().take(n) {
        (row[a], row[b]) = (cos * row[a] - sin * row[b], sin * row[a] + cos * row[b]);
    }
    let (upper, lower) = (m[a], m[b]);
    for k in 0..n {
        m[a][k] = cos * upper[k] - sin * lower[k];
        m[b][k] = sin * upper[k] + cos * lower[k];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hilbert() -> Matrix {
        std::array::from_fn(|i| std::array::from_fn(|j| 1.0 / (i + j + 1) as f64))
    }

    #[test]
    fn solves_a_part_and_refuses_the_indefinite() {
        let right = [1.0; PARAMETERS_MAX];
        let free = [0, 2, 3];
        let solution = solve(&hilbert(), &right, &free).unwrap();
        for i in free {
            let product: f64 = free.iter().map(|&j| hilbert()[i][j] * solution[j]).sum();
            assert!((product - 1.0).abs() < 1e-9);
        }
        let mut flipped = hilbert();
        flipped[3][3] = -1.0;
        assert!(solve(&flipped, &right, &free).is_none());
    }

    #[test]
    fn eigenvalues_keep_trace_and_determinant() {
        let values = eigenvalues(&hilbert(), 3);
        let (sum, product): (f64, f64) = (values.iter().sum(), values.iter().product());
        assert!((sum - (1.0 + 1.0 / 3.0 + 0.2)).abs() < 1e-12);
        assert!((product - 1.0 / 2160.0).abs() < 1e-12);
    }
}
