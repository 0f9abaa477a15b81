//! How fast this machine's GPU goes with the shapes of a plan, as many runs side by side as will be. Only the first GPU is
//! looked at.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use isoloss_sweep::count::si;
use isoloss_sweep::plan::{Action, GPU_PROCESS_BYTES, GpuShape, GpuSpeed, Gpus, Plan, PlannedRun};
use isoloss_sweep::run::EngineKind;

use super::crew::{Crew, unexpected};
use super::kept::Gpu;
use crate::print;
use crate::trial::{Answer, Opened, Order, Task};

/// Shapes of a plan that are measured at most; others lie between them.
const SHAPES_MOST: usize = 12;
/// Seconds of steps of one run alone, of all side by side, and of evaluation.
const ALONE: f64 = 0.5;
const BESIDE: f64 = 1.0;
const EVALUATION: f64 = 0.25;
/// More than this beside its block no process takes of a GPU: what was seen then was another program's doing.
const PROCESS_MOST: u64 = 4 << 30;
/// What a client of MPS gets beside what was seen: what counts against its limit is not documented to the byte, and a run that
/// goes over it fails.
const CLIENT_SPARE: u64 = 64 << 20;

/// Where and how runs are timed.
pub(super) struct Bench<'a> {
    /// Starts a process that obeys [`Order`]s on the GPU.
    pub(super) command: &'a dyn Fn() -> Command,
    /// Runs that share a GPU at most.
    pub(super) beside: u32,
    /// Memory that is free on it.
    pub(super) free_bytes: u64,
    /// Folders of corpora by digest.
    pub(super) corpora: PathBuf,
    pub(super) kernels: PathBuf,
    /// Folder for what nobody needs afterwards, on the disk of checkpoints.
    pub(super) scratch: PathBuf,
}

/// A run of every shape that is to be measured: all of them, or a spread from the cheapest to the dearest.
pub(super) fn wanted(plan: &Plan) -> Vec<&PlannedRun> {
    let mut shapes: Vec<&PlannedRun> = Vec::new();
    let here = |run: &&PlannedRun| {
        run.action != Action::Reuse && run.run.numerics.engine == EngineKind::Cuda && run.run.trainer.is_none()
    };
    for planned in plan.runs.iter().filter(here) {
        let same = |other: &&PlannedRun| {
            let (a, b) = (&other.run, &planned.run);
            (&a.model, a.numerics.precision, a.train.batch) == (&b.model, b.numerics.precision, b.train.batch)
        };
        if !shapes.iter().any(same) {
            shapes.push(planned);
        }
    }
    let cost = |run: &PlannedRun| run.run.model.flop_terms().training();
    let kind = |run: &PlannedRun| (run.run.numerics.precision.name(), run.run.model.experts.is_some());
    shapes.sort_by(|a, b| kind(a).cmp(&kind(b)).then(cost(a).total_cmp(&cost(b))));
    if shapes.len() <= SHAPES_MOST {
        return shapes;
    }
    let last = shapes.len() - 1;
    let spread: BTreeSet<usize> = (0..SHAPES_MOST).map(|at| at * last / (SHAPES_MOST - 1)).collect();
    spread.into_iter().map(|at| shapes[at]).collect()
}

fn known(gpu: &Gpu, planned: &PlannedRun) -> bool {
    let run = &planned.run;
    gpus(gpu, 1, 1, 0).measured(&run.model, run.numerics.precision, run.train.batch).is_some()
}

/// What was measured, for planning.
pub(super) fn gpus(gpu: &Gpu, cards: u32, beside: u32, memory_bytes: u64) -> Gpus {
    Gpus {
        cards,
        beside,
        memory_bytes,
        process_bytes: gpu.process_bytes,
        process_seconds: gpu.process_seconds,
        shapes: gpu.shapes.clone(),
    }
}

/// What of the plan is to be measured and is not known yet.
pub(super) fn missing<'a>(plan: &'a Plan, gpu: &Gpu) -> Vec<&'a PlannedRun> {
    wanted(plan).into_iter().filter(|planned| !known(gpu, planned)).collect()
}

/// Measures these; whether anything was. What cannot be measured is told and left out.
pub(super) fn measure(missing: &[&PlannedRun], bench: &Bench<'_>, gpu: &mut Gpu) -> bool {
    let (mut crew, mut found) = (None, false);
    for (at, planned) in missing.iter().enumerate() {
        let label = label(planned);
        let count = missing.len();
        print::note(&format!(
            "measuring this machine's GPU: {label}, {} of {count} (--no-probe leaves it out)",
            at + 1
        ));
        match one(planned, bench, &mut crew, gpu) {
            Ok(shape) => {
                gpu.shapes.push(shape);
                found = true;
            }
            Err(why) => {
                print::note(&format!("warning: no speed was measured for {label}: {why}"));
                // One of them broke, and the others stand where they stood.
                crew = None;
            }
        }
    }
    found
}

fn label(planned: &PlannedRun) -> String {
    let run = &planned.run;
    let family = if run.model.experts.is_some() { " with experts" } else { "" };
    let size = si(planned.params.non_embedding.get() as f64);
    format!("{size} params{family}, batch {}, {}", run.train.batch, run.numerics.precision.name())
}

