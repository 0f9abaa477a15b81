//! A law fitted to few runs: with as many runs as parameters the best fit says little and is often degenerate, so what is
//! known of scaling laws in general pulls it. The answer is the law made linear around that fit.

use crate::design::matrix::{Cholesky, Matrix};
use crate::form::Form;
use crate::general::{self, FormProblem};
use crate::law::{Law, PARAMETERS_MAX};
use crate::observation::Observation;
use crate::optimum;
use crate::problem::{self, Problem, Vector};

/// Mean and standard deviation of what is expected of a parameter inside a fit, where all is centred at the runs and relative
/// to the typical loss. Published exponents lie between 0.05 and 0.9, and both terms are a fair share of the loss.
const EXPONENT: [f64; 2] = [0.35, 0.25];
/// Of the joint exponent one after another: the loss is far from linear in it, and where one term rules all runs a single
/// fit would take the other for absent.
const JOINTS: [f64; 5] = [0.25, 0.5, 0.75, 1.0, 1.3];
const JOINT_SPREAD: f64 = 0.15;
const FLOOR: [f64; 2] = [0.5, 0.3];
const TERM_LN: [f64; 2] = [-1.0, 1.5];
/// Coefficients of forms: nothing is expected of them.
const COEFFICIENT_SPREAD: f64 = 3.0;
const FREE_SPREAD: f64 = 1.0;
/// Residuals beyond this many standard deviations pull as if they were there.
const PULL_MAX: f64 = 2.0;
const STEPS_MAX: usize = 60;

/// What is assumed of the noise of a run before any is seen, and for how many runs that counts.
const NOISE: f64 = 0.01;
const NOISE_RUNS: f64 = 2.0;
/// Mean square of a standard normal of which the outer tenth is left out.
const TRIMMED: f64 = 0.623;

/// ln loss as a linear function of parameters that are standard normal beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) name: &'static str,
    /// Scale of the residuals.
    pub(crate) scale: f64,
    /// ln observed - what is expected beforehand, and slopes, run by run.
    pub(crate) surprises: Vec<f64>,
    pub(crate) observed: Vec<Vec<f64>>,
    /// What is expected beforehand at the places, and slopes.
    pub(crate) expected: Vec<f64>,
    pub(crate) places: Vec<Vec<f64>>,
}

/// Value and slopes of ln loss at a run.
type Slopes<'a> = &'a dyn Fn(&[f64], &Observation) -> (f64, Vec<f64>);

/// A fit under way.
struct Prior<'a> {
    name: &'static str,
    mean: Vec<f64>,
    spread: Vec<f64>,
    bounds: Vec<(f64, f64)>,
    slopes: Slopes<'a>,
    rows: &'a [Observation],
    scale: f64,
}

impl Linear {
    /// A law of params and tokens, around one fit or, with a joint exponent, around several.
    pub(crate) fn of_law(law: &'static Law, rows: &[Observation], places: &[Observation], delta: f64) -> Vec<Self> {
        let problem = Problem::new(law, rows, delta);
        let best = optimum::search(&problem).best.theta;
        let unit = problem.loss_unit().ln();
        let slopes = |theta: &[f64], row: &Observation| {
            let mut whole: Vector = [0.0; PARAMETERS_MAX];
            whole[..theta.len()].copy_from_slice(theta);
            let point = problem::point(law, &whole, problem.place(row));
            (point.value + unit, point.gradient[..theta.len()].to_vec())
        };
        let around = |expected: Vec<[f64; 2]>| {
            let prior = Prior {
                name: law.name,
                mean: expected.iter().map(|[mean, _]| *mean).collect(),
                spread: expected.iter().map(|[_, spread]| *spread).collect(),
                bounds: law.bounds(),
                slopes: &slopes,
                rows,
                scale: scale(&problem.residuals(&best), law.dimension()),
            };
            prior.linear(&best[..law.dimension()], places)
        };
        expectations(law).into_iter().map(around).collect()
    }

    /// A law in any variables.
    pub(crate) fn of_form(form: &'static Form, rows: &[Observation], places: &[Observation], delta: f64) -> Self {
        let problem = FormProblem::new(form, rows, None, delta.max(form.huber_delta));
        let best = general::search(&problem).best.theta;
        let slopes = |theta: &[f64], row: &Observation| {
            let dual = form.ln_losses_slopes(theta)(&problem.centre.spot(row));
            (dual.value, dual.slope[..theta.len()].to_vec())
        };
        let count = form.shapes.len();
        let middle = form.shapes.iter().map(|shape| 0.5 * (shape.search.0 + shape.search.1));
        let half = form.shapes.iter().map(|shape| 0.5 * (shape.search.1 - shape.search.0));
        let spread = |positive: bool| if positive { COEFFICIENT_SPREAD } else { FREE_SPREAD };
        let prior = Prior {
            name: form.name,
            mean: middle.chain(best[count..].iter().copied()).collect(),
            spread: half.chain(form.coefficients.iter().map(|one| spread(one.positive))).collect(),
            bounds: problem.bounds(),
            slopes: &slopes,
            rows,
            scale: scale(&problem.residuals(&best), form.dimension()),
        };
        prior.linear(&best, places)
    }
}

