//! Buffers of one sequence in flight: what the backward pass needs of each layer, and scratch. Allocated once a thread.

use isoloss_sweep::Model;

use super::experts::Routed;
use super::{attention, gated};

/// What one layer keeps of its forward pass.
pub(super) struct Saved {
    /// Residual stream on entry, `[T, d]`.
    pub(super) x: Vec<f32>,
    pub(super) attention_input: Vec<f32>,
    pub(super) attention_inverse: Vec<f32>,
    /// `[T, 3d]`, queries and keys turned, queries scaled.
    pub(super) qkv: Vec<f32>,
    pub(super) attention_output: Vec<f32>,
    /// `[heads, T]`.
    pub(super) lse: Vec<f32>,
    /// Residual stream between attention and feed-forward.
    pub(super) middle: Vec<f32>,
    pub(super) ff_input: Vec<f32>,
    pub(super) ff_inverse: Vec<f32>,
    /// Of the dense layer or the shared expert, `[T, 2f]`.
    pub(super) gate_up: Vec<f32>,
    pub(super) routed: Option<Routed>,
}

pub(super) struct Room {
    pub(super) layers: Vec<Saved>,
    /// Residual stream after the last layer.
    pub(super) x: Vec<f32>,
    pub(super) final_input: Vec<f32>,
    pub(super) final_inverse: Vec<f32>,
    /// Some rows of `[T, vocab]`.
    pub(super) logits: Vec<f32>,
    pub(super) nats: Vec<f32>,
    /// Gradient of the residual stream.
    pub(super) dx: Vec<f32>,
    /// Gradient of a norm's output.
    pub(super) dh: Vec<f32>,
    pub(super) d_qkv: Vec<f32>,
    pub(super) d_attention: Vec<f32>,
    pub(super) attention: attention::Scratch,
    pub(super) gated: gated::Scratch,
    pub(super) experts: super::experts::Scratch,
}

/// Logits held at a time: about what the second-level cache takes, and enough rows to fill the products' tiles.
pub(super) fn head_rows(model: &Model) -> usize {
    const ELEMENTS: usize = 1 << 16;
    const ROWS_LEAST: usize = 48;
    (ELEMENTS / model.vocab as usize).max(ROWS_LEAST).min(model.context as usize)
}

impl Room {
    pub(super) fn new(model: &Model) -> Self {
        let [t, d, heads] = [model.context, model.width, model.heads].map(|n| n as usize);
        let common = model.experts.as_ref().map_or(model.ff, |e| e.shared_ff) as usize;
        let widest = model.experts.as_ref().map_or(common, |e| common.max(e.ff as usize));
        let zeros = |len: usize| vec![0.0; len];
        let layer = || Saved {
            x: zeros(t * d),
            attention_input: zeros(t * d),
            attention_inverse: zeros(t),
            qkv: zeros(t * 3 * d),
            attention_output: zeros(t * d),
            lse: zeros(t * heads),
            middle: zeros(t * d),
            ff_input: zeros(t * d),
            ff_inverse: zeros(t),
            gate_up: zeros(t * 2 * common),
            routed: model.experts.as_ref().map(|experts| Routed::new(t, d, experts)),
        };
        Self {
            layers: (0..model.layers).map(|_| layer()).collect(),
            x: zeros(t * d),
            final_input: zeros(t * d),
            final_inverse: zeros(t),
            logits: zeros(head_rows(model) * model.vocab as usize),
            nats: zeros(t),
            dx: zeros(t * d),
            dh: zeros(t * d),
            d_qkv: zeros(t * 3 * d),
            d_attention: zeros(t * d),
            attention: attention::Scratch::new(t, d / heads),
            gated: gated::Scratch::new(t, widest),
            experts: super::experts::Scratch::new(t, d, model.experts.as_ref()),
        }
    }
}
