//! Counted FLOPs per token by size, and the frontier that follows: the least loss the law allows for each budget. The
//! usual 6ND is not good enough here, because the head and attention weigh most in small models.

use isoloss_fit::ScalingLaw;

use crate::lab::Lab;

/// Training FLOPs per token as a smooth function of the size on the axes: N (c0 + c1 N^(-1/3) + c2 N^(-2/3)), which is
/// what products, attention and head cost where depth and width grow together. Fitted to the runs' own counts, in
/// ratios; coefficients are not negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    cost: [f64; 3],
    /// ln of the geometric mean size, where searches start.
    centre: f64,
}

/// A point of the frontier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    pub flops: f64,
    pub params: f64,
    pub tokens: f64,
    pub loss: f64,
}

impl Ledger {
    /// From the runs that the law was fitted to; none where no run was.
    pub fn of(lab: &Lab) -> Option<Self> {
        let fitted = lab.runs.iter().filter(|run| lab.fitted(&run.arm));
        let points: Vec<(f64, f64)> =
            fitted.map(|run| (run.size(), run.flops().get() / run.tokens().as_f64())).collect();
        let usable = |(size, cost): &(f64, f64)| *size > 0.0 && *cost > 0.0 && cost.is_finite();
        if points.is_empty() || !points.iter().all(usable) {
            return None;
        }
        let centre = points.iter().map(|point| point.0.ln()).sum::<f64>() / points.len() as f64;
        Some(Self { cost: least_squares(&points)?, centre })
    }

    pub fn flops_per_token(&self, size: f64) -> f64 {
        size * terms(size).iter().zip(self.cost).map(|(term, c)| term * c).sum::<f64>()
    }

    /// The size whose training on `tokens` costs `flops`. Cost rises in size, so bisection is safe.
    pub fn size_for(&self, flops: f64, tokens: f64) -> f64 {
        let (mut low, mut high) = (0.0_f64, 80.0_f64);
        for _ in 0..80 {
            let middle = 0.5 * (low + high);
            if self.flops_per_token(middle.exp()) * tokens < flops {
                low = middle;
            } else {
                high = middle;
            }
        }
        (0.5 * (low + high)).exp()
    }

    /// The best size for a budget under the law, by counted FLOPs: a coarse look, then golden steps around the best.
    pub fn optimum(&self, law: &ScalingLaw, flops: f64) -> Option<Optimum> {
        law.exponents()?;
        let at = |x: f64| {
            let params = x.exp();
            let tokens = flops / self.flops_per_token(params);
            Optimum { flops, params, tokens, loss: law.loss(params, tokens) }
        };
        let grid = (0..=240).map(|i| at(self.centre - 15.0 + i as f64 * 0.125));
        let best = grid.min_by(|a, b| a.loss.total_cmp(&b.loss))?;
        let (mut low, mut high) = (best.params.ln() - 0.125, best.params.ln() + 0.125);
        for _ in 0..40 {
            let third = (high - low) / 3.0;
            if at(low + third).loss < at(high - third).loss {
                high -= third;
            } else {
                low += third;
            }
        }
        Some(at(0.5 * (low + high)))
    }
}

/// Cost over size, up to coefficients: products, attention, head.
fn terms(size: f64) -> [f64; 3] {
    [1.0, size.powf(-1.0 / 3.0), size.powf(-2.0 / 3.0)]
}

/// Non-negative least squares of relative errors: of the seven sets of terms, the best whose coefficients are positive.
fn least_squares(points: &[(f64, f64)]) -> Option<[f64; 3]> {
    let solve = |set: u8| {
        let used: Vec<usize> = (0..3).filter(|term| set >> term & 1 == 1).collect();
        let row = |point: &(f64, f64)| terms(point.0).map(|term| term * point.0 / point.1);
        let rows: Vec<[f64; 3]> = points.iter().map(row).collect();
        let normal = |a: usize, b: usize| rows.iter().map(|row| row[a] * row[b]).sum::<f64>();
        let matrix = used.iter().map(|a| used.iter().map(|b| normal(*a, *b)).collect()).collect();
        let right = used.iter().map(|a| rows.iter().map(|row| row[*a]).sum()).collect();
        let mut cost = [0.0; 3];
        for (term, value) in used.iter().zip(eliminate(matrix, right)?) {
            cost[*term] = value;
        }
        let error = |row: &[f64; 3]| (row.iter().zip(cost).map(|(x, c)| x * c).sum::<f64>() - 1.0).powi(2);
        let fits = cost.iter().all(|c| c.is_finite() && *c >= 0.0);
        fits.then(|| (rows.iter().map(error).sum::<f64>(), cost))
    };
    (1..8).filter_map(solve).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, cost)| cost)
}

/// Gaussian elimination with pivots; `None` where the points cannot tell the terms apart.
fn eliminate(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let scale = matrix[column][column];
        if scale.abs() < 1e-12 * right.len() as f64 {
            return None;
        }
        for row in column + 1..n {
            let factor = matrix[row][column] / scale;
            let above = matrix[column].clone();
            for (value, above) in matrix[row].iter_mut().zip(above) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|at| matrix[row][at] * right[at]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Some(right)
}
