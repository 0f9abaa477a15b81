//! Counts and their conventions: params, tokens, FLOPs. Formulas only; `train` proves them equal to its tensors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Model;

macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            pub fn get(self) -> u64 {
                self.0
            }

            /// The count as a number to calculate with (exact below 2^53).
            pub fn as_f64(self) -> f64 {
                self.0 as f64
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&si(self.as_f64()))
            }
        }
    };
}

count!(
    /// Weights. Every field that holds one names its convention.
    Params
);
count!(
    /// Tokens seen in training, repeats included, unless the field says `unique`.
    Tokens
);

/// Floating-point operations (a multiply-add counts two), as a count and not a rate.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Flops(pub f64);

impl Flops {
    pub fn get(self) -> f64 {
        self.0
    }
}

impl std::fmt::Display for Flops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 < 1e15 { f.pad(&si(self.0)) } else { f.pad(&format!("{:.2e}", self.0)) }
    }
}

/// Three significant digits and a decimal suffix: `12.5k`, `1.61M`.
pub fn si(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, "T"),
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match scaled.abs() {
        v if v >= 100.0 || (suffix.is_empty() && v.fract() == 0.0) => format!("{scaled:.0}{suffix}"),
        v if v >= 10.0 => format!("{scaled:.1}{suffix}"),
        _ => format!("{scaled:.2}{suffix}"),
    }
}

/// Four significant digits: what people write, and what does not carry the last bits of a power, which differ between
/// platforms, into an id.
pub fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().expect("a printed float parses")
}

/// How many weights a model has, by the conventions of ARCHITECTURE.md, section Counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParamCounts {
    /// Every weight.
    #[serde(rename = "params_total")]
    pub total: Params,
    /// Without the embedding table and the output head, tied or not.
    #[serde(rename = "params_non_embedding")]
    pub non_embedding: Params,
    /// Used for one token: top-k and shared experts, router and embeddings counted.
    #[serde(rename = "params_active")]
    pub active: Params,
    /// Used for one token, without the embedding table and the output head.
    #[serde(rename = "params_active_non_embedding")]
    pub active_non_embedding: Params,
}

/// Forward products of one token, averaged over the positions of a full context, by term.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlopTerms {
    /// Query, key, value and output projections.
    pub projections: f64,
    /// Scores and mixing, causal: a position at index t meets t + 1 keys.
    pub attention: f64,
    /// SwiGLU: the dense layer, or the top-k and shared experts.
    pub feed_forward: f64,
    pub router: f64,
    pub head: f64,
}

impl FlopTerms {
    /// Forward FLOPs per token.
    pub fn forward(&self) -> f64 {
        self.projections + self.attention + self.feed_forward + self.router + self.head
    }

    /// Forward and backward FLOPs per trained token: every product has two gradients of its own size.
    pub fn training(&self) -> f64 {
        3.0 * self.forward()
    }
}

impl Model {
    /// Exact weight counts: 4 w^2 attention, 3 w f per SwiGLU, w E router, two norm gains a layer and one final.
    pub fn param_counts(&self) -> ParamCounts {
        let width = u64::from(self.width);
        let table = u64::from(self.vocab) * width;
        let embeddings = if self.tied { table } else { 2 * table };
        let shared = 4 * width * width + 2 * width;
        let (all, used) = match &self.experts {
            None => (3 * width * u64::from(self.ff), 3 * width * u64::from(self.ff)),
            Some(e) => {
                let one = 3 * width * u64::from(e.ff);
                let always = width * u64::from(e.count) + 3 * width * u64::from(e.shared_ff);
                (always + one * u64::from(e.count), always + one * u64::from(e.top_k))
            }
        };
        let layers = u64::from(self.layers);
        let non_embedding = layers * (shared + all) + width;
        let active = layers * (shared + used) + width;
        ParamCounts {
            total: Params(non_embedding + embeddings),
            non_embedding: Params(non_embedding),
            active: Params(active + embeddings),
            active_non_embedding: Params(active),
        }
    }

    /// Exact forward FLOPs per token by term.
    pub fn flop_terms(&self) -> FlopTerms {
        let width = f64::from(self.width);
        let layers = f64::from(self.layers);
        let (feed_forward, router) = match &self.experts {
            None => (6.0 * width * f64::from(self.ff), 0.0),
            Some(e) => {
                let active = f64::from(e.top_k) * f64::from(e.ff) + f64::from(e.shared_ff);
                (6.0 * width * active, 2.0 * width * f64::from(e.count))
            }
        };
        FlopTerms {
            projections: layers * 8.0 * width * width,
            attention: layers * 2.0 * width * (f64::from(self.context) + 1.0),
            feed_forward: layers * feed_forward,
            router: layers * router,
            head: 2.0 * width * f64::from(self.vocab),
        }
    }

    /// Training FLOPs for `tokens` tokens, attention causal, head included.
    pub fn training_flops(&self, tokens: Tokens) -> Flops {
        Flops(self.flop_terms().training() * tokens.as_f64())
    }

    /// Kaplan's 6 N D with N = active non-embedding params.
    pub fn flops_6nd(&self, tokens: Tokens) -> Flops {
        Flops(6.0 * self.param_counts().active_non_embedding.as_f64() * tokens.as_f64())
    }
}
