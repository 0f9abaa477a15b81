//! Scores on validation text, routing statistics, and when the points of a training curve are due. Training and files
//! are elsewhere.

use isoloss_corpus::Scoring;
use isoloss_sweep::outcome::{Routing, Score};
use isoloss_sweep::plan::{FIRST_POINT_COST, POINT_RATIO};
use isoloss_sweep::{Experts, Model, Run};

use crate::engine::{Batch, Engine, EngineError};

/// Windows evaluated at a time.
const WINDOWS: usize = 16;

/// A scored text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assessment {
    pub(crate) score: Score,
    /// `[layer][expert]` routed pairs.
    pub(crate) load: Vec<Vec<u64>>,
    /// Forward FLOPs.
    pub(crate) flops: f64,
}

/// Scores all windows, unless `pulse` (asked between pieces) says to stop: then there is no score.
pub(crate) fn assess(
    engine: &mut dyn Engine,
    scoring: &Scoring,
    model: &Model,
    pulse: &mut dyn FnMut() -> bool,
) -> Result<Option<Assessment>, EngineError> {
    let (mut nats, mut load) = (0.0, Vec::new());
    for first in (0..scoring.windows()).step_by(WINDOWS) {
        let count = WINDOWS.min(scoring.windows() - first);
        let found = engine.evaluate(Batch {
            tokens: scoring.tokens(first, count),
            sequences: count,
            context: scoring.context(),
        })?;
        nats += scoring.nats(first, &found.losses);
        add_load(&mut load, &found.load);
        if pulse() {
            return Ok(None);
        }
    }
    Ok(Some(Assessment { score: scoring.score(nats), load, flops: cost(scoring, model) }))
}

/// Forward FLOPs of scoring all windows once.
fn cost(scoring: &Scoring, model: &Model) -> f64 {
    model.flop_terms().forward() * (scoring.windows() * scoring.context()) as f64
}

fn add_load(sum: &mut Vec<Vec<u64>>, load: &[Vec<u64>]) {
    sum.resize(load.len(), Vec::new());
    for (sum, layer) in sum.iter_mut().zip(load) {
        sum.resize(layer.len(), 0);
        for (sum, &pairs) in sum.iter_mut().zip(layer) {
            *sum += pairs;
        }
    }
}

/// Whether a curve point is due after `step` steps. It does not depend on how many steps the run has, so a branch has
/// the curve of the straight run.
pub(crate) fn due(step: u64, run: &Run, scoring: &Scoring) -> bool {
    let per_step = run.model.flop_terms().training() * f64::from(run.train.batch) * f64::from(run.model.context);
    let first = FIRST_POINT_COST * cost(scoring, &run.model) / per_step;
    let rank = |step: u64| (step as f64 / first).log(POINT_RATIO).floor();
    step > 0 && step as f64 >= first && (rank(step) > rank(step - 1) || ((step - 1) as f64) < first)
}

/// Balance of `load`, counted over the scored text.
pub(crate) fn routing(experts: &Experts, load: &[Vec<u64>], dropped_fraction: f64) -> Routing {
    let count = f64::from(experts.count);
    let shares: Vec<Vec<f64>> = load
        .iter()
        .map(|layer| {
            let total = layer.iter().sum::<u64>().max(1) as f64;
            layer.iter().map(|&pairs| pairs as f64 / total).collect()
        })
        .collect();
    let all = || shares.iter().flatten().copied();
    let entropy = |layer: &Vec<f64>| -layer.iter().filter(|&&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>();
    // One expert alone is always in balance.
    let entropy_max = if experts.count > 1 { count.ln() } else { 1.0 };
    let entropy_mean = shares.iter().map(entropy).sum::<f64>() / shares.len().max(1) as f64;
    let dead = all().filter(|share| share * count < 0.1).count();
    Routing {
        load_max_ratio: all().fold(0.0, f64::max) * count,
        load_entropy_ratio: if experts.count > 1 { entropy_mean / entropy_max } else { 1.0 },
        dropped_fraction,
        dead_fraction: dead as f64 / all().count().max(1) as f64,
        load: shares,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn curve_points_are_spaced_by_their_ratio_and_cheap_wherever_the_run_ends() {
        let dir = tempfile::tempdir().unwrap();
        let dataset = fixture::dataset(dir.path());
        let run = fixture::run(dataset.manifest().digest);
        let scoring = dataset.scoring(run.model.context, 8192);
        let per_step = run.flops().get() / run.train.steps as f64;
        let steps: Vec<u64> = (0..20_000).filter(|&step| due(step, &run, &scoring)).collect();
        assert!(steps.len() > 8, "{steps:?}");
        for (points, &step) in (1..).zip(&steps) {
            let share = f64::from(points) * cost(&scoring, &run.model) / (per_step * step as f64);
            assert!(share < 0.125, "{points} points up to step {step} cost {share}");
        }
        for pair in steps.windows(2) {
            let ratio = pair[1] as f64 / pair[0] as f64;
            assert!((ratio / POINT_RATIO - 1.0).abs() < 0.05, "{steps:?}");
        }
    }

    #[test]
    fn routing_statistics_of_known_loads() {
        let experts = Experts {
            count: 4,
            top_k: 1,
            ff: 1,
            shared_ff: 0,
            aux_loss_coef: 0.0,
            router_z_loss_coef: 0.0,
            bias_update: 0.0,
            capacity_factor: None,
        };
        let even = routing(&experts, &[vec![5; 4], vec![7; 4]], 0.25);
        assert!((even.load_entropy_ratio - 1.0).abs() < 1e-12 && even.load_max_ratio == 1.0);
        assert_eq!((even.dead_fraction, even.dropped_fraction), (0.0, 0.25));
        let collapsed = routing(&experts, &[vec![0, 9, 0, 0], vec![1; 4]], 0.0);
        assert_eq!(collapsed.load_max_ratio, 4.0);
        assert!((collapsed.load_entropy_ratio - 0.5).abs() < 1e-12);
        assert_eq!(collapsed.dead_fraction, 3.0 / 8.0);
    }
}
