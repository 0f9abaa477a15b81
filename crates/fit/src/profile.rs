//! Profile-likelihood intervals for few runs: how far a parameter can be moved, all others refitted, before the fit
//! is worse than the noise allows. It serves parameters of the internal vector that are free of centring: exponents,
//! q and E.
//!
//! The threshold is Student's: excess of the sum of squares over its minimum = s^2 t^2, s^2 = minimum / (n - p)
//! (Bates and Watts, Nonlinear Regression Analysis, section 6.1), which is exact for laws linear in their parameters.

use crate::fitted::{self, Fitted};
use crate::law::PARAMETERS_MAX;
use crate::linear;
use crate::polish::{Optimum, polish};
use crate::problem::{Problem, Vector};
use crate::student;

/// The Huber threshold in units of the noise: near least squares for a sound sample, bounded for a wild one.
const KNEE: f64 = 2.0;
const DOUBLINGS_MAX: usize = 40;
const HALVINGS: usize = 30;

/// A fit ready to be profiled: same rows, threshold wide enough for squares to mean something.
pub(crate) struct Profile {
    problem: Problem,
    best: Optimum,
    errors: Vector,
    degrees: usize,
}

impl Profile {
    /// `None` without degrees of freedom.
    pub(crate) fn new(fit: &Fitted) -> Option<Self> {
        let degrees = fit.degrees();
        if degrees == 0 {
            return None;
        }
        let mut problem = fit.problem.clone();
        problem.delta = problem.delta.max(KNEE * fit.sigma());
        let best = polish(&problem, &fit.search.best.theta, None);
        let errors = standard_errors(&problem, &best.theta, 2.0 * best.objective / degrees as f64);
        Some(Self { problem, best, errors, degrees })
    }

    /// Interval of the internal parameter `at`; ends that no data bound are the law's own bounds.
    /// `design` widens the threshold for runs that are not independent.
    pub(crate) fn interval(&self, at: usize, level: f64, design: f64) -> [f64; 2] {
        let bound = self.problem.law.bounds()[at];
        let t = design * student::quantile(level, self.degrees);
        let allowed = self.best.objective * (1.0 + t * t / self.degrees as f64);
        [self.end(at, allowed, -1.0, bound.0), self.end(at, allowed, 1.0, bound.1)]
    }

    /// Walks from the optimum toward `bound` until the profile passes `allowed`, then halves.
    fn end(&self, at: usize, allowed: f64, sign: f64, bound: f64) -> f64 {
        let centre = self.best.theta[at];
        let mut theta = self.best.theta;
        let mut inner = centre;
        let mut step = self.errors[at].clamp(1e-9, 1.0);
        let mut outer = None;
        for _ in 0..DOUBLINGS_MAX {
            let wanted = inner + sign * step;
            let value = if sign < 0.0 { wanted.max(bound) } else { wanted.min(bound) };
            let found = self.pinned(at, value, &theta);
            if found.objective > allowed {
                outer = Some(value);
                break;
            }
            (inner, theta) = (value, found.theta);
            if value == bound {
                return bound;
            }
            step *= 1.6;
        }
        let Some(mut outer) = outer else { return bound };
        for _ in 0..HALVINGS {
            let middle = 0.5 * (inner + outer);
            let found = self.pinned(at, middle, &theta);
            if found.objective > allowed {
                outer = middle;
            } else {
                (inner, theta) = (middle, found.theta);
            }
        }
        inner
    }

    fn pinned(&self, at: usize, value: f64, from: &Vector) -> Optimum {
        let mut start = *from;
        start[at] = value;
        polish(&self.problem, &start, Some(at))
    }
}

/// Linear standard errors with noise variance `variance` (in units of delta squared).
fn standard_errors(problem: &Problem, theta: &Vector, variance: f64) -> Vector {
    let p = problem.law.dimension();
    let mut matrix = fitted::information(problem, theta);
    let largest = (0..p).map(|i| matrix[i][i]).fold(0.0, f64::max);
    for (i, row) in matrix.iter_mut().enumerate().take(p) {
        row[i] += 1e-12 * largest;
    }
    let free: Vec<usize> = (0..p).collect();
    let mut errors = [0.0; PARAMETERS_MAX];
    for i in 0..p {
        let mut unit = [0.0; PARAMETERS_MAX];
        unit[i] = 1.0;
        let column = linear::solve(&matrix, &unit, &free);
        errors[i] = column.map_or(1.0, |c| (c[i].max(0.0) * variance).sqrt() * problem.delta);
    }
    errors
}