/// Of the parameters of a law in their order; several where it has a joint exponent.
fn expectations(law: &Law) -> Vec<Vec<[f64; 2]>> {
    let terms = std::iter::repeat_n(TERM_LN, law.terms.len());
    let exponents = std::iter::repeat_n(EXPONENT, law.exponents.len());
    let with = |joint: Option<f64>| {
        let joint = joint.map(|joint| [joint, JOINT_SPREAD]);
        let head = terms.clone().chain(exponents.clone());
        head.chain(joint).chain(law.offset.then_some(FLOOR)).collect()
    };
    if law.joint { JOINTS.into_iter().map(|joint| with(Some(joint))).collect() } else { vec![with(None)] }
}

/// Standard deviation of the residuals, over the degrees of freedom and with the prior's share.
fn scale(residuals: &[f64], dimension: usize) -> f64 {
    let mut sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    // The worst tenth has no say: a robust fit leaves outliers far off.
    let kept = sizes.len() - sizes.len() / 10;
    let short = if kept < sizes.len() { TRIMMED } else { 1.0 };
    let squares: f64 = sizes[..kept].iter().map(|r| r * r / short).sum();
    let degrees = kept.saturating_sub(dimension) as f64;
    ((NOISE_RUNS * NOISE * NOISE + squares) / (NOISE_RUNS + degrees)).sqrt()
}

impl Prior<'_> {
    /// The law around the likelier of two ends: from the best fit without expectations, and from the expectations.
    fn linear(&self, best: &[f64], places: &[Observation]) -> Linear {
        let ends = [best, &self.mean].map(|start| self.descend(start));
        let [from_fit, from_mean] = ends;
        let theta = if from_mean.1 < from_fit.1 { from_mean.0 } else { from_fit.0 };
        // From the fit back to what was expected beforehand, in standard deviations.
        let back: Vec<f64> = (0..theta.len()).map(|at| (self.mean[at] - theta[at]) / self.spread[at]).collect();
        let at = |row: &Observation| {
            let (value, slopes) = (self.slopes)(&theta, row);
            let slopes: Vec<f64> = slopes.iter().zip(&self.spread).map(|(slope, spread)| slope * spread).collect();
            (value, slopes)
        };
        let before = |slopes: &[f64]| slopes.iter().zip(&back).map(|(slope, back)| slope * back).sum::<f64>();
        let (mut surprises, mut observed) = (Vec::new(), Vec::new());
        for row in self.rows {
            let (value, slopes) = at(row);
            let residual = (row.loss.ln() - value).clamp(-3.0 * self.scale, 3.0 * self.scale);
            surprises.push(residual - before(&slopes));
            observed.push(slopes);
        }
        let (mut expected, mut at_places) = (Vec::new(), Vec::new());
        for place in places {
            let (value, slopes) = at(place);
            expected.push(value + before(&slopes));
            at_places.push(slopes);
        }
        Linear { name: self.name, scale: self.scale, surprises, observed, expected, places: at_places }
    }

    /// Levenberg-Marquardt down to a maximum of the posterior, and minus its logarithm there.
    fn descend(&self, start: &[f64]) -> (Vec<f64>, f64) {
        let mut theta: Vec<f64> = start.iter().zip(&self.bounds).map(|(v, (low, high))| v.clamp(*low, *high)).collect();
        let mut cost = self.cost(&theta);
        let mut damping = 1e-3;
        for _ in 0..STEPS_MAX {
            let Some(step) = self.step(&theta, damping) else {
                damping *= 10.0;
                continue;
            };
            let moved = theta.iter().zip(&step).zip(&self.bounds);
            let trial: Vec<f64> = moved.map(|((v, step), (low, high))| (v + step).clamp(*low, *high)).collect();
            let next = self.cost(&trial);
            if next < cost {
                let gain = cost - next;
                (theta, cost, damping) = (trial, next, damping * 0.2);
                if gain < 1e-9 * cost {
                    break;
                }
            } else {
                damping *= 8.0;
                if damping > 1e12 {
                    break;
                }
            }
        }
        (theta, cost)
    }

    fn cost(&self, theta: &[f64]) -> f64 {
        let away = |at: usize| (theta[at] - self.mean[at]) / self.spread[at];
        let expected: f64 = (0..theta.len()).map(|at| 0.5 * away(at) * away(at)).sum();
        let misses = self.rows.iter().map(|row| ((self.slopes)(theta, row).0 - row.loss.ln()) / self.scale);
        let observed: f64 = misses.map(|r| PULL_MAX * PULL_MAX * problem::huber(r / PULL_MAX)).sum();
        let cost = expected + observed;
        if cost.is_nan() { f64::INFINITY } else { cost }
    }

    fn step(&self, theta: &[f64], damping: f64) -> Option<Vec<f64>> {
        let count = theta.len();
        let mut right: Vec<f64> = (0..count).map(|at| (self.mean[at] - theta[at]) / self.spread[at]).collect();
        let mut normal = Matrix::of(count, count, |i, j| if i == j { 1.0 } else { 0.0 });
        for row in self.rows {
            let (value, slopes) = (self.slopes)(theta, row);
            let r = (row.loss.ln() - value) / self.scale;
            let root = (PULL_MAX / r.abs().max(PULL_MAX)).sqrt();
            let line: Vec<f64> =
                slopes.iter().zip(&self.spread).map(|(slope, spread)| root * slope * spread / self.scale).collect();
            normal.add_square(1.0, &line);
            right.iter_mut().zip(&line).for_each(|(sum, slope)| *sum += slope * root * r);
        }
        (0..count).for_each(|at| normal.row_mut(at)[at] *= 1.0 + damping);
        let step = Cholesky::of(&normal)?.solve(&right);
        Some(step.iter().zip(&self.spread).map(|(step, spread)| step * spread).collect())
    }
}
