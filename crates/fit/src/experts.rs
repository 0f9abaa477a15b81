//! Mixture-of-experts arms beside the dense law: loss against active and against total params, and the dense size that
//! would do as well. Laws in the number of experts are forms (`forms/experts.rs`), and what a budget buys by one is `trade.rs`.

use serde::{Deserialize, Serialize};

use crate::fitted::Fitted;
use crate::interval::{Cloud, percentiles};
use crate::law::{Law, law};
use crate::observation::{Observation, Observations};
use crate::record::{EffectiveSize, ExpertsFit, ExpertsRecord};
use crate::scaling::ScalingLaw;

/// Losses of a whole arm over those of the dense law, which is asked about models that share something with each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainstDense {
    /// The same active params and tokens, so the same compute.
    pub equal_active: LossRatio,
    /// The same total params and tokens: the same memory, the dense model taking more compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_total: Option<LossRatio>,
    /// The same total params, on as many tokens less as the compute of the run pays: the same memory and compute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equal_total_and_compute: Option<LossRatio>,
    /// Runs of which the dense model of equal total params is larger than all dense runs: the law is drawn out there.
    pub beyond: usize,
}

/// Geometric mean over the runs of an arm, and its interval by the cloud of the dense law.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossRatio {
    pub ratio: f64,
    pub interval: [f64; 2],
}

/// From this many runs on an arm gets a law of its own; below, it shares all but A with the dense one.
const RUNS_FOR_OWN: usize = 9;

/// A twentieth above the largest dense run is not beyond it: designs round.
const LARGER: f64 = 1.05;

/// Every arm with experts, against the dense law where there is one.
pub(crate) fn arms(
    observations: &Observations,
    dense: Option<(&ScalingLaw, &Cloud)>,
    delta: f64,
    level: f64,
) -> Vec<ExpertsRecord> {
    let sparse = observations.subset(|row| !row.is_dense());
    let dense_sizes = observations.rows().iter().filter(|row| row.is_dense()).map(|row| row.params_total);
    let largest = dense_sizes.fold(0.0, f64::max);
    let arm = |name: &str| {
        let rows = sparse.subset(|row| row.arm == name);
        let first = rows.rows().first()?;
        let (experts, top_k) = (first.experts.unwrap_or(1), first.top_k.unwrap_or(1));
        let effective: Vec<EffectiveSize> = dense
            .map_or_else(Vec::new, |(law, cloud)| rows.rows().iter().map(|row| size(row, law, cloud, level)).collect());
        let (ratio, interval) = dense.map_or((None, None), |(law, cloud)| ratio(rows.rows(), law, cloud, level));
        Some(ExpertsRecord {
            arm: name.to_owned(),
            experts,
            top_k,
            runs: rows.rows().len(),
            by_active: axis(rows.rows(), |row| row.params_active, dense.map(|(law, _)| law), delta),
            by_total: axis(rows.rows(), |row| row.params_total, dense.map(|(law, _)| law), delta),
            effective,
            effective_over_active: ratio,
            effective_over_active_interval: interval,
            against_dense: dense.map(|(law, cloud)| against(rows.rows(), largest, law, cloud, level)),
        })
    };
    sparse.arms().into_iter().filter_map(arm).collect()
}

/// The additive law with `size` on the size axis: free where the runs suffice, else the dense law with its own A.
fn axis(
    rows: &[Observation],
    size: fn(&Observation) -> f64,
    dense: Option<&ScalingLaw>,
    delta: f64,
) -> Option<ExpertsFit> {
    let mut moved = rows.to_vec();
    for row in &mut moved {
        row.params = size(row);
    }
    let additive: &'static Law = law("additive").expect("the registry has the additive law");
    if rows.len() >= RUNS_FOR_OWN {
        let fit = Fitted::new(additive, &moved, delta);
        return Some(ExpertsFit {
            parameters: fit.law.parameters(),
            shared: Vec::new(),
            rms_relative_error: fit.rms(),
        });
    }
    let dense = dense.filter(|law| law.parameter("A").is_some())?;
    let (ln_shift, rms) = shift(&moved, dense);
    let mut parameters = dense.parameters();
    let alpha = dense.parameter("alpha")?;
    // A size multiplied by m is an A multiplied by m^-alpha.
    parameters.entry("A".to_owned()).and_modify(|a| *a *= (-alpha * ln_shift).exp());
    let shared = parameters.keys().filter(|name| *name != "A").cloned().collect();
    Some(ExpertsFit { parameters, shared, rms_relative_error: rms })
}

/// ln of the factor on params under which the dense law fits the rows best in least squares of ln loss, and the rms.
fn shift(rows: &[Observation], dense: &ScalingLaw) -> (f64, f64) {
    let square = |ln: f64| {
        let residual = |row: &Observation| (dense.loss(row.params * ln.exp(), row.tokens) / row.loss).ln();
        rows.iter().map(|row| residual(row).powi(2)).sum::<f64>()
    };
    // Golden section over a factor of e^6 either way: more experts than that nobody trains.
    let golden = 0.5 * (5f64.sqrt() - 1.0);
    let (mut low, mut high) = (-6.0_f64, 6.0_f64);
    for _ in 0..80 {
        let span = golden * (high - low);
        let (left, right) = (high - span, low + span);
        if square(left) < square(right) {
            high = right;
        } else {
            low = left;
        }
    }
    let best = 0.5 * (low + high);
    (best, (square(best) / rows.len() as f64).sqrt())
}

