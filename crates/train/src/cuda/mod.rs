//! The CUDA engine: the flat layout on a GPU, every step one graph of kernels and products that was captured once.
//!
//! The step is built as data (`network.rs` and its neighbours), laid out in one block of memory (`room.rs`) and run by a
//! [`Device`], which may be an emulated one. Products are bf16 with f32 sums, or TF32 in f32 runs; weights, moments,
//! gradients, norms, softmaxes and routers are f32. Every sum has a fixed order, so a device gives the same bits twice.
//! It does not know schedules, data order or checkpoints.

mod backward;
mod experts;
mod forward;
mod network;
mod order;
mod piece;
mod report;
mod room;
mod sources;
mod steps;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use isoloss_gpu::{Address, Device, GpuError, Graph, Kind};
use isoloss_sweep::Model;
use isoloss_sweep::run::Precision;

use crate::engine::{Batch, Engine, EngineError, Evaluation, GpuMemory, NORM_EPSILON, ROPE_THETA};
use crate::engine::{State, StepReport, Update};
use crate::layout::Layout;
use crate::optimizer::Factors;
use network::{Network, Pass};
use order::Order;
use piece::{Piece, build};
use room::{REPORTS, Room, head_rows, segments};
use steps::{Rows, Steps};

pub use isoloss_gpu::{Card, Found, Library, Memory, cards, find, nvrtc_version};
pub use sources::programs;

/// Sequences of one pass hold at most so many positions: more fill no GPU better.
const ROWS_MOST: usize = 1 << 17;

/// A model on a device.
pub struct CudaEngine {
    network: Network,
    device: Box<dyn Device>,
    /// Sequences of the model's context that fit at a time.
    room_sequences: usize,
    graphs: HashMap<Piece, Graph>,
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

/// The largest divisor of `batch` that is at most `most`: so that all passes of a batch are alike.
fn divisor(batch: usize, most: usize) -> usize {
    (1..=batch.min(most)).rev().find(|&part| batch.is_multiple_of(part)).unwrap_or(1)
}

impl CudaEngine {
    /// An engine with undefined weights: `restore` gives it real ones. `batch` is the most sequences of a step; as many of
    /// them as fit into `memory` bytes (all that is free, if none is named) are worked on at a time.
    pub fn new(
        mut device: Box<dyn Device>,
        model: &Model,
        precision: Precision,
        batch: u32,
        memory: Option<u64>,
    ) -> Result<Self, EngineError> {
        if let Some(reason) = model.defect().or_else(|| too_large(model)) {
            return Err(EngineError::Unsupported { engine: "cuda", reason });
        }
        for program in programs(model, kind(precision)) {
            device.load(&program)?;
        }
        let free = device.memory()?.free;
        let limit = memory.map_or(free, |memory| memory.min(free));
        let sequences = fitting(model, kind(precision), batch.max(1) as usize, limit)?;
        let bytes = Room::bytes(model, kind(precision), sequences);
        let start = device.allocate("weights and activations", bytes)?;
        let room = Room::lay(model, kind(precision), sequences, start);
        let network = Network { model: model.clone(), kind: kind(precision), room };
        let mut engine = Self { network, device, room_sequences: sequences, graphs: HashMap::new(), step: 0 };
        engine.prepare()?;
        Ok(engine)
    }

    /// Writes what never changes: tables of the optimizer and of positions, and an empty report.
    fn prepare(&mut self) -> Result<(), GpuError> {
        let room = &self.network.room;
        let weights = &room.weights;
        let views = weights.layout.views();
        let ends: Vec<u64> = views.iter().map(|view| (view.offset + view.len) as u64).collect();
        let decays: Vec<u32> = views.iter().map(|view| u32::from(view.decay)).collect();
        let turns = turns(&self.network.model);
        let empty = vec![0u64; report::words(&self.network.model)];
        let (places, report) = (weights.places, room.report);
        self.device.write(weights.ends, bytemuck::cast_slice(&ends))?;
        self.device.write(weights.decays, bytemuck::cast_slice(&decays))?;
        self.device.write(places, bytemuck::cast_slice(&weights.shifted))?;
        self.device.write(room.turns, bytemuck::cast_slice(&turns))?;
        self.device.write(report, bytemuck::cast_slice(&empty))
    }

    fn graph(&mut self, piece: Piece) -> Result<Graph, GpuError> {
        if let Some(&graph) = self.graphs.get(&piece) {
            return Ok(graph);
        }
        let graph = self.device.graph(&build(&self.network, piece))?;
        self.graphs.insert(piece, graph);
        Ok(graph)
    }

    fn replay(&mut self, piece: Piece) -> Result<(), GpuError> {
        let graph = self.graph(piece)?;
        self.device.replay(graph)
    }

