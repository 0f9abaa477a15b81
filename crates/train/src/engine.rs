//! The trait that every implementation of the training step has, and what passes through it. No arithmetic here.

use std::borrow::Cow;

use isoloss_sweep::Model;

use crate::layout::Layout;

/// Added to the mean square in every RMSNorm (Zhang & Sennrich 1910.07467).
pub const NORM_EPSILON: f64 = 1e-5;
/// Base of the rotary frequencies (Su 2104.09864): within a head of width h, elements i and i + h/2 are a pair that
/// turns by position * theta^(-2i/h): `(a, b) -> (a cos - b sin, b cos + a sin)`.
pub const ROPE_THETA: f64 = 10_000.0;

/// `sequences` windows of `context + 1` tokens each: position t is the input, position t + 1 its target.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Row-major `[sequences, context + 1]`.
    pub tokens: &'a [u32],
    pub sequences: usize,
    pub context: usize,
}

impl Batch<'_> {
    /// Inputs and targets, each `[sequences, context]`.
    pub fn split(&self) -> (Vec<u32>, Vec<u32>) {
        let rows = || self.tokens.chunks_exact(self.context + 1);
        let inputs = rows().flat_map(|row| &row[..self.context]).copied().collect();
        let targets = rows().flat_map(|row| &row[1..]).copied().collect();
        (inputs, targets)
    }
}

/// AdamW's numbers for one step (Loshchilov & Hutter 1711.05101, decay decoupled).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Optimizer steps already made; bias correction uses `step + 1`.
    pub step: u64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub clip: f64,
}

/// What one step found, before its update.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepReport {
    /// Mean cross-entropy over the batch, nats per token.
    pub loss_nats: f64,
    /// Load-balance loss before its coefficient, summed over layers, mean over sequences.
    pub aux_loss: f64,
    /// Router z-loss before its coefficient, summed over layers, mean over tokens.
    pub router_z_loss: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// `[layer][expert]` routed (token, slot) pairs; empty for dense models.
    pub load: Vec<Vec<u64>>,
    /// Pairs dropped by the capacity limit.
    pub dropped: u64,
}

/// Per-token losses and routing of an evaluation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evaluation {
    /// Nats, `[sequences, context]`.
    pub losses: Vec<f32>,
    /// As in [`StepReport::load`].
    pub load: Vec<Vec<u64>>,
}

/// All that a checkpoint holds of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Optimizer steps made.
    pub step: u64,
    /// Flat, by [`Layout`].
    pub params: Vec<f32>,
    pub first_moment: Vec<f32>,
    pub second_moment: Vec<f32>,
    /// `[layers, experts]`, of the bias-based balancing; empty otherwise.
    pub router_bias: Vec<f32>,
}

impl State {
    /// Step 0 with zeros everywhere; `router_bias` exists if and only if the model balances by bias.
    pub fn zeros(model: &Model) -> Self {
        let len = Layout::of(model).len();
        Self {
            step: 0,
            params: vec![0.0; len],
            first_moment: vec![0.0; len],
            second_moment: vec![0.0; len],
            router_bias: vec![0.0; bias_len(model)],
        }
    }

    /// How many elements have not the same bits in both.
    pub fn differing(&self, other: &Self) -> usize {
        let count =
            |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let [ours, theirs] =
            [self, other].map(|state| [&state.params, &state.first_moment, &state.second_moment, &state.router_bias]);
        ours.into_iter().zip(theirs).map(count).sum()
    }

    /// Itself, if every buffer has the length that `model` asks for.
    pub fn checked(self, model: &Model) -> Result<Self, EngineError> {
        let len = Layout::of(model).len();
        let found = [&self.params, &self.first_moment, &self.second_moment, &self.router_bias].map(Vec::len);
        let expected = [len, len, len, bias_len(model)];
        if found != expected {
            return Err(EngineError::WrongState { expected, found });
        }
        Ok(self)
    }
}

