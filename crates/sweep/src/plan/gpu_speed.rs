//! Speed of runs on GPUs that was measured elsewhere, turned into seconds. It measures nothing.

use serde::{Deserialize, Serialize};

use crate::model::{Experts, Model};
use crate::plan::GPU_PROCESS_BYTES;
use crate::plan::probe::between;
use crate::run::{Precision, Run};

/// A run writes a checkpoint after so many seconds of training, and one at its end.
const CHECKPOINT_SECONDS: f64 = 60.0;

/// The GPUs of a machine, and what was measured on the first of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpus {
    /// How many there are; all are believed to be like the one that was measured.
    pub cards: u32,
    /// Runs that share one at most.
    pub beside: u32,
    /// Memory of each for runs.
    pub memory_bytes: u64,
    /// What a process takes of a GPU beside the engine's own block.
    pub process_bytes: Option<u64>,
    /// From the start of a process until it takes its first run.
    pub process_seconds: f64,
    pub shapes: Vec<GpuShape>,
}

/// A shape of run as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuShape {
    pub model: Model,
    pub precision: Precision,
    /// Sequences of a step.
    pub batch: u32,
    /// With the GPU to itself.
    pub alone: GpuSpeed,
    /// One of as many as share a GPU at most, all of this shape.
    pub beside: GpuSpeed,
    /// What a run takes beside its training and scoring: context, kernels from the cache, weights, graphs.
    pub start_seconds: f64,
    pub checkpoint_seconds: f64,
    /// What the engine allocated.
    pub block_bytes: u64,
}

/// Tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GpuSpeed {
    pub trained: f64,
    pub evaluated: f64,
}

/// What a run has to do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Work {
    /// Tokens to train on.
    pub(crate) trained: f64,
    /// Tokens to be evaluated on.
    pub(crate) evaluated: f64,
    /// Checkpoints beside those that are due by time.
    pub(crate) checkpoints: f64,
}

/// Seconds of a run with a GPU to itself, and among as many as share one at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span {
    pub(crate) alone: f64,
    pub(crate) beside: f64,
}

impl Span {
    /// Seconds among `runs` of `most` that may share a GPU: each further one is believed to cost the same.
    pub(crate) fn among(self, runs: u32, most: u32) -> f64 {
        let share = f64::from(runs.saturating_sub(1)) / f64::from(most.saturating_sub(1).max(1));
        self.alone + share.min(1.0) * (self.beside - self.alone)
    }
}

impl GpuShape {
    /// Whether runs of this model go as this one did: weights of the losses cost nothing.
    fn is(&self, model: &Model, precision: Precision, batch: u32) -> bool {
        (self.precision, self.batch) == (precision, batch) && of_speed(&self.model) == of_speed(model)
    }

    fn cost(&self) -> f64 {
        self.model.flop_terms().training()
    }
}

/// The model with all left out that makes no step longer.
fn of_speed(model: &Model) -> Model {
    let plain = |experts: &Experts| Experts { aux_loss_coef: 0.0, router_z_loss_coef: 0.0, ..experts.clone() };
    Model { experts: model.experts.as_ref().map(plain), ..model.clone() }
}

impl Gpus {
    /// The measurement of exactly this shape.
    pub fn measured(&self, model: &Model, precision: Precision, batch: u32) -> Option<&GpuShape> {
        self.shapes.iter().find(|shape| shape.is(model, precision, batch))
    }

    /// Memory that the engine allocated for a run of this shape.
    pub(crate) fn block(&self, run: &Run) -> Option<u64> {
        let shape = self.measured(&run.model, run.numerics.precision, run.train.batch);
        shape.map(|shape| shape.block_bytes)
    }

    /// Memory to reserve for a run whose block takes `by_formula`: what a process was measured to take instead of a guess,
    /// and never less than what was measured.
    pub(crate) fn reserved(&self, run: &Run, by_formula: u64) -> u64 {
        self.process_bytes.unwrap_or(GPU_PROCESS_BYTES) + self.block(run).unwrap_or(0).max(by_formula)
    }

    /// Runs that share a GPU when there are `jobs` in all.
    pub(crate) fn company(&self, jobs: usize) -> u32 {
        let each = jobs.div_ceil(self.cards.max(1) as usize);
        u32::try_from(each).unwrap_or(u32::MAX).clamp(1, self.beside.max(1))
    }

    /// Seconds of this work; none where nothing of the run's precision was measured.
    pub(crate) fn span(&self, run: &Run, work: Work) -> Option<Span> {
        let seconds = |speed: GpuSpeed, nearest: &GpuShape| {
            let training = work.trained / speed.trained;
            let checkpoints = work.checkpoints + (training / CHECKPOINT_SECONDS).floor();
            let fixed = nearest.start_seconds + checkpoints * nearest.checkpoint_seconds;
            fixed + training + work.evaluated / speed.evaluated
        };
        if let Some(shape) = self.measured(&run.model, run.numerics.precision, run.train.batch) {
            return Some(Span { alone: seconds(shape.alone, shape), beside: seconds(shape.beside, shape) });
        }
        let near = self.near(run);
        let at = run.model.flop_terms().training();
        let far = |shape: &&&GpuShape| (shape.cost() / at).ln().abs();
        let nearest = near.iter().min_by(|a, b| far(a).total_cmp(&far(b)))?;
        let speed = |of: fn(&GpuShape) -> GpuSpeed| {
            let rate = |tokens: fn(GpuSpeed) -> f64| {
                let mut points: Vec<(f64, f64)> =
                    near.iter().map(|shape| (shape.cost(), shape.cost() * tokens(of(shape)))).collect();
                between(&mut points, at).map(|flops| flops / at)
            };
            Some(GpuSpeed { trained: rate(|speed| speed.trained)?, evaluated: rate(|speed| speed.evaluated)? })
        };
        let (alone, beside) = (speed(|shape| shape.alone)?, speed(|shape| shape.beside)?);
        Some(Span { alone: seconds(alone, nearest), beside: seconds(beside, nearest) })
    }

    /// Measurements that say most about a shape that was not measured: its precision, its family where there is any of it,
    /// and of these the steps that are nearest in size.
    fn near(&self, run: &Run) -> Vec<&GpuShape> {
        let moe = run.model.experts.is_some();
        let precision = |shape: &&GpuShape| shape.precision == run.numerics.precision;
        let family = |shape: &&GpuShape| shape.model.experts.is_some() == moe;
        let own = self.shapes.iter().filter(precision).any(|shape| family(&shape));
        let usable: Vec<&GpuShape> = self.shapes.iter().filter(precision).filter(|s| !own || family(s)).collect();
        let step = |batch: u32, model: &Model| f64::from(batch) * f64::from(model.context);
        let wanted = step(run.train.batch, &run.model);
        let far = |shape: &GpuShape| (step(shape.batch, &shape.model) / wanted).ln().abs();
        let least = usable.iter().map(|shape| far(shape)).fold(f64::INFINITY, f64::min);
        usable.into_iter().filter(|shape| far(shape) <= least + 1e-9).collect()
    }
}
