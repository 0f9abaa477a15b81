//! One run, fully resolved, and its identity. What is not in this type cannot change a result.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::count::{Flops, Tokens};
use crate::digest::{Digest, NotADigest};
use crate::model::Model;
use crate::trainer::Trainer;

/// Rises only when the meaning of an existing key changes; new keys come with frozen, omitted defaults.
pub const IDENTITY_VERSION: u32 = 1;

/// A resolved training run. Its id is the digest of its canonical JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    pub identity_version: u32,
    pub model: Model,
    pub data: Data,
    pub train: Train,
    pub numerics: Numerics,
    /// The foreign program that trains it; missing: an engine of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Trainer>,
}

/// What is learned from and scored on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Digest of the corpus manifest: content, transforms, split rule and tokenizer.
    pub corpus: Digest,
    /// Distinct training tokens offered, the stream's first; `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_unique: Option<Tokens>,
    /// Validation bytes that score the final loss.
    pub scored_bytes: u64,
    /// Validation bytes that score a point of the training curve.
    pub curve_bytes: u64,
}

/// The recipe, resolved to numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Sequences per optimizer step.
    pub batch: u32,
    /// Optimizer steps; tokens = steps * batch * context.
    pub steps: u64,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    pub schedule: Schedule,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// Largest global gradient norm; larger ones are scaled down to it.
    pub clip: f64,
    pub seed: u64,
}

/// How the learning rate moves after warmup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Half a cosine from the peak to `final_ratio` times the peak.
    Cosine { final_ratio: f64 },
    /// Constant, then 1 - sqrt decay to zero over the last `decay_steps` (Hägele 2405.18392).
    Wsd { decay_steps: u64 },
}

/// Which arithmetic: attempts resume only from checkpoints of equal numerics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Numerics {
    pub engine: EngineKind,
    pub precision: Precision,
    /// Rises only when golden losses move; 0 for a foreign trainer, whose arithmetic is its own affair.
    pub version: u32,
}

/// An implementation of the training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    Reference,
    Cpu,
    Cuda,
}

impl EngineKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// The numerics version of this engine: raised when its golden losses move.
    pub fn numerics_version(self) -> u32 {
        1
    }
}

/// Number format of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Bf16,
}

impl Precision {
    /// As it is written in a sweep file.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Run {
    /// The identity of the result: equal ids, equal outcomes.
    pub fn id(&self) -> RunId {
        RunId(Digest::of_json(self))
    }

    /// Tokens trained on, repeats included.
    pub fn tokens(&self) -> Tokens {
        Tokens(self.train.steps * u64::from(self.train.batch) * u64::from(self.model.context))
    }

    /// Exact training FLOPs.
    pub fn flops(&self) -> Flops {
        self.model.training_flops(self.tokens())
    }

    /// Under WSD, the key of the trunk this run branches from: all but budget and decay. `None` under cosine.
    pub fn trunk_id(&self) -> Option<TrunkId> {
        match self.train.schedule {
            Schedule::Cosine { .. } => None,
            Schedule::Wsd { .. } => {
                let mut trunk = self.clone();
                trunk.train.steps = 0;
                trunk.train.schedule = Schedule::Wsd { decay_steps: 0 };
                Some(TrunkId(Digest::of_json(&trunk)))
            }
        }
    }

    /// Learning rate of optimizer step `step` (the first is 0).
    pub fn learning_rate(&self, step: u64) -> f64 {
        let train = &self.train;
        let peak = train.learning_rate;
        if step < train.warmup_steps {
            return peak * (step + 1) as f64 / train.warmup_steps as f64;
        }
        match train.schedule {
            Schedule::Cosine { final_ratio } => {
                let span = train.steps.saturating_sub(train.warmup_steps).max(1) as f64;
                let done = ((step - train.warmup_steps) as f64 / span).min(1.0);
                let wave = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
                peak * (final_ratio + (1.0 - final_ratio) * wave)
            }
            Schedule::Wsd { decay_steps } => {
                let left = train.steps.saturating_sub(step);
                if left > decay_steps {
                    return peak;
                }
                let done = 1.0 - left as f64 / (decay_steps + 1) as f64;
                peak * (1.0 - done.sqrt())
            }
        }
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The first 12 digits, for people.
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotADigest;

            fn from_str(text: &str) -> Result<Self, NotADigest> {
                text.parse().map(Self)
            }
        }
    };
}

identity!(
    /// Identity of a run and so of its result.
    RunId
);
identity!(
    /// Identity of a set of checkpoints that WSD branches share.
    TrunkId
);
identity!(
    /// Identity of a sweep: digest of its plan (arms, runs, fit), so the same file again gives the same id.
    SweepId
);
