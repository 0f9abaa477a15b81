//! Mixture-of-experts arms beside the dense law: loss against active and against total params, and the dense size that
//! would do as well. Laws in the number of experts are not here yet.

use crate::fitted::Fitted;
use crate::interval::{Cloud, percentiles};
use crate::law::{Law, law};
use crate::observation::{Observation, Observations};
use crate::record::{EffectiveSize, ExpertsFit, ExpertsRecord};
use crate::scaling::ScalingLaw;

/// From this many runs on an arm gets a law of its own; below, it shares all but A with the dense one.
const RUNS_FOR_OWN: usize = 9;

/// Every arm with experts, against the dense law where there is one.
pub(crate) fn arms(
    observations: &Observations,
    dense: Option<(&ScalingLaw, &Cloud)>,
    delta: f64,
    level: f64,
) -> Vec<ExpertsRecord> {
    let sparse = observations.subset(|row| !row.is_dense());
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
