//! GPU memory of a run by formula: what the `cuda` engine lays out, its alignment estimated from above.

use crate::model::{Experts, Model};
use crate::run::Precision;

/// What a process takes of a GPU beside the engine's own block: the driver's context and the products' workspace.
pub const GPU_PROCESS_BYTES: u64 = (600 + 32) << 20;

/// A plan asks for room for so many positions at a time at most: more make no GPU faster by much, and fewer runs fit beside
/// each other. The engine keeps to what it is given and cuts a larger batch into passes.
pub const GPU_ROWS_MOST: u64 = 1 << 15;

/// Rows of one expert tile, bytes of logits held at a time, positions of one segment, blocks of a gain, reports kept: as
/// the engine has them.
const TILE: u64 = 128;
const LOGIT_BYTES: u64 = 32 << 20;
const SEGMENT: u64 = 64;
const GAIN_BLOCKS: u64 = 528;
const REPORTS: u64 = 17;
const ALIGNMENT: u64 = 256;

/// Memory of a GPU that a run wants: the largest even part of its batch that has at most [`GPU_ROWS_MOST`] positions, and
/// one sequence at least.
pub fn gpu_memory_bytes(model: &Model, precision: Precision, batch: u32) -> u64 {
    let most = (GPU_ROWS_MOST / u64::from(model.context).max(1)).clamp(1, u64::from(batch.max(1)));
    let sequences = (1..=most).rev().find(|part| u64::from(batch).is_multiple_of(*part)).unwrap_or(1);
    GPU_PROCESS_BYTES + laid_out(model, precision, sequences)
}

/// What the engine's block takes at least, one sequence at a time: the formula is up to a quarter over what is laid out.
pub(super) fn gpu_memory_least_bytes(model: &Model, precision: Precision) -> u64 {
    laid_out(model, precision, 1) / 5 * 4
}

fn laid_out(model: &Model, precision: Precision, sequences: u64) -> u64 {
    let [width, context, vocab, heads, layers] =
        [model.width, model.context, model.vocab, model.heads, model.layers].map(u64::from);
    let rows = sequences * context;
    let real = match precision {
        Precision::F32 => 4,
        Precision::Bf16 => 2,
    };
    let common = u64::from(model.experts.as_ref().map_or(model.ff, |experts| experts.shared_ff));
    let views = 8 * layers + 3;
    let params = model.param_counts().total.get();
    // Value, two moments and gradient; in bf16 a rounded copy, each tensor of it on a boundary.
    let weights = 16 * params + if real == 2 { 2 * params + ALIGNMENT * views } else { 0 } + 20 * views;
    // Residual stream twice; normed inputs, qkv, attention and the gated unit as products read them; norms and softmaxes.
    let layer = rows * (8 * width + real * (6 * width + 3 * common) + 8 + 4 * heads);
    // Residual stream and its gradient, their copies, gradients of qkv, attention and the gated unit; tokens and order.
    let shared = rows * (8 * width + real * (7 * width + 3 * common) + 4 * heads + 20);
    let held = (LOGIT_BYTES / (8 * vocab)).next_multiple_of(TILE).min(rows);
    let segments = vocab + rows.div_ceil(SEGMENT);
    let tables = held * vocab * (4 + real)
        + segments * (12 + 4 * width)
        + 4 * (vocab + 1)
        + 4 * context * (width / heads)
        + 4 * GAIN_BLOCKS * width;
    let experts = model.experts.as_ref().map_or(0, |experts| routed(experts, width, layers, sequences, context, real));
    let words = 8 + model.experts.as_ref().map_or(0, |experts| layers * u64::from(experts.count));
    let buffers = layers * if model.experts.is_some() { 27 } else { 11 } + 52;
    weights + layers * layer + shared + tables + experts + 8 * REPORTS * words + 4096 + ALIGNMENT * buffers
}

/// What routing and the experts keep in every layer, and what they need within one.
fn routed(experts: &Experts, width: u64, layers: u64, sequences: u64, context: u64, real: u64) -> u64 {
    let [count, top_k, ff] = [experts.count, experts.top_k, experts.ff].map(u64::from);
    let rows = sequences * context;
    let tiles = (rows * top_k).div_ceil(TILE) + count;
    let expert_rows = tiles * TILE * real * (2 * width + 3 * ff);
    let layer = rows * (4 * width + 4 * count + 12 * top_k + 8)
        + 4 * (sequences * count + count + 1 + tiles + tiles * TILE)
        + expert_rows;
    let chunks = sequences * context.div_ceil(32);
    let within =
        rows * (4 * top_k + 4 * count + 4 * width + 1) + 4 * count * (2 * chunks + 1 + sequences) + 16 + expert_rows;
    layers * (layer + 4 * count) + within
}