fn bias_len(model: &Model) -> usize {
    let balanced = model.experts.as_ref().filter(|e| e.bias_update > 0.0);
    balanced.map_or(0, |e| (model.layers * e.count) as usize)
}

/// Memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// What the engine allocated, exactly; it allocates at its start alone.
    pub taken: u64,
    /// What is left beside this process and all others; missing where the driver does not say.
    pub free: Option<u64>,
}

/// What a step can break on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{engine} cannot train this model: {reason}")]
    Unsupported { engine: &'static str, reason: String },
    #[error("the state's params, moments and router bias must have {expected:?} elements, got {found:?}")]
    WrongState { expected: [usize; 4], found: [usize; 4] },
    #[error("tensor arithmetic failed: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Gpu(#[from] isoloss_gpu::GpuError),
    #[error("{0}; the run had this memory reserved: other programs hold it (see nvidia-smi)")]
    Full(isoloss_gpu::GpuError),
}

impl EngineError {
    /// Where memory is missing that the run had reserved, others have it; the error is the run's own otherwise.
    pub(crate) fn short(error: isoloss_gpu::GpuError, reserved: Option<u64>) -> Self {
        match error {
            isoloss_gpu::GpuError::OutOfMemory { wanted, free, .. }
                if free < wanted && reserved.is_some_and(|reserved| wanted <= reserved) =>
            {
                Self::Full(error)
            }
            own => Self::Gpu(own),
        }
    }
}

/// One implementation of forward, backward and update over the shared layout.
///
/// The objective of a step is the batch mean of: cross-entropy, plus `aux_loss_coef` times the sum over layers of
/// E sum_i f_i P_i (per sequence: f_i share of the sequence's (token, slot) pairs routed to expert i, no gradient;
/// P_i mean router probability), plus `router_z_loss_coef` times the sum over layers of mean squared log-sum-exp of
/// the router logits. Routed weights are the top-k softmax probabilities divided by their sum; ties go to the lower
/// index. With `bias_update` the choice alone is by probability plus bias; weights and losses know no bias. With a
/// capacity factor an expert has ceil(factor * T * k / E) slots per sequence, taken in order of position; later pairs
/// are dropped, the weights of the rest stay as they are, and load and f_i count pairs before dropping. A shared expert
/// adds its output unweighted. Sequences are summed in a fixed order, so the bits do not depend on the thread count.
pub trait Engine: Send {
    fn layout(&self) -> &Layout;
    /// Forward, backward, clip, AdamW; for `bias_update > 0` also the router-bias step.
    fn step(&mut self, batch: Batch<'_>, update: &Update) -> Result<StepReport, EngineError>;
    /// Steps that are worth making before their reports are asked for: 1 where a report costs no waiting.
    fn together(&self) -> usize {
        1
    }
    /// Several steps in a row, on batches of one shape.
    fn steps(&mut self, batches: &[Batch<'_>], updates: &[Update]) -> Result<Vec<StepReport>, EngineError> {
        batches.iter().zip(updates).map(|(batch, update)| self.step(*batch, update)).collect()
    }
    /// Forward and backward only: the flat gradient of the step's objective, before clipping.
    fn gradient(&mut self, batch: Batch<'_>) -> Result<(StepReport, Vec<f32>), EngineError>;
    /// Cross-entropy of each target; dropless whatever the training capacity.
    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Evaluation, EngineError>;
    /// Logits `[len, vocab]` after each of up to `context` tokens.
    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError>;
    /// Borrowed where it lies on the host: a copy would be a third of a small run's memory.
    fn state(&mut self) -> Result<Cow<'_, State>, EngineError>;
    fn restore(&mut self, state: State) -> Result<(), EngineError>;
    /// What is taken of a GPU and what is left; none for engines on cores.
    fn gpu_memory(&self) -> Option<GpuMemory> {
        None
    }
    /// Vector instructions or device in use, for people.
    fn instruction_set(&self) -> String;
}
