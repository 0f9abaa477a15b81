//! The hyper-parameters that a sweep can tune: their names, and their values in a run. It does not decide them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::run::Train;

/// A number of the recipe that a sweep may try several values of, to keep the best for each size and budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HyperParameter {
    /// Peak learning rate.
    LearningRate,
    /// Sequences per step.
    Batch,
    WeightDecay,
    /// Share of the steps in which the rate rises.
    Warmup,
}

/// No tunable hyper-parameter has that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {known}, got {got:?}")]
pub struct UnknownHyperParameter {
    got: String,
    known: String,
}

impl HyperParameter {
    pub const ALL: [Self; 4] = [Self::LearningRate, Self::Batch, Self::WeightDecay, Self::Warmup];
    pub const NAMES: [&'static str; 4] = ["learning_rate", "batch", "weight_decay", "warmup"];

    /// As sweep files call it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Its value in a run.
    pub fn of(self, train: &Train) -> f64 {
        match self {
            Self::LearningRate => train.learning_rate,
            Self::Batch => f64::from(train.batch),
            Self::WeightDecay => train.weight_decay,
            Self::Warmup => train.warmup_steps as f64 / train.steps.max(1) as f64,
        }
    }
}

impl fmt::Display for HyperParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HyperParameter {
    type Err = UnknownHyperParameter;

    fn from_str(text: &str) -> Result<Self, UnknownHyperParameter> {
        let at = Self::NAMES.iter().position(|name| *name == text);
        at.map(|at| Self::ALL[at])
            .ok_or_else(|| UnknownHyperParameter { got: text.to_owned(), known: Self::NAMES.join(", ") })
    }
}
