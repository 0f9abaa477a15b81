//! The noise of a run from runs that were made twice, against the error of the law: error above it is misfit, and no
//! further run will average it away.

use std::collections::BTreeMap;

use isoloss_sweep::HyperParameter;
use serde::{Deserialize, Serialize};

use crate::diagnosis::Chosen;
use crate::observation::Observation;
use crate::student;

/// Fewer degrees of freedom than this say nothing of a standard deviation.
const DEGREES_MIN: usize = 3;
/// An error within this factor of the noise is noise.
const AT_FLOOR: f64 = 1.5;

/// Noise from replicates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicatesRecord {
    /// Settings that were run more than once, and their runs.
    pub settings: usize,
    pub runs: usize,
    /// Runs minus settings.
    pub degrees: usize,
    /// Standard deviation of ln loss between runs of one setting.
    pub noise: f64,
    /// Of the noise, at the level of the fit; absent where the replicates are too few for one.
    pub noise_interval: Option<[f64; 2]>,
    /// Root mean square of the law's residuals of ln loss over its degrees of freedom.
    pub law_error: f64,
    pub verdict: Floor,
}

/// Where the law's error stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// No larger than the noise explains: a better law would not show.
    AtNoise,
    /// Larger than the noise: the law misses, or settings were not tuned alike.
    Misfit,
    /// Too few replicates to tell.
    Open,
}

/// `None` where no setting was run twice with two results.
pub(crate) fn replicates(chosen: &Chosen<'_>) -> Option<ReplicatesRecord> {
    let mut alike: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for row in chosen.rows {
        alike.entry(setting(row)).or_default().push(row.loss.ln());
    }
    alike.retain(|_, losses| losses.len() > 1);
    if alike.is_empty() {
        return None;
    }
    let runs: usize = alike.values().map(Vec::len).sum();
    let degrees = runs - alike.len();
    let square: f64 = alike.values().map(|losses| about_mean(losses)).sum();
    let noise = (square / degrees as f64).sqrt();
    // Equal to the last bit: one run told twice, not two.
    if noise == 0.0 {
        return None;
    }
    let noise_interval = (degrees >= DEGREES_MIN).then(|| interval(noise, degrees, chosen.level));
    let law_error = chosen.fit.sigma();
    let verdict = match noise_interval {
        Some([_, high]) if law_error > high && law_error > AT_FLOOR * noise => Floor::Misfit,
        Some(_) if law_error <= AT_FLOOR * noise => Floor::AtNoise,
        _ => Floor::Open,
    };
    Some(ReplicatesRecord { settings: alike.len(), runs, degrees, noise, noise_interval, law_error, verdict })
}

/// All that the observation tells of a run except its loss, comparable by bits.
fn setting(row: &Observation) -> (&str, Vec<u64>, Vec<(HyperParameter, u64)>) {
    let experts = [row.experts, row.top_k].map(|count| count.map_or(u64::MAX, u64::from));
    let counts = [row.params, row.params_active, row.params_total, row.tokens];
    let optional = [row.granularity, row.tokens_unique].map(|value| value.unwrap_or(f64::NAN));
    let bits = counts.into_iter().chain(optional).map(f64::to_bits).chain(experts).collect();
    (&row.arm, bits, row.hyper.iter().map(|(name, value)| (*name, value.to_bits())).collect())
}

/// Sum of squares about the mean.
fn about_mean(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean).powi(2)).sum()
}

/// Of a standard deviation with that many degrees of freedom: quantiles of chi squared by Wilson and Hilferty (1931).
fn interval(noise: f64, degrees: usize, level: f64) -> [f64; 2] {
    let normal = student::quantile(level, usize::MAX);
    let degrees = degrees as f64;
    let part = 2.0 / (9.0 * degrees);
    [normal, -normal].map(|z| {
        // The lower cube root may not pass zero: few degrees of freedom leave the noise open above.
        let root = (1.0 - part + z * part.sqrt()).max(0.05);
        noise / root.powf(1.5)
    })
}

pub(crate) fn warning(record: &ReplicatesRecord) -> Option<String> {
    (record.verdict == Floor::Misfit).then(|| {
        format!(
            "the law's error of {:.3} % is {:.1} times the noise of replicates: it is misfit, which more seeds will not \
             average away",
            100.0 * record.law_error,
            record.law_error / record.noise
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_chi_squared() {
        // 95 % of chi squared with 10 degrees: 3.247 to 20.483.
        let [low, high] = interval(1.0, 10, 0.95);
        assert!((low - (10.0_f64 / 20.483).sqrt()).abs() < 0.01, "{low}");
        assert!((high - (10.0_f64 / 3.247).sqrt()).abs() < 0.02, "{high}");
        assert!(interval(1.0, 3, 0.95)[1].is_finite());
    }

    #[test]
    fn runs_are_alike_in_all_but_their_loss() {
        let one = Observation::dense("a", 1e6, 1e8, 3.0);
        let twin = Observation::dense("b", 1e6, 1e8, 3.1);
        let mut other = twin.clone();
        other.hyper.insert(HyperParameter::LearningRate, 1e-3);
        assert_eq!(setting(&one), setting(&twin));
        assert_ne!(setting(&one), setting(&other));
        assert_ne!(setting(&one), setting(&Observation { tokens_unique: Some(1e7), ..one.clone() }));
    }
}