fn one(planned: &PlannedRun, bench: &Bench<'_>, crew: &mut Option<Crew>, gpu: &mut Gpu) -> Result<GpuShape, String> {
    let started = match crew {
        Some(_) => None,
        None => {
            let (started, seconds) = Crew::start(bench.command, bench.beside as usize)?;
            *crew = Some(started);
            Some(seconds)
        }
    };
    let crew = crew.as_mut().expect("it was started");
    let fitting = bench.free_bytes / planned.memory_bytes.max(1);
    let count = fitting.clamp(1, u64::from(bench.beside)) as usize;
    let order = Order::Open(Box::new(task(planned, bench)));
    // The first compiles what is not compiled yet, which no run has to do after it.
    let first = opened(crew.order(0..1, &order)?)?;
    if let Some(seconds) = started {
        gpu.process_seconds = seconds + first[0].corpus_seconds;
    }
    let alone = speed(crew, 1, ALONE)?;
    let checkpoint_seconds = match crew.order(0..1, &Order::Save)?.pop() {
        Some(Answer::Saved { seconds }) => seconds,
        other => return Err(format!("{other:?} for a checkpoint")),
    };
    let before = free(crew)?;
    let others = if count > 1 {
        opened(crew.order(1..count, &order)?)?
    } else {
        closed(crew.order(0..1, &Order::Close)?)?;
        opened(crew.order(0..1, &order)?)?
    };
    let after = free(crew)?;
    let beside = match count {
        1 => alone,
        _ => in_company(alone, speed(crew, count, BESIDE)?, count as f64, f64::from(bench.beside)),
    };
    closed(crew.order(0..count, &Order::Close)?)?;
    let block_bytes = others.iter().filter_map(|opened| opened.block_bytes).max().unwrap_or(0);
    if let Some(bytes) = process(before, after, count as u64 - 1, block_bytes) {
        let spare = if gpu.through_mps { CLIENT_SPARE } else { 0 };
        gpu.process_bytes = gpu.process_bytes.max(Some(bytes + spare));
    }
    let run = &planned.run;
    Ok(GpuShape {
        model: run.model.clone(),
        precision: run.numerics.precision,
        batch: run.train.batch,
        alone,
        beside,
        start_seconds: others.iter().map(|opened| fixed(opened, alone)).sum::<f64>() / others.len() as f64,
        checkpoint_seconds,
        block_bytes,
    })
}

fn task(planned: &PlannedRun, bench: &Bench<'_>) -> Task {
    Task {
        run: planned.run.clone(),
        corpus: bench.corpora.join(planned.run.data.corpus.to_string()),
        kernels: bench.kernels.clone(),
        scratch: bench.scratch.clone(),
        gpu_memory: Some(planned.memory_bytes.saturating_sub(GPU_PROCESS_BYTES)),
    }
}

/// What a start takes beside the step and the point of the curve that it ends with.
fn fixed(opened: &Opened, speed: GpuSpeed) -> f64 {
    let work = opened.step_tokens as f64 / speed.trained + opened.point_tokens as f64 / speed.evaluated;
    (opened.seconds - work).max(0.0)
}

/// What each of the processes that came took beside its block.
fn process(before: Option<u64>, after: Option<u64>, came: u64, block: u64) -> Option<u64> {
    let each = before?.checked_sub(after?)?.checked_div(came)?;
    each.checked_sub(block).filter(|bytes| (1..=PROCESS_MOST).contains(bytes))
}

/// The speed among `most` runs, where memory let `count` run side by side: each further one is believed to cost the same.
fn in_company(alone: GpuSpeed, among: GpuSpeed, count: f64, most: f64) -> GpuSpeed {
    let rate =
        |alone: f64, among: f64| 1.0 / (1.0 / alone + (1.0 / among - 1.0 / alone) * (most - 1.0) / (count - 1.0));
    GpuSpeed { trained: rate(alone.trained, among.trained), evaluated: rate(alone.evaluated, among.evaluated) }
}

/// Tokens a second of each of the first `count`, all at once.
fn speed(crew: &mut Crew, count: usize, seconds: f64) -> Result<GpuSpeed, String> {
    let trained = rate(crew.order(0..count, &Order::Train { seconds })?)?;
    let evaluated = rate(crew.order(0..count, &Order::Evaluate { seconds: EVALUATION })?)?;
    Ok(GpuSpeed { trained, evaluated })
}

fn rate(answers: Vec<Answer>) -> Result<f64, String> {
    let count = answers.len() as f64;
    let mut sum = 0.0;
    for answer in answers {
        match answer {
            Answer::Paced { tokens, seconds } if tokens > 0 && seconds > 0.0 => sum += tokens as f64 / seconds,
            other => return Err(unexpected(&other)),
        }
    }
    Ok(sum / count)
}

fn opened(answers: Vec<Answer>) -> Result<Vec<Opened>, String> {
    let opened = |answer| match answer {
        Answer::Opened(opened) => Ok(opened),
        other => Err(unexpected(&other)),
    };
    answers.into_iter().map(opened).collect()
}

fn closed(answers: Vec<Answer>) -> Result<(), String> {
    answers.into_iter().try_for_each(|answer| if answer == Answer::Closed { Ok(()) } else { Err(unexpected(&answer)) })
}

/// What the first sees free on the GPU.
fn free(crew: &mut Crew) -> Result<Option<u64>, String> {
    match crew.order(0..1, &Order::Look)?.pop() {
        Some(Answer::Free { bytes }) => Ok(bytes),
        other => Err(format!("{other:?} for free memory")),
    }
}

/// This program as a process that times runs on one GPU, started as a worker starts a run of one of the GPU's slots.
pub(super) fn trial_on(program: &Path, uuid: &str, sharing: &[(&'static str, OsString)]) -> Command {
    let mut command = Command::new(program);
    command.arg("trial").env("CUDA_VISIBLE_DEVICES", uuid).env("OMP_NUM_THREADS", "1").env("RAYON_NUM_THREADS", "1");
    command.envs(sharing.iter().map(|(name, value)| (name, value)));
    command
}

#[cfg(test)]
mod tests;
