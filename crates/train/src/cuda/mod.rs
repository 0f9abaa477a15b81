//! The CUDA engine: the flat layout on a GPU, every step one graph of kernels and products that was captured once.
//!
//! The step is built as data (`network.rs` and its neighbours), laid out in one block of memory (`room.rs`) and run by a
//! [`isoloss_gpu::Device`], which may be an emulated one; several devices share a batch (`replica.rs`). Products are bf16 with f32 sums, or TF32 in f32 runs; weights, moments,
//! gradients, norms, softmaxes and routers are f32. Every sum has a fixed order, so a device gives the same bits twice.
//! It does not know schedules, data order or checkpoints.

mod backward;
mod experts;
mod forward;
mod gated;
mod network;
mod order;
mod piece;
mod replica;
mod report;
mod room;
mod sources;
mod steps;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use isoloss_gpu::{Collective, Group, Kind};
use isoloss_sweep::Model;
use isoloss_sweep::plan::gpu_defect;
use isoloss_sweep::run::Precision;

use crate::engine::{Batch, Engine, EngineError, Evaluation, GpuMemory, NORM_EPSILON};
use crate::engine::{State, StepReport, Update};
use crate::layout::Layout;
use crate::optimizer::Factors;
use replica::Replica;
use room::{REPORTS, Room};

pub use isoloss_gpu::{CAPABILITY_LEAST, Card, Found, GpuError, Library, Memory, Unusable, cards, find, nvrtc_version};
pub use sources::programs;

/// A model on one device, or on several that share every batch out: each holds all weights, makes the same updates of the
/// same sums, and so stays like the others.
pub struct CudaEngine {
    /// Goes before the devices whose queues it uses.
    collective: Option<Box<dyn Collective>>,
    /// As many as there are devices; the first one speaks for all.
    replicas: Vec<Replica>,
    /// Optimizer steps made.
    step: u64,
}

/// Bytes of GPU memory that a run of this model takes with `sequences` sequences at a time, the driver's own share aside.
pub fn memory_bytes(model: &Model, precision: Precision, sequences: u32) -> u64 {
    Room::bytes(model, kind(precision), sequences as usize)
}

fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::F32 => Kind::F32,
        Precision::Bf16 => Kind::Bf16,
    }
}

impl CudaEngine {
    /// An engine with undefined weights: `restore` gives it real ones. `batch` is the most sequences of a step; as many of
    /// them as fit into `memory` bytes of each device (all that is free, if none is named) are worked on at a time.
    pub fn new(
        group: impl Into<Group>,
        model: &Model,
        precision: Precision,
        batch: u32,
        memory: Option<u64>,
    ) -> Result<Self, EngineError> {
        if let Some(reason) = model.defect().or_else(|| Some(gpu_defect(model)?.1)) {
            return Err(EngineError::Unsupported { engine: "cuda", reason });
        }
        let Group { collective, devices } = group.into();
        let share = (batch.max(1) as usize).div_ceil(devices.len().max(1));
        let replica = |device| Replica::new(device, model, kind(precision), share, memory);
        let replicas = devices.into_iter().map(replica).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { collective, replicas, step: 0 })
    }

    /// Devices that share a batch.
    pub fn devices(&self) -> usize {
        self.replicas.len()
    }

    /// Elements of the state that are not the same bits on every device: 0, if sums are the same on each.
    pub fn apart(&mut self) -> Result<usize, EngineError> {
        let step = self.step;
        let first = self.first().state(step)?;
        let mut apart = 0;
        for other in &mut self.replicas[1..] {
            apart += first.differing(&other.state(step)?);
        }
        Ok(apart)
    }

    fn first(&mut self) -> &mut Replica {
        &mut self.replicas[0]
    }

    /// Forward and backward of a whole batch, its parts on all devices; sums are the batch's on each of them after it.
    fn passes(&mut self, batch: Batch<'_>) -> Result<(), EngineError> {
        let (inputs, targets) = batch.split();
        let shares = shares(batch.sequences, self.replicas.len());
        if shares.contains(&0) {
            let reason = format!("{} sequence(s) are less than one for each of {} GPUs", batch.sequences, shares.len());
            return Err(EngineError::Unsupported { engine: "cuda", reason });
        }
        let (mut inputs, mut targets) = (&inputs[..], &targets[..]);
        for (replica, sequences) in self.replicas.iter_mut().zip(shares) {
            let (own, rest) = inputs.split_at(sequences * batch.context);
            let (own_targets, rest_targets) = targets.split_at(sequences * batch.context);
            replica.passes(own, own_targets, batch.context, batch.sequences)?;
            (inputs, targets) = (rest, rest_targets);
        }
        if let Some(collective) = &mut self.collective {
            let sums: Vec<_> = self.replicas.iter().map(Replica::sums).collect();
            collective.sum(&sums)?;
        }
        Ok(())
    }

    /// One step put into the queues; its report comes to lie at `slot`.
    fn queue(&mut self, batch: Batch<'_>, update: &Update, slot: usize) -> Result<(), EngineError> {
        let scalars = scalars(update);
        for replica in &mut self.replicas {
            replica.set_slot(slot)?;
            replica.set_update(&scalars)?;
        }
        let whole = self.collective.is_none() && self.first().takes(batch.sequences, batch.context);
        if whole {
            let (inputs, targets) = batch.split();
            self.first().whole(&inputs, &targets, batch.context)?;
        } else {
            self.passes(batch)?;
            for replica in &mut self.replicas {
                replica.update()?;
            }
        }
        self.step += 1;
        Ok(())
    }
}

