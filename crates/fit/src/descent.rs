//! From a start to the local minimum of a form: Levenberg-Marquardt on residuals of ln loss with Huber weights, each step
//! from a QR factorisation of the scaled Jacobian, so that the condition number enters once and not squared.

use crate::general::{EXACT, FormOptimum, FormProblem};
use crate::qr;
use crate::real::UNKNOWNS_MAX;

/// Minimises from `start` within the bounds of the shapes.
pub(crate) fn polish(problem: &FormProblem, start: &[f64], steps_max: usize) -> FormOptimum {
    let bounds = problem.bounds();
    let mut theta: Vec<f64> = start.iter().zip(&bounds).map(|(value, (low, high))| value.clamp(*low, *high)).collect();
    let mut objective = problem.objective(&theta);
    let mut damping = 1e-3;
    let mut steps = 0;
    let mut system = System::of(problem, &theta, &bounds);
    while steps < steps_max && damping < 1e14 {
        steps += 1;
        let Some(step) = system.step(damping) else {
            damping = (damping * 10.0).max(1e-12);
            continue;
        };
        let trial: Vec<f64> = theta
            .iter()
            .zip(&step)
            .zip(&bounds)
            .map(|((value, step), (low, high))| (value + step).clamp(*low, *high))
            .collect();
        let next = problem.objective(&trial);
        if next.is_nan() || next >= objective {
            // At the floor of rounding no step helps.
            let negligible = theta.iter().zip(&step).all(|(value, step)| step.abs() <= 1e-13 * value.abs().max(1e-3));
            if negligible {
                break;
            }
            damping = (damping * 6.0).max(1e-12);
            continue;
        }
        let gain = objective - next;
        theta = trial;
        objective = next;
        damping *= 0.15;
        system = System::of(problem, &theta, &bounds);
        if gain <= 1e-13 * objective && objective * problem.delta * problem.delta > EXACT {
            break;
        }
    }
    FormOptimum { theta, objective, steps }
}

/// What one more step of least squares could still gain, as the square root of twice that.
pub(crate) fn decrement(problem: &FormProblem, theta: &[f64]) -> f64 {
    let system = System::of(problem, theta, &problem.bounds());
    let Some(step) = system.step(1e-12) else { return f64::INFINITY };
    let along = |(at, free): (usize, &usize)| system.push[at] * step[*free] / system.scale[*free];
    system.free.iter().enumerate().map(along).sum::<f64>().max(0.0).sqrt()
}

/// The linearised problem at one point.
struct System {
    /// The triangle of the weighted Jacobian over the free unknowns, columns scaled to length one, and of its residual.
    triangle: Vec<qr::Line>,
    /// J'r over the free unknowns.
    push: Vec<f64>,
    scale: [f64; UNKNOWNS_MAX],
    free: Vec<usize>,
    dimension: usize,
}

impl System {
    fn of(problem: &FormProblem, theta: &[f64], bounds: &[(f64, f64)]) -> Self {
        let dimension = theta.len();
        let mut lines: Vec<qr::Line> = Vec::with_capacity(problem.y.len());
        let slopes = problem.form.ln_losses_slopes(theta);
        for ((spot, y), weight) in problem.spots.iter().zip(&problem.y).zip(&problem.weights) {
            if *weight <= 0.0 {
                continue;
            }
            let dual = slopes(spot);
            let r = (dual.value - y) / problem.delta;
            // Iterated least squares for the Huber loss.
            let root = (weight / r.abs().max(1.0)).sqrt() / problem.delta;
            if dual.value.is_finite() && dual.slope.iter().all(|slope| slope.is_finite()) {
                let mut line = [0.0; UNKNOWNS_MAX + 1];
                line.iter_mut().zip(dual.slope).for_each(|(value, slope)| *value = slope * root);
                line[dimension] = -(dual.value - y) * root;
                lines.push(line);
            }
        }
        let (mut scale, mut pushed) = ([1.0; UNKNOWNS_MAX], [0.0; UNKNOWNS_MAX]);
        for at in 0..dimension {
            let norm = lines.iter().map(|line| line[at] * line[at]).sum::<f64>().sqrt();
            scale[at] = if norm > 0.0 { 1.0 / norm } else { 0.0 };
            // Downhill is along J'r.
            pushed[at] = scale[at] * lines.iter().map(|line| line[at] * line[dimension]).sum::<f64>();
        }
        // An unknown at its bound that is pushed out stays.
        let stuck = |at: usize| {
            let (low, high) = bounds[at];
            scale[at] == 0.0 || (theta[at] <= low && pushed[at] < 0.0) || (theta[at] >= high && pushed[at] > 0.0)
        };
        let free: Vec<usize> = (0..dimension).filter(|at| !stuck(*at)).collect();
        for line in &mut lines {
            let residual = line[dimension];
            free.iter().enumerate().for_each(|(to, at)| line[to] = line[*at] * scale[*at]);
            line[free.len()] = residual;
        }
        qr::compress(&mut lines, free.len());
        Self { triangle: lines, push: free.iter().map(|at| pushed[*at]).collect(), scale, free, dimension }
    }

    /// The step that minimises |J s - r|^2 + damping |s|^2 over the free unknowns.
    fn step(&self, damping: f64) -> Option<Vec<f64>> {
        let count = self.free.len();
        if count == 0 {
            return None;
        }
        let mut rows = self.triangle.clone();
        for i in 0..count {
            let mut line = [0.0; UNKNOWNS_MAX + 1];
            line[i] = damping.sqrt();
            rows.push(line);
        }
        let solution = qr::solve(rows, count)?;
        let mut step = vec![0.0; self.dimension];
        for (at, value) in self.free.iter().zip(solution) {
            step[*at] = value * self.scale[*at];
        }
        step.iter().all(|value| value.is_finite()).then_some(step)
    }
}
