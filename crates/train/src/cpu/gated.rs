//! One SwiGLU unit on some rows, forward and backward: the dense layer, an expert or the shared expert.

use super::product::{Extent, product, rows, transposed};
use super::simd::Level;
use super::swiglu::{swiglu_backward, swiglu_forward};
use super::weights::{Gated, Weights};

/// Room for the activations between the two products and for their gradient.
pub(super) struct Scratch {
    act: Vec<f32>,
    d_gate_up: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(rows: usize, ff: usize) -> Self {
        Self { act: vec![0.0; rows * ff], d_gate_up: vec![0.0; rows * 2 * ff] }
    }
}

/// Where a product's result goes: into place, or on top of what is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Set,
    Add,
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
        let (d, f) = (self.width, self.ff);
        let m = x.len() / d;
        let act = &mut room.act[..m * f];
        let first = &weights.params[self.gate_up.clone()];
        product(level, Extent { m, n: 2 * f, k: d }, rows(x, d), first, 2 * f, gate_up, 2 * f, false);
        swiglu_forward(level, f, gate_up, act);
        let second = &weights.params[self.down.clone()];
        product(level, Extent { m, n: d, k: f }, rows(act, f), second, d, out, d, into == Into::Add);
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
        let (d, f) = (self.width, self.ff);
        let m = x.len() / d;
        let (act, d_gate_up) = (&mut room.act[..m * f], &mut room.d_gate_up[..m * 2 * f]);
        let down = &weights.flipped[self.down.clone()];
        product(level, Extent { m, n: f, k: d }, rows(d_out, d), down, f, act, f, false);
        swiglu_backward(level, f, gate_up, act, d_gate_up);
        let d_down = &mut gradient[self.down.clone()];
        product(level, Extent { m: f, n: d, k: m }, transposed(act, f), d_out, d, d_down, d, true);
        let d_first = &mut gradient[self.gate_up.clone()];
        product(level, Extent { m: d, n: 2 * f, k: m }, transposed(x, d), d_gate_up, 2 * f, d_first, 2 * f, true);
        let first = &weights.flipped[self.gate_up.clone()];
        product(level, Extent { m, n: d, k: 2 * f }, rows(d_gate_up, 2 * f), first, d, dx, d, into == Into::Add);
    }
}
