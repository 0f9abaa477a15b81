//! Speed measured elsewhere, turned into seconds. It measures nothing.

use serde::{Deserialize, Serialize};

use crate::plan::gpu_speed::Gpus;
use crate::run::{EngineKind, Precision, Run};

/// Measured training speed of one slot of cores, how many of them there are, and the GPUs beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub slots: u32,
    pub rates: Vec<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
}

/// A measurement: models of this cost per token train at this rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub engine: EngineKind,
    pub precision: Precision,
    /// Mixtures of experts run at a speed of their own.
    #[serde(default)]
    pub moe: bool,
    pub flops_per_token: f64,
    pub tokens_per_second: f64,
}

impl Probe {
    /// Seconds of `flops` of this run on one slot of cores: FLOP/s between the two nearest measurements, in logarithms, and
    /// constant beyond them. Of foreign trainers nothing is known.
    pub fn seconds(&self, run: &Run, flops: f64) -> Option<f64> {
        if run.trainer.is_some() {
            return None;
        }
        let cost = run.model.flop_terms().training();
        let usable = |rate: &&Rate| {
            (rate.engine, rate.precision) == (run.numerics.engine, run.numerics.precision)
                && rate.flops_per_token > 0.0
                && rate.tokens_per_second > 0.0
        };
        let moe = run.model.experts.is_some();
        // Where the family was not measured the other one's speed is the best guess.
        let own = self.rates.iter().filter(usable).any(|rate| rate.moe == moe);
        let mut rates: Vec<(f64, f64)> = self
            .rates
            .iter()
            .filter(usable)
            .filter(|rate| rate.moe == moe || !own)
            .map(|rate| (rate.flops_per_token, rate.flops_per_token * rate.tokens_per_second))
            .collect();
        Some(flops / between(&mut rates, cost)?)
    }
}

/// The value at `at` between the two nearest points, in logarithms, and constant beyond them.
pub(crate) fn between(points: &mut [(f64, f64)], at: f64) -> Option<f64> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (first, last) = (points.first()?, points.last()?);
    if at <= first.0 {
        return Some(first.1);
    }
    if at >= last.0 {
        return Some(last.1);
    }
    let pair = points.windows(2).find(|pair| at <= pair[1].0)?;
    let share = (at / pair[0].0).ln() / (pair[1].0 / pair[0].0).ln();
    Some((pair[0].1.ln() + share * (pair[1].1 / pair[0].1).ln()).exp())
}