    /// Writes tokens and targets, and for training the order of positions by token.
    fn feed(&mut self, inputs: &[u32], targets: &[u32], train: bool) -> Result<(), GpuError> {
        let room = &self.network.room;
        let input = room.input;
        self.device.write(input.tokens, bytemuck::cast_slice(inputs))?;
        self.device.write(input.targets, bytemuck::cast_slice(targets))?;
        if train {
            let model = &self.network.model;
            let order = Order::of(inputs, model.vocab as usize, segments(model, inputs.len()));
            self.device.write(input.order, bytemuck::cast_slice(&order.order))?;
            self.device.write(input.segments, bytemuck::cast_slice(&order.segments))?;
            self.device.write(input.first_segment, bytemuck::cast_slice(&order.first))?;
        }
        Ok(())
    }

    /// Forward and backward of a whole batch; `then` runs in one graph with it where the batch fits at a time.
    fn passes(&mut self, batch: Batch<'_>, update: bool) -> Result<(), GpuError> {
        let (inputs, targets) = batch.split();
        let positions = batch.context;
        let most = (self.room_sequences * self.network.model.context as usize / positions).max(1);
        let sequences = divisor(batch.sequences, most);
        if update && sequences == batch.sequences {
            self.feed(&inputs, &targets, true)?;
            return self.replay(Piece::Whole { batch: sequences, positions });
        }
        let parts = inputs.chunks(sequences * positions).zip(targets.chunks(sequences * positions));
        for (part, (inputs, targets)) in parts.enumerate() {
            self.feed(inputs, targets, true)?;
            let add = part > 0;
            self.replay(Piece::Pass { sequences, positions, batch: batch.sequences, add })?;
        }
        if update { self.replay(Piece::Update) } else { Ok(()) }
    }

    fn set_slot(&mut self, slot: usize) -> Result<(), GpuError> {
        self.device.write(self.network.room.slot, &(slot as u32).to_le_bytes())
    }

    /// The first `count` reports, each over `tokens` tokens.
    fn reports(&mut self, count: usize, tokens: usize) -> Result<Vec<StepReport>, GpuError> {
        let model = &self.network.model;
        let each = 8 * report::words(model);
        let mut bytes = vec![0u8; count * each];
        self.device.read(self.network.room.reports, &mut bytes)?;
        Ok(bytes.chunks_exact(each).map(|bytes| report::read(model, bytes, tokens)).collect())
    }

