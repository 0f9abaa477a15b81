//! The optimum of a form on its rows: a quasi-random search of the shapes with the coefficients solved inside, then a
//! polish of the best starts. It judges nothing; equal rows give equal answers.
//!
//! The search is variable projection (Golub and Pereyra 1973) on relative residuals: for given shapes the coefficients are
//! linear, non-negative where they must be. The polish is `descent.rs`.

use crate::descent::polish;
use crate::form::{Centre, FittedForm, Form, Link, Spot, TERMS_MAX};
use crate::newton::{Curvature, Tolerance, newton};
use crate::nnls;
use crate::observation::Observation;
use crate::problem::{Matrix, Vector, huber};
use crate::real::Dual;

/// Starts looked at for each shape parameter, and at most.
const STARTS_PER_SHAPE: usize = 500;
const STARTS_MAX: usize = 5_000;
/// Starts that are polished a little for each shape parameter, and how many of these to the end.
const POLISHED_PER_SHAPE: usize = 16;
const FINISHED: usize = 8;
/// Extensions of a simpler law that are looked at.
const GROWN: usize = 2_000;
/// Times that one part of a good answer is set anew and polished again, for laws that grow.
const MOVES: usize = 100;
/// The same where the rows seem to follow the law without noise, so that it can be found to the last digit.
const MOVES_EXACT: usize = 3_000;
const NEARLY_EXACT: f64 = 1e-6;
/// Different answers that are moved from, and how much they must differ.
const BASES: usize = 6;
const SAME_BASE: f64 = 0.02;
const STEPS_FIRST: usize = 10;
const STEPS_SECOND: usize = 20;
/// Of so many starts one gets the second steps.
const FIRST_PER_SECOND: usize = 3;
const STEPS_MOVED: usize = 60;
const STEPS_MAX: usize = 4_000;
/// A coefficient that the search sets to zero enters the polish with this share of the typical term.
const ABSENT_LN: f64 = -14.0;
/// Objectives closer than this are one optimum.
const SAME_RELATIVE: f64 = 1e-6;
/// A sum of squared relative errors that is rounding.
pub(crate) const EXACT: f64 = 1e-24;

/// A form against rows.
#[derive(Debug, Clone)]
pub(crate) struct FormProblem {
    pub(crate) form: &'static Form,
    pub(crate) centre: Centre,
    pub(crate) spots: Vec<Spot>,
    /// ln of the observed losses.
    pub(crate) y: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    pub(crate) delta: f64,
}

/// A local minimum.
#[derive(Debug, Clone)]
pub(crate) struct FormOptimum {
    pub(crate) theta: Vec<f64>,
    /// Sum of the Huber loss over delta squared.
    pub(crate) objective: f64,
    pub(crate) steps: usize,
}

/// What the search found.
#[derive(Debug, Clone)]
pub(crate) struct FormSearch {
    pub(crate) best: FormOptimum,
    pub(crate) second: Option<FormOptimum>,
    pub(crate) starts: usize,
}

impl FormProblem {
    pub(crate) fn new(form: &'static Form, rows: &[Observation], entropy: Option<f64>, delta: f64) -> Self {
        let centre = Centre::of(rows, entropy);
        Self {
            form,
            centre,
            spots: rows.iter().map(|row| centre.spot(row)).collect(),
            y: rows.iter().map(|row| row.loss.ln()).collect(),
            weights: vec![1.0; rows.len()],
            delta,
        }
    }

    pub(crate) fn fitted(&self, theta: &[f64]) -> FittedForm {
        FittedForm { form: self.form, theta: theta.to_vec(), centre: self.centre }
    }

    /// ln of the fitted loss over the observed one.
    pub(crate) fn residuals(&self, theta: &[f64]) -> Vec<f64> {
        let value = self.form.ln_losses(theta);
        self.spots.iter().zip(&self.y).map(|(spot, y)| value(spot) - y).collect()
    }

    pub(crate) fn objective(&self, theta: &[f64]) -> f64 {
        let value = self.form.ln_losses(theta);
        let rows = self.spots.iter().zip(&self.y).zip(&self.weights).filter(|(_, weight)| **weight > 0.0);
        let sum: f64 = rows.map(|((spot, y), weight)| weight * huber((value(spot) - y) / self.delta)).sum();
        if sum.is_nan() { f64::INFINITY } else { sum }
    }

    /// Derivatives of ln of the fitted loss, row by row.
    pub(crate) fn slopes(&self, theta: &[f64]) -> Vec<Dual> {
        self.spots.iter().map(self.form.ln_losses_slopes(theta)).collect()
    }

    pub(crate) fn bounds(&self) -> Vec<(f64, f64)> {
        let coefficient = |positive: bool| if positive { (-700.0, 700.0) } else { (f64::NEG_INFINITY, f64::INFINITY) };
        let shapes = self.form.shapes.iter().map(|shape| shape.bounds);
        shapes.chain(self.form.coefficients.iter().map(|one| coefficient(one.positive))).collect()
    }

