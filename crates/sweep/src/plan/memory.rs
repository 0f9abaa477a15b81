//! Memory of a run by formula: what a slot must have free. An estimate from above, not a measurement.

use crate::model::Model;

/// Code, allocator and tokenizer of one process.
const PROCESS_BYTES: u64 = 32 << 20;

/// Four f32 for each weight (value, gradient, two moments), and for each thread the activations of one sequence and
/// a gradient of its own. Attention keeps no scores (computed again in the backward pass).
pub fn memory_bytes(model: &Model, threads: u32) -> u64 {
    let params = model.param_counts().total.get();
    let width = u64::from(model.width);
    let ff = match &model.experts {
        None => u64::from(model.ff),
        Some(e) => u64::from(e.top_k) * u64::from(e.ff) + u64::from(e.shared_ff) + u64::from(e.count),
    };
    // Per token and layer: two normed inputs, q, k, v, mix, two residuals, their gradients, and gate, up, product.
    let layer = 16 * width + 6 * ff;
    let sequence =
        u64::from(model.context) * (u64::from(model.layers) * layer + 4 * width + 2 * u64::from(model.vocab));
    PROCESS_BYTES + 4 * (4 * params + u64::from(threads) * (sequence + params))
}
