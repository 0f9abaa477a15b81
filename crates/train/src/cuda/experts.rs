//! A mixture's half of a layer: route, gather rows by expert, run the experts, combine; and back. Numbers of rows are known
//! on the GPU only: grids are as large as they may have to be, and blocks beyond the end return at once.

use isoloss_gpu::{Address, Argument, Kind};
use isoloss_sweep::Experts;

use super::gated::{Owned, SHARED};
use super::network::{Into, Network, Pass};
use super::report;
use super::room::{Mixture, Routing, TILE, tiles};
use super::steps::{Operand, Rows, Steps, at, int, or_none};

/// Blocks that share a tile of gathered rows.
const GATHERERS: u32 = 16;

/// A grouped product: rows by expert times that expert's matrix `[inputs, outputs]`.
struct Grouped {
    weight: Address,
    gradient: Address,
    inputs: usize,
    outputs: usize,
}

impl Network {
    fn spec(&self) -> &Experts {
        self.model.experts.as_ref().expect("a mixture has experts")
    }

    fn routing(&self) -> &Routing {
        self.room.routing.as_ref().expect("a mixture has room for routing")
    }

    fn grouped(&self, name: &str, inputs: usize) -> Grouped {
        let weights = &self.room.weights;
        let outputs = weights.layout.view(name).len / self.spec().count as usize / inputs;
        Grouped { weight: weights.operand(name), gradient: weights.gradient(name), inputs, outputs }
    }

    /// Slots of an expert in a sequence.
    fn capacity(&self, rows: Rows, pass: Pass) -> usize {
        let spec = self.spec();
        let pairs = (rows.positions * spec.top_k as usize) as f64;
        match (spec.capacity_factor, pass) {
            (Some(factor), Pass::Train { .. }) => (factor * pairs / f64::from(spec.count)).ceil() as usize,
            _ => rows.positions,
        }
    }

    /// Probabilities, choices, gates, and every pair's row.
    pub(super) fn route(&self, steps: &mut Steps, rows: Rows, index: usize, mixture: &Mixture, pass: Pass) {
        let (room, spec, routing) = (&self.room, self.spec(), self.routing());
        let (count, experts) = (rows.count(), spec.count as usize);
        let router = self.router(&format!("layers.{index}.router"), experts);
        let input = self.stream(mixture.exact);
        let logits = Operand { address: mixture.probabilities, columns: experts, kind: Kind::F32 };
        router.forward(steps, count, input, logits, Into::Set);
        let bias = room.weights.router_bias.map(|bias| bias + 4 * (index * experts) as u64);
        let (chunks, sequences) = (rows.positions.div_ceil(32) as u32, rows.sequences as u32);
        let arguments = [
            at(mixture.probabilities),
            or_none(bias),
            at(mixture.probabilities),
            at(mixture.lse),
            at(mixture.chosen),
            at(mixture.gates),
            at(mixture.sums),
            at(routing.masks),
            int(rows.positions),
        ];
        steps.launch("experts_route", [chunks, sequences, 1], 256, 0, arguments);
        let arguments = [at(routing.masks), at(routing.before), at(mixture.counts), int(rows.positions)];
        steps.launch("experts_count", [experts.div_ceil(128) as u32, sequences, 1], 128, 0, arguments);
        self.place(steps, rows, index, mixture, pass);
        if let Pass::Train { batch, .. } = pass {
            self.routing_losses(steps, rows, mixture, batch);
        }
    }

    fn place(&self, steps: &mut Steps, rows: Rows, index: usize, mixture: &Mixture, pass: Pass) {
        let (room, routing, count) = (&self.room, self.routing(), rows.count());
        let (capacity, tiles) = (self.capacity(rows, pass), tiles(self.spec(), count));
        let load = room.report + 8 * (report::LOAD + index * self.spec().count as usize) as u64;
        let arguments = [
            at(mixture.counts),
            at(mixture.first_row),
            at(routing.end_row),
            at(routing.base),
            at(mixture.tile_expert),
            at(load),
            at(room.report + 8 * report::DROPPED as u64),
            int(rows.sequences),
            int(capacity),
            int(tiles),
        ];
        steps.launch("experts_offsets", [1, 1, 1], 512, 0, arguments);
        let arguments = [
            at(mixture.chosen),
            at(routing.masks),
            at(routing.before),
            at(routing.base),
            at(routing.end_row),
            at(mixture.tile_expert),
            at(mixture.row_of_pair),
            at(mixture.pair_of_row),
            int(count),
            int(rows.positions),
            int(capacity),
        ];
        steps.launch("experts_place", [tiles as u32, 1, 1], 128, 0, arguments);
    }

