//! What one law says about places, given runs: a mean, a covariance, and how well it explains the runs.
//!
//! The law is linear around its fit (h, the slopes of ln loss) with a wide prior on its parameters. What it cannot express
//! is a Gaussian process on top: smooth over the logarithms of size and data, its size and reach learned from the
//! residuals. Far beyond the runs this keeps a law from being surer of itself than its misfit allows.

use crate::design::matrix::{Cholesky, Matrix};
use crate::form::Form;
use crate::general::{self, FormProblem};
use crate::law::{Law, Laws};
use crate::observation::Observation;
use crate::optimum;
use crate::problem::{self, Problem};

/// Prior standard deviations inside a fit, where all is centred and relative to the typical loss.
const COEFFICIENT_SPREAD: f64 = 3.0;
const EXPONENT_SPREAD: f64 = 0.5;
/// What is assumed of the noise of a run before any is seen, and for how many runs that counts.
const NOISE_PRIOR: f64 = 0.01;
const NOISE_PRIOR_RUNS: f64 = 2.0;
/// Residuals beyond this many standard deviations pull no more than that.
const RESIDUAL_MAX: f64 = 3.0;
/// Mean square of a standard normal of which the outer tenth is left out.
const TRIMMED: f64 = 0.623;
/// Sizes of noise and misfit that are tried, relative to the residuals, and reaches of the misfit in ln units.
const NOISES: [f64; 4] = [0.5, 0.75, 1.0, 1.4];
const MISFITS: [f64; 3] = [0.0, 0.7, 1.5];
const REACHES: [f64; 2] = [1.0, 2.5];
/// Misfits that explain the runs this much worse than the best, as a share of the evidence, are left out.
const SHARE_MIN: f64 = 0.02;

/// A law's opinion.
#[derive(Debug, Clone)]
pub(crate) struct Voice {
    pub(crate) name: &'static str,
    /// ln of the density of the observed losses under it.
    pub(crate) ln_evidence: f64,
    /// ln loss at the places.
    pub(crate) mean: Vec<f64>,
    pub(crate) covariance: Matrix,
    /// Variance of ln loss of one run around the truth.
    pub(crate) noise: f64,
}

/// Values and slopes of a fitted law at runs and at places.
struct Linear {
    name: &'static str,
    /// ln observed - ln fitted.
    residuals: Vec<f64>,
    observed: Vec<Vec<f64>>,
    mean: Vec<f64>,
    places: Vec<Vec<f64>>,
}

impl Linear {
    fn of_law(law: &'static Law, rows: &[Observation], places: &[Observation], delta: f64) -> Self {
        let problem = Problem::new(law, rows, delta);
        let theta = optimum::search(&problem).best.theta;
        let spreads = spreads(law);
        let slope = |row: &Observation| {
            let point = problem::point(law, &theta, problem.place(row));
            let scaled = point.gradient.iter().zip(&spreads).map(|(slope, spread)| slope * spread).collect();
            (point.value + problem.loss_unit().ln(), scaled)
        };
        let residuals = problem.residuals(&theta).into_iter().map(|r| -r).collect();
        let (mean, at_places) = places.iter().map(slope).unzip();
        Self {
            name: law.name,
            residuals,
            observed: rows.iter().map(|row| slope(row).1).collect(),
            mean,
            places: at_places,
        }
    }

    fn of_form(form: &'static Form, rows: &[Observation], places: &[Observation], delta: f64) -> Self {
        let problem = FormProblem::new(form, rows, None, delta.max(form.huber_delta));
        let theta = general::search(&problem).best.theta;
        let shapes = form.shapes.iter().map(|shape| 0.5 * (shape.search.1 - shape.search.0));
        let coefficients = form.coefficients.iter().map(|one| if one.positive { COEFFICIENT_SPREAD } else { 1.0 });
        let spreads: Vec<f64> = shapes.chain(coefficients).collect();
        let slope = |row: &Observation| {
            let dual = form.ln_loss_slopes(&theta, &problem.centre.spot(row));
            let scaled = dual.slope.iter().zip(&spreads).map(|(slope, spread)| slope * spread).collect();
            (dual.value, scaled)
        };
        let residuals = problem.residuals(&theta).into_iter().map(|r| -r).collect();
        let (mean, at_places) = places.iter().map(slope).unzip();
        Self {
            name: form.name,
            residuals,
            observed: rows.iter().map(|row| slope(row).1).collect(),
            mean,
            places: at_places,
        }
    }
}

/// Of the parameters of a law in their order.
fn spreads(law: &Law) -> Vec<f64> {
    let exponents = law.dimension() - law.terms.len();
    let coefficients = std::iter::repeat_n(COEFFICIENT_SPREAD, law.terms.len());
    coefficients.chain(std::iter::repeat_n(EXPONENT_SPREAD, exponents)).collect()
}

/// Free parameters, and whether it is a law at all.
pub(crate) fn dimension(law: Laws) -> Option<usize> {
    match law {
        Laws::Auto => None,
        Laws::One(law) => Some(law.dimension()),
        Laws::Form(form) => Some(form.dimension()),
    }
}

