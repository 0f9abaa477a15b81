//! Losses to gradients, and gradients to new weights: the backward half of a pass, and the update.

use isoloss_gpu::{Address, Argument};

use super::forward::plain;
use super::gated::Owned;
use super::network::{Into, Network, Pass};
use super::report;
use super::room::{Layer, norm_blocks, segments};
use super::steps::{Rows, Steps, at, int, or_none};

impl Network {
    /// From the gradient of the final normed stream to those of all weights.
    pub(super) fn backward(&self, steps: &mut Steps, rows: Rows, pass: Pass) {
        let (room, count, width) = (&self.room, rows.count(), self.width());
        let add = pass.adds();
        let from = [room.x, room.final_inverse];
        self.norm_backward(steps, count, from, "final_norm", None, [true, add]);
        for index in (0..room.layers.len()).rev() {
            let layer = &room.layers[index];
            self.feed_backward(steps, rows, index, pass);
            let name = |part: &str| format!("layers.{index}.{part}");
            let exact = room.routing.as_ref().map(|routing| routing.d_exact);
            let from = [layer.middle, layer.ff_inverse];
            self.norm_backward(steps, count, from, &name("ff_norm"), exact, [false, add]);
            self.attend_backward(steps, rows, index, layer, add);
            let from = [layer.x, layer.attention_inverse];
            self.norm_backward(steps, count, from, &name("attention_norm"), None, [false, add]);
        }
        let parts = segments(&self.model, count);
        let wide = width.div_ceil(128) as u32;
        let input = &room.input;
        let arguments = [at(room.dx), at(input.order), at(input.segments), at(room.embedded), int(parts), int(width)];
        steps.launch("embed_sum", [parts.div_ceil(8) as u32, wide, 1], 256, 0, arguments);
        let vocab = self.model.vocab as usize;
        let table = at(room.weights.gradient("embedding"));
        // A tied head has written its part already.
        let add = int(usize::from(add || self.model.tied));
        let arguments = [at(room.embedded), at(input.first_segment), table, int(vocab), int(width), add];
        steps.launch("embed_add", [vocab.div_ceil(8) as u32, wide, 1], 256, 0, arguments);
    }

    /// Gradients of the units, their sum by the normed input in `dh`.
    fn feed_backward(&self, steps: &mut Steps, rows: Rows, index: usize, pass: Pass) {
        let (room, count, width) = (&self.room, rows.count(), self.width());
        let layer = &room.layers[index];
        if let Some(gated) = layer.common {
            let [gate_up, down, ff] = self.common(index);
            let down_weight = room.weights.operand(&down.0);
            let (down, gate_up, ff) = (self.linear(&down.0, ff.1), self.linear(&gate_up.0, width), ff.1);
            let dx = self.activations(room.dx_real, width);
            if self.inside().gradient {
                let own = Owned { rows: count, owner: None };
                self.gated_backward(steps, own, [room.dx_real, down_weight], [gated.gate_up, room.d_gate_up], ff);
            } else {
                down.by_input(steps, count, dx, self.activations(room.d_act, ff), Into::Set);
                self.swiglu_backward(steps, count, [gated.gate_up, room.d_act, room.d_gate_up], ff);
            }
            down.by_weight(steps, count, self.activations(gated.act, ff), dx, pass.adds());
            let d_gate_up = self.activations(room.d_gate_up, 2 * ff);
            gate_up.by_input(steps, count, d_gate_up, self.activations(room.dh, width), Into::Set);
            gate_up.by_weight(steps, count, self.activations(layer.ff_input, width), d_gate_up, pass.adds());
        }
        if let Some(mixture) = &layer.mixture {
            self.experts_backward(steps, rows, index, mixture, pass, layer.common.is_some());
        }
    }

    /// Gradients of the attention half, that of its normed input in `dh`.
    fn attend_backward(&self, steps: &mut Steps, rows: Rows, index: usize, layer: &Layer, add: bool) {
        let (room, count, width) = (&self.room, rows.count(), self.width());
        let linear = |part: &str| self.linear(&format!("layers.{index}.{part}"), width);
        let (dx, d_attention) = (self.activations(room.dx_real, width), self.activations(room.d_attention, width));
        let out = linear("attention_out");
        out.by_input(steps, count, dx, d_attention, Into::Set);
        out.by_weight(steps, count, self.activations(layer.attention_output, width), dx, add);
        self.attention_backward(steps, rows, layer);
        let (qkv, d_qkv) = (linear("qkv"), self.activations(room.d_qkv, 3 * width));
        qkv.by_input(steps, count, d_qkv, self.activations(room.dh, width), Into::Set);
        qkv.by_weight(steps, count, self.activations(layer.attention_input, width), d_qkv, add);
    }

