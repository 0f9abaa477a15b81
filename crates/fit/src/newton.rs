//! From a place near a minimum of a form to the minimum: Newton's method on the Huber loss. Laws of many shapes have
//! valleys in which the curvature of the law itself decides, where least squares creeps for a thousand steps.
//!
//! Second derivatives of every row are differences of first ones, kept while the place moves little; the damping is that of
//! `polish.rs`, toward iterated least squares.

use crate::damping;
use crate::general::{FormOptimum, FormProblem};
use crate::real::UNKNOWNS_MAX;

type Square = [[f64; UNKNOWNS_MAX]; UNKNOWNS_MAX];
type Row = [f64; UNKNOWNS_MAX];

const STEPS_MAX: usize = 80;
/// After so many steps second derivatives are taken anew.
const STEPS_KEPT: usize = 6;
const DIFFERENCE: f64 = 1e-5;
/// A step that is damped more says little of what is left to gain.
const DAMPING_CONVERGED: f64 = 0.1;

/// When to stop: what the next step would gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Less than rounding.
    Rounding,
    /// Less than a hundredth of a standard error's own gain, squared: what a resample needs.
    Noise,
}

/// Where it ended, and whether that is a minimum.
pub(crate) struct Near {
    pub(crate) optimum: FormOptimum,
    pub(crate) converged: bool,
}

/// Second derivatives of ln of the fitted loss by two unknowns, the lower triangle row by row.
pub(crate) struct Curvature {
    of_row: Vec<f64>,
    stride: usize,
}

impl Curvature {
    pub(crate) fn at(problem: &FormProblem, theta: &[f64]) -> Self {
        let p = theta.len();
        let stride = p * (p + 1) / 2;
        let mut of_row = vec![0.0; stride * problem.spots.len()];
        let here = problem.slopes(theta);
        for i in 0..p {
            let step = DIFFERENCE * theta[i].abs().max(0.1);
            let mut moved = theta.to_vec();
            moved[i] += step;
            let slopes = problem.form.ln_losses_slopes(&moved);
            for ((spot, here), row) in problem.spots.iter().zip(&here).zip(of_row.chunks_mut(stride)) {
                let there = slopes(spot);
                for j in 0..=i {
                    let bend = (there.slope[j] - here.slope[j]) / step;
                    row[i * (i + 1) / 2 + j] = if bend.is_finite() { bend } else { 0.0 };
                }
            }
        }
        Self { of_row, stride }
    }
}

/// Minimises within the bounds of the shapes from `start`, at or near which `curvature` was taken.
pub(crate) fn newton(problem: &FormProblem, start: &[f64], curvature: &Curvature, tolerance: Tolerance) -> Near {
    let bounds = problem.bounds();
    let mut theta: Vec<f64> = start.iter().zip(&bounds).map(|(value, (low, high))| value.clamp(*low, *high)).collect();
    let mut objective = problem.objective(&theta);
    let mut own: Option<Curvature> = None;
    let mut local = Local::of(problem, &theta, curvature);
    let (mut damping, mut converged) = (1e-2, false);
    let mut steps = 0;
    while steps < STEPS_MAX && damping < 1e12 && !converged {
        steps += 1;
        if steps % STEPS_KEPT == 0 {
            let bends = own.insert(Curvature::at(problem, &theta));
            local = Local::of(problem, &theta, bends);
        }
        let Some((step, gain)) = local.step(&theta, &bounds, damping) else {
            damping *= 8.0;
            continue;
        };
        let enough = match tolerance {
            Tolerance::Rounding => 1e-13 * objective,
            Tolerance::Noise => 1e-8 * (objective / problem.y.len() as f64).min(1.0),
        };
        converged = gain <= enough && damping < DAMPING_CONVERGED;
        let trial: Vec<f64> = theta.iter().zip(&step).map(|(value, step)| value + step).collect();
        let next = problem.objective(&trial);
        let fell = objective - next;
        if fell.is_nan() || fell <= 0.0 {
            damping = (damping * 4.0).max(1e-8);
            continue;
        }
        damping *= damping::factor(fell, gain);
        (theta, objective) = (trial, next);
        local = Local::of(problem, &theta, own.as_ref().unwrap_or(curvature));
    }
    Near { optimum: FormOptimum { theta, objective, steps }, converged }
}

/// The quadratic model at one point.
struct Local {
    gradient: Row,
    hessian: Square,
    /// Of iterated least squares.
    metric: Square,
}

