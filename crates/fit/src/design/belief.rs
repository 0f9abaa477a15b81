//! What all plausible laws together say about places: one mean, one covariance. By the law of total covariance the laws'
//! disagreement is one more thing not known, which a run can settle as well as a parameter.

use crate::design::matrix::Matrix;
use crate::design::voice::Voice;

/// Mean and covariance of ln loss at places.
#[derive(Debug, Clone)]
pub(crate) struct Belief {
    pub(crate) mean: Vec<f64>,
    pub(crate) covariance: Matrix,
    pub(crate) noise: f64,
    /// Shares of the laws.
    pub(crate) shares: Vec<(&'static str, f64)>,
}

impl Belief {
    /// Laws by their evidence; `None` where no law spoke.
    pub(crate) fn of(voices: &[Voice]) -> Option<Self> {
        let top = voices.iter().map(|voice| voice.ln_evidence).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = voices.iter().map(|voice| (voice.ln_evidence - top).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
        let places = voices.first()?.mean.len();
        let mean: Vec<f64> =
            (0..places).map(|at| voices.iter().zip(&weights).map(|(voice, w)| w * voice.mean[at]).sum()).collect();
        let mut covariance = Matrix::of(places, places, |_, _| 0.0);
        for (voice, weight) in voices.iter().zip(&weights) {
            covariance.add(*weight, &voice.covariance);
            let away: Vec<f64> = voice.mean.iter().zip(&mean).map(|(own, mean)| own - mean).collect();
            covariance.add_square(*weight, &away);
        }
        let noise = voices.iter().zip(&weights).map(|(voice, weight)| weight * voice.noise).sum();
        let mut shares: Vec<(&'static str, f64)> = Vec::new();
        for (voice, weight) in voices.iter().zip(weights) {
            match shares.iter_mut().find(|(name, _)| *name == voice.name) {
                Some((_, share)) => *share += weight,
                None => shares.push((voice.name, weight)),
            }
        }
        Some(Self { mean, covariance, noise, shares })
    }

    /// By how much the summed variance over the first `targets` places falls when a run is made at `place`.
    pub(crate) fn gain(&self, targets: usize, place: usize) -> f64 {
        let row = self.covariance.row(place);
        row[..targets].iter().map(|shared| shared * shared).sum::<f64>() / (row[place].max(0.0) + self.noise)
    }

    /// Summed variance over the first `targets` places.
    pub(crate) fn variance(&self, targets: usize) -> f64 {
        (0..targets).map(|at| self.covariance.at(at, at).max(0.0)).sum()
    }

    /// A run is made at `place`; what comes of it is not known yet.
    pub(crate) fn observe(&mut self, place: usize) {
        let row = self.covariance.row(place).to_vec();
        let spread = row[place].max(0.0) + self.noise;
        self.covariance.add_square(-1.0 / spread, &row);
    }
}