/// Sequences of each of `parts`, as even as can be.
fn shares(sequences: usize, parts: usize) -> Vec<usize> {
    (0..parts).map(|part| sequences / parts + usize::from(part < sequences % parts)).collect()
}

/// A step's numbers as `optimizer.cu` lays them out; clipping happens on the device, where the norm is.
fn scalars(update: &Update) -> [u8; 32] {
    let factors = Factors::of(update, 0.0);
    let mut bytes = [0; 32];
    let numbers = [factors.rate, factors.root, factors.epsilon, factors.decay, factors.beta1, factors.beta2];
    for (slot, number) in bytes.chunks_exact_mut(4).zip(numbers) {
        slot.copy_from_slice(&number.to_le_bytes());
    }
    bytes[24..].copy_from_slice(&update.clip.to_le_bytes());
    bytes
}

impl Engine for CudaEngine {
    fn layout(&self) -> &Layout {
        self.replicas[0].layout()
    }

    fn step(&mut self, batch: Batch<'_>, update: &Update) -> Result<StepReport, EngineError> {
        self.queue(batch, update, 0)?;
        let mut reports = self.first().reports(1, batch.sequences * batch.context)?;
        Ok(reports.pop().expect("one report was read"))
    }

    fn together(&self) -> usize {
        REPORTS
    }

    fn steps(&mut self, batches: &[Batch<'_>], updates: &[Update]) -> Result<Vec<StepReport>, EngineError> {
        let mut reports = Vec::with_capacity(batches.len());
        for (batches, updates) in batches.chunks(REPORTS).zip(updates.chunks(REPORTS)) {
            for (slot, (batch, update)) in batches.iter().zip(updates).enumerate() {
                self.queue(*batch, update, slot)?;
            }
            let tokens = batches[0].sequences * batches[0].context;
            reports.extend(self.first().reports(batches.len(), tokens)?);
        }
        Ok(reports)
    }

    fn gradient(&mut self, batch: Batch<'_>) -> Result<(StepReport, Vec<f32>), EngineError> {
        self.passes(batch)?;
        for replica in &mut self.replicas {
            replica.set_slot(0)?;
            replica.measure()?;
        }
        let report = self.first().reports(1, batch.sequences * batch.context)?.pop().expect("one report was read");
        Ok((report, self.first().gradient()?))
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Evaluation, EngineError> {
        let (inputs, targets) = batch.split();
        let most = self.replicas.iter().map(|replica| replica.most(batch.context)).min().unwrap_or(1);
        let part = most.min(batch.sequences.div_ceil(self.replicas.len())).max(1) * batch.context;
        let mut found = Evaluation::default();
        let round = part * self.replicas.len();
        for (inputs, targets) in inputs.chunks(round).zip(targets.chunks(round)) {
            let parts = || inputs.chunks(part).zip(targets.chunks(part));
            // All devices have theirs before any is waited for.
            for (replica, (inputs, targets)) in self.replicas.iter_mut().zip(parts()) {
                replica.evaluate(inputs, targets, batch.context)?;
            }
            for (replica, (inputs, _)) in self.replicas.iter_mut().zip(parts()) {
                let (losses, load) = replica.evaluated(inputs.len())?;
                found.losses.extend(losses);
                add(&mut found.load, &load);
            }
        }
        Ok(found)
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        Ok(self.first().logits(tokens)?)
    }

    fn state(&mut self) -> Result<Cow<'_, State>, EngineError> {
        let step = self.step;
        Ok(Cow::Owned(self.first().state(step)?))
    }

    fn restore(&mut self, state: State) -> Result<(), EngineError> {
        let state = state.checked(self.first().model())?;
        for replica in &mut self.replicas {
            replica.restore(&state)?;
        }
        self.step = state.step;
        Ok(())
    }

    fn gpu_memory(&self) -> Option<GpuMemory> {
        // Of several, of the one that has least left.
        let all = self.replicas.iter().map(Replica::memory);
        all.reduce(|a, b| GpuMemory { taken: a.taken.max(b.taken), free: a.free.zip(b.free).map(|(a, b)| a.min(b)) })
    }

    fn instruction_set(&self) -> String {
        match (self.replicas.len(), self.replicas[0].name()) {
            (1, name) => name,
            (count, name) => format!("{count} x {name}"),
        }
    }
}

/// Adds routed pairs, `[layer][expert]`; nothing was counted before the first.
fn add(sums: &mut Vec<Vec<u64>>, load: &[Vec<u64>]) {
    sums.resize(load.len(), Vec::new());
    for (sum, layer) in sums.iter_mut().zip(load) {
        sum.resize(layer.len(), 0);
        sum.iter_mut().zip(layer).for_each(|(sum, pairs)| *sum += pairs);
    }
}

const _: () = assert!(NORM_EPSILON == 1e-5, "norm.cu has the same number");
