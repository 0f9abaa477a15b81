//! The forward pass in plain candle tensors, written for reading. Only operations whose backward is known to be right:
//! candle's own `rms_norm`, `rope`, `softmax_last_dim` and `sdpa` have none and drop gradients silently.

use candle_core::{D, DType, Device, Result, Tensor};
use isoloss_sweep::Model;

use super::weights::Weights;
use crate::engine::{NORM_EPSILON, ROPE_THETA};

/// One forward pass: what it reads, and what it found besides its result.
pub(super) struct Forward<'a> {
    pub(super) model: &'a Model,
    pub(super) weights: &'a Weights,
    /// `[layers, experts]`, or empty for none.
    pub(super) router_bias: &'a [f32],
    /// Whether the capacity limit holds: in training only.
    pub(super) limited: bool,
    pub(super) sequences: usize,
    pub(super) len: usize,
    pub(super) found: Found,
}

/// By-products of a forward pass.
#[derive(Default)]
pub(super) struct Found {
    /// Operations of all matrix products, causal attention counted by the keys it may see.
    pub(super) flops: f64,
    pub(super) load: Vec<Vec<u64>>,
    pub(super) dropped: u64,
    /// Load-balance and z-loss of each layer.
    pub(super) penalties: Vec<(Tensor, Tensor)>,
}

impl<'a> Forward<'a> {
    pub(super) fn new(model: &'a Model, weights: &'a Weights, router_bias: &'a [f32], shape: (usize, usize)) -> Self {
        Self { model, weights, router_bias, limited: false, sequences: shape.0, len: shape.1, found: Found::default() }
    }

    /// Logits `[sequences * len, vocab]` of `inputs`, row-major `[sequences, len]`.
    pub(super) fn logits(&mut self, inputs: &[u32]) -> Result<Tensor> {
        let embedding = self.weights.get("embedding");
        let ids = Tensor::from_slice(inputs, inputs.len(), &Device::Cpu)?;
        let mut x = embedding.index_select(&ids, 0)?;
        for layer in 0..self.model.layers as usize {
            let normed = rms_norm(&x, self.weight(layer, "attention_norm"))?;
            x = (&x + self.attention(&normed, layer)?)?;
            let normed = rms_norm(&x, self.weight(layer, "ff_norm"))?;
            let out = if self.model.experts.is_some() {
                self.experts(&normed, layer)?
            } else {
                self.swiglu(&normed, self.weight(layer, "gate_up"), self.weight(layer, "down"))?
            };
            x = (&x + out)?;
        }
        let x = rms_norm(&x, self.weights.get("final_norm"))?;
        if self.model.tied {
            self.product(&x, &embedding.t()?, 1.0)
        } else {
            self.product(&x, self.weights.get("head"), 1.0)
        }
    }

    pub(super) fn weight(&self, layer: usize, part: &str) -> &'a Tensor {
        self.weights.get(&format!("layers.{layer}.{part}"))
    }

    /// Causal self-attention of `x [sequences * len, width]`.
    fn attention(&mut self, x: &Tensor, layer: usize) -> Result<Tensor> {
        let (sequences, len) = (self.sequences, self.len);
        let (heads, width) = (self.model.heads as usize, self.model.head_width() as usize);
        let qkv = self.product(x, self.weight(layer, "qkv"), 1.0)?;
        let qkv = qkv.reshape((sequences, len, 3, heads, width))?;
        // [sequences, heads, len, width]
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, k, v) = (rotate(&part(0)?)?, rotate(&part(1)?)?, part(2)?);
        let seen = (len as f64 + 1.0) / (2.0 * len as f64);
        let scores = (self.product(&q, &k.t()?, seen)? / (width as f64).sqrt())?;
        let weights = softmax(&scores.broadcast_add(&causal_mask(len, x.dtype())?)?)?;
        let mixed = self.product(&weights, &v, seen)?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?.reshape((sequences * len, heads * width))?;
        self.product(&mixed, self.weight(layer, "attention_out"), 1.0)
    }

    /// `(silu(x G) * x U) W`, with `[G U]` = `gate_up` and W = `down`.
    pub(super) fn swiglu(&mut self, x: &Tensor, gate_up: &Tensor, down: &Tensor) -> Result<Tensor> {
        let both = self.product(x, gate_up, 1.0)?;
        let width = both.dim(1)? / 2;
        let hidden = (both.narrow(1, 0, width)?.silu()? * both.narrow(1, width, width)?)?;
        self.product(&hidden, down, 1.0)
    }

    /// The one matrix product of this engine: counts its operations, of which the share `counted` is useful work.
    pub(super) fn product(&mut self, a: &Tensor, b: &Tensor, counted: f64) -> Result<Tensor> {
        let product = a.matmul(b)?;
        self.found.flops += 2.0 * product.elem_count() as f64 * a.dim(D::Minus1)? as f64 * counted;
        Ok(product)
    }
}

/// `x / rms(x) * gain` over the last dimension.
fn rms_norm(x: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + NORM_EPSILON)?.sqrt()?;
    x.broadcast_div(&rms)?.broadcast_mul(gain)
}

/// Rotary positions (Su 2104.09864): pair (i, i + half) of `x [.., len, width]` turns by position * theta^(-2i/width).
fn rotate(x: &Tensor) -> Result<Tensor> {
    let (len, width) = (x.dim(2)?, x.dim(3)?);
    let half = width / 2;
    let angle = |n: usize| (n / half) as f64 * ROPE_THETA.powf(-2.0 * (n % half) as f64 / width as f64);
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f64> = (0..len * half).map(|n| f(angle(n))).collect();
        Tensor::from_vec(values, (len, half), &Device::Cpu)?.to_dtype(x.dtype())
    };
    let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
    let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[&first, &second], 3)
}

/// 0 where a position may look, minus infinity where it may not.
fn causal_mask(len: usize, dtype: DType) -> Result<Tensor> {
    let values: Vec<f32> = (0..len * len).map(|n| if n % len > n / len { f32::NEG_INFINITY } else { 0.0 }).collect();
    Tensor::from_vec(values, (len, len), &Device::Cpu)?.to_dtype(dtype)
}

/// Softmax over the last dimension. The subtracted maximum cancels, so it carries no gradient.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?.exp()?;
    exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
}

/// Log of the summed exponentials over the last dimension, kept as a dimension of one.
pub(super) fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(D::Minus1)?.detach();
    x.broadcast_sub(&max)?.exp()?.sum_keepdim(D::Minus1)?.log()? + max
}
