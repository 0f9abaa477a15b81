//! One sequence through the network and back. One thread, no allocation; sums over sequences are made elsewhere.

use isoloss_sweep::Model;

use super::attention::{self, Shape};
use super::entropy::{entropy, entropy_gradient};
use super::experts::Mixture;
use super::linear::{Into, Pack, Weights};
use super::norm::{norm_backward, norm_forward};
use super::room::{Room, Saved, head_rows};
use super::rope::{Rope, Turn};
use super::simd::Level;
use super::weights::Map;

/// What does not change while a model trains.
pub(super) struct Network {
    pub(super) level: Level,
    pub(super) model: Model,
    pub(super) map: Map,
    pub(super) rope: Rope,
}

/// The weights of a pass and how its experts route.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) network: &'a Network,
    pub(super) weights: Weights<'a>,
    /// `[layers, experts]`, or empty.
    pub(super) router_bias: &'a [f32],
    /// Whether the capacity limit holds.
    pub(super) limited: bool,
}

impl Pass<'_> {
    fn width(&self) -> usize {
        self.network.model.width as usize
    }

    fn query_scale(&self) -> f32 {
        1.0 / (self.network.model.head_width() as f32).sqrt()
    }

    fn shape(&self, positions: usize) -> Shape {
        Shape { width: self.width(), heads: self.network.model.heads as usize, positions }
    }

    fn mixture(&self, layer: usize) -> Option<Mixture<'_>> {
        let spec = self.network.model.experts.as_ref()?;
        let experts = spec.count as usize;
        Some(Mixture {
            level: self.network.level,
            spec,
            layer: &self.network.map.layers[layer],
            weights: self.weights,
            bias: self.router_bias.chunks_exact(experts).nth(layer),
            limited: self.limited,
        })
    }

    /// From tokens to the final norm's output.
    pub(super) fn forward(&self, room: &mut Room, tokens: &[u32]) {
        let Network { level, map, .. } = self.network;
        let (d, t) = (self.width(), tokens.len());
        let table = &self.weights.params[map.embedding.clone()];
        for (x, &token) in room.layers[0].x.chunks_exact_mut(d).zip(tokens) {
            x.copy_from_slice(&table[token as usize * d..][..d]);
        }
        for layer in 0..map.layers.len() {
            self.attention(layer, room, t);
            self.feed_forward(layer, room, t);
        }
        let gain = &self.weights.params[map.final_norm.clone()];
        norm_forward(*level, &room.x[..t * d], gain, &mut room.final_input, &mut room.final_inverse);
    }

    /// `middle = x + attention(norm(x))`
    fn attention(&self, layer: usize, room: &mut Room, t: usize) {
        let Network { level, map, rope, .. } = self.network;
        let (level, d, params) = (*level, self.width(), self.weights.params);
        let tensors = &map.layers[layer];
        let saved = &mut room.layers[layer];
        let (x, input) = (&saved.x[..t * d], &mut saved.attention_input[..t * d]);
        norm_forward(level, x, &params[tensors.attention_norm.clone()], input, &mut saved.attention_inverse);
        let qkv = &mut saved.qkv[..t * 3 * d];
        tensors.qkv.forward(level, self.weights, input, qkv, Into::Set, &mut room.gated.pack);
        let turn = |scale| Turn { sign: 1.0, scale };
        rope.turn(level, qkv, 3 * d, 0, d, turn(self.query_scale()));
        rope.turn(level, qkv, 3 * d, d, d, turn(1.0));
        let heads = self.network.model.heads as usize;
        let out = &mut saved.attention_output[..t * d];
        let lse = &mut saved.lse[..t * heads];
        match self.weights.pairs {
            None => attention::forward(level, self.shape(t), qkv, out, lse, &mut room.attention),
            Some(_) => attention::pairs::forward(level, self.shape(t), qkv, out, lse, &mut room.attention),
        }
        let middle = &mut saved.middle[..t * d];
        middle.copy_from_slice(x);
        tensors.attention_out.forward(level, self.weights, out, middle, Into::Add, &mut room.gated.pack);
    }

    /// Next `x = middle + feed-forward(norm(middle))`
    fn feed_forward(&self, layer: usize, room: &mut Room, t: usize) {
        let Network { level, map, .. } = self.network;
        let (level, d) = (*level, self.width());
        let tensors = &map.layers[layer];
        let (before, after) = room.layers.split_at_mut(layer + 1);
        let saved = &mut before[layer];
        let next = after.first_mut().map_or(&mut room.x, |next| &mut next.x);
        let (next, input) = (&mut next[..t * d], &mut saved.ff_input[..t * d]);
        let gain = &self.weights.params[tensors.ff_norm.clone()];
        norm_forward(level, &saved.middle[..t * d], gain, input, &mut saved.ff_inverse);
        next.copy_from_slice(&saved.middle[..t * d]);
        if let Some(unit) = &tensors.common {
            let gate_up = &mut saved.gate_up[..t * 2 * unit.ff];
            unit.forward(level, self.weights, input, gate_up, next, Into::Add, &mut room.gated);
        }
        if let (Some(mixture), Some(routed)) = (self.mixture(layer), &mut saved.routed) {
            mixture.forward(input, next, routed, &mut room.experts, &mut room.gated);
        }
    }

    /// Logits of some rows of the final norm's output.
    pub(super) fn logits(&self, hidden: &[f32], logits: &mut [f32], pack: &mut Pack) {
        let Network { level, map, .. } = self.network;
        map.head.forward(*level, self.weights, hidden, logits, Into::Set, pack);
    }

    /// Nats of each target after a forward pass, into `room.nats`.
    pub(super) fn score(&self, room: &mut Room, targets: &[u32]) {
        let (d, v, most) = (self.width(), self.network.model.vocab as usize, head_rows(&self.network.model));
        for (chunk, targets) in targets.chunks(most).enumerate() {
            let first = chunk * most;
            let logits = &mut room.logits[..targets.len() * v];
            self.logits(&room.final_input[first * d..][..targets.len() * d], logits, &mut room.gated.pack);
            entropy(self.network.level, v, logits, targets, &mut room.nats[first..]);
        }
    }

    /// Adds the gradient of `scale` times the objective to `gradient`, after a forward pass over `tokens`; the nats of
    /// each target go to `room.nats`. `scale` is one over the batch.
    pub(super) fn backward(&self, room: &mut Room, tokens: &[u32], targets: &[u32], scale: f64, gradient: &mut [f32]) {
        let Network { level, map, .. } = self.network;
        let (d, t) = (self.width(), tokens.len());
        self.head_backward(room, targets, scale, gradient);
        room.dx[..t * d].fill(0.0);
        let gain = &self.weights.params[map.final_norm.clone()];
        let (dh, dx) = (&room.dh[..t * d], &mut room.dx[..t * d]);
        let d_gain = &mut gradient[map.final_norm.clone()];
        norm_backward(*level, &room.x[..t * d], gain, &room.final_inverse, dh, dx, d_gain);
        for layer in (0..map.layers.len()).rev() {
            self.feed_forward_backward(layer, room, t, scale, gradient);
            self.attention_backward(layer, room, t, gradient);
        }
        let table = &mut gradient[map.embedding.clone()];
        for (dx, &token) in room.dx.chunks_exact(d).zip(tokens) {
            let row = &mut table[token as usize * d..][..d];
            row.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
        }
    }

    /// From the loss to `room.dh`, the gradient by the final norm's output, some rows at a time.
    fn head_backward(&self, room: &mut Room, targets: &[u32], scale: f64, gradient: &mut [f32]) {
        let Network { level, map, model, .. } = self.network;
        let (level, d, v, most) = (*level, self.width(), model.vocab as usize, head_rows(model));
        let scale = (scale / targets.len() as f64) as f32;
        for (chunk, targets) in targets.chunks(most).enumerate() {
            let (first, m) = (chunk * most, targets.len());
            let logits = &mut room.logits[..m * v];
            let hidden = &room.final_input[first * d..][..m * d];
            let dh = &mut room.dh[first * d..][..m * d];
            let pack = &mut room.gated.pack;
            self.logits(hidden, logits, pack);
            entropy_gradient(level, v, scale, logits, targets, &mut room.nats[first..]);
            map.head.by_weight(level, self.weights, hidden, logits, gradient, pack);
            map.head.by_input(level, self.weights, logits, dh, Into::Set, pack);
        }
    }

    fn feed_forward_backward(&self, layer: usize, room: &mut Room, t: usize, scale: f64, gradient: &mut [f32]) {
        let Network { level, map, .. } = self.network;
        let (level, d) = (*level, self.width());
        let tensors = &map.layers[layer];
        let saved = &room.layers[layer];
        let input = &saved.ff_input[..t * d];
        let (dx, dh) = (&mut room.dx[..t * d], &mut room.dh[..t * d]);
        match &tensors.common {
            Some(unit) => {
                let gate_up = &saved.gate_up[..t * 2 * unit.ff];
                let weights = self.weights;
                unit.backward(level, weights, input, gate_up, dx, dh, Into::Set, gradient, &mut room.gated);
            }
            None => dh.fill(0.0),
        }
        if let (Some(mixture), Some(routed)) = (self.mixture(layer), &saved.routed) {
            mixture.backward(scale, input, dx, dh, routed, gradient, &mut room.experts, &mut room.gated);
        }
        let gain = &self.weights.params[tensors.ff_norm.clone()];
        let d_gain = &mut gradient[tensors.ff_norm.clone()];
        norm_backward(level, &saved.middle[..t * d], gain, &saved.ff_inverse, dh, dx, d_gain);
    }

    fn attention_backward(&self, layer: usize, room: &mut Room, t: usize, gradient: &mut [f32]) {
        let Network { level, map, rope, model, .. } = self.network;
        let (level, d, weights) = (*level, self.width(), self.weights);
        let tensors = &map.layers[layer];
        let Saved { x, attention_input, attention_inverse, qkv, attention_output, lse, .. } = &room.layers[layer];
        let (input, out) = (&attention_input[..t * d], &attention_output[..t * d]);
        let (dx, dh, d_out) = (&mut room.dx[..t * d], &mut room.dh[..t * d], &mut room.d_attention[..t * d]);
        tensors.attention_out.by_weight(level, weights, out, dx, gradient, &mut room.gated.pack);
        tensors.attention_out.by_input(level, weights, dx, d_out, Into::Set, &mut room.gated.pack);
        let d_qkv = &mut room.d_qkv[..t * 3 * d];
        let saved = attention::Saved { qkv: &qkv[..t * 3 * d], out, lse: &lse[..t * model.heads as usize], d_out };
        match weights.pairs {
            None => attention::backward(level, self.shape(t), &saved, d_qkv, &mut room.attention),
            Some(_) => attention::pairs::backward(level, self.shape(t), &saved, d_qkv, &mut room.attention),
        }
        let turn = |scale| Turn { sign: -1.0, scale };
        rope.turn(level, d_qkv, 3 * d, 0, d, turn(self.query_scale()));
        rope.turn(level, d_qkv, 3 * d, d, d, turn(1.0));
        tensors.qkv.by_weight(level, weights, input, d_qkv, gradient, &mut room.gated.pack);
        tensors.qkv.by_input(level, weights, d_qkv, dh, Into::Set, &mut room.gated.pack);
        let gain = &weights.params[tensors.attention_norm.clone()];
        let d_gain = &mut gradient[tensors.attention_norm.clone()];
        norm_backward(level, &x[..t * d], gain, attention_inverse, dh, dx, d_gain);
    }
}