/// The dense params with equal fitted loss at the same tokens.
fn size(row: &Observation, law: &ScalingLaw, cloud: &Cloud, level: f64) -> EffectiveSize {
    let of = |law: &ScalingLaw| law.params_for(row.loss, row.tokens);
    // A law that cannot reach the loss stands for an endless size, so it counts at the upper end.
    let draws: Vec<f64> = cloud.draws.iter().map(|law| of(law).unwrap_or(f64::INFINITY)).collect();
    let finite = |end: f64| end.is_finite().then_some(end);
    let [low, high] = percentiles(draws, level);
    EffectiveSize {
        id: row.id.clone(),
        params_active: row.params_active,
        params_total: row.params_total,
        tokens: row.tokens,
        loss: row.loss,
        params_effective: of(law),
        interval: Some([finite(low), finite(high)]),
    }
}

/// Effective dense over active params of the whole arm, one factor for all runs.
fn ratio(rows: &[Observation], law: &ScalingLaw, cloud: &Cloud, level: f64) -> (Option<f64>, Option<[f64; 2]>) {
    let mut active = rows.to_vec();
    for row in &mut active {
        row.params = row.params_active;
    }
    let of = |law: &ScalingLaw| shift(&active, law).0.exp();
    let centre = of(law);
    let [low, high] = percentiles(cloud.draws.iter().map(of).collect(), level);
    (Some(centre), Some([low.min(centre), high.max(centre)]))
}

/// The arm's losses against the dense law's at equal active params, and where total params are known at equal ones.
fn against(rows: &[Observation], largest: f64, law: &ScalingLaw, cloud: &Cloud, level: f64) -> AgainstDense {
    let ratio = |dense: &dyn Fn(&Observation) -> (f64, f64)| {
        let of = |law: &ScalingLaw| {
            let ln = |row: &Observation| {
                let (params, tokens) = dense(row);
                (row.loss / law.loss(params, tokens)).ln()
            };
            (rows.iter().map(ln).sum::<f64>() / rows.len() as f64).exp()
        };
        let centre = of(law);
        let [low, high] = percentiles(cloud.draws.iter().map(of).collect(), level);
        LossRatio { ratio: centre, interval: [low.min(centre), high.max(centre)] }
    };
    let known = rows.iter().all(|row| row.params_total > row.params_active);
    AgainstDense {
        equal_active: ratio(&|row| (row.params_active, row.tokens)),
        equal_total: known.then(|| ratio(&|row| (row.params_total, row.tokens))),
        equal_total_and_compute: known
            .then(|| ratio(&|row| (row.params_total, row.tokens * row.params_active / row.params_total))),
        beyond: if known { rows.iter().filter(|row| row.params_total > LARGER * largest).count() } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Mixtures that follow the dense law at their geometric mean of active and total params.
    #[test]
    fn an_arm_is_held_against_dense_models_of_equal_active_and_of_equal_total_params() {
        let values = [("E", 1.69), ("A", 406.4), ("B", 410.7), ("alpha", 0.34), ("beta", 0.28)];
        let map: BTreeMap<String, f64> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let truth = ScalingLaw::new(law("additive").unwrap(), &map).unwrap();
        let mut rows = Vec::new();
        for size in [1e7, 3e7, 1e8, 3e8, 1e9] {
            for tokens in [1e9, 1e10, 1e11] {
                rows.push(Observation::dense(format!("{size:e} {tokens:e}"), size, tokens, truth.loss(size, tokens)));
                let total = 4.0 * size;
                let mut row = Observation::dense(format!("m {size:e} {tokens:e}"), size, tokens, 1.0);
                row.loss = truth.loss(2.0 * size, tokens);
                (row.arm, row.experts, row.top_k, row.params_total) = ("moe".to_owned(), Some(7), Some(1), total);
                rows.push(row);
            }
        }
        let sparse: Vec<Observation> = rows.iter().filter(|row| !row.is_dense()).cloned().collect();
        let set = crate::Observations::new(rows, vec![], "params");
        let settings = crate::Settings { laws: "additive".parse().unwrap(), resamples: 40, ..Default::default() };
        let record = crate::fit(&set, &settings, &mut |_| {});
        let [arm] = &record.experts[..] else { panic!("one arm: {:?}", record.experts) };
        let told = arm.against_dense.as_ref().unwrap();
        let mean = |params: f64, tokens: f64| {
            let ln = |row: &Observation| (row.loss / truth.loss(params * row.params, tokens * row.tokens)).ln();
            (sparse.iter().map(ln).sum::<f64>() / sparse.len() as f64).exp()
        };
        let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        near(arm.effective_over_active.unwrap(), 2.0);
        near(told.equal_active.ratio, mean(1.0, 1.0));
        near(told.equal_total.unwrap().ratio, mean(4.0, 1.0));
        near(told.equal_total_and_compute.unwrap().ratio, mean(4.0, 0.25));
        assert!(told.equal_active.ratio < 1.0 && told.equal_total.unwrap().ratio > 1.0);
        // Of 1e9 active params the four times larger dense model is beyond all dense runs; of 3e8 too.
        assert_eq!(told.beyond, 6);
    }
}
