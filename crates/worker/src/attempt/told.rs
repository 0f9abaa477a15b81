//! What foreign trainers tell of their end. They need to know only what they measured: counts that they leave out are
//! the run's own, and counts that they do say are held to the run's. It decides nothing about native children.

use std::path::PathBuf;

use isoloss_sweep::corpus::Part;
use isoloss_sweep::outcome::{Cost, CurvePoint, Diverged, Failed, Finished, Provenance, Routing, Score};
use isoloss_sweep::{Flops, Outcome, ParamCounts, Run, RunId, Tokens};
use isoloss_wire::api::Lease;
use isoloss_wire::child::FromChild;
use serde::Deserialize;
use serde_json::Value;

use super::lost::{Lost, clear_curve, quoted};

/// Points of a curve that are kept; of a longer one every so manieth.
const CURVE_POINTS_MAX: usize = 2000;
/// Bits per byte may differ by this share from what nats, tokens and bytes give: rounding in print, not other units.
const ROUNDING: f64 = 0.01;

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Outcome {
        run_id: RunId,
        attempt: u64,
        result: Told,
        #[serde(default)]
        again: bool,
    },
    /// Without its digest: BLAKE3 is in few standard libraries, and the worker reads the file anyway.
    Checkpoint { run_id: RunId, attempt: u64, path: PathBuf, step: u64 },
}

/// What a line says.
pub(super) enum Word {
    Line(FromChild),
    Checkpoint {
        subject: (RunId, u64),
        path: PathBuf,
        step: u64,
    },
    /// A loss is no number.
    Lost {
        subject: (RunId, u64),
        lost: Lost,
        curve: Vec<CurvePoint>,
    },
}

