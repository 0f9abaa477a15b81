//! What a run has learned about itself so far, besides its weights: it travels in checkpoints, so that the outcome of an
//! interrupted run equals that of an uninterrupted one. No arithmetic on weights, no clock.

use std::collections::VecDeque;

use isoloss_sweep::outcome::CurvePoint;
use serde::{Deserialize, Serialize};

use crate::engine::StepReport;

/// The part of training, at its end, over which the final training loss is averaged.
const TAIL: u64 = 20;

/// Sums and curves up to a step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub curve: Vec<CurvePoint>,
    /// Training losses of the last steps: a twentieth of all so far and one more.
    pub recent: VecDeque<f64>,
    /// Routed (token, slot) pairs, and those dropped by the capacity limit.
    pub routed: u64,
    pub dropped: u64,
    /// Training FLOPs computed for this run; a trunk's are not counted in its branches.
    pub flops_spent: f64,
    pub flops_evaluation: f64,
    /// Wall time of all, and of optimizer steps alone.
    pub seconds: f64,
    pub seconds_training: f64,
    /// Tokens behind `seconds_training`.
    pub tokens_timed: u64,
}

impl Ledger {
    /// Takes in a step, after which `done` steps are made.
    pub(crate) fn record(&mut self, done: u64, report: &StepReport) {
        self.recent.push_back(report.loss_nats);
        // A later end cannot want more than this: the last twentieth of N >= done steps holds at most done / 20 of the
        // first `done`.
        while self.recent.len() as u64 > done / TAIL + 1 {
            self.recent.pop_front();
        }
        self.routed += report.load.iter().flatten().sum::<u64>();
        self.dropped += report.dropped;
    }

    /// Mean training loss over the last twentieth of `steps` steps, at least one.
    pub(crate) fn train_loss(&self, steps: u64) -> f64 {
        let wanted = (steps / TAIL).max(1) as usize;
        let tail = self.recent.iter().rev().take(wanted);
        let count = tail.len().max(1) as f64;
        tail.sum::<f64>() / count
    }

    /// Training tokens over training seconds.
    pub(crate) fn tokens_per_second(&self) -> f64 {
        self.tokens_timed as f64 / self.seconds_training.max(1e-9)
    }

    pub(crate) fn last_loss(&self) -> f64 {
        self.recent.back().copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn dropped_fraction(&self) -> f64 {
        self.dropped as f64 / self.routed.max(1) as f64
    }

    /// What a branch takes over from its trunk: the past of its curve, not its costs.
    pub(crate) fn branched(self) -> Self {
        Self { flops_spent: 0.0, flops_evaluation: 0.0, seconds: 0.0, seconds_training: 0.0, tokens_timed: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_twentieth_wherever_the_run_ends() {
        let mut ledger = Ledger::default();
        for done in 1..=200u64 {
            let report = StepReport { loss_nats: done as f64, ..StepReport::default() };
            ledger.record(done, &report);
            let count = (done / 20).max(1);
            let expected = done as f64 - (count - 1) as f64 / 2.0;
            assert!((ledger.train_loss(done) - expected).abs() < 1e-12, "{done}");
        }
        assert!(ledger.recent.len() <= 11);
    }
}
