#![expect(unreachable_pub, reason = "shared by tests and the example")]
//! A sweep that never ran: 16 dense and 4 expert runs whose losses come from a planted law. For tests and the example.

use isoloss_fit::{Exclusion, LossUnit, Observation, Observations, Settings, fit};
use isoloss_report::{Lab, LabRun, SCHEMA_VERSION};
use isoloss_sweep::corpus::{Baselines, Part, Preset, Source, TokenizerSpec, Validation};
use isoloss_sweep::outcome::{Cost, CurvePoint, Diverged, Finished, Provenance, Routing, Score};
use isoloss_sweep::run::{Data, EngineKind, Numerics, Precision, Schedule, Train};
use isoloss_sweep::{CorpusSpec, Digest, Experts, HyperParameter, Manifest, Model, Outcome, Run, Tokens};

/// Bits per byte: E + A N^-alpha + B D^-beta.
pub const E: f64 = 1.95;
const A: f64 = 25.0;
pub const ALPHA: f64 = 0.38;
const B: f64 = 80.0;
pub const BETA: f64 = 0.40;
/// A planted mixture acts like a dense model this many times its active size.
pub const GAIN: f64 = 1.8;

const SHAPES: [(u32, u32); 4] = [(2, 32), (3, 48), (4, 64), (5, 96)];
const STEPS: [u64; 4] = [256, 512, 1024, 2048];

pub fn law(params: f64, tokens: f64) -> f64 {
    E + A * params.powf(-ALPHA) + B * tokens.powf(-BETA)
}

