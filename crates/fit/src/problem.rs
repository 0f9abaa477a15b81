//! A law against rows: the model of ln loss with its derivatives, and the Huber objective. It does not search.
//!
//! Inside a fit everything is centred: ln params and ln tokens at their means, the loss in units of its geometric
//! mean, so that coefficients are of order one. The objective is the sum of the Huber loss over delta squared, so no
//! tolerance depends on delta or on sums or means.

use crate::law::{Law, PARAMETERS_MAX};
use crate::linear::mirror;
use crate::observation::Observation;
use crate::scaling::ScalingLaw;

/// An internal parameter vector or gradient; the law's dimension says how much of it is used.
pub(crate) type Vector = [f64; PARAMETERS_MAX];
pub(crate) type Matrix = [Vector; PARAMETERS_MAX];

/// One centred point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// ln params and ln tokens.
    pub(crate) x: [f64; 2],
    /// ln loss.
    pub(crate) y: f64,
    /// Multiplicity in a resample.
    pub(crate) weight: f64,
}

/// A law, its data and the threshold of the Huber loss.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) law: &'static Law,
    pub(crate) rows: Vec<Row>,
    pub(crate) delta: f64,
    centre: [f64; 2],
    ln_scale: f64,
}

/// ln of the fitted loss at a row with its derivatives.
pub(crate) struct Point {
    pub(crate) value: f64,
    pub(crate) gradient: Vector,
    pub(crate) hessian: Matrix,
}

/// The objective with its derivatives.
pub(crate) struct Slope {
    pub(crate) objective: f64,
    pub(crate) gradient: Vector,
    /// Second derivatives (upper triangle mirrored).
    pub(crate) hessian: Matrix,
    /// Weighted J^T J with the weights of iterated least squares: positive semidefinite.
    pub(crate) gauss: Matrix,
}

impl Problem {
    pub(crate) fn new(law: &'static Law, rows: &[Observation], delta: f64) -> Self {
        let count = rows.len().max(1) as f64;
        let mean = |of: fn(&Observation) -> f64| rows.iter().map(|row| of(row).ln()).sum::<f64>() / count;
        let centre = [mean(|row| row.params), mean(|row| row.tokens)];
        let ln_scale = mean(|row| row.loss);
        let centred = |row: &Observation| Row {
            x: [row.params.ln() - centre[0], row.tokens.ln() - centre[1]],
            y: row.loss.ln() - ln_scale,
            weight: 1.0,
        };
        Self { law, rows: rows.iter().map(centred).collect(), delta, centre, ln_scale }
    }

    pub(crate) fn scaling_law(&self, theta: &Vector) -> ScalingLaw {
        ScalingLaw::from_internal(self.law, &theta[..self.law.dimension()], self.centre, self.ln_scale)
    }

    /// Centred ln params and ln tokens.
    pub(crate) fn place(&self, row: &Observation) -> [f64; 2] {
        [row.params.ln() - self.centre[0], row.tokens.ln() - self.centre[1]]
    }

    /// The loss that is 1 inside the fit.
    pub(crate) fn loss_unit(&self) -> f64 {
        self.ln_scale.exp()
    }

    pub(crate) fn smallest_loss(&self) -> f64 {
        self.rows.iter().map(|row| row.y).fold(f64::INFINITY, f64::min).exp()
    }

    /// ln of the fitted loss over the observed one, row by row.
    pub(crate) fn residuals(&self, theta: &Vector) -> Vec<f64> {
        self.rows.iter().map(|row| value(self.law, theta, row.x) - row.y).collect()
    }

    /// Sum of the Huber loss over delta squared.
    pub(crate) fn objective(&self, theta: &Vector) -> f64 {
        let loss = |row: &Row| row.weight * huber((value(self.law, theta, row.x) - row.y) / self.delta);
        self.rows.iter().filter(|row| row.weight > 0.0).map(loss).sum()
    }

    /// The objective with first and second derivatives.
    pub(crate) fn slope(&self, theta: &Vector) -> Slope {
        let p = self.law.dimension();
        let mut slope = Slope {
            objective: 0.0,
            gradient: [0.0; PARAMETERS_MAX],
            hessian: [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX],
            gauss: [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX],
        };
        for row in self.rows.iter().filter(|row| row.weight > 0.0) {
            let point = point(self.law, theta, row.x);
            let r = (point.value - row.y) / self.delta;
            slope.objective += row.weight * huber(r);
            let pull = row.weight * r.clamp(-1.0, 1.0) / self.delta;
            let curve = if r.abs() <= 1.0 { row.weight / (self.delta * self.delta) } else { 0.0 };
            let least_squares = row.weight / (self.delta * self.delta * r.abs().max(1.0));
            for i in 0..p {
                slope.gradient[i] += pull * point.gradient[i];
                for j in i..p {
                    let square = point.gradient[i] * point.gradient[j];
                    slope.hessian[i][j] += curve * square + pull * point.hessian[i][j];
                    slope.gauss[i][j] += least_squares * square;
                }
            }
        }
        mirror(&mut slope.hessian, p);
        mirror(&mut slope.gauss, p);
        slope
    }
}

/// Huber loss with threshold one.
pub(crate) fn huber(r: f64) -> f64 {
    let size = r.abs();
    if size <= 1.0 { 0.5 * r * r } else { size - 0.5 }
}