impl Local {
    fn of(problem: &FormProblem, theta: &[f64], curvature: &Curvature) -> Self {
        let p = theta.len();
        let (mut gradient, mut hessian, mut metric) = ([0.0; UNKNOWNS_MAX], Square::default(), Square::default());
        let slopes = problem.form.ln_losses_slopes(theta);
        let rows = problem.spots.iter().zip(&problem.y).zip(&problem.weights);
        for (((spot, y), weight), bends) in rows.zip(curvature.of_row.chunks(curvature.stride)) {
            if *weight <= 0.0 {
                continue;
            }
            let dual = slopes(spot);
            if !dual.value.is_finite() || dual.slope.iter().any(|slope| !slope.is_finite()) {
                continue;
            }
            let r = (dual.value - y) / problem.delta;
            let pull = weight * r.clamp(-1.0, 1.0) / problem.delta;
            let full = weight / (problem.delta * problem.delta);
            let (curve, least_squares) = (if r.abs() <= 1.0 { full } else { 0.0 }, full / r.abs().max(1.0));
            for i in 0..p {
                gradient[i] += pull * dual.slope[i];
                for j in 0..=i {
                    let square = dual.slope[i] * dual.slope[j];
                    hessian[i][j] += curve * square + pull * bends[i * (i + 1) / 2 + j];
                    metric[i][j] += least_squares * square;
                }
            }
        }
        Self { gradient, hessian, metric }
    }

    /// The damped step inside the bounds, and the fall that the model promises for it.
    fn step(&self, theta: &[f64], bounds: &[(f64, f64)], damping: f64) -> Option<(Row, f64)> {
        let p = theta.len();
        // Out of the bounds, from one of them, with this way to go.
        let leaves = |at: usize, way: f64| {
            let (low, high) = bounds[at];
            (theta[at] <= low && way < 0.0) || (theta[at] >= high && way > 0.0)
        };
        let mut free: Vec<usize> =
            (0..p).filter(|at| self.metric[*at][*at] > 0.0 && !leaves(*at, -self.gradient[*at])).collect();
        let mut step = self.solve(damping, &free)?;
        // An unknown on its bound may be drawn out by the others.
        while free.iter().any(|at| leaves(*at, step[*at])) {
            free.retain(|at| !leaves(*at, step[*at]));
            step = self.solve(damping, &free)?;
        }
        let mut share = 1.0_f64;
        for at in &free {
            let (low, high) = bounds[*at];
            let room = if step[*at] < 0.0 { low - theta[*at] } else { high - theta[*at] };
            if step[*at] != 0.0 {
                share = share.min(room / step[*at]);
            }
        }
        let mut gain = 0.0;
        step.iter_mut().for_each(|value| *value *= share);
        for &i in &free {
            let bend: f64 = free.iter().map(|&j| self.hessian[i.max(j)][i.min(j)] * step[j]).sum();
            gain -= step[i] * (self.gradient[i] + 0.5 * bend);
        }
        (gain > 0.0).then_some((step, gain))
    }

    /// Cholesky on columns scaled to length one; `None` where the damped matrix is not positive definite.
    fn solve(&self, damping: f64, free: &[usize]) -> Option<Row> {
        let scale = |at: usize| 1.0 / self.metric[at][at].sqrt();
        let entry = |i: usize, j: usize| {
            let (a, b) = (free[i].max(free[j]), free[i].min(free[j]));
            let ridge = if i == j { 1e-10 * self.metric[a][a] } else { 0.0 };
            (self.hessian[a][b] + damping * (self.metric[a][b] + ridge)) * scale(a) * scale(b)
        };
        let mut lower = Square::default();
        for i in 0..free.len() {
            for j in 0..=i {
                let dot: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
                let rest = entry(i, j) - dot;
                lower[i][j] = match i == j {
                    true if rest > 1e-15 => rest.sqrt(),
                    true => return None,
                    false => rest / lower[j][j],
                };
            }
        }
        let mut half = [0.0; UNKNOWNS_MAX];
        for i in 0..free.len() {
            let dot: f64 = (0..i).map(|k| lower[i][k] * half[k]).sum();
            half[i] = (-self.gradient[free[i]] * scale(free[i]) - dot) / lower[i][i];
        }
        let mut solution = [0.0; UNKNOWNS_MAX];
        for i in (0..free.len()).rev() {
            let dot: f64 = (i + 1..free.len()).map(|k| lower[k][i] * half[k]).sum();
            half[i] = (half[i] - dot) / lower[i][i];
            solution[free[i]] = half[i] * scale(free[i]);
        }
        solution.iter().all(|value| value.is_finite()).then_some(solution)
    }
}
