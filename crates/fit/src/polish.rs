//! Damped Newton steps on the Huber objective, from a start to a certified local minimum inside the bounds.
//!
//! Steps are damped in the metric of iterated least squares, so a cautious step is a reweighted least-squares step and
//! no parameter's unit matters. It does not look for other minima.

use crate::damping;
use crate::law::PARAMETERS_MAX;
use crate::linear;
use crate::problem::{Matrix, Problem, Slope, Vector};

/// Newton needs 5 to 20 steps; the bound is for degenerate data.
const STEPS_MAX: usize = 300;
/// Below this share of the objective a step cannot be told from rounding.
const GAIN_RELATIVE: f64 = 1e-13;
/// In units of delta squared: residuals of 1e-13 in ln loss.
const GAIN_ABSOLUTE: f64 = 1e-21;
/// A term this small at the centre of the data (ln, relative to the loss) is absent.
const TERM_ABSENT: f64 = -12.0;

/// A local minimum.
#[derive(Debug, Clone)]
pub(crate) struct Optimum {
    pub(crate) theta: Vector,
    /// Sum of the Huber loss over delta squared.
    pub(crate) objective: f64,
    /// Newton decrement over the unknowns that are not on an edge.
    pub(crate) decrement: f64,
    pub(crate) steps: usize,
}

/// Minimises from `start`; the parameter `pinned` stays where it is.
pub(crate) fn polish(problem: &Problem, start: &Vector, pinned: Option<usize>) -> Optimum {
    let bounds = problem.law.bounds();
    let mut theta = *start;
    for (value, (low, high)) in theta.iter_mut().zip(&bounds) {
        *value = value.clamp(*low, *high);
    }
    let mut damping = 1e-2;
    let mut slope = problem.slope(&theta);
    let mut steps = 0;
    while steps < STEPS_MAX && damping < 1e12 {
        steps += 1;
        let mut free = free(&theta, &slope.gradient, &bounds, pinned);
        let metric = metric(&slope, problem.law.dimension());
        let mut solved = newton(&slope, &metric, damping, &free);
        // An unknown on its edge may be drawn out by the others though its own gradient points in: hold it too.
        while let Some((step, _)) = &solved {
            let held = free.len();
            free.retain(|&at| !leaves(theta[at], step[at], bounds[at]));
            if free.len() == held {
                break;
            }
            solved = newton(&slope, &metric, damping, &free);
        }
        let Some((step, gain)) = solved else {
            damping = (damping * 8.0).max(1e-8);
            continue;
        };
        if gain <= GAIN_RELATIVE * slope.objective + GAIN_ABSOLUTE {
            break;
        }
        let trial = inside(&theta, &step, &bounds, &free);
        let next = problem.objective(&trial);
        let fell = slope.objective - next;
        if fell.is_nan() || fell <= 0.0 {
            damping = (damping * 4.0).max(1e-8);
            continue;
        }
        damping *= damping::factor(fell, gain);
        theta = trial;
        slope = problem.slope(&theta);
    }
    let decrement = decrement(problem, &theta, &slope, &bounds, pinned);
    Optimum { theta, objective: slope.objective, decrement, steps }
}

/// Names of the parameters on an edge of their range.
pub(crate) fn boundary(problem: &Problem, theta: &Vector) -> Vec<String> {
    let law = problem.law;
    let bounds = law.bounds();
    let on_edge = |at: usize| {
        let (low, high) = bounds[at];
        let absent = at < law.terms.len() && theta[at] < TERM_ABSENT * law.joint_at().map_or(1.0, |q| theta[q]);
        absent || theta[at] - low < 1e-7 || high - theta[at] < 1e-7
    };
    let names = law.names().into_iter().enumerate();
    names.filter(|(at, _)| on_edge(*at)).map(|(_, name)| name.to_owned()).collect()
}

/// Unknowns that may move: not pinned, and not on an edge that the gradient pushes against.
fn free(theta: &Vector, gradient: &Vector, bounds: &[(f64, f64)], pinned: Option<usize>) -> Vec<usize> {
    let stuck = |at: usize| {
        let (low, high) = bounds[at];
        (theta[at] <= low && gradient[at] > 0.0) || (theta[at] >= high && gradient[at] < 0.0)
    };
    (0..bounds.len()).filter(|&at| Some(at) != pinned && !stuck(at)).collect()
}

/// Whether a step leads out of the bounds from an edge.
fn leaves(value: f64, step: f64, (low, high): (f64, f64)) -> bool {
    (value <= low && step < 0.0) || (value >= high && step > 0.0)
}

/// The damping metric: reweighted least squares, kept definite where the data say nothing.
fn metric(slope: &Slope, dimension: usize) -> Matrix {
    let mut metric = slope.gauss;
    let largest = (0..dimension).map(|i| metric[i][i]).fold(0.0, f64::max);
    for (i, row) in metric.iter_mut().enumerate().take(dimension) {
        row[i] += 1e-10 * row[i] + 1e-14 * largest;
    }
    metric
}

/// The damped step and the fall that the quadratic model promises for it.
fn newton(slope: &Slope, metric: &Matrix, damping: f64, free: &[usize]) -> Option<(Vector, f64)> {
    let mut damped = slope.hessian;
    for &i in free {
        for &j in free {
            damped[i][j] += damping * metric[i][j];
        }
    }
    let downhill = slope.gradient.map(|g| -g);
    let step = linear::solve(&damped, &downhill, free)?;
    let mut gain = 0.0;
    for &i in free {
        let bend: f64 = free.iter().map(|&j| slope.hessian[i][j] * step[j]).sum();
        gain -= step[i] * (slope.gradient[i] + 0.5 * bend);
    }
    Some((step, gain))
}

/// The end of the step, shortened so that the first bound it meets is met exactly.
fn inside(theta: &Vector, step: &Vector, bounds: &[(f64, f64)], free: &[usize]) -> Vector {
    let mut share = 1.0_f64;
    for &i in free {
        let (low, high) = bounds[i];
        let room = if step[i] < 0.0 { low - theta[i] } else { high - theta[i] };
        if step[i] != 0.0 && room / step[i] < share {
            share = room / step[i];
        }
    }
    let mut end: Vector = [0.0; PARAMETERS_MAX];
    for (i, value) in end.iter_mut().enumerate() {
        *value = theta[i] + share * step[i];
    }
    for (value, (low, high)) in end.iter_mut().zip(bounds) {
        *value = value.clamp(*low, *high);
        // Rounding may stop a step a hair short of its bound, which would then never count as reached.
        if *value - low < 1e-14 {
            *value = *low;
        }
    }
    end
}

/// sqrt(g' H^-1 g); with the least-squares metric where the Hessian is not definite.
fn decrement(problem: &Problem, theta: &Vector, slope: &Slope, bounds: &[(f64, f64)], pinned: Option<usize>) -> f64 {
    let free = free(theta, &slope.gradient, bounds, pinned);
    let metric = metric(slope, problem.law.dimension());
    let solved = linear::solve(&slope.hessian, &slope.gradient, &free)
        .or_else(|| linear::solve(&metric, &slope.gradient, &free));
    let square = solved.map(|s| free.iter().map(|&i| s[i] * slope.gradient[i]).sum::<f64>());
    square.map_or(f64::INFINITY, |square| square.max(0.0).sqrt())
}
