//! A small corpus and small runs for the tests of this crate.

use std::path::Path;

use isoloss_corpus::{Dataset, survey};
use isoloss_sweep::corpus::{CorpusSpec, Preset, Source, TokenizerSpec, Validation};
use isoloss_sweep::run::{Data, EngineKind, IDENTITY_VERSION, Numerics, Precision, Schedule, Train};
use isoloss_sweep::{Digest, Experts, Model, Run};

/// The synthetic tiny language, surveyed into `dir`.
pub(crate) fn dataset(dir: &Path) -> Dataset {
    let spec = CorpusSpec {
        source: Source::Synthetic { preset: Preset::Tiny, sentences: None, seed: 1, bytes: 300_000 },
        tokenizer: TokenizerSpec::Bytes,
        validation: Validation::Fraction(0.05),
        transforms: Vec::new(),
    };
    let manifest = survey(&spec, 32, dir, &mut |_| {}).unwrap();
    Dataset::open(&dir.join(manifest.digest.to_string())).unwrap()
}

/// 40 steps of a tiny dense model under a cosine.
pub(crate) fn run(corpus: Digest) -> Run {
    Run {
        identity_version: IDENTITY_VERSION,
        model: Model { layers: 1, width: 16, heads: 2, ff: 32, context: 32, vocab: 256, tied: false, experts: None },
        data: Data { corpus, tokens_unique: None, scored_bytes: 4096, curve_bytes: 512 },
        train: Train {
            batch: 8,
            steps: 40,
            learning_rate: 1e-2,
            warmup_steps: 4,
            schedule: Schedule::Cosine { final_ratio: 0.1 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            clip: 1.0,
            seed: 7,
        },
        numerics: Numerics {
            engine: EngineKind::Reference,
            precision: Precision::F32,
            version: EngineKind::Reference.numerics_version(),
        },
        trainer: None,
    }
}

/// The same with experts, and with all that a step can do to a router.
pub(crate) fn moe(corpus: Digest) -> Run {
    let mut run = run(corpus);
    run.model.ff = 0;
    run.model.experts = Some(Experts {
        count: 4,
        top_k: 2,
        ff: 16,
        shared_ff: 8,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 0.001,
        bias_update: 0.01,
        capacity_factor: Some(1.25),
    });
    run
}

pub(crate) fn wsd(mut run: Run, steps: u64, decay_steps: u64) -> Run {
    run.train.steps = steps;
    run.train.schedule = Schedule::Wsd { decay_steps };
    run
}

/// The same run on another engine.
pub(crate) fn on(engine: EngineKind, mut run: Run) -> Run {
    run.numerics.engine = engine;
    run.numerics.version = engine.numerics_version();
    run
}
