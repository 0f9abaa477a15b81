//! The end of a run as rows of the index have it: what lists show, and no more.

use isoloss_sweep::Outcome;
use isoloss_sweep::outcome::{GpuUse, Score};
use serde::{Deserialize, Serialize};

/// What kind of outcome it is, with the numbers that lists show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    Finished {
        score: Score,
        seconds: f64,
        device: String,
        /// In a box: most rows have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<Box<GpuUse>>,
    },
    Diverged {
        step: u64,
        reason: String,
        seconds: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<Box<GpuUse>>,
    },
    Failed {
        reason: String,
    },
}

impl End {
    /// How it ended, for people.
    pub fn words(&self) -> String {
        match self {
            Self::Finished { score, .. } => format!("finished with {:.4} bits per byte", score.bits_per_byte),
            Self::Diverged { step, reason, .. } => format!("diverged at step {step}: {reason}"),
            Self::Failed { reason } => reason.clone(),
        }
    }

    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Finished(finished) => Self::Finished {
                score: finished.score,
                seconds: finished.cost.seconds,
                device: finished.provenance.device.clone(),
                gpu: finished.gpu.clone().map(Box::new),
            },
            Outcome::Diverged(diverged) => Self::Diverged {
                step: diverged.step,
                reason: diverged.reason.clone(),
                seconds: diverged.seconds,
                gpu: diverged.gpu.clone().map(Box::new),
            },
            Outcome::Failed(failed) => Self::Failed { reason: failed.reason.clone() },
        }
    }
}
