//! Engines on GPUs that are named by their numbers among those that the process sees, for the checks: the first one may be
//! broken. It looks for none.

use std::path::Path;

use isoloss_gpu::{Gpu, Group};
use isoloss_sweep::Model;
use isoloss_sweep::run::Precision;

use crate::cuda::CudaEngine;
use crate::engine::EngineError;

/// Makes engines on one GPU; compiled kernels are kept in `kernels`.
pub fn on_gpu(kernels: &Path, ordinal: u32) -> impl FnMut(&Model, Precision, u32) -> Result<CudaEngine, EngineError> {
    move |model, precision, batch| {
        CudaEngine::new(Box::new(Gpu::open(ordinal, kernels)?), model, precision, batch, None)
    }
}

/// Makes engines on these GPUs, as many of them as a batch has sequences, joined even if that is one only.
pub fn on_gpus(
    kernels: &Path,
    ordinals: &[u32],
) -> impl FnMut(&Model, Precision, u32) -> Result<CudaEngine, EngineError> {
    move |model, precision, batch| {
        let most = ordinals.len().min(batch.max(1) as usize);
        CudaEngine::new(Group::of(kernels, &ordinals[..most])?, model, precision, batch, None)
    }
}
