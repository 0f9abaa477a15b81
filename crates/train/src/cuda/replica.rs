//! The model on one device: its memory, its captured pieces, and the copies in and out.

use std::collections::HashMap;

use isoloss_gpu::{Address, Device, GpuError, Graph, Kind, Memory, Number, Numbers};
use isoloss_sweep::Model;

use super::network::{Network, Pass};
use super::order::Order;
use super::piece::{Piece, build};
use super::report;
use super::room::{Room, head_rows, segments};
use super::sources::programs;
use super::steps::{Rows, Steps};
use crate::engine::{EngineError, GpuMemory, ROPE_THETA, State, StepReport};
use crate::layout::Layout;

/// Sequences of one pass hold at most so many positions: more fill no GPU better.
const ROWS_MOST: usize = 1 << 17;

/// See the module.
pub(super) struct Replica {
    network: Network,
    device: Box<dyn Device>,
    /// Sequences of the model's context that fit at a time.
    pub(super) room_sequences: usize,
    graphs: HashMap<Piece, Graph>,
}

impl Replica {
    /// For up to `share` sequences of a step, in at most `memory` bytes, or all that is free.
    pub(super) fn new(
        mut device: Box<dyn Device>,
        model: &Model,
        kind: Kind,
        share: usize,
        memory: Option<u64>,
    ) -> Result<Self, EngineError> {
        for program in programs(model, kind) {
            device.load(&program)?;
        }
        let Memory { free, total } = device.memory()?;
        let reserved = memory.filter(|reserved| *reserved < free);
        // A card that never has what was reserved is not filled by others.
        let short = |error| EngineError::short(error, memory.filter(|reserved| *reserved < total));
        let sequences = fitting(model, kind, share, reserved.unwrap_or(free), reserved.is_some()).map_err(short)?;
        let bytes = Room::bytes(model, kind, sequences);
        let start = device.allocate("weights and activations", bytes).map_err(short)?;
        let room = Room::lay(model, kind, sequences, start);
        let network = Network { model: model.clone(), kind, room };
        let mut replica = Self { network, device, room_sequences: sequences, graphs: HashMap::new() };
        replica.prepare()?;
        Ok(replica)
    }

    /// Writes what never changes: tables of the optimizer and of positions, and an empty report.
    fn prepare(&mut self) -> Result<(), GpuError> {
        let room = &self.network.room;
        let weights = &room.weights;
        let views = weights.layout.views();
        let ends: Vec<u64> = views.iter().map(|view| (view.offset + view.len) as u64).collect();
        let decays: Vec<u32> = views.iter().map(|view| u32::from(view.decay)).collect();
        let turns = turns(&self.network.model);
        let places = weights.places;
        self.device.write(weights.ends, bytemuck::cast_slice(&ends))?;
        self.device.write(weights.decays, bytemuck::cast_slice(&decays))?;
        self.device.write(places, bytemuck::cast_slice(&weights.shifted))?;
        self.device.write(room.turns, bytemuck::cast_slice(&turns))?;
        self.forget()
    }

    /// Starts the report under way at zero.
    fn forget(&mut self) -> Result<(), GpuError> {
        let empty = vec![0u64; report::words(&self.network.model)];
        self.device.write(self.network.room.report, bytemuck::cast_slice(&empty))
    }

    fn replay(&mut self, piece: Piece) -> Result<(), GpuError> {
        let graph = match self.graphs.get(&piece) {
            Some(&graph) => graph,
            None => {
                let graph = self.device.graph(&build(&self.network, piece))?;
                *self.graphs.entry(piece).or_insert(graph)
            }
        };
        self.device.replay(graph)
    }

    fn run(&mut self, put: impl FnOnce(&Network, &mut Steps)) -> Result<(), GpuError> {
        let mut steps = Steps::default();
        put(&self.network, &mut steps);
        self.device.run(&steps.take())
    }

    pub(super) fn model(&self) -> &Model {
        &self.network.model
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.network.room.weights.layout
    }

    pub(super) fn name(&self) -> String {
        self.device.name()
    }

    /// What it allocated of its device, and what is left there.
    pub(super) fn memory(&self) -> GpuMemory {
        let Network { model, kind, .. } = &self.network;
        let taken = Room::bytes(model, *kind, self.room_sequences);
        GpuMemory { taken, free: self.device.memory().ok().map(|memory| memory.free) }
    }

    /// Sequences of so many positions that fit at a time.
    pub(super) fn most(&self, positions: usize) -> usize {
        (self.room_sequences * self.network.model.context as usize / positions).max(1)
    }

