//! From a run's numerics to the engine that has them.

use isoloss_gpu::Group;
use isoloss_sweep::Run;
use isoloss_sweep::run::{EngineKind, Precision};

use crate::cpu::CpuEngine;
use crate::cuda::CudaEngine;
use crate::engine::{Engine, EngineError};
use crate::memory;
use crate::reference::Reference;
use crate::session::Options;

/// The engine that `run` asks for, without weights.
pub fn build(run: &Run, options: &Options) -> Result<Box<dyn Engine>, EngineError> {
    let kind = run.numerics.engine;
    let unsupported = |reason: String| EngineError::Unsupported { engine: kind.name(), reason };
    if let Some(defect) = run.model.defect() {
        return Err(unsupported(defect));
    }
    if run.numerics.version != kind.numerics_version() {
        return Err(unsupported(format!(
            "the run asks for numerics version {}, this program has {}",
            run.numerics.version,
            kind.numerics_version()
        )));
    }
    match (kind, run.numerics.precision) {
        (EngineKind::Reference, Precision::F32) => {
            memory::keep_blocks();
            Ok(Box::new(Reference::new(&run.model).on_threads(options.threads)?))
        }
        (EngineKind::Reference, Precision::Bf16) => Err(unsupported("it computes in f32 only".to_owned())),
        (EngineKind::Cpu, precision) => Ok(Box::new(CpuEngine::new(&run.model, precision, options.threads as usize)?)),
        (EngineKind::Cuda, precision) => {
            // The worker shows this process the slot's GPU, or GPUs, and no others.
            let gpus = Group::open(&options.kernels, run.train.batch);
            let gpus = gpus.map_err(|error| EngineError::short(error, options.gpu_memory))?;
            Ok(Box::new(CudaEngine::new(gpus, &run.model, precision, run.train.batch, options.gpu_memory)?))
        }
    }
}