    fn routing_losses(&self, steps: &mut Steps, rows: Rows, mixture: &Mixture, batch: usize) {
        let (room, routing, count) = (&self.room, self.routing(), rows.count());
        let parts = at(routing.losses);
        let (count, positions) = (int(count), int(rows.positions));
        let arguments = [at(mixture.probabilities), at(mixture.lse), at(mixture.counts), parts, count, positions];
        steps.over("experts_losses", rows.count(), 32, arguments);
        let word = |word: usize| at(room.report + 8 * word as u64);
        let arguments = [parts, word(report::BALANCE), word(report::ROUTER_Z), count, positions, int(batch)];
        steps.launch("experts_losses_add", [1, 1, 1], 256, 0, arguments);
    }

    /// `after = onto + ` the chosen experts' weighted outputs.
    pub(super) fn experts(
        &self,
        steps: &mut Steps,
        rows: Rows,
        index: usize,
        mixture: &Mixture,
        [onto, after]: [Address; 2],
    ) {
        let (width, ff, count) = (self.width(), self.spec().ff as usize, rows.count());
        let tiles = tiles(self.spec(), count);
        let (owner, input) = (at(mixture.tile_expert), self.room.layers[index].ff_input);
        let arguments = [at(input), at(mixture.pair_of_row), owner, at(mixture.x), int(width)];
        steps.launch("experts_gather", [tiles as u32 * GATHERERS, 1, 1], 256, 0, arguments);
        let gate_up = self.grouped(&format!("layers.{index}.experts_gate_up"), width);
        let down = self.grouped(&format!("layers.{index}.experts_down"), ff);
        let gated = [mixture.gated.gate_up, mixture.gated.act];
        if self.inside().experts {
            let own = Owned { rows: tiles * TILE, owner: Some(mixture.tile_expert) };
            self.gated_forward(steps, own, [mixture.x, gate_up.weight], gated, ff);
        } else {
            gate_up.forward(steps, tiles, mixture, [mixture.x, gated[0]]);
            self.swiglu(steps, tiles * TILE, gated, ff);
        }
        down.forward(steps, tiles, mixture, [mixture.gated.act, mixture.y]);
        let pairs = at(mixture.row_of_pair);
        let arguments = [at(mixture.y), at(mixture.gates), pairs, at(onto), at(after), int(count), int(width)];
        steps.over("experts_combine", count, 8, arguments);
    }