    /// The coefficients that fit best for given shapes, and the sum of squared relative errors; `None` where the basis is
    /// not finite.
    fn project(&self, shapes: &[f64]) -> Option<(Vec<f64>, f64)> {
        let count = self.form.coefficients.len();
        let (mut gram, mut right): (Matrix, Vector) = Default::default();
        let mut lines: Vec<([f64; TERMS_MAX], f64)> = Vec::with_capacity(self.spots.len());
        for ((spot, y), weight) in self.spots.iter().zip(&self.y).zip(&self.weights) {
            let known = if self.form.needs_entropy { spot.entropy } else { 0.0 };
            // Relative errors of the loss, or the errors of its logarithm themselves.
            let (target, scale) = match self.form.link {
                Link::Loss => (y.exp() - known, (-y).exp()),
                Link::Log10 => (y / std::f64::consts::LN_10, std::f64::consts::LN_10),
            };
            let scale = scale * weight.sqrt();
            let line = (self.form.basis)(shapes, spot).map(|value| value * scale);
            if line[..count].iter().any(|value| !value.is_finite()) {
                return None;
            }
            lines.push((line, target * scale));
        }
        let mut norm = [0.0_f64; TERMS_MAX];
        for (line, _) in &lines {
            (0..count).for_each(|j| norm[j] += line[j] * line[j]);
        }
        // Columns of length one: powers far from the middle differ by many orders.
        let unit = norm.map(|square| if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 });
        for (line, target) in &lines {
            for j in 0..count {
                let value = line[j] * unit[j];
                right[j] += value * target;
                for k in 0..count {
                    gram[j][k] += value * line[k] * unit[k];
                }
            }
        }
        for (j, row) in gram.iter_mut().enumerate().take(count) {
            row[j] += 1e-13;
        }
        let positive: Vec<bool> = self.form.coefficients.iter().map(|one| one.positive).collect();
        let solution = nnls::solve_mixed(&gram, &right, &positive);
        let error = |(line, target): &([f64; TERMS_MAX], f64)| {
            target - (0..count).map(|j| solution[j] * unit[j] * line[j]).sum::<f64>()
        };
        let squares = lines.iter().map(|line| error(line).powi(2)).sum();
        Some(((0..count).map(|j| solution[j] * unit[j]).collect(), squares))
    }

    /// A start of the polish from shapes.
    fn start(&self, shapes: &[f64], coefficients: &[f64]) -> Vec<f64> {
        let typical = self.y.iter().sum::<f64>() / self.y.len().max(1) as f64;
        let inside = |(value, one): (&f64, &crate::form::Coefficient)| match one.positive {
            true if *value > 0.0 => value.ln(),
            true => typical + ABSENT_LN,
            false => *value,
        };
        let coefficients = coefficients.iter().zip(self.form.coefficients).map(inside);
        shapes.iter().copied().chain(coefficients).collect()
    }
}

/// The best optimum, with the best other one.
pub(crate) fn search(problem: &FormProblem) -> FormSearch {
    let shapes = problem.form.shapes.len();
    let starts = (STARTS_PER_SHAPE * shapes).min(STARTS_MAX);
    let mut found: Vec<(Vec<f64>, f64)> = Vec::new();
    for at in 0..starts {
        let shape = |(axis, shape): (usize, &crate::form::Shape)| {
            let (low, high) = shape.search;
            low + (high - low) * sequence(at, axis, shapes)
        };
        let point: Vec<f64> = problem.form.shapes.iter().enumerate().map(shape).collect();
        if let Some((coefficients, squares)) = problem.project(&point) {
            found.push((problem.start(&point, &coefficients), squares));
        }
    }
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    found.truncate(POLISHED_PER_SHAPE * problem.form.shapes.len());
    found.extend(grown(problem));
    let mut optima: Vec<FormOptimum> = Vec::new();
    for (start, _) in &found {
        let optimum = polish(problem, start, STEPS_FIRST);
        let exact = optimum.objective * problem.delta * problem.delta < EXACT;
        optima.push(optimum);
        if exact {
            break;
        }
    }
    optima.sort_by(|a, b| a.objective.total_cmp(&b.objective));
    // What a few steps leave far behind is not worth more of them.
    optima.truncate(optima.len().div_ceil(FIRST_PER_SECOND).max(FINISHED));
    let mut optima: Vec<FormOptimum> = optima.iter().map(|one| polish(problem, &one.theta, STEPS_SECOND)).collect();
    optima.sort_by(|a, b| a.objective.total_cmp(&b.objective));
    moved(problem, &mut optima);
    optima.truncate(FINISHED);
    let mut optima: Vec<FormOptimum> = optima.iter().map(|one| finished(problem, &one.theta)).collect();
    optima.sort_by(|a, b| a.objective.total_cmp(&b.objective));
    let mut optima = optima.into_iter();
    let best = optima.next().unwrap_or_else(|| FormOptimum {
        theta: vec![0.0; problem.form.dimension()],
        objective: f64::INFINITY,
        steps: 0,
    });
    let second = optima.find(|other| other.objective - best.objective > SAME_RELATIVE * best.objective + 1e-9);
    FormSearch { best, second, starts }
}

