//! One process that takes run after run: each has the bits, and is charged the memory, that it has in a process of its own.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use isoloss_corpus::survey;
use isoloss_sweep::corpus::{CorpusSpec, Preset, Source, TokenizerSpec, Validation};
use isoloss_sweep::run::{Data, EngineKind, IDENTITY_VERSION, Numerics, Precision, Schedule, Train};
use isoloss_sweep::{Digest, Experts, Model, Run};
use isoloss_wire::child::{Assignment, CHILD_PROTOCOL, ToChild};
use serde_json::Value;

use crate::binary::isoloss;

/// A process that trains.
struct Trainer {
    child: Child,
    /// Closed at the end.
    orders: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    dir: PathBuf,
    attempts: u64,
}

impl Trainer {
    fn start(dir: &Path) -> Self {
        let mut command = isoloss(dir);
        command.arg("train");
        Self::of(command, dir)
    }

    fn of(mut command: Command, dir: &Path) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (orders, lines) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()).lines());
        Self { child, orders, lines, dir: dir.to_owned(), attempts: 0 }
    }

    /// The outcome of a run on a corpus in `dir`, which is the whole line.
    fn train(&mut self, run: &Run) -> Value {
        self.attempts += 1;
        let checkpoints = self.dir.join(format!("checkpoints-{}-{}", self.child.id(), self.attempts));
        std::fs::create_dir(&checkpoints).unwrap();
        let assignment = Assignment {
            protocol: CHILD_PROTOCOL,
            run_id: run.id(),
            attempt: self.attempts,
            run: run.clone(),
            corpus: self.dir.join(run.data.corpus.to_string()),
            checkpoints,
            resume: None,
            trunk_steps: Vec::new(),
            threads: 1,
            device: "cpu:0".to_owned(),
            memory_bytes: None,
            gpu_process_bytes: None,
        };
        let order = serde_json::to_string(&ToChild::Run(Box::new(assignment))).unwrap();
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut said = self.lines.by_ref().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let first = said.next().expect("the process answers");
        assert_eq!((&first["event"], &first["attempt"]), (&Value::from("taken"), &Value::from(self.attempts)));
        let outcome = said.find(|line| line["event"] == "outcome").expect("the run ends with an outcome");
        assert_eq!(outcome["run_id"], run.id().to_string());
        outcome
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn corpus(dir: &Path, seed: u64) -> Digest {
    let spec = CorpusSpec {
        source: Source::Synthetic { preset: Preset::Tiny, sentences: None, seed, bytes: 300_000 },
        tokenizer: TokenizerSpec::Bytes,
        validation: Validation::Fraction(0.05),
        transforms: Vec::new(),
    };
    survey(&spec, 32, dir, &mut |_| {}).unwrap().digest
}

fn run(corpus: Digest, width: u32, engine: EngineKind, precision: Precision) -> Run {
    let (layers, heads, context, vocab) = (2, 2, 32, 256);
    Run {
        identity_version: IDENTITY_VERSION,
        model: Model { layers, width, heads, ff: 2 * width, context, vocab, tied: false, experts: None },
        data: Data { corpus, tokens_unique: None, scored_bytes: 2048, curve_bytes: 512 },
        train: Train {
            batch: 4,
            steps: 8,
            learning_rate: 1e-2,
            warmup_steps: 2,
            schedule: Schedule::Cosine { final_ratio: 0.1 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            clip: 1.0,
            seed: 7,
        },
        numerics: Numerics { engine, precision, version: engine.numerics_version() },
        trainer: None,
    }
}

fn moe(mut run: Run) -> Run {
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

/// What a run gives, and the most memory that its process took for it.
fn split(mut outcome: Value) -> (Value, u64) {
    let cost = outcome["result"].as_object_mut().unwrap().remove("cost").unwrap();
    (outcome["result"].take(), cost["peak_memory_bytes"].as_u64().unwrap())
}

#[test]
fn a_run_done_after_others_in_one_process_is_the_run_done_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = [1, 2].map(|seed| corpus(dir.path(), seed));
    let (cpu, reference) = (EngineKind::Cpu, EngineKind::Reference);
    let large = run(one, 512, cpu, Precision::F32);
    let small = run(one, 16, cpu, Precision::F32);
    let runs = [
        large,
        small.clone(),
        run(other, 32, cpu, Precision::Bf16),
        moe(small.clone()),
        run(one, 16, reference, Precision::F32),
        moe(run(other, 32, cpu, Precision::F32)),
        small,
    ];
    let mut shared = Trainer::start(dir.path());
    let mut peaks = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let (outcome, alone) = (shared.train(run), Trainer::start(dir.path()).train(run));
        if outcome["again"] != true {
            eprintln!("skipped: this system does not let a process start its memory peak anew");
            assert!(std::fs::write("/proc/self/clear_refs", "5").is_err(), "run {at} ends its process: {outcome}");
            return;
        }
        let ((outcome, peak), (alone, peak_alone)) = (split(outcome), split(alone));
        assert_eq!(outcome["outcome"], "finished", "{outcome}");
        assert_eq!(outcome, alone, "run {at}");
        assert!(peak < peak_alone + (16 << 20), "run {at} took {} MiB, alone {}", peak >> 20, peak_alone >> 20);
        peaks.push(peak);
    }
    assert!(peaks[1] < peaks[0], "a small run is not charged with a large one before it: {peaks:?}");
    // The end of its input ends it, also between runs.
    drop(shared.orders.take());
    assert!(shared.child.wait().is_ok());
}

#[test]
fn the_example_in_python_takes_one_run_after_another() {
    let command = || {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sweeps/trainers/ngram.py"));
        command
    };
    let imports = ["-c", "import json, math, queue, struct"];
    let found = Command::new("python3").args(imports).stdin(Stdio::null()).stderr(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 that runs here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let corpus = corpus(dir.path(), 1);
    let mut shared = Trainer::of(command(), dir.path());
    for width in [32, 16, 24] {
        let run = run(corpus, width, EngineKind::Cpu, Precision::F32);
        let (outcome, alone) = (shared.train(&run), Trainer::of(command(), dir.path()).train(&run));
        assert_eq!((&outcome["again"], &outcome["result"]["outcome"]), (&Value::from(true), &Value::from("finished")));
        assert_eq!(outcome["result"], alone["result"], "width {width}");
    }
}