    /// Gradients of the experts and the router; that of the units' input is put into `dh`, or added to it.
    pub(super) fn experts_backward(
        &self,
        steps: &mut Steps,
        rows: Rows,
        index: usize,
        mixture: &Mixture,
        pass: Pass,
        add_input: bool,
    ) {
        let (room, routing, width) = (&self.room, self.routing(), self.width());
        let (ff, count) = (self.spec().ff as usize, rows.count());
        let tiles = tiles(self.spec(), count);
        let arguments = [
            at(room.dx),
            at(mixture.y),
            at(mixture.gates),
            at(mixture.pair_of_row),
            at(mixture.tile_expert),
            at(routing.d_out),
            at(routing.d_gates),
            int(width),
        ];
        steps.launch("experts_d_out", [tiles as u32 * GATHERERS, 1, 1], 256, 0, arguments);
        let gate_up = self.grouped(&format!("layers.{index}.experts_gate_up"), width);
        let down = self.grouped(&format!("layers.{index}.experts_down"), ff);
        if self.inside().experts {
            let own = Owned { rows: tiles * TILE, owner: Some(mixture.tile_expert) };
            let gated = [mixture.gated.gate_up, routing.d_gate_up];
            self.gated_backward(steps, own, [routing.d_out, down.weight], gated, ff);
        } else {
            down.by_input(steps, tiles, mixture, [routing.d_out, routing.d_act]);
            let kept = [mixture.gated.gate_up, routing.d_act, routing.d_gate_up];
            self.swiglu_backward(steps, tiles * TILE, kept, ff);
        }
        down.by_weight(steps, mixture, [mixture.gated.act, routing.d_out], self.spec().count, pass.adds());
        gate_up.by_input(steps, tiles, mixture, [routing.d_gate_up, routing.d_x]);
        gate_up.by_weight(steps, mixture, [mixture.x, routing.d_gate_up], self.spec().count, pass.adds());
        let (pairs, add) = (at(mixture.row_of_pair), int(usize::from(add_input)));
        let arguments = [at(routing.d_x), pairs, Argument::NONE, at(room.dh), add, int(count), int(width)];
        steps.over("experts_scatter", count, 8, arguments);
        self.router_backward(steps, rows, index, mixture, pass);
    }

    fn router_backward(&self, steps: &mut Steps, rows: Rows, index: usize, mixture: &Mixture, pass: Pass) {
        let Pass::Train { batch, add } = pass else { return };
        let (routing, spec, count) = (self.routing(), self.spec(), rows.count());
        let each = 1.0 / (batch * rows.positions) as f64;
        let pairs = (rows.positions * spec.top_k as usize) as f64;
        let balance = spec.aux_loss_coef * f64::from(spec.count) / pairs * each;
        let arguments = [
            at(routing.d_gates),
            at(mixture.row_of_pair),
            at(mixture.probabilities),
            at(mixture.gates),
            at(mixture.chosen),
            at(mixture.sums),
            at(mixture.lse),
            at(mixture.counts),
            at(routing.d_logits),
            int(count),
            int(rows.positions),
            Argument::Float(balance as f32),
            Argument::Float((2.0 * spec.router_z_loss_coef * each) as f32),
        ];
        steps.over("experts_router_backward", count, 8, arguments);
        let router = self.router(&format!("layers.{index}.router"), spec.count as usize);
        let d_logits = Operand { address: routing.d_logits, columns: spec.count as usize, kind: Kind::F32 };
        router.by_weight(steps, count, self.stream(mixture.exact), d_logits, add);
        router.by_input(steps, count, d_logits, self.stream(routing.d_exact), Into::Set);
    }
}

impl Grouped {
    fn forward(&self, steps: &mut Steps, tiles: usize, mixture: &Mixture, [x, y]: [Address; 2]) {
        let sizes = [int(self.inputs), int(self.outputs)];
        let arguments = [at(x), at(self.weight), at(mixture.tile_expert), at(y), sizes[0], sizes[1]];
        steps.launch("grouped_forward", [self.outputs.div_ceil(128) as u32, tiles as u32, 1], 128, SHARED, arguments);
    }

    fn by_input(&self, steps: &mut Steps, tiles: usize, mixture: &Mixture, [dy, dx]: [Address; 2]) {
        let sizes = [int(self.inputs), int(self.outputs)];
        let arguments = [at(dy), at(self.weight), at(mixture.tile_expert), at(dx), sizes[0], sizes[1]];
        steps.launch("grouped_by_input", [self.inputs.div_ceil(128) as u32, tiles as u32, 1], 128, SHARED, arguments);
    }

    fn by_weight(&self, steps: &mut Steps, mixture: &Mixture, [x, dy]: [Address; 2], experts: u32, add: bool) {
        let arguments = [
            at(x),
            at(dy),
            at(mixture.first_row),
            at(self.gradient),
            int(self.inputs),
            int(self.outputs),
            int(usize::from(add)),
        ];
        let grid = [self.outputs.div_ceil(128) as u32, self.inputs.div_ceil(128) as u32, experts];
        steps.launch("grouped_by_weight", grid, 128, SHARED, arguments);
    }
}