    /// Whether so many sequences fit at a time.
    pub(super) fn takes(&self, sequences: usize, positions: usize) -> bool {
        sequences <= self.most(positions)
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

    /// A step of a batch that fits at a time: pass, norm and update in one graph.
    pub(super) fn whole(&mut self, inputs: &[u32], targets: &[u32], positions: usize) -> Result<(), GpuError> {
        self.feed(inputs, targets, true)?;
        self.replay(Piece::Whole { batch: inputs.len() / positions, positions })
    }

    /// Forward and backward of some sequences of a batch that has `batch` of them.
    pub(super) fn passes(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        positions: usize,
        batch: usize,
    ) -> Result<(), GpuError> {
        let sequences = divisor(inputs.len() / positions, self.most(positions));
        let parts = inputs.chunks(sequences * positions).zip(targets.chunks(sequences * positions));
        for (part, (inputs, targets)) in parts.enumerate() {
            self.feed(inputs, targets, true)?;
            self.replay(Piece::Pass { sequences, positions, batch, add: part > 0 })?;
        }
        Ok(())
    }

    /// Norm and update by the gradient that lies there.
    pub(super) fn update(&mut self) -> Result<(), GpuError> {
        self.replay(Piece::Update)
    }

    /// The norm of the gradient that lies there, and the report put aside.
    pub(super) fn measure(&mut self) -> Result<(), GpuError> {
        self.run(|network, steps| {
            network.measure(steps);
            network.keep_report(steps);
        })
    }

    /// What passes leave and a batch's devices add up: the gradient, and the report's words before the norm and after.
    pub(super) fn sums(&self) -> Vec<Numbers> {
        let room = &self.network.room;
        let word = |word: usize| room.report + 8 * word as u64;
        let counts = report::words(&self.network.model) - report::DROPPED;
        vec![
            Numbers { address: room.weights.gradient, count: self.layout().len() as u64, number: Number::F32 },
            Numbers { address: word(report::NATS), count: report::NORM as u64, number: Number::F64 },
            Numbers { address: word(report::DROPPED), count: counts as u64, number: Number::U64 },
        ]
    }

    /// Where the next report is put.
    pub(super) fn set_slot(&mut self, slot: usize) -> Result<(), GpuError> {
        self.device.write(self.network.room.slot, &(slot as u32).to_le_bytes())
    }

    /// The next update's numbers.
    pub(super) fn set_update(&mut self, scalars: &[u8]) -> Result<(), GpuError> {
        self.device.write(self.network.room.update, scalars)
    }

    /// The first `count` reports, each over `tokens` tokens.
    pub(super) fn reports(&mut self, count: usize, tokens: usize) -> Result<Vec<StepReport>, GpuError> {
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

    /// The flat gradient.
    pub(super) fn gradient(&mut self) -> Result<Vec<f32>, GpuError> {
        self.read_f32s(self.network.room.weights.gradient, self.layout().len())
    }

    /// Puts the scores of some sequences into the queue.
    pub(super) fn evaluate(&mut self, inputs: &[u32], targets: &[u32], positions: usize) -> Result<(), GpuError> {
        self.set_slot(0)?;
        self.feed(inputs, targets, false)?;
        self.replay(Piece::Evaluate { sequences: inputs.len() / positions, positions })
    }

    /// What `evaluate` found for so many tokens: nats of each, and routed pairs.
    pub(super) fn evaluated(&mut self, tokens: usize) -> Result<(Vec<f32>, Vec<Vec<u64>>), GpuError> {
        let losses = self.read_f32s(self.network.room.nats, tokens)?;
        let report = self.reports(1, tokens)?.pop().expect("one report was read");
        Ok((losses, report.load))
    }

    /// Logits `[len, vocab]` after each token of one sequence.
    pub(super) fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GpuError> {
        let (rows, vocab) = (Rows { sequences: 1, positions: tokens.len() }, self.network.model.vocab as usize);
        self.device.write(self.network.room.input.tokens, bytemuck::cast_slice(tokens))?;
        self.run(|network, steps| network.forward(steps, rows, Pass::Evaluate))?;
        let held = head_rows(&self.network.model, tokens.len());
        let mut all = Vec::with_capacity(tokens.len() * vocab);
        for first in (0..tokens.len()).step_by(held) {
            let count = held.min(tokens.len() - first);
            self.run(|network, steps| network.logits(steps, first, count))?;
            all.extend(self.read_f32s(self.network.room.logits, count * vocab)?);
        }
        // Routing counted into the report; nobody asks for it.
        self.forget()?;
        Ok(all)
    }

    pub(super) fn state(&mut self, step: u64) -> Result<State, GpuError> {
        let weights = &self.network.room.weights;
        let (len, bias) = (weights.layout.len(), weights.router_bias);
        let [params, first, second] = [weights.params, weights.first_moment, weights.second_moment];
        let mut state = State::zeros(&self.network.model);
        state.step = step;
        state.params = self.read_f32s(params, len)?;
        state.first_moment = self.read_f32s(first, len)?;
        state.second_moment = self.read_f32s(second, len)?;
        if let Some(bias) = bias {
            state.router_bias = self.read_f32s(bias, state.router_bias.len())?;
        }
        Ok(state)
    }

    /// Takes over a state of this model.
    pub(super) fn restore(&mut self, state: &State) -> Result<(), GpuError> {
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
        self.run(Network::round)
    }
}

/// The largest divisor of `batch` that is at most `most`: so that all passes of a batch are alike.
pub(super) fn divisor(batch: usize, most: usize) -> usize {
    (1..=batch.min(most)).rev().find(|&part| batch.is_multiple_of(part)).unwrap_or(1)
}

/// Sequences of a batch that fit at a time, evenly; `limit` is what was reserved, or what is free.
fn fitting(model: &Model, kind: Kind, batch: usize, limit: u64, is_reserved: bool) -> Result<usize, GpuError> {
    let most = (ROWS_MOST / model.context as usize).clamp(1, batch);
    let parts = (1..=most).rev().filter(|&part| batch.is_multiple_of(part));
    let mut least = 0;
    for part in parts {
        least = Room::bytes(model, kind, part);
        if least <= limit {
            return Ok(part);
        }
    }
    let whence = if is_reserved { " of what is reserved for the run (`memory` under `[resources]`)" } else { "" };
    let what = format!("the model with one sequence at a time{whence}");
    Err(GpuError::OutOfMemory { what, wanted: least, free: limit })
}

/// `[context, head / 2, 2]`: cosine and sine of each position's angles.
fn turns(model: &Model) -> Vec<f32> {
    let half = model.head_width() / 2;
    let angle = |position: u32, i: u32| f64::from(position) * ROPE_THETA.powf(-f64::from(i) / f64::from(half));
    let pairs = (0..model.context).flat_map(|position| (0..half).map(move |i| angle(position, i)));
    pairs.flat_map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect()
}