/// One voice for each misfit that the runs do not rule out; none where the runs are fewer than the law's parameters, or it
/// says nothing finite.
pub(crate) fn voices(law: Laws, rows: &[Observation], places: &[Observation], delta: f64) -> Vec<Voice> {
    let Some(dimension) = dimension(law).filter(|dimension| *dimension <= rows.len()) else {
        return Vec::new();
    };
    let linear = match law {
        Laws::Auto => return Vec::new(),
        Laws::One(law) => Linear::of_law(law, rows, places, delta),
        Laws::Form(form) => Linear::of_form(form, rows, places, delta),
    };
    let finite = |values: &Vec<f64>| values.iter().all(|value| value.is_finite());
    let sound = finite(&linear.mean) && linear.observed.iter().chain(&linear.places).all(finite);
    if !sound {
        return Vec::new();
    }
    let scale = scale(&linear.residuals, dimension);
    let residuals: Vec<f64> =
        linear.residuals.iter().map(|r| r.clamp(-RESIDUAL_MAX * scale, RESIDUAL_MAX * scale)).collect();
    let all: Vec<Explained> =
        misfits(scale).filter_map(|misfit| Explained::by(misfit, &linear, &residuals, rows)).collect();
    let best = all.iter().map(|one| one.ln_evidence).fold(f64::NEG_INFINITY, f64::max);
    let heard = all.iter().filter(|one| one.ln_evidence - best > SHARE_MIN.ln());
    heard.map(|one| one.voice(&linear, rows, places)).collect()
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
    ((NOISE_PRIOR_RUNS * NOISE_PRIOR * NOISE_PRIOR + squares) / (NOISE_PRIOR_RUNS + degrees)).sqrt()
}

/// A law's own error: noise of a run, size of the smooth misfit, and how far it reaches.
#[derive(Debug, Clone, Copy)]
struct Misfit {
    noise: f64,
    size: f64,
    reach: f64,
}

fn misfits(scale: f64) -> impl Iterator<Item = Misfit> {
    let of = move |noise: f64, size: f64, reach| Misfit { noise: noise * scale, size: size * scale, reach };
    let sizes = |noise| MISFITS.into_iter().map(move |size| (noise, size));
    NOISES.into_iter().flat_map(sizes).flat_map(move |(noise, size)| {
        let reaches = if size > 0.0 { &REACHES[..] } else { &REACHES[..1] };
        reaches.iter().map(move |reach| of(noise, size, *reach))
    })
}

impl Misfit {
    /// Covariance of the misfit at two runs.
    fn between(&self, a: &Observation, b: &Observation) -> f64 {
        let square: f64 = coordinates(a).iter().zip(coordinates(b)).map(|(a, b)| (a - b) * (a - b)).sum();
        self.size * self.size * (-0.5 * square / (self.reach * self.reach)).exp()
    }
}

/// Where a run lies: logarithms, so that equal steps are equal factors.
pub(crate) fn coordinates(row: &Observation) -> [f64; 4] {
    let experts = f64::from(row.experts.unwrap_or(1));
    [row.params.ln(), row.tokens.ln(), experts.ln(), row.tokens_unique.unwrap_or(row.tokens).ln()]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The runs under one misfit.
struct Explained {
    misfit: Misfit,
    factor: Cholesky,
    /// L^-1 residuals.
    whitened: Vec<f64>,
    ln_evidence: f64,
}

impl Explained {
    fn by(misfit: Misfit, linear: &Linear, residuals: &[f64], rows: &[Observation]) -> Option<Self> {
        let covariance = Matrix::of(rows.len(), rows.len(), |i, j| {
            let noise = if i == j { misfit.noise * misfit.noise } else { 0.0 };
            dot(&linear.observed[i], &linear.observed[j]) + misfit.between(&rows[i], &rows[j]) + noise
        });
        let factor = Cholesky::of(&covariance)?;
        let whitened = factor.half(residuals);
        let ln_evidence = -0.5 * (dot(&whitened, &whitened) + factor.ln_det());
        Some(Self { misfit, factor, whitened, ln_evidence })
    }

    /// Conditioned on the runs.
    fn voice(&self, linear: &Linear, rows: &[Observation], places: &[Observation]) -> Voice {
        let half: Vec<Vec<f64>> = places
            .iter()
            .zip(&linear.places)
            .map(|(place, slope)| {
                let shared = rows.iter().zip(&linear.observed);
                let shared: Vec<f64> =
                    shared.map(|(row, other)| dot(slope, other) + self.misfit.between(place, row)).collect();
                self.factor.half(&shared)
            })
            .collect();
        let mean = linear.mean.iter().zip(&half).map(|(mean, half)| mean + dot(half, &self.whitened)).collect();
        let covariance = Matrix::of(places.len(), places.len(), |i, j| {
            let prior = dot(&linear.places[i], &linear.places[j]) + self.misfit.between(&places[i], &places[j]);
            prior - dot(&half[i], &half[j])
        });
        Voice {
            name: linear.name,
            ln_evidence: self.ln_evidence,
            mean,
            covariance,
            noise: self.misfit.noise * self.misfit.noise,
        }
    }
}
