//! The shape of a model: a decoder-only transformer, dense or a mixture of experts. It does not hold weights.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pre-norm decoder with RMSNorm, RoPE and SwiGLU. Every number is resolved; nothing is "auto".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub layers: u32,
    /// Residual width, a multiple of `heads`; `width / heads` is even (RoPE rotates pairs).
    pub width: u32,
    pub heads: u32,
    /// Feed-forward width of a dense layer; 0 for a mixture of experts.
    pub ff: u32,
    /// Tokens a position may look back on, itself included.
    pub context: u32,
    pub vocab: u32,
    /// Whether the output head is the embedding table transposed.
    pub tied: bool,
    /// `None` for a dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<Experts>,
}

/// The feed-forward part of a mixture of experts with top-k gating.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Routed experts per layer.
    pub count: u32,
    /// Experts that each token is sent to.
    pub top_k: u32,
    /// Width of one routed expert.
    pub ff: u32,
    /// Width of the expert that every token passes; 0 for none.
    pub shared_ff: u32,
    /// Weight of the load-balance loss (Fedus 2101.03961 eq. 4), taken per sequence, summed over layers.
    pub aux_loss_coef: f64,
    /// Weight of the router z-loss (Zoph 2202.08906 eq. 5), summed over layers.
    pub router_z_loss_coef: f64,
    /// Step of the bias-based balancing (Wang 2408.15664); 0 for none.
    pub bias_update: f64,
    /// Slots per expert over the even share, in training only; `None` is dropless.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_factor: Option<f64>,
}

impl Model {
    /// Width of one attention head.
    pub fn head_width(&self) -> u32 {
        self.width / self.heads
    }

    /// Lanes over which the `cpu` engine spreads a batch: enough to feed the cores of one machine, fewer where adding a
    /// gradient costs much. Part of that engine's numerics version, since gradients are added lane by lane.
    pub fn lanes(&self, batch: u32) -> u32 {
        const SMALL: u64 = 500_000;
        batch.min(if self.param_counts().total.get() <= SMALL { 8 } else { 4 })
    }

    /// What makes this shape impossible, if anything does.
    pub fn defect(&self) -> Option<String> {
        if self.layers == 0 || self.width == 0 || self.heads == 0 || self.context == 0 || self.vocab < 2 {
            return Some("layers, width, heads and context must be positive and vocab at least 2".to_owned());
        }
        if !self.width.is_multiple_of(self.heads) || !self.head_width().is_multiple_of(2) {
            return Some(format!("width {} must split into {} heads of even width", self.width, self.heads));
        }
        match &self.experts {
            None if self.ff == 0 => Some("ff must be positive in a dense model".to_owned()),
            Some(_) if self.ff != 0 => Some("ff must be 0 in a mixture of experts".to_owned()),
            Some(e) if e.count == 0 || e.ff == 0 => Some("experts and their width must be positive".to_owned()),
            Some(e) if e.top_k == 0 || e.top_k > e.count => {
                Some(format!("top_k must be between 1 and experts = {}, got {}", e.count, e.top_k))
            }
            None | Some(_) => None,
        }
    }
}
