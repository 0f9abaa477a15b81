//! Symmetric matrices of any size, and Cholesky's factor of one. Only what the design of experiments needs.

/// A matrix by rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matrix {
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// From a function of row and column.
    pub(crate) fn of(rows: usize, columns: usize, mut value: impl FnMut(usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(rows * columns);
        for i in 0..rows {
            values.extend((0..columns).map(|j| value(i, j)));
        }
        Self { columns, values }
    }

    pub(crate) fn row(&self, at: usize) -> &[f64] {
        &self.values[at * self.columns..][..self.columns]
    }

    pub(crate) fn row_mut(&mut self, at: usize) -> &mut [f64] {
        &mut self.values[at * self.columns..][..self.columns]
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    /// Adds `factor * other`, of equal shape.
    pub(crate) fn add(&mut self, factor: f64, other: &Self) {
        self.values.iter_mut().zip(&other.values).for_each(|(value, other)| *value += factor * other);
    }

    /// Adds `factor * column column'`.
    pub(crate) fn add_square(&mut self, factor: f64, column: &[f64]) {
        for (row, value) in self.values.chunks_exact_mut(self.columns).zip(column) {
            let scale = factor * value;
            row.iter_mut().zip(column).for_each(|(sum, other)| *sum += scale * other);
        }
    }
}

/// The lower factor L of A = L L'.
#[derive(Debug, Clone)]
pub(crate) struct Cholesky {
    lower: Matrix,
}

impl Cholesky {
    /// `None` where the matrix is not positive definite.
    pub(crate) fn of(matrix: &Matrix) -> Option<Self> {
        let n = matrix.columns;
        let mut lower = Matrix::of(n, n, |_, _| 0.0);
        for i in 0..n {
            for j in 0..=i {
                let dot: f64 = lower.row(i)[..j].iter().zip(&lower.row(j)[..j]).map(|(a, b)| a * b).sum();
                let rest = matrix.at(i, j) - dot;
                let value = if i == j { rest.sqrt() } else { rest / lower.at(j, j) };
                if !(value.is_finite() && (i != j || value > 0.0)) {
                    return None;
                }
                lower.row_mut(i)[j] = value;
            }
        }
        Some(Self { lower })
    }

    /// L^-1 b.
    pub(crate) fn half(&self, b: &[f64]) -> Vec<f64> {
        let mut x: Vec<f64> = Vec::with_capacity(b.len());
        for (i, b) in b.iter().enumerate() {
            let dot: f64 = self.lower.row(i)[..i].iter().zip(&x).map(|(a, b)| a * b).sum();
            x.push((b - dot) / self.lower.at(i, i));
        }
        x
    }

    /// A^-1 b.
    pub(crate) fn solve(&self, b: &[f64]) -> Vec<f64> {
        let mut x = self.half(b);
        for i in (0..x.len()).rev() {
            let dot: f64 = (i + 1..x.len()).map(|k| self.lower.at(k, i) * x[k]).sum();
            x[i] = (x[i] - dot) / self.lower.at(i, i);
        }
        x
    }

    /// ln det A.
    pub(crate) fn ln_det(&self) -> f64 {
        2.0 * (0..self.lower.columns).map(|i| self.lower.at(i, i).ln()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_gives_back_the_matrix_and_refuses_the_indefinite() {
        let hilbert = Matrix::of(4, 4, |i, j| 1.0 / (i + j + 1) as f64);
        let factor = Cholesky::of(&hilbert).unwrap();
        let half = factor.half(&[1.0, 0.0, 0.0, 0.0]);
        // The first element of the inverse of the 4 by 4 Hilbert matrix is 16, its determinant 1/6048000.
        assert!((half.iter().map(|v| v * v).sum::<f64>() - 16.0).abs() < 1e-9);
        let whole = factor.solve(&[1.0, 0.0, 0.0, 0.0]);
        // Its first column is 16, -120, 240, -140.
        assert!(whole.iter().zip([16.0, -120.0, 240.0, -140.0]).all(|(a, b)| (a - b).abs() < 1e-8), "{whole:?}");
        assert!((factor.ln_det() + 6_048_000_f64.ln()).abs() < 1e-9);
        assert!(Cholesky::of(&Matrix::of(2, 2, |i, j| if i == j { 1.0 } else { 2.0 })).is_none());
    }
}
