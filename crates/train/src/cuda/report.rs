//! What a step finds, as it lies in the GPU's memory: 8-byte words that kernels add to, read by the host some steps later.

use isoloss_sweep::Model;

use crate::engine::StepReport;

/// Sum of nats over the batch's tokens.
pub(super) const NATS: usize = 0;
pub(super) const BALANCE: usize = 1;
pub(super) const ROUTER_Z: usize = 2;
pub(super) const NORM: usize = 3;
pub(super) const DROPPED: usize = 4;
/// `[layers, experts]` follow.
pub(super) const LOAD: usize = 5;

/// Words of one report.
pub(super) fn words(model: &Model) -> usize {
    LOAD + model.experts.as_ref().map_or(0, |e| (model.layers * e.count) as usize)
}

/// The report in `bytes`, over `tokens` tokens.
pub(super) fn read(model: &Model, bytes: &[u8], tokens: usize) -> StepReport {
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect();
    let sum = |word: usize| f64::from_bits(words[word]);
    StepReport {
        loss_nats: sum(NATS) / tokens as f64,
        aux_loss: sum(BALANCE),
        router_z_loss: sum(ROUTER_Z),
        gradient_norm: sum(NORM),
        load: load(model, &words),
        dropped: words[DROPPED],
    }
}

/// `[layer][expert]` routed pairs; empty for a dense model.
fn load(model: &Model, words: &[u64]) -> Vec<Vec<u64>> {
    let experts = model.experts.as_ref().map_or(usize::MAX, |e| e.count as usize);
    words[LOAD..].chunks(experts).map(<[u64]>::to_vec).collect()
}
