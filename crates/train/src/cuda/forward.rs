//! Tokens to losses: the forward half of a pass, and the head with its gradient, some rows of logits at a time.

use isoloss_gpu::{Address, Argument, Kind};

use super::gated::Owned;
use super::network::{Into, Network, Pass};
use super::report;
use super::room::head_rows;
use super::steps::{Operand, Rows, Steps, at, int, or_none};

impl Network {
    /// From tokens to the final normed stream.
    pub(super) fn forward(&self, steps: &mut Steps, rows: Rows, pass: Pass) {
        let (room, count, width) = (&self.room, rows.count(), self.width());
        let first = room.layers.first().map_or(room.x, |layer| layer.x);
        let table = at(room.weights.exact("embedding"));
        steps.over("embed", count, 8, [at(room.input.tokens), table, at(first), int(count), int(width)]);
        for index in 0..room.layers.len() {
            self.attend(steps, rows, index);
            self.feed(steps, rows, index, pass);
        }
        let to = [room.final_input, room.final_inverse];
        self.norm(steps, count, room.x, "final_norm", to, None);
    }

    /// Where a layer's output goes: the next one's entry.
    fn after(&self, index: usize) -> Address {
        self.room.layers.get(index + 1).map_or(self.room.x, |layer| layer.x)
    }

    /// The attention half of a layer: `middle = x + attention(norm(x))`.
    fn attend(&self, steps: &mut Steps, rows: Rows, index: usize) {
        let (layer, count, width) = (&self.room.layers[index], rows.count(), self.width());
        let name = |part: &str| format!("layers.{index}.{part}");
        let to = [layer.attention_input, layer.attention_inverse];
        self.norm(steps, count, layer.x, &name("attention_norm"), to, None);
        self.qkv(steps, rows, index);
        self.attention(steps, rows, layer.qkv, layer.attention_output, layer.lse);
        let output = self.activations(layer.attention_output, width);
        let out = self.linear(&name("attention_out"), width);
        out.forward(steps, count, output, self.stream(layer.middle), Into::Onto(layer.x));
    }

    fn attention(&self, steps: &mut Steps, rows: Rows, qkv: Address, out: Address, lse: Address) {
        let heads = self.model.heads as usize;
        let arguments = [at(qkv), at(out), at(lse), int(rows.positions), int(self.width()), int(heads)];
        if !Self::fused_attention(&self.model, self.kind) {
            let (grid, shared) = plain(rows, heads, self.model.head_width() as usize);
            return steps.launch("attention_forward", grid, 256, shared, arguments);
        }
        let padded = self.padded_head();
        let tile = if padded <= 96 { 64 } else { 32 };
        let shared = (128 + 4 * tile) * (padded + 8) * 2;
        let grid = [rows.positions.div_ceil(128) as u32, heads as u32, rows.sequences as u32];
        steps.launch("attention_forward", grid, 128, shared as u32, arguments);
    }

    /// The feed-forward half: `x' = middle + units(norm(middle))`.
    fn feed(&self, steps: &mut Steps, rows: Rows, index: usize, pass: Pass) {
        let (layer, count, width) = (&self.room.layers[index], rows.count(), self.width());
        let name = |part: &str| format!("layers.{index}.{part}");
        let exact = layer.mixture.as_ref().map(|mixture| mixture.exact);
        let to = [layer.ff_input, layer.ff_inverse];
        self.norm(steps, count, layer.middle, &name("ff_norm"), to, exact);
        let after = self.after(index);
        if let Some(gated) = layer.common {
            let [gate_up, down, ff] = self.common(index);
            let act = self.activations(gated.act, ff.1);
            if self.inside().activation {
                let factors = [layer.ff_input, self.room.weights.operand(&gate_up.0)];
                let own = Owned { rows: count, owner: None };
                self.gated_forward(steps, own, factors, [gated.gate_up, gated.act], ff.1);
            } else {
                let (input, wide) =
                    (self.activations(layer.ff_input, width), self.activations(gated.gate_up, 2 * ff.1));
                self.linear(&gate_up.0, width).forward(steps, count, input, wide, Into::Set);
                self.swiglu(steps, count, [gated.gate_up, gated.act], ff.1);
            }
            self.linear(&down.0, ff.1).forward(steps, count, act, self.stream(after), Into::Onto(layer.middle));
        }
        if let Some(mixture) = &layer.mixture {
            // Experts add to the shared one's sum, or to the stream as it came.
            let onto = if layer.common.is_some() { after } else { layer.middle };
            self.route(steps, rows, index, mixture, pass);
            self.experts(steps, rows, index, mixture, [onto, after]);
        }
    }