/// Starts from the optimum of the simpler law, its last shapes set anew on a small grid: where a law is a simpler one and a
/// break, the break is found beside what is known already.
fn grown(problem: &FormProblem) -> Vec<(Vec<f64>, f64)> {
    let Some(simpler) = problem.form.grows_from else {
        return Vec::new();
    };
    let known = search(&FormProblem { form: simpler, ..problem.clone() });
    let new = &problem.form.shapes[simpler.shapes.len()..];
    let mut found = Vec::new();
    for from in std::iter::once(&known.best).chain(&known.second) {
        for at in 0..GROWN {
            let value = |(axis, shape): (usize, &crate::form::Shape)| {
                let (low, high) = shape.search;
                low + (high - low) * sequence(at, axis, new.len())
            };
            let shapes = from.theta[..simpler.shapes.len()].iter().copied();
            let shapes: Vec<f64> = shapes.chain(new.iter().enumerate().map(value)).collect();
            if let Some((coefficients, squares)) = problem.project(&shapes) {
                found.push((problem.start(&shapes, &coefficients), squares));
            }
        }
    }
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    found.truncate(POLISHED_PER_SHAPE * problem.form.shapes.len());
    found
}

/// Sets one break of a good answer anew, again and again, and keeps what is better: a break in the wrong place is a basin
/// of its own that no polish leaves.
fn moved(problem: &FormProblem, optima: &mut Vec<FormOptimum>) {
    let Some(simpler) = problem.form.grows_from else {
        return;
    };
    let part = problem.form.shapes.len() - simpler.shapes.len();
    let parts = problem.form.shapes.len() / part;
    for at in 0..MOVES_EXACT {
        let squares = optima[0].objective * problem.delta * problem.delta;
        if squares < EXACT || (at >= MOVES && squares > NEARLY_EXACT) {
            return;
        }
        let from = &optima[at % BASES.min(optima.len())];
        // The first shapes, which are not part of a break, stay.
        let first = problem.form.shapes.len() % part + at / BASES % parts * part;
        let mut shapes = from.theta[..problem.form.shapes.len()].to_vec();
        for axis in 0..part {
            let (low, high) = problem.form.shapes[first + axis].search;
            shapes[first + axis] = low + (high - low) * sequence(at, axis, part);
        }
        if let Some((coefficients, _)) = problem.project(&shapes) {
            let start = problem.start(&shapes, &coefficients);
            optima.push(polish(problem, &start, STEPS_MOVED));
            optima.sort_by(|a, b| a.objective.total_cmp(&b.objective));
            optima.dedup_by(|b, a| b.objective - a.objective <= SAME_BASE * a.objective);
        }
    }
}

/// To the last digit: Newton's steps, then those of a factorisation that does not square the condition.
fn finished(problem: &FormProblem, start: &[f64]) -> FormOptimum {
    let near = newton(problem, start, &Curvature::at(problem, start), Tolerance::Rounding);
    let last = polish(problem, &near.optimum.theta, STEPS_MAX);
    FormOptimum { steps: near.optimum.steps + last.steps, ..last }
}

/// A minimum of the whole set of rows, to start from on a resample of them.
pub(crate) struct Basin {
    theta: Vec<f64>,
    curvature: Curvature,
}

/// The best minima of a search.
pub(crate) fn basins(problem: &FormProblem, search: &FormSearch) -> Vec<Basin> {
    let basin = |one: &FormOptimum| Basin { theta: one.theta.clone(), curvature: Curvature::at(problem, &one.theta) };
    std::iter::once(&search.best).chain(&search.second).map(basin).collect()
}

/// The better minimum from known basins: what a resample needs.
pub(crate) fn refit(problem: &FormProblem, from: &[Basin]) -> FormOptimum {
    let from_one = |basin: &Basin| {
        let near = newton(problem, &basin.theta, &basin.curvature, Tolerance::Noise);
        if near.converged { near.optimum } else { polish(problem, &near.optimum.theta, STEPS_MAX) }
    };
    let best = from.iter().map(from_one).min_by(|a, b| a.objective.total_cmp(&b.objective));
    best.expect("a search has a best optimum")
}

/// Point `at` of the additive recurrence of the generalised golden ratio: evenly spread in any number of dimensions
/// (Roberts 2018, the R sequence).
fn sequence(at: usize, axis: usize, dimensions: usize) -> f64 {
    let mut ratio = 1.5_f64;
    for _ in 0..40 {
        ratio = (1.0 + ratio).powf(1.0 / (dimensions as f64 + 1.0));
    }
    (0.5 + (at + 1) as f64 * ratio.powi(-(axis as i32 + 1))).fract()
}
