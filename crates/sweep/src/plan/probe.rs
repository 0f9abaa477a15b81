//! Speed measured elsewhere, turned into seconds. It measures nothing.

use serde::{Deserialize, Serialize};

use crate::run::{EngineKind, Precision, Run};

/// Measured training speed of one slot, and how many slots there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub slots: u32,
    pub rates: Vec<Rate>,
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
    /// Seconds of `flops` of this run on one slot: FLOP/s between the two nearest measurements, in logarithms, and
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
            .map(|rate| (rate.flops_per_token.ln(), (rate.flops_per_token * rate.tokens_per_second).ln()))
            .collect();
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, last) = (rates.first()?, rates.last()?);
        let at = cost.ln();
        let speed = if at <= first.0 {
            first.1
        } else if at >= last.0 {
            last.1
        } else {
            let pair = rates.windows(2).find(|pair| at <= pair[1].0)?;
            let share = (at - pair[0].0) / (pair[1].0 - pair[0].0);
            pair[0].1 + share * (pair[1].1 - pair[0].1)
        };
        Some(flops / speed.exp())
    }
}
