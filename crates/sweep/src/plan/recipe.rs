//! The recipe `default`: hyper-parameters as functions of size and budget. Every one may be set or swept in the file.
//!
//! | number | formula | source |
//! |---|---|---|
//! | batch (tokens) | 0.58 D^0.571, to the nearest power of two of sequences, at least 2 | StepLaw, Li 2503.04715, eq. 1 |
//! | learning rate | 1e-2 (width / 32)^-0.5 in [1e-4, 1.5e-2] | first guess for byte models of 10 k to 1 M params, to be tuned |
//! | warmup | 5 % of the budget, at most 2,000 steps | formll's second correction of Kaplan: shorter than the run by far |
//! | weight decay | 0.1 | Hoffmann 2203.15556; Brown 2005.14165 |
//! | beta1, beta2 | 0.9; 0.95, or 0.99 under 32 k tokens a batch | Brown 2005.14165; Marek 2507.07101: small batches need longer memory |
//! | clip, epsilon | 1.0, 1e-8 | Brown 2005.14165 |
//! | balance, router z | 0.01, 0.001 | Fedus 2101.03961; Zoph 2202.08906 |
//!
//! D is the run's own budget under cosine. Under WSD it is the reference budget of its size, so that all budgets of
//! one size get equal numbers and can share a trunk.

use crate::count::Tokens;
use crate::model::Model;

/// Weight of the load-balance loss.
pub(crate) const AUX_LOSS_COEF: f64 = 0.01;
/// Weight of the router z-loss.
pub(crate) const ROUTER_Z_LOSS_COEF: f64 = 0.001;
/// Share of the budget in which the learning rate rises.
pub(crate) const WARMUP: f64 = 0.05;
/// Kaplan 2001.08361 warms up for 3,000 steps, which Porian 2406.19146 found too long for small models.
pub(crate) const WARMUP_STEPS_MAX: u64 = 2_000;

/// What the recipe decides for one size and budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Recipe {
    /// Sequences per step.
    pub(crate) batch: u32,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    pub(crate) beta1: f64,
    pub(crate) epsilon: f64,
    pub(crate) clip: f64,
}

impl Recipe {
    /// For this model and budget (the reference budget, under WSD).
    pub(crate) fn default_of(model: &Model, budget: Tokens) -> Self {
        let sequences = 0.58 * budget.as_f64().powf(0.571) / f64::from(model.context);
        let power = sequences.max(1.0).log2().round().clamp(1.0, 16.0) as u32;
        Self {
            batch: 1 << power,
            learning_rate: rounded((1e-2 * (f64::from(model.width) / 32.0).powf(-0.5)).clamp(1e-4, 1.5e-2)),
            weight_decay: 0.1,
            beta1: 0.9,
            epsilon: 1e-8,
            clip: 1.0,
        }
    }

    /// The second moment's decay for the batch that is really used.
    pub(crate) fn beta2(model: &Model, batch: u32) -> f64 {
        let tokens = u64::from(batch) * u64::from(model.context);
        if tokens < 32_768 { 0.99 } else { 0.95 }
    }
}

/// Four significant digits: the last bits of a power differ between platforms, and a run's id must not.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().expect("a printed float parses")
}
