//! One SwiGLU unit on some rows, forward and backward: the dense layer, an expert or the shared expert.

use super::linear::{Into, Pack, Weights};
use super::simd::Level;
use super::swiglu::{swiglu_backward, swiglu_forward};
use super::weights::Gated;

/// Room for the activations between the two products and for their gradient.
pub(super) struct Scratch {
    act: Vec<f32>,
    d_gate_up: Vec<f32>,
    pub(super) pack: Pack,
}

impl Scratch {
    pub(super) fn new(rows: usize, ff: usize) -> Self {
        Self { act: vec![0.0; rows * ff], d_gate_up: vec![0.0; rows * 2 * ff], pack: Pack::default() }
    }
}

impl Gated {
    /// `out (+)= swiglu(x gate_up) down`; `gate_up` keeps the first product for the backward pass.
    pub(super) fn forward(
        &self,
        level: Level,
        weights: Weights<'_>,
        x: &[f32],
        gate_up: &mut [f32],
        out: &mut [f32],
        into: Into,
        room: &mut Scratch,
    ) {
        let act = &mut room.act[..x.len() / self.width * self.ff];
        self.gate_up.forward(level, weights, x, gate_up, Into::Set, &mut room.pack);
        swiglu_forward(level, self.ff, gate_up, act);
        self.down.forward(level, weights, act, out, into, &mut room.pack);
    }

    /// Adds the weights' gradients into the flat `gradient`, and `dx (+)=` that of the input.
    pub(super) fn backward(
        &self,
        level: Level,
        weights: Weights<'_>,
        x: &[f32],
        gate_up: &[f32],
        d_out: &[f32],
        dx: &mut [f32],
        into: Into,
        gradient: &mut [f32],
        room: &mut Scratch,
    ) {
        let (f, pack) = (self.ff, &mut room.pack);
        let m = x.len() / self.width;
        let (act, d_gate_up) = (&mut room.act[..m * f], &mut room.d_gate_up[..m * 2 * f]);
        self.down.by_input(level, weights, d_out, act, Into::Set, pack);
        swiglu_backward(level, f, gate_up, act, d_gate_up);
        self.down.by_weight(level, weights, act, d_out, gradient, pack);
        self.gate_up.by_weight(level, weights, x, d_gate_up, gradient, pack);
        self.gate_up.by_input(level, weights, d_gate_up, dx, into, pack);
    }
}
