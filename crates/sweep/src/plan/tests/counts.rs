//! Counts against sums of tensor sizes written out by hand.

use super::*;
use crate::model::{Experts, Model};

fn model(tied: bool, experts: Option<Experts>) -> Model {
    Model {
        layers: 3,
        width: 32,
        heads: 2,
        ff: if experts.is_some() { 0 } else { 88 },
        context: 64,
        vocab: 100,
        tied,
        experts,
    }
}

fn experts(shared_ff: u32) -> Experts {
    Experts {
        count: 4,
        top_k: 2,
        ff: 44,
        shared_ff,
        aux_loss_coef: 0.0,
        router_z_loss_coef: 0.0,
        bias_update: 0.0,
        capacity_factor: None,
    }
}

/// qkv, output and two norms of one layer of width 32.
const ATTENTION: u64 = 32 * 96 + 32 * 32 + 32 + 32;

#[test]
fn dense_counts_are_the_sum_of_tensors() {
    let counts = model(false, None).param_counts();
    let layer = ATTENTION + 32 * 176 + 88 * 32;
    assert_eq!(counts.non_embedding.get(), 3 * layer + 32);
    assert_eq!(counts.total.get(), 3 * layer + 32 + 100 * 32 + 32 * 100);
    assert_eq!(counts.active, counts.total);
    assert_eq!(counts.active_non_embedding, counts.non_embedding);
    assert_eq!(model(true, None).param_counts().total.get(), 3 * layer + 32 + 100 * 32);
}

#[test]
fn mixture_counts_are_the_sum_of_tensors() {
    for shared in [0_u64, 16] {
        let counts = model(false, Some(experts(shared as u32))).param_counts();
        let always = ATTENTION + 32 * 4 + 32 * 2 * shared + shared * 32;
        let expert = 32 * 88 + 44 * 32;
        assert_eq!(counts.non_embedding.get(), 3 * (always + 4 * expert) + 32);
        assert_eq!(counts.active_non_embedding.get(), 3 * (always + 2 * expert) + 32);
        assert_eq!(counts.active.get() - counts.active_non_embedding.get(), 2 * 100 * 32);
    }
}

#[test]
fn flops_are_two_per_weight_and_token_plus_causal_attention() {
    for shape in [model(true, None), model(false, Some(experts(16)))] {
        let counts = shape.param_counts();
        let gains = 3 * 64 + 32;
        let products = 2 * (counts.active_non_embedding.get() - gains) + 2 * 32 * 100;
        // Position t meets t + 1 keys: scores and mixing are 2 * 2 * width each way, averaged over the context.
        let attention: u64 = (1..=64).map(|keys| 2 * 2 * 32 * keys).sum::<u64>() * 3 / 64;
        assert_eq!(shape.flop_terms().forward(), (products + attention) as f64);
        assert_eq!(shape.training_flops(Tokens(10)).get(), 30.0 * (products + attention) as f64);
    }
}