    fn read_f32s(&mut self, from: Address, count: usize) -> Result<Vec<f32>, GpuError> {
        let mut values = vec![0f32; count];
        self.device.read(from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// One step put into the queue; its report comes to lie at `slot`.
    fn queue(&mut self, batch: Batch<'_>, update: &Update, slot: usize) -> Result<(), GpuError> {
        self.set_slot(slot)?;
        self.device.write(self.network.room.update, &scalars(update))?;
        self.passes(batch, true)?;
        self.step += 1;
        Ok(())
    }
}

/// What of the model is more than the kernels take, if anything is.
fn too_large(model: &Model) -> Option<String> {
    const HEAD_MOST: u32 = 256;
    const EXPERTS_MOST: u32 = 512;
    const TOP_K_MOST: u32 = 16;
    if model.head_width() > HEAD_MOST {
        return Some(format!("heads may be {HEAD_MOST} wide at most, these are {}", model.head_width()));
    }
    let experts = model.experts.as_ref()?;
    let fits = experts.count <= EXPERTS_MOST && experts.top_k <= TOP_K_MOST;
    (!fits).then(|| {
        let (count, top_k) = (experts.count, experts.top_k);
        format!("experts may be {EXPERTS_MOST} and top_k {TOP_K_MOST} at most, these are {count} and {top_k}")
    })
}

/// Sequences of a batch that fit at a time, evenly.
fn fitting(model: &Model, kind: Kind, batch: usize, limit: u64) -> Result<usize, GpuError> {
    let most = (ROWS_MOST / model.context as usize).clamp(1, batch);
    let parts = (1..=most).rev().filter(|&part| batch.is_multiple_of(part));
    let mut least = 0;
    for part in parts {
        least = Room::bytes(model, kind, part);
        if least <= limit {
            return Ok(part);
        }
    }
    Err(GpuError::OutOfMemory { what: "the model with one sequence at a time".to_owned(), wanted: least, free: limit })
}

/// Makes engines on the first GPU that the process sees, for [`crate::check`].
pub fn on_first_gpu(
    kernels: &std::path::Path,
) -> impl FnMut(&Model, Precision, u32) -> Result<Box<dyn Engine>, EngineError> {
    move |model, precision, batch| {
        let gpu = Box::new(isoloss_gpu::Gpu::open(0, kernels)?);
        Ok(Box::new(CudaEngine::new(gpu, model, precision, batch, None)?))
    }
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

/// `[context, head / 2, 2]`: cosine and sine of each position's angles.
fn turns(model: &Model) -> Vec<f32> {
    let half = model.head_width() / 2;
    let angle = |position: u32, i: u32| f64::from(position) * ROPE_THETA.powf(-f64::from(i) / f64::from(half));
    let pairs = (0..model.context).flat_map(|position| (0..half).map(move |i| angle(position, i)));
    pairs.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect()
}

impl Engine for CudaEngine {
    fn layout(&self) -> &Layout {
        &self.network.room.weights.layout
    }

    fn step(&mut self, batch: Batch<'_>, update: &Update) -> Result<StepReport, EngineError> {
        self.queue(batch, update, 0)?;
        let mut reports = self.reports(1, batch.sequences * batch.context)?;
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
            reports.extend(self.reports(batches.len(), tokens)?);
        }
        Ok(reports)
    }

    fn gradient(&mut self, batch: Batch<'_>) -> Result<(StepReport, Vec<f32>), EngineError> {
        self.set_slot(0)?;
        self.passes(batch, false)?;
        let mut steps = Steps::default();
        self.network.measure(&mut steps);
        self.network.keep_report(&mut steps);
        self.device.run(&steps.take())?;
        let report = self.reports(1, batch.sequences * batch.context)?.pop().expect("one report was read");
        let (address, len) = (self.network.room.weights.gradient, self.layout().len());
        Ok((report, self.read_f32s(address, len)?))
    }

    fn evaluate(&mut self, batch: Batch<'_>) -> Result<Evaluation, EngineError> {
        let (inputs, targets) = batch.split();
        let positions = batch.context;
        let most = (self.room_sequences * self.network.model.context as usize / positions).max(1);
        let mut found = Evaluation::default();
        self.set_slot(0)?;
        let parts = inputs.chunks(most * positions).zip(targets.chunks(most * positions));
        for (inputs, targets) in parts {
            self.feed(inputs, targets, false)?;
            self.replay(Piece::Evaluate { sequences: inputs.len() / positions, positions })?;
            let losses = self.read_f32s(self.network.room.nats, inputs.len())?;
            found.losses.extend(losses);
            let report = self.reports(1, inputs.len())?.pop().expect("one report was read");
            found.load.resize(report.load.len(), Vec::new());
            for (sum, layer) in found.load.iter_mut().zip(report.load) {
                sum.resize(layer.len(), 0);
                sum.iter_mut().zip(layer).for_each(|(sum, pairs)| *sum += pairs);
            }
        }
        Ok(found)
    }

    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        let network = &self.network;
        let (rows, vocab) = (Rows { sequences: 1, positions: tokens.len() }, network.model.vocab as usize);
        self.device.write(network.room.input.tokens, bytemuck::cast_slice(tokens))?;
        let mut steps = Steps::default();
        network.forward(&mut steps, rows, Pass::Evaluate);
        self.device.run(&steps.take())?;
        let held = head_rows(&self.network.model, tokens.len());
        let mut all = Vec::with_capacity(tokens.len() * vocab);
        for first in (0..tokens.len()).step_by(held) {
            let count = held.min(tokens.len() - first);
            let mut steps = Steps::default();
            self.network.logits(&mut steps, first, count);
            self.device.run(&steps.take())?;
            all.extend(self.read_f32s(self.network.room.logits, count * vocab)?);
        }
        // Routing counted into the report; nobody asks for it.
        let empty = vec![0u64; report::words(&self.network.model)];
        self.device.write(self.network.room.report, bytemuck::cast_slice(&empty))?;
        Ok(all)
    }

    fn state(&mut self) -> Result<Cow<'_, State>, EngineError> {
        let weights = &self.network.room.weights;
        let (len, bias) = (weights.layout.len(), weights.router_bias);
        let [params, first, second] = [weights.params, weights.first_moment, weights.second_moment];
        let mut state = State::zeros(&self.network.model);
        state.step = self.step;
        state.params = self.read_f32s(params, len)?;
        state.first_moment = self.read_f32s(first, len)?;
        state.second_moment = self.read_f32s(second, len)?;
        if let Some(bias) = bias {
            state.router_bias = self.read_f32s(bias, state.router_bias.len())?;
        }
        Ok(Cow::Owned(state))
    }

    fn restore(&mut self, state: State) -> Result<(), EngineError> {
        let state = state.checked(&self.network.model)?;
        let weights = &self.network.room.weights;
        for (address, values) in [
            (weights.params, &state.params),
            (weights.first_moment, &state.first_moment),
            (weights.second_moment, &state.second_moment),
        ] {
            self.device.write(address, bytemuck::cast_slice(values))?;
        }
        if let Some(bias) = weights.router_bias {
            self.device.write(bias, bytemuck::cast_slice(&state.router_bias))?;
        }
        let mut steps = Steps::default();
        self.network.round(&mut steps);
        self.device.run(&steps.take())?;
        self.step = state.step;
        Ok(())
    }

    fn gpu_memory(&self) -> Option<GpuMemory> {
        let Network { model, kind, .. } = &self.network;
        let taken = Room::bytes(model, *kind, self.room_sequences);
        Some(GpuMemory { taken, free: self.device.memory().ok().map(|memory| memory.free) })
    }

    fn instruction_set(&self) -> String {
        self.device.name()
    }
}

const _: () = assert!(NORM_EPSILON == 1e-5, "norm.cu has the same number");
