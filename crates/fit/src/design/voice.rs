//! What one law says about places, given runs: a mean, a covariance, and how well it explains the runs.
//!
//! The law is linear around its fit (`prior.rs`). What it cannot express is a Gaussian process on top: smooth over the
//! logarithms of size and data, its size and reach weighed by how well they explain the residuals. Far beyond the runs this
//! keeps a law from being surer of itself than its misfit allows.

use crate::design::matrix::{Cholesky, Matrix};
use crate::design::prior::Linear;
use crate::law::Laws;
use crate::observation::Observation;

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
    if dimension(law).is_none_or(|dimension| dimension > rows.len()) {
        return Vec::new();
    }
    let linears = match law {
        Laws::Auto => return Vec::new(),
        Laws::One(law) => Linear::of_law(law, rows, places, delta),
        Laws::Form(form) => vec![Linear::of_form(form, rows, places, delta)],
    };
    let finite = |values: &Vec<f64>| values.iter().all(|value| value.is_finite());
    let sound = |linear: &&Linear| finite(&linear.expected) && linear.observed.iter().chain(&linear.places).all(finite);
    let explained =
        |linear| misfits(linear).filter_map(move |misfit| Some((linear, Explained::by(misfit, linear, rows)?)));
    let all: Vec<(&Linear, Explained)> = linears.iter().filter(sound).flat_map(explained).collect();
    let best = all.iter().map(|(_, one)| one.ln_evidence).fold(f64::NEG_INFINITY, f64::max);
    let heard = all.iter().filter(|(_, one)| one.ln_evidence - best > SHARE_MIN.ln());
    // A law that speaks from several fits has no more to say beforehand than one that speaks from one.
    let many = (linears.len() as f64).ln();
    let voice = |(linear, one): &(&Linear, Explained)| {
        let voice = one.voice(linear, rows, places);
        Voice { ln_evidence: voice.ln_evidence - many, ..voice }
    };
    heard.map(voice).collect()
}

/// A law's own error: noise of a run, size of the smooth misfit, and how far it reaches.
#[derive(Debug, Clone, Copy)]
struct Misfit {
    noise: f64,
    size: f64,
    reach: f64,
}

fn misfits(linear: &Linear) -> impl Iterator<Item = Misfit> + use<> {
    let scale = linear.scale;
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
    /// L^-1 of the surprises.
    whitened: Vec<f64>,
    ln_evidence: f64,
}

impl Explained {
    fn by(misfit: Misfit, linear: &Linear, rows: &[Observation]) -> Option<Self> {
        let covariance = Matrix::of(rows.len(), rows.len(), |i, j| {
            let noise = if i == j { misfit.noise * misfit.noise } else { 0.0 };
            dot(&linear.observed[i], &linear.observed[j]) + misfit.between(&rows[i], &rows[j]) + noise
        });
        let factor = Cholesky::of(&covariance)?;
        let whitened = factor.half(&linear.surprises);
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
        let mean =
            linear.expected.iter().zip(&half).map(|(expected, half)| expected + dot(half, &self.whitened)).collect();
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