fn run((layers, width): (u32, u32), steps: u64, experts: bool) -> Run {
    let ff = width * 8 / 3;
    let experts = experts.then_some(Experts {
        count: 8,
        top_k: 2,
        ff: ff / 2,
        shared_ff: 0,
        aux_loss_coef: 0.01,
        router_z_loss_coef: 0.001,
        bias_update: 0.0,
        capacity_factor: None,
    });
    Run {
        identity_version: 1,
        model: Model {
            layers,
            width,
            heads: width / 16,
            ff: if experts.is_some() { 0 } else { ff },
            context: 256,
            vocab: 256,
            tied: true,
            experts,
        },
        data: Data {
            corpus: Digest::of_json(&"planted"),
            tokens_unique: None,
            scored_bytes: 1 << 18,
            curve_bytes: 1 << 15,
        },
        train: Train {
            batch: 8,
            steps,
            learning_rate: 3e-3,
            warmup_steps: 32,
            schedule: Schedule::Wsd { decay_steps: steps / 5 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            clip: 1.0,
            seed: 1,
        },
        numerics: Numerics { engine: EngineKind::Cpu, precision: Precision::F32, version: 1 },
        trainer: None,
    }
}

/// The planted loss with a relative error of about 0.2 %, the same for the same run.
fn planted(run: &Run) -> f64 {
    let gain = if run.model.experts.is_some() { GAIN } else { 1.0 };
    let size = gain * run.model.param_counts().active_non_embedding.as_f64();
    let id = run.id().to_string();
    let noise = id.bytes().take(8).map(|b| f64::from(b % 16) / 15.0 - 0.5).sum::<f64>() / 8.0;
    law(size, run.tokens().as_f64()) * (1.0 + 0.008 * noise)
}

fn curve(run: &Run, last: f64) -> Vec<CurvePoint> {
    let steps = run.train.steps;
    let point = |part: u64| {
        let step = (steps as f64 * (part as f64 / 24.0).powi(2)).round().max(4.0) as u64;
        let tokens = step * 8 * 256;
        let fall = (tokens as f64 / run.tokens().as_f64()).powf(-0.45) - 1.0;
        let bits = (last + 0.16 * fall + 0.03 * (1.0 - step as f64 / steps as f64)).min(8.0);
        let nats = bits * std::f64::consts::LN_2;
        CurvePoint { step, tokens: Tokens(tokens), loss_nats: nats, bits_per_byte: bits, train_loss_nats: nats * 0.99 }
    };
    (1..=24).map(point).collect()
}

fn routing(layers: u32) -> Routing {
    let row = |layer: u32| {
        let raw: Vec<f64> = (0..8).map(|e| 1.0 + 0.06 * f64::from((e * 5 + layer * 3) % 8)).collect();
        let sum: f64 = raw.iter().sum();
        raw.into_iter().map(|share| share / sum).collect::<Vec<f64>>()
    };
    let load: Vec<Vec<f64>> = (0..layers).map(row).collect();
    let most = load.iter().flatten().copied().fold(0.0, f64::max);
    Routing { load_max_ratio: 8.0 * most, load_entropy_ratio: 0.99, dropped_fraction: 0.0, dead_fraction: 0.0, load }
}

/// A finished run of the planted law.
fn finish(run: &Run) -> Outcome {
    let bits = planted(run);
    let (tokens, seconds) = (run.tokens(), 2.0 + run.flops().get() / 2e11);
    Outcome::Finished(Box::new(Finished {
        params: run.model.param_counts(),
        steps: run.train.steps,
        tokens,
        tokens_unique: tokens,
        bytes: tokens.get(),
        flops: run.flops(),
        flops_6nd: run.model.flops_6nd(tokens),
        flops_spent: run.flops(),
        flops_evaluation: run.flops(),
        score: Score {
            loss_nats: bits * std::f64::consts::LN_2,
            bits_per_byte: bits,
            tokens: 1 << 18,
            bytes: 1 << 18,
            true_bits_per_byte: Some(E),
        },
        train_loss_nats: bits * std::f64::consts::LN_2,
        curve: curve(run, bits),
        routing: run.model.experts.as_ref().map(|_| routing(run.model.layers)),
        cost: Cost {
            seconds,
            tokens_per_second: tokens.as_f64() / seconds,
            peak_memory_bytes: 1 << 26,
            gpu_memory_bytes: None,
        },
        provenance: Provenance {
            device: "planted".to_owned(),
            instruction_set: "none".to_owned(),
            threads: 1,
            code_version: "test".to_owned(),
        },
        gpu: None,
    }))
}

fn manifest() -> Manifest {
    let part =
        |bytes: u64| Part { documents: 40, tokens: Tokens(bytes + 40), bytes, true_bits: Some(E * bytes as f64) };
    Manifest {
        version: 1,
        digest: Digest::of_json(&"planted"),
        spec: CorpusSpec {
            source: Source::Synthetic { preset: Preset::Tiny, sentences: None, seed: 1, bytes: 8_000_000 },
            tokenizer: TokenizerSpec::Bytes,
            validation: Validation::Fraction(0.05),
            transforms: Vec::new(),
        },
        context: 256,
        vocab: 256,
        tokenizer: Digest::of_json(&"bytes"),
        train: part(7_600_000),
        validation: part(400_000),
        baselines: Baselines { order0: 4.21, gzip: 3.02, xz: 2.58 },
        artifacts: Vec::new(),
    }
}

/// The sweep with nothing fitted yet.
pub fn unfitted() -> Lab {
    let dense = SHAPES.iter().flat_map(|shape| STEPS.map(|steps| ("dense", run(*shape, steps, false))));
    let sparse = SHAPES.iter().map(|shape| ("moe-8-top2", run(*shape, STEPS[2], true)));
    let runs = dense.chain(sparse).map(|(arm, run)| {
        let outcome = finish(&run);
        LabRun::new(arm, run, Some(outcome))
    });
    Lab {
        schema_version: SCHEMA_VERSION,
        name: "planted".to_owned(),
        sweep_id: None,
        made_at: None,
        code_version: "test".to_owned(),
        unit: LossUnit::BitsPerByte,
        arms: vec!["dense".to_owned(), "moe-8-top2".to_owned()],
        runs: runs.collect(),
        manifests: vec![manifest()],
        fit: None,
        columns: None,
        fit_refusal: Some("the fit waits for more runs".to_owned()),
    }
}

/// The sweep with its fit and a diverged run.
pub fn lab() -> Lab {
    let mut lab = unfitted();
    let rows = lab.runs.iter().filter_map(|r| Some(Observation::of_run(&r.arm, &r.run, r.finished()?, lab.unit)));
    let mut wild = run(SHAPES[3], STEPS[1], false);
    wild.train.learning_rate = 1.0;
    let wild_curve = curve(&wild, 9.0).into_iter().take(12).collect();
    let reason = "loss 31.2 passed the ceiling <of 12>".to_owned();
    let outcome = Diverged { step: 128, reason: reason.clone(), curve: wild_curve, seconds: 1.0, gpu: None };
    let excluded = vec![Exclusion { id: wild.id().to_string(), reason }];
    let observations = Observations::new(rows.collect(), excluded, "params_active_non_embedding");
    let settings = Settings { resamples: 200, budget: Some(1e14), ..Settings::default() };
    lab.fit = Some(fit(&observations, &settings, &mut |_| ()));
    lab.fit_refusal = None;
    lab.runs.push(LabRun::new("dense", wild, Some(Outcome::Diverged(outcome))));
    lab
}

/// Four sizes and budgets, each with five learning rates of which a smaller one suits a larger model.
pub fn tuned() -> Lab {
    let mut lab = unfitted();
    lab.runs.clear();
    for shape in SHAPES {
        for steps in STEPS {
            for rate in [1e-3_f64, 2e-3, 4e-3, 8e-3, 1.6e-2] {
                let mut run = run(shape, steps, false);
                run.train.learning_rate = rate;
                let best = 4e-3 * (run.model.param_counts().non_embedding.as_f64() / 1e5).powf(-0.3);
                let mut outcome = finish(&run);
                if let Outcome::Finished(finished) = &mut outcome {
                    finished.score.bits_per_byte *= (0.01 * (rate / best).ln().powi(2)).exp();
                }
                lab.runs.push(LabRun::new("dense", run, Some(outcome)));
            }
        }
    }
    let rows = lab.runs.iter().filter_map(|r| Some(Observation::of_run(&r.arm, &r.run, r.finished()?, lab.unit)));
    let observations = Observations::new(rows.collect(), Vec::new(), "params_active_non_embedding");
    let best_of = vec![HyperParameter::LearningRate];
    let settings = Settings { resamples: 100, best_of, ..Settings::default() };
    lab.fit = Some(fit(&observations, &settings, &mut |_| ()));
    lab.fit_refusal = None;
    lab
}