    /// The gradient of queries and keys as they were before they turned, and that of values.
    fn attention_backward(&self, steps: &mut Steps, rows: Rows, layer: &Layer) {
        let (room, width, heads) = (&self.room, self.width(), self.model.heads as usize);
        let (count, head) = (rows.count(), self.model.head_width() as usize);
        let delta =
            [at(layer.attention_output), at(room.d_attention), at(room.delta), int(count), int(width), int(heads)];
        let [qkv, d_out, lse, delta_of] = [layer.qkv, room.d_attention, layer.lse, room.delta].map(at);
        let [positions, width, heads_of] = [rows.positions, width, heads].map(int);
        if !Self::fused_attention(&self.model, self.kind) {
            steps.over("attention_delta", count * heads, 8, delta);
            let both = [qkv, d_out, lse, delta_of, at(room.d_qkv), positions, width, heads_of];
            let (grid, shared) = plain(rows, heads, head);
            steps.launch("attention_keys", grid, 256, shared, both);
            steps.launch("attention_queries", grid, 256, shared, both);
            return self.rope(steps, rows, room.d_qkv, -1.0);
        }
        let group = if head.is_multiple_of(8) {
            (head / 8).next_power_of_two()
        } else {
            (head / 2).next_power_of_two().min(32)
        };
        steps.over("attention_delta", count * heads * group, 256, delta);
        let padded = self.padded_head();
        let (taken, tile) = (if padded <= 64 { 128 } else { 64 }, if padded <= 96 { 64 } else { 32 });
        let shared = (2 * taken + 4 * tile) * (padded + 8) * 2 + 16 * tile;
        let grid = [rows.positions.div_ceil(taken) as u32, heads as u32, rows.sequences as u32];
        let both = [qkv, d_out, lse, delta_of, at(room.turns), at(room.d_qkv), positions, width, heads_of];
        steps.launch("attention_keys", grid, 128, shared as u32, both);
        steps.launch("attention_queries", grid, 128, shared as u32, both);
    }

    /// Global norm of the gradient, into the step's report.
    pub(super) fn measure(&self, steps: &mut Steps) {
        let (room, len) = (&self.room, self.room.weights.layout.len());
        let blocks = norm_blocks(len);
        let arguments = [at(room.weights.gradient), at(room.squares), Argument::Long(len as u64)];
        steps.launch("squares", [blocks as u32, 1, 1], 256, 0, arguments);
        steps.launch("norm_total", [1, 1, 1], 512, 0, [at(room.squares), at(self.norm_address()), int(blocks)]);
    }

    fn norm_address(&self) -> Address {
        self.room.report + 8 * report::NORM as u64
    }

    /// Clip, AdamW, the router biases, and the report put aside.
    pub(super) fn update(&self, steps: &mut Steps) {
        let (room, weights) = (&self.room, &self.room.weights);
        let len = weights.layout.len();
        let arguments = [
            at(weights.params),
            at(weights.gradient),
            at(weights.first_moment),
            at(weights.second_moment),
            or_none(weights.rounded),
            at(weights.ends),
            at(weights.decays),
            at(weights.places),
            int(weights.layout.views().len()),
            at(room.update),
            at(self.norm_address()),
            Argument::Long(len as u64),
        ];
        steps.over("adamw", len, 1024, arguments);
        if let (Some(bias), Some(experts)) = (weights.router_bias, &self.model.experts) {
            let load = at(room.report + 8 * report::LOAD as u64);
            let arguments = [load, at(bias), Argument::Float(experts.bias_update as f32)];
            steps.launch("experts_balance", [self.model.layers, 1, 1], 512, 0, arguments);
        }
        self.keep_report(steps);
    }

    /// The rounded copy of all weights anew, where products read one.
    pub(super) fn round(&self, steps: &mut Steps) {
        let weights = &self.room.weights;
        let Some(rounded) = weights.rounded else { return };
        for (view, &place) in weights.layout.views().iter().zip(&weights.shifted) {
            let (from, to) = (weights.params + 4 * view.offset as u64, rounded + 2 * place);
            steps.over("cast", view.len, 1024, [at(from), at(to), Argument::Long(view.len as u64)]);
        }
    }

    pub(super) fn keep_report(&self, steps: &mut Steps) {
        let (room, words) = (&self.room, report::words(&self.model));
        steps.over("report_keep", words, 256, [at(room.report), at(room.reports), at(room.slot), int(words)]);
    }
}
