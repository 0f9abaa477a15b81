//! A law on its rows, solved: the optimum with residuals, scale and information. No uncertainty beyond the linear one.

use crate::law::{Law, PARAMETERS_MAX};
use crate::linear;
use crate::observation::Observation;
use crate::optimum::{self, Search};
use crate::problem::{self, Matrix, Problem};
use crate::scaling::ScalingLaw;
use crate::student;

/// Degrees of freedom of the likelihood that compares laws: heavy tails, so that no run decides alone.
const TAIL_DEGREES: f64 = 4.0;
/// Residuals below rounding carry no information about the law.
const SCALE_MIN: f64 = 1e-12;

/// A run that the fit says nothing about weighs no more than this: e^3 noises are no interval any more.
const LEVERAGE_REACH_MAX: f64 = 400.0;

/// A solved law.
#[derive(Debug, Clone)]
pub(crate) struct Fitted {
    pub(crate) problem: Problem,
    pub(crate) search: Search,
    pub(crate) law: ScalingLaw,
    /// ln fitted - ln observed.
    pub(crate) residuals: Vec<f64>,
}

impl Fitted {
    pub(crate) fn new(law: &'static Law, rows: &[Observation], delta: f64) -> Self {
        let problem = Problem::new(law, rows, delta);
        let search = optimum::search(&problem);
        let law = problem.scaling_law(&search.best.theta);
        let residuals = problem.residuals(&search.best.theta);
        Self { problem, search, law, residuals }
    }

    /// Runs beyond the parameters.
    pub(crate) fn degrees(&self) -> usize {
        self.residuals.len().saturating_sub(self.problem.law.dimension())
    }

    /// Root mean square of the residuals.
    pub(crate) fn rms(&self) -> f64 {
        (self.residuals.iter().map(|r| r * r).sum::<f64>() / self.residuals.len() as f64).sqrt()
    }

    /// Standard deviation of the noise: the residuals' mean square over the degrees of freedom.
    pub(crate) fn sigma(&self) -> f64 {
        let square: f64 = self.residuals.iter().map(|r| r * r).sum();
        (square / self.degrees().max(1) as f64).sqrt()
    }

    /// Akaike's criterion with the small-sample term, on a Student-t likelihood of the residuals with its own scale.
    pub(crate) fn aicc(&self) -> Option<f64> {
        let n = self.residuals.len() as f64;
        let k = (self.problem.law.dimension() + 1) as f64;
        let spare = n - k - 1.0;
        (spare > 0.0).then(|| -2.0 * ln_likelihood(&self.residuals) + 2.0 * k + 2.0 * k * (k + 1.0) / spare)
    }

    /// J'J over the rows with equal weights, at the optimum.
    pub(crate) fn information(&self) -> Matrix {
        information(&self.problem, &self.search.best.theta)
    }

    /// Half the width, in ln loss, of the linear interval of a new run's loss: what the stretching of intervals is measured
    /// against. Resamples of residuals with long tails are narrower than it at their middle.
    pub(crate) fn reach(&self, params: f64, tokens: f64, level: f64) -> f64 {
        let place = self.problem.place(&Observation::dense("", params, tokens, 1.0));
        let leverage = self.leverage()(place).clamp(0.0, LEVERAGE_REACH_MAX);
        student::quantile(level, self.degrees().max(1)) * self.sigma() * (1.0 + leverage).sqrt()
    }

    /// What a centred point weighs in the fit: g' (J'J)^-1 g, the variance of the fitted ln loss there over the noise's.
    pub(crate) fn leverage(&self) -> impl Fn([f64; 2]) -> f64 + '_ {
        let p = self.problem.law.dimension();
        let free: Vec<usize> = (0..p).collect();
        let mut information = self.information();
        // A parameter that no run speaks of must not make the whole singular.
        let largest = (0..p).map(|i| information[i][i]).fold(0.0, f64::max);
        (0..p).for_each(|i| information[i][i] += 1e-12 * largest);
        move |x| {
            let slope = problem::point(self.problem.law, &self.search.best.theta, x).gradient;
            let solved = linear::solve(&information, &slope, &free).unwrap_or([0.0; PARAMETERS_MAX]);
            (0..p).map(|i| solved[i] * slope[i]).sum()
        }
    }

    /// Largest over smallest singular value of the Jacobian with columns of unit length.
    pub(crate) fn condition(&self) -> Option<f64> {
        let p = self.problem.law.dimension();
        let mut matrix = self.information();
        let lengths: Vec<f64> = (0..p).map(|i| matrix[i][i].sqrt()).collect();
        if lengths.contains(&0.0) {
            return None;
        }
        for i in 0..p {
            for j in 0..p {
                matrix[i][j] /= lengths[i] * lengths[j];
            }
        }
        let values = linear::eigenvalues(&matrix, p);
        let (low, high) = values.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
        (low > 0.0).then(|| (high / low).sqrt())
    }
}

/// J'J at `theta`.
pub(crate) fn information(problem: &Problem, theta: &problem::Vector) -> Matrix {
    let p = problem.law.dimension();
    let mut sum = [[0.0; PARAMETERS_MAX]; PARAMETERS_MAX];
    for row in &problem.rows {
        let slope = problem::point(problem.law, theta, row.x).gradient;
        for i in 0..p {
            for j in 0..p {
                sum[i][j] += slope[i] * slope[j];
            }
        }
    }
    sum
}

/// Largest log-likelihood over the scale, by the usual reweighting.
pub(crate) fn ln_likelihood(residuals: &[f64]) -> f64 {
    let n = residuals.len() as f64;
    let nu = TAIL_DEGREES;
    let mut square = residuals.iter().map(|r| r * r).sum::<f64>() / n;
    for _ in 0..100 {
        square = square.max(SCALE_MIN * SCALE_MIN);
        let weighted = |r: &f64| r * r * (nu + 1.0) / (nu + r * r / square);
        square = residuals.iter().map(weighted).sum::<f64>() / n;
    }
    let square = square.max(SCALE_MIN * SCALE_MIN);
    let tail: f64 = residuals.iter().map(|r| (1.0 + r * r / (nu * square)).ln()).sum();
    // Constants of the density are the same for every law and left out.
    -0.5 * n * square.ln() - 0.5 * (nu + 1.0) * tail
}
