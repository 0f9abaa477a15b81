//! Memory of a run by formula: what a slot must have free. An estimate from above, not a measurement.

use crate::model::Model;

/// Code, allocator and tokenizer of one process.
const PROCESS_BYTES: u64 = 32 << 20;

/// Logits that are held at a time, at least so many rows.
const LOGITS: u64 = 1 << 16;
const LOGIT_ROWS: u64 = 48;

/// Six f32 for each weight (value, two moments, the summed gradient, the transpose, both packed forms in bf16), and for each
/// thread the activations of one sequence and a gradient of its own. Attention keeps no scores (computed again in the
/// backward pass), the head some rows of logits.
pub fn memory_bytes(model: &Model, threads: u32) -> u64 {
    let params = model.param_counts().total.get();
    let (width, context, vocab) = (u64::from(model.width), u64::from(model.context), u64::from(model.vocab));
    let ff = match &model.experts {
        None => u64::from(model.ff),
        Some(e) => u64::from(e.top_k) * u64::from(e.ff) + u64::from(e.shared_ff) + u64::from(e.count),
    };
    // Per token and layer: two normed inputs, q, k, v, mix, two residuals, their gradients, and gate, up, product.
    let layer = 16 * width + 6 * ff;
    let logits = vocab * (LOGITS / vocab).max(LOGIT_ROWS).min(context);
    let sequence = context * (u64::from(model.layers) * layer + 4 * width) + logits;
    PROCESS_BYTES + 4 * (6 * params + u64::from(threads) * (sequence + params))
}
