use proptest::prelude::*;

use super::*;
use crate::corpus::{Baselines, Part};
use crate::spec::parse;

mod counts;
mod gpus;
mod grid;
mod packing;
mod refusals;
mod shapes;
mod sweeps;
mod trainer;

/// A survey of any corpus: as many tokens as bytes.
fn manifest(corpus: &CorpusSpec, bytes: u64) -> Manifest {
    let part = |bytes: u64| Part { documents: 1000, tokens: Tokens(bytes), bytes, true_bits: None };
    Manifest {
        version: 1,
        digest: Digest::of_json(corpus),
        spec: corpus.clone(),
        context: 256,
        vocab: 256,
        tokenizer: Digest::of(b"bytes"),
        train: part(bytes),
        validation: part(1 << 20),
        baselines: Baselines { order0: 4.5, gzip: 2.9, xz: 2.4 },
        artifacts: Vec::new(),
    }
}

fn planned_with(text: &str, probe: Option<&Probe>, known: &dyn Fn(RunId) -> bool) -> Result<Plan, PlanError> {
    let spec = parse("sweep.toml", text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let manifests: Vec<Manifest> = spec.corpora()?.iter().map(|survey| manifest(&survey.corpus, 16 << 20)).collect();
    let mut capabilities = Capabilities::reference();
    // As workers on a CPU offer it: bf16 too, from the second engine.
    let precisions = vec![Precision::F32, Precision::Bf16];
    capabilities.engines.push(Capability { engine: EngineKind::Cpu, precisions, moe: true });
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let files = spec.trainer_files().map(|path| (name(path), Digest::of(path.as_bytes()))).collect();
    plan(&spec, &Inputs { manifests: &manifests, probe, known, capabilities: &capabilities, files: &files })
}

fn planned(text: &str) -> Result<Plan, PlanError> {
    planned_with(text, None, &|_| false)
}

fn ids(plan: &Plan) -> Vec<RunId> {
    plan.runs.iter().map(|planned| planned.run_id).collect()
}
