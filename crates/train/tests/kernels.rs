//! Every kernel of the CUDA engine compiles for the GPUs that it is meant for, without one and without a warning.
//!
//! Needs NVRTC (`pip install nvidia-cuda-nvrtc`, its folder in `LD_LIBRARY_PATH`); skips aloud where it is not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use isoloss_gpu::{CAPABILITY_LEAST, GpuError, Kind, Program, compile};
use isoloss_sweep::{Experts, Model};
use isoloss_train::cuda::programs;

/// Ampere, Hopper, Blackwell.
const CAPABILITIES: [u32; 3] = [CAPABILITY_LEAST, 90, 100];

/// Whole tensor tiles and parts of them, odd pieces, and one too wide for tensor cores.
const HEADS: [u32; 8] = [12, 16, 32, 64, 80, 88, 128, 130];

fn model(head: u32, experts: Option<(u32, u32)>) -> Model {
    let experts = experts.map(|(count, top_k)| Experts {
        count,
        top_k,
        ff: 64,
        shared_ff: 0,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 1e-3,
        bias_update: 0.0,
        capacity_factor: None,
    });
    let ff = if experts.is_some() { 0 } else { 64 };
    Model { layers: 1, width: 2 * head, heads: 2, ff, context: 64, vocab: 64, tied: false, experts }
}

/// The programs of all these models, each once.
fn all() -> Vec<Program> {
    let mut all: Vec<Program> = Vec::new();
    for kind in [Kind::F32, Kind::Bf16] {
        for head in HEADS {
            for experts in [None, Some((8, 2)), Some((64, 8))] {
                let new = programs(&model(head, experts), kind);
                all.extend(new.into_iter().filter(|program| !all.contains(program)).collect::<Vec<_>>());
            }
        }
    }
    all
}

#[test]
fn all_kernels_compile_for_every_gpu_without_a_warning() {
    let all = all();
    // Of each precision: what all models share, one for each head, one for each kind of mixture. In bf16 also units that
    // are inside of products.
    assert_eq!(all.len(), 2 * (1 + HEADS.len() + 2) + 1);
    if let Err(error @ GpuError::Missing { .. }) = compile(&all[0], CAPABILITIES[0]) {
        eprintln!("skipped: {error}");
        return;
    }
    let sloppy = Program {
        files: vec![("sloppy.cu", "extern \"C\" __global__ void sloppy(float* x) { int unused; x[0] = 1.0f; }")],
        defines: Vec::new(),
    };
    assert!(compile(&sloppy, 90).unwrap().log.contains("sloppy.cu"), "warnings are seen");
    let jobs: Vec<(&Program, u32)> = all.iter().flat_map(|program| CAPABILITIES.map(|for_| (program, for_))).collect();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(&(program, capability)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (text, image) = match compile(program, capability) {
                Ok(compiled) => (compiled.log, compiled.image),
                Err(error) => (error.to_string(), Vec::new()),
            };
            if !text.is_empty() || image.is_empty() {
                let names: Vec<&str> = program.files.iter().map(|(name, _)| *name).collect();
                let what = format!("{} {} for {capability}:\n{text}", names.join(" "), program.defines.join(" "));
                wrong.lock().unwrap().push(what);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} compilations:\n{}", wrong.len(), jobs.len(), wrong.join("\n"));
}
