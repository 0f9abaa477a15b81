//! Shapes, texts and weights on which engines are compared.

use isoloss_sweep::{Experts, Model};

use crate::engine::{Batch, State, Update};
use crate::init::initial_state;
use crate::layout::Layout;

/// Odd sizes on purpose: no width is a multiple of a vector, no context of a query block.
pub(crate) fn dense() -> Model {
    Model { layers: 2, width: 36, heads: 3, ff: 50, context: 61, vocab: 67, tied: false, experts: None }
}

pub(crate) fn moe(change: impl FnOnce(&mut Experts)) -> Model {
    let mut experts = Experts {
        count: 5,
        top_k: 2,
        ff: 19,
        shared_ff: 0,
        aux_loss_coef: 0.02,
        router_z_loss_coef: 0.01,
        bias_update: 0.0,
        capacity_factor: None,
    };
    change(&mut experts);
    Model { ff: 0, experts: Some(experts), ..dense() }
}

pub(crate) fn models() -> Vec<(&'static str, Model)> {
    vec![
        ("dense", dense()),
        ("tied", Model { tied: true, ..dense() }),
        ("large vocabulary", Model { vocab: 3001, ..dense() }),
        ("moe", moe(|_| ())),
        ("shared", moe(|e| e.shared_ff = 23)),
        ("limited", moe(|e| e.capacity_factor = Some(1.0))),
        ("biased", moe(|e| e.bias_update = 1e-3)),
    ]
}

/// For kernels that choose by size: rows wider than a warp keeps in registers, heads that fill no whole tensor tiles or are
/// too wide for tensor cores, and a vocabulary whose logits come in several parts.
pub(crate) fn wide() -> Vec<(&'static str, Model)> {
    let even = Model { layers: 1, ff: 48, vocab: 64, ..dense() };
    vec![
        ("wide, heads of 88", Model { width: 1056, heads: 12, context: 12, ..even.clone() }),
        ("between, heads of 100", Model { width: 400, heads: 4, ff: 136, context: 20, ..even.clone() }),
        ("wide and odd, heads of 110", Model { width: 330, heads: 3, context: 24, vocab: 67, ..even.clone() }),
        ("heads of 130", Model { width: 260, heads: 2, ..even.clone() }),
        ("vocabulary in parts", Model { vocab: 20_000, ..even }),
    ]
}

pub(crate) const SEQUENCES: usize = 6;

/// A text with some structure: steps of a few sizes around the vocabulary.
pub(crate) fn text(model: &Model, step: u64) -> Vec<u32> {
    let len = SEQUENCES as u32 * (model.context + 1);
    let jump = |i: u32| (i * i * 7 + i * 3 + step as u32 * 11) % 29;
    (0..len).map(|i| (jump(i) + i / 5) % model.vocab).collect()
}

pub(crate) fn batch<'a>(model: &Model, tokens: &'a [u32]) -> Batch<'a> {
    Batch { tokens, sequences: SEQUENCES, context: model.context as usize }
}

pub(crate) fn update(step: u64) -> Update {
    Update { step, learning_rate: 3e-3, weight_decay: 0.1, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, clip: 1.0 }
}

/// Initial weights with larger embeddings and head, so that no gradient is lost in rounding, and a bias to route by.
pub(crate) fn state(model: &Model) -> State {
    let mut state = initial_state(model, 5);
    let layout = Layout::of(model);
    for view in layout.views().iter().filter(|v| v.shape.len() == 2) {
        let factor = if view.name == "embedding" { 40.0 } else { 1.5 };
        state.params[view.range()].iter_mut().for_each(|w| *w *= factor);
    }
    for (i, bias) in state.router_bias.iter_mut().enumerate() {
        *bias = 0.05 * (i % 3) as f32;
    }
    state
}

pub(crate) fn norm(x: impl Iterator<Item = f32>) -> f64 {
    x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}