/// Whom a line is about.
#[derive(Deserialize)]
struct Subject {
    run_id: RunId,
    attempt: u64,
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
enum Told {
    Finished(Box<Measured>),
    Diverged {
        step: u64,
        reason: String,
        #[serde(default)]
        curve: Vec<CurvePoint>,
        seconds: Option<f64>,
    },
    Failed {
        reason: String,
        #[serde(default = "yes")]
        retry: bool,
    },
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Measured {
    score: Scored,
    train_loss_nats: f64,
    #[serde(default)]
    curve: Vec<CurvePoint>,
    params: Option<ParamCounts>,
    steps: Option<u64>,
    tokens: Option<Tokens>,
    tokens_unique: Option<Tokens>,
    bytes: Option<u64>,
    flops: Option<Flops>,
    flops_6nd: Option<Flops>,
    flops_spent: Option<Flops>,
    flops_evaluation: Option<Flops>,
    routing: Option<Routing>,
    cost: Option<Cost>,
    provenance: Option<Provenance>,
}

#[derive(Deserialize)]
struct Scored {
    loss_nats: f64,
    bits_per_byte: Option<f64>,
    tokens: u64,
    bytes: u64,
}

/// What the worker saw of the attempt itself.
pub(super) struct Seen<'a> {
    pub(super) lease: &'a Lease,
    pub(super) device: &'a str,
    pub(super) threads: u32,
    pub(super) seconds: f64,
    /// Most memory that the child said it took.
    pub(super) memory_bytes: u64,
    /// The training text, where the corpus is at hand.
    pub(super) text: &'a (dyn Fn() -> Option<Part> + Sync),
}

/// A line that leaves out what the run knows. The error is for the run's log.
pub(super) fn read(text: &str, seen: &Seen<'_>) -> Result<Word, String> {
    let mut line: Value = serde_json::from_str(&quoted(text)).map_err(|error| error.to_string())?;
    clear_curve(&mut line);
    if let Some(lost) = Lost::find(&line, seen.lease.run.train.steps) {
        let Subject { run_id, attempt } = Subject::deserialize(&line).map_err(|error| error.to_string())?;
        let curve = line.pointer("/result/curve").and_then(|curve| Vec::deserialize(curve).ok());
        return Ok(Word::Lost { subject: (run_id, attempt), lost, curve: curve.unwrap_or_default() });
    }
    if matches!(line["event"].as_str(), Some("progress" | "eval")) {
        let line = FromChild::deserialize(&line).map_err(|error| error.to_string())?;
        return Ok(Word::Line(line));
    }
    let (run_id, attempt, told, again) = match Line::deserialize(&line).map_err(|error| error.to_string())? {
        Line::Outcome { run_id, attempt, result, again } => (run_id, attempt, result, again),
        Line::Checkpoint { run_id, attempt, path, step } => {
            return Ok(Word::Checkpoint { subject: (run_id, attempt), path, step });
        }
    };
    let result = match told {
        Told::Finished(measured) => Outcome::Finished(Box::new(finished(*measured, seen))),
        Told::Diverged { step, reason, curve, seconds } => {
            Outcome::Diverged(Diverged { step, reason, curve, seconds: seconds.unwrap_or(seen.seconds), gpu: None })
        }
        Told::Failed { reason, retry } => Outcome::Failed(Failed { reason, retry }),
    };
    Ok(Word::Line(FromChild::Outcome { run_id, attempt, result, again }))
}

fn finished(told: Measured, seen: &Seen<'_>) -> Finished {
    let run = &seen.lease.run;
    let tokens = told.tokens.unwrap_or_else(|| run.tokens());
    let text = (seen.text)();
    let most = run.data.tokens_unique.or(text.as_ref().map(|text| text.tokens)).unwrap_or(tokens);
    let per_token = text.as_ref().map_or(1.0, |text| text.bytes as f64 / text.tokens.as_f64());
    let score = &told.score;
    let bits_per_byte =
        score.bits_per_byte.unwrap_or_else(|| bits_per_byte(score.loss_nats, score.tokens, score.bytes));
    // The forward pass is a third of training.
    let forward = run.model.flop_terms().training() / 3.0;
    Finished {
        params: told.params.unwrap_or_else(|| run.model.param_counts()),
        steps: told.steps.unwrap_or(run.train.steps),
        tokens,
        tokens_unique: told.tokens_unique.unwrap_or(Tokens(most.get().min(tokens.get()))),
        bytes: told.bytes.unwrap_or((tokens.as_f64() * per_token).round() as u64),
        flops: told.flops.unwrap_or_else(|| run.flops()),
        flops_6nd: told.flops_6nd.unwrap_or_else(|| run.model.flops_6nd(tokens)),
        flops_spent: told.flops_spent.unwrap_or_else(|| run.flops()),
        flops_evaluation: told.flops_evaluation.unwrap_or(Flops(forward * score.tokens as f64)),
        score: Score {
            loss_nats: score.loss_nats,
            bits_per_byte,
            tokens: score.tokens,
            bytes: score.bytes,
            true_bits_per_byte: None,
        },
        train_loss_nats: told.train_loss_nats,
        curve: told.curve,
        routing: told.routing,
        cost: told.cost.unwrap_or_else(|| Cost {
            seconds: seen.seconds,
            tokens_per_second: tokens.as_f64() / seen.seconds.max(1e-9),
            peak_memory_bytes: seen.memory_bytes,
            gpu_memory_bytes: None,
        }),
        provenance: told.provenance.unwrap_or_else(|| Provenance {
            device: seen.device.to_owned(),
            instruction_set: "unknown".to_owned(),
            threads: seen.threads,
            code_version: run.trainer.as_ref().and_then(|t| t.version.clone()).unwrap_or_else(|| "unknown".to_owned()),
        }),
        gpu: None,
    }
}

fn bits_per_byte(loss_nats: f64, tokens: u64, bytes: u64) -> f64 {
    loss_nats * tokens as f64 / (std::f64::consts::LN_2 * bytes as f64)
}

/// The outcome if it can be one of this run; else a failure that says why not. Trying again would give the same.
pub(super) fn held_to(outcome: Outcome, run: &Run) -> Outcome {
    let Outcome::Finished(mut finished) = outcome else {
        return match outcome {
            Outcome::Diverged(diverged) => Outcome::Diverged(Diverged { curve: thinned(diverged.curve), ..diverged }),
            other => other,
        };
    };
    if let Err(why) = sound(&finished, run) {
        let reason = format!("the trainer's outcome cannot be this run's: {why}");
        return Outcome::Failed(Failed { reason, retry: false });
    }
    finished.curve = thinned(finished.curve);
    Outcome::Finished(finished)
}

fn sound(told: &Finished, run: &Run) -> Result<(), String> {
    let counts = [
        ("steps", told.steps, run.train.steps),
        ("tokens", told.tokens.get(), run.tokens().get()),
        ("params.total", told.params.total.get(), run.model.param_counts().total.get()),
        ("params.non_embedding", told.params.non_embedding.get(), run.model.param_counts().non_embedding.get()),
    ];
    if let Some((what, told, planned)) = counts.into_iter().find(|(_, told, planned)| told != planned) {
        return Err(format!("{what} is {told}, the run has {planned}"));
    }
    let score = &told.score;
    let numbers = [
        ("score.loss_nats", score.loss_nats),
        ("score.bits_per_byte", score.bits_per_byte),
        ("train_loss_nats", told.train_loss_nats),
        ("flops_spent", told.flops_spent.get()),
        ("cost.seconds", told.cost.seconds),
    ];
    if let Some((what, number)) = numbers.into_iter().find(|(_, number)| !number.is_finite() || *number < 0.0) {
        return Err(format!("{what} is {number}, expected a finite number, not negative"));
    }
    if score.tokens == 0 || score.bytes == 0 {
        return Err("score.tokens and score.bytes must say what text was scored".to_owned());
    }
    let given = bits_per_byte(score.loss_nats, score.tokens, score.bytes);
    if (score.bits_per_byte - given).abs() > ROUNDING * given.abs() {
        return Err(format!(
            "{} nats a token over {} tokens and {} bytes are {given:.4} bits per byte, it says {}",
            score.loss_nats, score.tokens, score.bytes, score.bits_per_byte
        ));
    }
    Ok(())
}

fn thinned(curve: Vec<CurvePoint>) -> Vec<CurvePoint> {
    let every = curve.len().div_ceil(CURVE_POINTS_MAX).max(1);
    let last = curve.len().saturating_sub(1);
    let kept = curve.into_iter().enumerate().filter(|(at, _)| at % every == 0 || *at == last);
    kept.map(|(_, point)| point).collect()
}
