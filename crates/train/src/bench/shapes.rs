//! The shapes that speed is stated for.

use isoloss_sweep::{Experts, Model};

/// A named model and the batch it is timed with.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    pub model: Model,
    /// On a GPU only the first of several that are tried.
    pub batch: usize,
}

fn dense(name: &'static str, layers: u32, width: u32, heads: u32, ff: u32, batch: usize) -> Shape {
    let model = Model { layers, width, heads, ff, context: 256, vocab: 256, tied: false, experts: None };
    Shape { name, model, batch }
}

/// Eight experts of half the width, two for each token: as many weights active as in the dense shape.
fn mixed(name: &'static str, like: Shape) -> Shape {
    let experts = Experts {
        count: 8,
        top_k: 2,
        ff: like.model.ff / 2,
        shared_ff: 0,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 1e-3,
        bias_update: 0.0,
        capacity_factor: None,
    };
    Shape { name, model: Model { ff: 0, experts: Some(experts), ..like.model }, ..like }
}

/// What a processor trains.
pub fn shapes() -> Vec<Shape> {
    vec![
        dense("0.2M", 4, 64, 2, 176, 16),
        dense("1M", 5, 128, 4, 352, 16),
        dense("5M", 6, 256, 4, 688, 16),
        dense("20M", 6, 512, 8, 1376, 8),
        mixed("moe-1M", dense("1M", 5, 128, 4, 352, 16)),
    ]
}

/// What only a GPU trains in reasonable time.
pub fn large_shapes() -> Vec<Shape> {
    vec![
        dense("10M", 6, 384, 6, 1024, 16),
        dense("50M", 8, 640, 10, 1728, 16),
        dense("160M", 12, 1024, 16, 2752, 16),
        dense("350M", 24, 1024, 16, 2816, 16),
        mixed("moe-50M", dense("50M", 8, 640, 10, 1728, 16)),
    ]
}