/// Logarithms of the terms at a centred point.
fn ln_terms(law: &Law, theta: &Vector, x: [f64; 2]) -> Vector {
    let mut terms = [f64::NEG_INFINITY; PARAMETERS_MAX];
    for (at, term) in law.terms.iter().enumerate() {
        terms[at] = theta[at];
        for factor in term.factors {
            terms[at] -= theta[law.exponent_at(factor.exponent)] * x[factor.variable.index()];
        }
    }
    terms
}

/// ln of the fitted loss.
pub(crate) fn value(law: &Law, theta: &Vector, x: [f64; 2]) -> f64 {
    let terms = ln_terms(law, theta, x);
    let terms = &terms[..law.terms.len()];
    let offset = law.offset_at().map_or(0.0, |at| theta[at]);
    let Some(at) = law.joint_at() else {
        return (offset + terms.iter().map(|t| t.exp()).sum::<f64>()).ln();
    };
    let top = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|t| ((t - top) / theta[at]).exp()).sum();
    (offset + (top + theta[at] * sum.ln()).exp()).ln()
}

/// ln of the fitted loss with derivatives by hand.
///
/// With G = q lse(t / q) over the logarithms t of the terms, p = softmax(t / q) and z_j = dt_j/dtheta:
/// dG = sum p_j z_j, dG/dq = entropy of p, d2G = (sum p_j z_j z_j' - dG dG') / q,
/// d2G/dq dtheta = -(sum p_j (t_j - t) z_j) / q^2, d2G/dq2 = var_p(t) / q^3; then ln(E + e^G) by the chain rule.
pub(crate) fn point(law: &Law, theta: &Vector, x: [f64; 2]) -> Point {
    let p = law.dimension();
    let terms = ln_terms(law, theta, x);
    let count = law.terms.len();
    let q = law.joint_at().map_or(1.0, |at| theta[at]);
    let top = terms[..count].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut share = [0.0; PARAMETERS_MAX];
    for j in 0..count {
        share[j] = ((terms[j] - top) / q).exp();
    }
    let sum: f64 = share[..count].iter().sum();
    let ln_reducible = top + q * sum.ln();
    let mean: f64 = (0..count).map(|j| share[j] / sum * terms[j]).sum();

    let mut first = [0.0; PARAMETERS_MAX];
    let mut second = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
    let mut variance = 0.0;
    for (j, term) in law.terms.iter().enumerate() {
        let weight = share[j] / sum;
        let away = terms[j] - mean;
        variance += weight * away * away;
        let mut z = [0.0; PARAMETERS_MAX];
        z[j] = 1.0;
        for factor in term.factors {
            z[law.exponent_at(factor.exponent)] -= x[factor.variable.index()];
        }
        for i in 0..p {
            first[i] += weight * z[i];
            for k in i..p {
                second[i][k] += weight * z[i] * z[k] / q;
            }
            if let Some(at) = law.joint_at() {
                second[i][at] -= weight * away * z[i] / (q * q);
            }
        }
    }
    for i in 0..p {
        for k in i..p {
            second[i][k] -= first[i] * first[k] / q;
        }
    }
    if let Some(at) = law.joint_at() {
        first[at] = (ln_reducible - mean) / q;
        second[at][at] = variance / (q * q * q);
    }
    with_offset(law, theta, ln_reducible, first, second)
}

/// From ln of the reducible loss to ln of the loss.
fn with_offset(law: &Law, theta: &Vector, ln_reducible: f64, mut first: Vector, mut second: Matrix) -> Point {
    let p = law.dimension();
    let Some(at) = law.offset_at() else {
        return Point { value: ln_reducible, gradient: first, hessian: second };
    };
    let reducible = ln_reducible.exp();
    let loss = theta[at] + reducible;
    let share = reducible / loss;
    for i in 0..at {
        for k in i..at {
            second[i][k] = share * (second[i][k] + (1.0 - share) * first[i] * first[k]);
        }
        second[i][at] = -share * first[i] / loss;
    }
    for slope in &mut first[..p] {
        *slope *= share;
    }
    first[at] = 1.0 / loss;
    second[at][at] = -1.0 / (loss * loss);
    Point { value: loss.ln(), gradient: first, hessian: second }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::LAWS;

    /// Central differences of the value and of the gradient, at a generic point of every law.
    #[test]
    fn derivatives_agree_with_differences() {
        for law in LAWS {
            let mut theta = [0.0; PARAMETERS_MAX];
            for (at, value) in [-0.7, -0.4, 0.31, 0.45, 0.6, 0.8].into_iter().enumerate().take(law.dimension()) {
                theta[at] = value;
            }
            let x = [0.9, -1.3];
            let here = point(law, &theta, x);
            assert!((here.value - value(law, &theta, x)).abs() < 1e-14, "{}", law.name);
            let step = 1e-5;
            for i in 0..law.dimension() {
                let at = |sign: f64| {
                    let mut moved = theta;
                    moved[i] += sign * step;
                    point(law, &moved, x)
                };
                let (up, down) = (at(1.0), at(-1.0));
                let slope = (up.value - down.value) / (2.0 * step);
                assert!((here.gradient[i] - slope).abs() < 1e-8, "{} d{i}", law.name);
                for k in i..law.dimension() {
                    let bend = (up.gradient[k] - down.gradient[k]) / (2.0 * step);
                    assert!((here.hessian[i][k] - bend).abs() < 1e-8, "{} d{i}d{k}", law.name);
                }
            }
        }
    }
}
