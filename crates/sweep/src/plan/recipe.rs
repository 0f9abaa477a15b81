//! Recipes: hyper-parameters as functions of size and budget. Every one may be set or swept in the file.
//!
//! | number | `default` | source |
//! |---|---|---|
//! | batch B (tokens) | 0.1 D^0.571, to the nearest power of two of sequences | exponent of StepLaw, Li 2503.04715, eq. 1; coefficient from sweeps/recipe.toml |
//! | learning rate | 5e-3 (N / 80k)^-0.43 (D / 3M)^-0.13 (B / 768)^0.5, at most 3e-2 | sweeps/recipe.toml: 25k to 425k params, 1M to 9.5M tokens of English novels |
//! | warmup | 10 % of the budget, at most 2,000 steps | the same; Porian 2406.19146 for the bound |
//! | weight decay | 0.1 | the same; Hoffmann 2203.15556 |
//! | beta1, beta2 | 0.9; 0.99, or 0.95 from 32 k tokens a batch on | the same; Marek 2507.07101: small batches need longer memory |
//! | clip, epsilon | 1.0, 1e-8 | Brown 2005.14165 |
//! | balance, router z | 0.01, 0.001 | Fedus 2101.03961; Zoph 2202.08906 |
//!
//! `steplaw` differs in batch and rate, by what was measured on models of 60M to 1B params with large vocabularies: B = 0.58
//! D^0.571 tokens and 1.79 N^-0.713 D^0.307, whatever the batch (Li 2503.04715, eq. 1).
//!
//! N counts params without embeddings, of the dense twin for experts. D is the run's own budget under cosine. Under WSD
//! it is the reference budget of its size, so that all budgets of one size get equal numbers and can share a trunk.

use crate::count::{Tokens, four_digits};
use crate::model::Model;

/// Weight of the load-balance loss.
pub(crate) const AUX_LOSS_COEF: f64 = 0.01;
/// Weight of the router z-loss.
pub(crate) const ROUTER_Z_LOSS_COEF: f64 = 0.001;
/// Share of the budget in which the learning rate rises.
pub(crate) const WARMUP: f64 = 0.1;
/// Kaplan 2001.08361 warms up for 3,000 steps, which Porian 2406.19146 found too long for small models.
pub(crate) const WARMUP_STEPS_MAX: u64 = 2_000;

/// No model of ours trained with more than this.
const LEARNING_RATE_MAX: f64 = 3e-2;

/// Names of the recipes.
pub(crate) const RECIPES: &[&str] = &["default", "steplaw"];

/// A named set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipe {
    Default,
    StepLaw,
}

/// What no recipe varies.
pub(crate) const WEIGHT_DECAY: f64 = 0.1;
pub(crate) const BETA1: f64 = 0.9;
pub(crate) const EPSILON: f64 = 1e-8;
pub(crate) const CLIP: f64 = 1.0;

impl Recipe {
    pub(crate) fn named(name: Option<&str>) -> Self {
        if name == Some("steplaw") { Self::StepLaw } else { Self::Default }
    }

    /// Sequences per step for a budget.
    pub(crate) fn batch(self, model: &Model, budget: Tokens) -> u32 {
        let coefficient = if self == Self::StepLaw { 0.58 } else { 0.1 };
        let sequences = coefficient * budget.as_f64().powf(0.571) / f64::from(model.context);
        1 << sequences.max(1.0).log2().round().clamp(0.0, 16.0) as u32
    }

    /// Peak learning rate of a model trained with this batch on this budget (the reference budget, under WSD).
    pub(crate) fn learning_rate(self, model: &Model, budget: Tokens, batch: u32) -> f64 {
        let (params, tokens) = (model.param_counts().non_embedding.as_f64(), budget.as_f64());
        let batch = f64::from(batch) * f64::from(model.context);
        let rate = match self {
            Self::Default => 5e-3 * (params / 8e4).powf(-0.43) * (tokens / 3e6).powf(-0.13) * (batch / 768.0).sqrt(),
            Self::StepLaw => 1.79 * params.powf(-0.713) * tokens.powf(0.307),
        };
        four_digits(rate.min(LEARNING_RATE_MAX))
    }

    /// The second moment's decay for the batch that is really used.
    pub(crate) fn beta2(model: &Model, batch: u32) -> f64 {
        let tokens = u64::from(batch) * u64::from(model.context);
        if tokens < 32_768 { 0.99 } else { 0.95 }
    }
}
