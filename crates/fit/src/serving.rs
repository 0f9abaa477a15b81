//! Along a budget: which sizes lose little, and which size is best when the model will also be used, or must fit somewhere.

use crate::record::{ServedRecord, Within};
use crate::scaling::ScalingLaw;

/// Losses above the best of the budget within which sizes are told.
pub(crate) const TOLERANCES: [f64; 2] = [0.001, 0.01];
/// A forward pass is a third of a training step.
pub(crate) const FORWARD_SHARE: f64 = 1.0 / 3.0;
/// How far from the optimum, in ln params, a size is looked for.
const REACH_LN: f64 = 60.0;

/// The sizes whose loss at `flops = factor * params * tokens` is within each tolerance of the best.
pub(crate) fn within(law: &ScalingLaw, flops: f64, factor: f64) -> Vec<Within> {
    let Some((params, tokens)) = law.allocate(flops, factor) else {
        return Vec::new();
    };
    let least = law.loss(params, tokens);
    let loss = |ln_params: f64| law.loss(ln_params.exp(), (flops / factor / ln_params.exp()).max(f64::MIN_POSITIVE));
    let edge = |limit: f64, side: f64| {
        // The loss rises on both sides of the optimum without turning.
        let (mut inside, mut outside) = (params.ln(), params.ln() + side * REACH_LN);
        for _ in 0..100 {
            let middle = 0.5 * (inside + outside);
            *(if loss(middle) <= limit { &mut inside } else { &mut outside }) = middle;
        }
        inside.exp()
    };
    let sizes = |tolerance: f64| {
        let limit = least * (1.0 + tolerance);
        Within { tolerance, params: [edge(limit, -1.0), edge(limit, 1.0)] }
    };
    TOLERANCES.into_iter().map(sizes).collect()
}

/// The size and data of least loss when `flops` pay for training and for `served` tokens that the model will read or write, two
/// FLOPs a param and token where training takes six (Sardana et al. 2401.00448, eq. 2, turned round: their least cost for a
/// loss is here the least loss for a cost). `params_max` is what memory allows.
pub(crate) fn served(
    law: &ScalingLaw,
    flops: f64,
    factor: f64,
    served: f64,
    params_max: Option<f64>,
) -> Option<ServedRecord> {
    let (alone, _) = law.allocate(flops, factor)?;
    let left = |params: f64| flops - FORWARD_SHARE * factor * params * served;
    let tokens = |params: f64| left(params) / (factor * params);
    let loss = |ln_params: f64| {
        let tokens = tokens(ln_params.exp());
        if tokens > 0.0 { law.loss(ln_params.exp(), tokens) } else { f64::INFINITY }
    };
    let most = params_max.unwrap_or(f64::INFINITY).min(alone);
    let params = least(loss, most.ln() - REACH_LN, most.ln()).exp();
    (tokens(params) > 0.0).then(|| ServedRecord {
        tokens_served: served,
        params_max,
        params,
        tokens: tokens(params),
        loss: law.loss(params, tokens(params)),
        flops_training: left(params),
    })
}

/// Why a budget does not pay for use: a model far smaller than all runs is no answer, so that of the smallest counts.
pub(crate) fn unpaid(flops: f64, factor: f64, served: f64, smallest: f64) -> Option<String> {
    let cost = FORWARD_SHARE * factor * smallest * served;
    (cost >= flops).then(|| {
        format!(
            "the budget does not pay for {served:.3e} tokens of use: with the smallest model of the runs, {smallest:.3e} \
             params, they take {cost:.2e} of the {flops:.2e} FLOPs and leave nothing for training"
        )
    })
}

/// Where a function that falls and then rises is least: golden-section search.
pub(crate) fn least(of: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let golden = 0.5 * (5f64.sqrt() - 1.0);
    for _ in 0..120 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if of(a) <= of(b) { high = b } else { low = a }
    }
    // The end itself, where the function falls all the way.
    [low, 0.5 * (low + high), high].into_iter().min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap_or(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::law;

    fn chinchilla() -> ScalingLaw {
        let values = [("E", 1.69), ("A", 406.4), ("B", 410.7), ("alpha", 0.34), ("beta", 0.28)];
        let map = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        ScalingLaw::new(law("additive").unwrap(), &map).unwrap()
    }

    #[test]
    fn sizes_within_a_tolerance_have_that_loss_at_their_ends() {
        let (law, flops) = (chinchilla(), 1e21);
        let (params, tokens) = law.allocate(flops, 6.0).unwrap();
        for Within { tolerance, params: [low, high] } in within(&law, flops, 6.0) {
            assert!(low < params && params < high);
            for size in [low, high] {
                let loss = law.loss(size, flops / 6.0 / size);
                assert!((loss / law.loss(params, tokens) - 1.0 - tolerance).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_model_that_is_used_is_smaller_and_none_is_the_usual_optimum() {
        let (law, flops) = (chinchilla(), 1e21);
        let (params, tokens) = law.allocate(flops, 6.0).unwrap();
        let none = served(&law, flops, 6.0, 0.0, None).unwrap();
        assert!((none.params / params - 1.0).abs() < 1e-6 && (none.tokens / tokens - 1.0).abs() < 1e-6);
        let much = served(&law, flops, 6.0, 1e12, None).unwrap();
        assert!(much.params < 0.8 * params);
        let spent = 6.0 * much.params * much.tokens + 2.0 * much.params * 1e12;
        assert!((spent / flops - 1.0).abs() < 1e-9);
        for shift in [0.97, 1.03] {
            let size = much.params * shift;
            assert!(law.loss(size, (flops - 2.0 * size * 1e12) / (6.0 * size)) > much.loss);
        }
        let small = served(&law, flops, 6.0, 0.0, Some(1e8)).unwrap();
        assert!((small.params / 1e8 - 1.0).abs() < 1e-9 && small.loss > none.loss);
    }
}
