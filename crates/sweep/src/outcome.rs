//! The typed end of a run. Stored for ever; everything derived can be rebuilt from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::count::{Flops, ParamCounts, Tokens};

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Finished(Box<Finished>),
    /// The loss became non-finite or passed the ceiling: a result, kept and shown.
    Diverged(Diverged),
    /// The attempt broke; whether another may succeed is said.
    Failed(Failed),
}

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    pub params: ParamCounts,
    pub steps: u64,
    pub tokens: Tokens,
    pub tokens_unique: Tokens,
    /// Text bytes behind `tokens`.
    pub bytes: u64,
    /// The run's own training FLOPs; what branches share is counted in each.
    pub flops: Flops,
    pub flops_6nd: Flops,
    /// What was really computed for it: without a trunk's part, with repeats of lost attempts.
    pub flops_spent: Flops,
    /// Forward FLOPs of evaluation, counted apart.
    pub flops_evaluation: Flops,
    pub score: Score,
    /// Mean training loss in nats per token over the last 5 % of steps (at least one).
    pub train_loss_nats: f64,
    pub curve: Vec<CurvePoint>,
    /// Mixture of experts only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    pub cost: Cost,
    pub provenance: Provenance,
    /// What its worker knows of the GPU; missing for runs on cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
}

/// Loss on the scored validation bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Score {
    /// Mean cross-entropy in nats per token.
    pub loss_nats: f64,
    /// Total nats over (ln 2 * bytes of the text scored).
    pub bits_per_byte: f64,
    pub tokens: u64,
    pub bytes: u64,
    /// True surprisal of exactly these bytes, where the generator knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_bits_per_byte: Option<f64>,
}

/// One point of a training curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CurvePoint {
    pub step: u64,
    pub tokens: Tokens,
    pub loss_nats: f64,
    pub bits_per_byte: f64,
    /// Training loss at that step, nats per token.
    pub train_loss_nats: f64,
}

/// Routing statistics on the scored validation bytes, worst layer where a layer is meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Routing {
    /// Largest share of an expert times the number of experts; 1 is perfect balance.
    pub load_max_ratio: f64,
    /// Entropy of the load over its maximum, mean over layers.
    pub load_entropy_ratio: f64,
    /// Tokens dropped by the capacity limit over tokens routed, in training.
    pub dropped_fraction: f64,
    /// Share of experts with less than a tenth of the even share.
    pub dead_fraction: f64,
    /// `[layer][expert]` share of routed (token, slot) pairs.
    pub load: Vec<Vec<f64>>,
}

/// What the run cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    pub seconds: f64,
    /// Training tokens over training seconds, evaluation and checkpoints left out.
    pub tokens_per_second: f64,
    pub peak_memory_bytes: u64,
    /// What the engine allocated of a GPU's memory, all at its start, without what the driver keeps for a process; missing
    /// for runs on cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_bytes: Option<u64>,
}

/// Where the result comes from: all that the run's id leaves out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    pub device: String,
    /// Vector instruction set that the engine chose.
    pub instruction_set: String,
    pub threads: u32,
    pub code_version: String,
}

/// What a run has, or had, of a GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GpuUse {
    /// As `CUDA_VISIBLE_DEVICES` takes it; of a run on several GPUs all of them, with commas between.
    pub uuid: String,
    /// As the driver calls it: `NVIDIA H200`. Missing where nobody could ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the run's process was a client of NVIDIA's MPS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mps: bool,
    /// GPU time in seconds: those of the run, each divided by the runs that its worker had on the GPU then, and counted for
    /// each GPU of a run on several. The share is that of the attempt that ended the run. Missing while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl GpuUse {
    /// Which GPU, for people: `NVIDIA H200 GPU-1234`.
    pub fn card(&self) -> String {
        self.name.as_ref().map_or_else(|| self.uuid.clone(), |name| format!("{name} {}", self.uuid))
    }

    /// The same with the way to it: `NVIDIA H200 GPU-1234, through MPS`.
    pub fn words(&self) -> String {
        format!("{}{}", self.card(), if self.mps { ", through MPS" } else { "" })
    }
}

/// A run whose loss left the range of sense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diverged {
    pub step: u64,
    pub reason: String,
    pub curve: Vec<CurvePoint>,
    pub seconds: f64,
    /// As in [`Finished::gpu`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
}

/// An attempt that broke.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    pub reason: String,
    /// Whether another attempt may succeed.
    pub retry: bool,
}
