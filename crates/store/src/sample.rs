//! Small valid values for tests, of this crate and of its users. Nothing here runs outside tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoloss_sweep::count::{Flops, Tokens};
use isoloss_sweep::outcome::{Cost, CurvePoint, Diverged, Failed, Finished, Provenance, Score};
use isoloss_sweep::run::{Data, EngineKind, IDENTITY_VERSION, Numerics, Precision, Schedule, Train};
use isoloss_sweep::{Digest, Model, Outcome, Run, RunId, SweepId};

use crate::ledger::SweepRow;
use crate::record::{Admission, Branch, Checkpoint, PRIORITY_USUAL, Planned, Retry};
use crate::store::Store;

/// A tiny dense run; another seed is another run.
pub fn run(seed: u64) -> Run {
    Run {
        identity_version: IDENTITY_VERSION,
        model: Model { layers: 1, width: 8, heads: 2, ff: 16, context: 16, vocab: 256, tied: true, experts: None },
        data: Data { corpus: Digest::of(b"corpus"), tokens_unique: None, scored_bytes: 1024, curve_bytes: 128 },
        train: Train {
            batch: 2,
            steps: 100,
            learning_rate: 0.003,
            warmup_steps: 10,
            schedule: Schedule::Cosine { final_ratio: 0.1 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            clip: 1.0,
            seed,
        },
        numerics: Numerics { engine: EngineKind::Cpu, precision: Precision::F32, version: 1 },
        trainer: None,
    }
}

/// The run of `seed` as a plan has it: a mebibyte of memory, `seed` seconds.
pub fn planned(seed: u64) -> Planned {
    let run = run(seed);
    Planned {
        run_id: run.id(),
        arm: "dense".into(),
        labels: BTreeMap::from([("seed".to_owned(), seed.to_string())]).into(),
        flops: run.flops(),
        run,
        trunk_steps: Vec::new(),
        branch: None,
        memory_bytes: 1 << 20,
        threads: 0,
        seconds: seed as f64,
        command: None,
    }
}

/// A trunk with branches at `steps`, and the branches.
pub fn trunk(seed: u64, steps: &[u64]) -> Vec<Planned> {
    let trunk = Planned {
        run_id: RunId(Digest::of(format!("trunk {seed}").as_bytes())),
        trunk_steps: steps.to_vec(),
        ..planned(seed)
    };
    let branch =
        |step: u64| Planned { branch: Some(Branch { trunk: trunk.run_id, step }), ..planned(seed * 1000 + step) };
    std::iter::once(trunk.clone()).chain(steps.iter().map(|step| branch(*step))).collect()
}

/// A sweep of these runs, with budgets of 1 failure and 100 preemptions.
pub fn admission(name: &str, runs: impl IntoIterator<Item = Planned>) -> Admission {
    Admission {
        sweep_id: SweepId(Digest::of(name.as_bytes())),
        name: name.to_owned(),
        toml: format!("schema = 1\nname = {name:?}\n"),
        set: Vec::new(),
        submitted_at_ms: 0,
        manifests: Vec::new(),
        retry: Retry::default(),
        priority: PRIORITY_USUAL,
        held: false,
        runs: runs.into_iter().map(Arc::new).collect(),
    }
}

pub fn checkpoint(step: u64, storage: &str) -> Checkpoint {
    Checkpoint {
        step,
        path: format!("trunk/step-{step}"),
        digest: Digest::of(&step.to_le_bytes()),
        storage: storage.to_owned(),
    }
}

/// A finished run with this loss.
pub fn finished(loss_nats: f64) -> Outcome {
    let run = run(0);
    let score = Score {
        loss_nats,
        bits_per_byte: loss_nats / std::f64::consts::LN_2,
        tokens: 1024,
        bytes: 1024,
        true_bits_per_byte: None,
    };
    let point = CurvePoint {
        step: 50,
        tokens: Tokens(1600),
        loss_nats: loss_nats + 0.1,
        bits_per_byte: score.bits_per_byte + 0.1,
        train_loss_nats: loss_nats + 0.2,
    };
    Outcome::Finished(Box::new(Finished {
        params: run.model.param_counts(),
        steps: 100,
        tokens: run.tokens(),
        tokens_unique: run.tokens(),
        bytes: 3200,
        flops: run.flops(),
        flops_6nd: Flops(1.0),
        flops_spent: run.flops(),
        flops_evaluation: Flops(1.0),
        score,
        train_loss_nats: loss_nats,
        curve: vec![point],
        routing: None,
        cost: Cost { seconds: 1.5, tokens_per_second: 1e5, peak_memory_bytes: 1 << 20, gpu_memory_bytes: None },
        provenance: Provenance {
            device: "cpu:0".to_owned(),
            instruction_set: "portable".to_owned(),
            threads: 1,
            code_version: "test".to_owned(),
        },
        gpu: None,
    }))
}

pub fn diverged() -> Outcome {
    Outcome::Diverged(Diverged {
        step: 7,
        reason: "loss is not finite".to_owned(),
        curve: Vec::new(),
        seconds: 0.5,
        gpu: None,
    })
}

pub fn failed(retry: bool) -> Outcome {
    Outcome::Failed(Failed { reason: "out of memory".to_owned(), retry })
}

/// What a store says of its sweeps and runs, as far as every release must read it the same.
pub fn gist(store: &Store) -> serde_json::Value {
    let ledger = store.ledger();
    let chosen = |row: &SweepRow| row.chosen.as_ref().map(BTreeSet::len);
    let sweeps = ledger.sweeps().map(|(id, row)| {
        let (order, runs, at) = (row.order, row.members.len(), row.submitted_at_ms);
        let state = (row.cancelled, row.paused, chosen(row));
        (id.to_string(), serde_json::json!([row.name, order, runs, at, state]))
    });
    let runs = ledger.runs().map(|(id, row)| {
        let outcome = store.outcome(id).expect("a sound journal").map(|outcome| Digest::of_json(&outcome));
        let past: Vec<u64> = row.past.iter().map(|past| past.attempt).collect();
        let lost = (row.failures, row.preemptions, row.took_down.len(), past);
        let steps: Vec<u64> = row.checkpoints.keys().copied().collect();
        let state = (ledger.status(row).name(), row.attempt, row.paused, row.lease.as_ref().map(|held| &held.slot));
        (id.to_string(), serde_json::json!([state, lost, steps, outcome]))
    });
    let (sweeps, runs) = (sweeps.collect::<serde_json::Map<_, _>>(), runs.collect::<serde_json::Map<_, _>>());
    serde_json::json!({ "sweeps": sweeps, "runs": runs })
}

/// SplitMix64 (Steele, Lea, Flood 2014): seeds for simulations.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    /// Below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).expect("an index fits")]
    }
}