    /// Names of the dense unit's or the shared expert's matrices, and its width.
    pub(super) fn common(&self, index: usize) -> [(String, usize); 3] {
        let (gate_up, down, ff) = match &self.model.experts {
            None => ("gate_up", "down", self.model.ff),
            Some(e) => ("shared_gate_up", "shared_down", e.shared_ff),
        };
        let name = |part: &str| (format!("layers.{index}.{part}"), ff as usize);
        [name(gate_up), name(down), name("")]
    }

    /// Losses of all targets; in training also the gradient of the final normed stream and of the head.
    pub(super) fn score(&self, steps: &mut Steps, rows: Rows, pass: Pass) {
        let (room, width, vocab) = (&self.room, self.width(), self.model.vocab as usize);
        let (count, held, head) = (rows.count(), head_rows(&self.model, rows.count()), self.head());
        let real = self.kind.bytes();
        for first in (0..count).step_by(held) {
            let some = held.min(count - first);
            let from = |address, columns: usize, bytes: u64| address + (first * columns) as u64 * bytes;
            let input = self.activations(from(room.final_input, width, real), width);
            let logits = Operand { address: room.logits, columns: vocab, kind: Kind::F32 };
            head.forward(steps, some, input, logits, Into::Set);
            let (targets, nats) = (from(room.input.targets, 1, 4), from(room.nats, 1, 4));
            let Pass::Train { batch, add } = pass else {
                self.entropy(steps, some, [targets, nats], None, 0.0);
                continue;
            };
            let each = 1.0 / (batch * rows.positions) as f64;
            self.entropy(steps, some, [targets, nats], Some(room.d_logits), each as f32);
            let d_logits = self.activations(room.d_logits, vocab);
            let dh = self.activations(from(room.dh, width, real), width);
            head.by_input(steps, some, d_logits, dh, Into::Set);
            head.by_weight(steps, some, input, d_logits, add || first > 0);
        }
        let total = at(room.report + 8 * report::NATS as u64);
        steps.launch("sum_nats", [1, 1, 1], 1024, 0, [at(room.nats), total, int(count)]);
    }

    /// Logits of the first `count` rows from `first` on, into the room for logits.
    pub(super) fn logits(&self, steps: &mut Steps, first: usize, count: usize) {
        let (room, width) = (&self.room, self.width());
        let from = room.final_input + (first * width) as u64 * self.kind.bytes();
        let logits = Operand { address: room.logits, columns: self.model.vocab as usize, kind: Kind::F32 };
        self.head().forward(steps, count, self.activations(from, width), logits, Into::Set);
    }

    fn entropy(
        &self,
        steps: &mut Steps,
        rows: usize,
        [targets, nats]: [Address; 2],
        d_logits: Option<Address>,
        scale: f32,
    ) {
        const NARROW: usize = 1024;
        let vocab = self.model.vocab as usize;
        let arguments = [
            at(self.room.logits),
            at(targets),
            at(nats),
            or_none(d_logits),
            int(rows),
            int(vocab),
            Argument::Float(scale),
        ];
        if vocab <= NARROW {
            return steps.over("entropy_narrow", rows, 8, arguments);
        }
        let block = 32 * vocab.div_ceil(1024).min(32);
        steps.launch("entropy", [rows as u32, 1, 1], block as u32, 0, arguments);
    }
}

/// Grid and shared bytes of the plain attention kernels, in blocks of 256 threads.
pub(super) fn plain(rows: Rows, heads: usize, head: usize) -> ([u32; 3], u32) {
    let taken = if head <= 128 { 32 } else { 16 };
    let shared = (64 * (head + 1) + 2 * taken * head) * 4;
    ([rows.positions.div_ceil(taken) as u32, heads as u32, rows.sequences as u32], shared as u32)
}
