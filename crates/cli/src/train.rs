//! `train`: what a worker starts. Assignments on stdin, progress and the outcome as JSON lines on stdout; the end of
//! input ends the process at once, so that no child outlives its worker. After a run that ended well it may take another:
//! of the run before it keeps the open corpus, and nothing else.

use std::fs;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use isoloss_corpus::Dataset;
use isoloss_sweep::Outcome;
use isoloss_sweep::outcome::Failed;
use isoloss_sweep::plan::GPU_PROCESS_BYTES;
use isoloss_sweep::run::EngineKind;
use isoloss_train::memory;
use isoloss_train::session::{Control, End, Event, Fault, Options, TrainError};
use isoloss_wire::child::{
    Assignment, CHILD_PROTOCOL, EXIT_CONTEXT, EXIT_DEVICE, EXIT_DONE, EXIT_NO_RETRY, EXIT_RETRY, EXIT_STORAGE,
    EXIT_YIELDED, FromChild, is_of_storage,
};
use isoloss_wire::orders;

use crate::place::kernels;
use crate::print;

/// What a process without a run may hold beside its corpus, well above what one holds that was never given a run. With more,
/// memory of the run before did not come back, and the next run gets a process of its own.
const IDLE_BYTES_MAX: u64 = 64 << 20;

/// Trains the assignment in `file`, or those that come on stdin.
pub(crate) fn run(file: Option<&Path>) -> ExitCode {
    if file.is_none() {
        isoloss_worker::die_with_parent();
    }
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(stop.clone());
    let code = match file {
        Some(path) => from_file(path, &stop),
        None => from_stdin(&stop),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn from_file(path: &Path, stop: &AtomicBool) -> i32 {
    let read = fs::read(path).map_err(|e| e.to_string());
    match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string())) {
        Ok(assignment) => attempt(&assignment, stop, &mut Desk { corpus: None, only: true }),
        Err(error) => {
            print::note(&format!("isoloss train: cannot read an assignment from {}: {error}", path.display()));
            EXIT_NO_RETRY
        }
    }
}

fn from_stdin(stop: &Arc<AtomicBool>) -> i32 {
    let garbage = |error: &str| print::note(&format!("isoloss train: a line on stdin is not an order: {error}"));
    let gone = || std::process::exit(EXIT_RETRY);
    let assignments = orders::listen(BufReader::new(io::stdin()), stop.clone(), garbage, gone);
    let mut desk = Desk { corpus: None, only: false };
    for assignment in assignments {
        say(&FromChild::Taken { run_id: assignment.run_id, attempt: assignment.attempt });
        let code = attempt(&assignment, stop, &mut desk);
        if code != EXIT_DONE || desk.only {
            return code;
        }
    }
    EXIT_DONE
}

/// What lies ready for the next run.
struct Desk {
    corpus: Option<Dataset>,
    /// Whether there is no next run in this process.
    only: bool,
}

impl Desk {
    /// The corpus of the run: read again, unless it is the one that lies here.
    fn corpus(&mut self, assignment: &Assignment) -> Result<&Dataset, TrainError> {
        let is_it =
            |here: &Dataset| here.dir() == assignment.corpus && here.manifest().digest == assignment.run.data.corpus;
        // The one that is not wanted any more goes first: two at a time may be more than there is room for.
        self.corpus = self.corpus.take().filter(is_it);
        if self.corpus.is_none() {
            self.corpus = Some(Dataset::open(&assignment.corpus)?);
        }
        Ok(self.corpus.as_ref().expect("it was opened"))
    }

    /// Clears up after a run; says whether this process can take another as if it had had none.
    fn clear(&mut self, stop: &AtomicBool) -> bool {
        self.only |= stop.load(Ordering::SeqCst) || {
            let artifacts = self.corpus.iter().flat_map(|corpus| &corpus.manifest().artifacts);
            let corpus: u64 = artifacts.map(|artifact| artifact.bytes).sum();
            memory::settle().is_none_or(|resident| resident > IDLE_BYTES_MAX + corpus)
        };
        !self.only
    }
}

/// One attempt; its exit code.
fn attempt(assignment: &Assignment, stop: &AtomicBool, desk: &mut Desk) -> i32 {
    if assignment.protocol != CHILD_PROTOCOL {
        let reason = format!("the worker speaks child protocol {}, this program {CHILD_PROTOCOL}", assignment.protocol);
        return broken(assignment, reason, false);
    }
    let cuda = assignment.run.numerics.engine == EngineKind::Cuda;
    let reserved = assignment.memory_bytes.filter(|_| cuda);
    // As the plan reserved it.
    let process = assignment.gpu_process_bytes.unwrap_or(GPU_PROCESS_BYTES);
    let options = Options {
        kernels: kernels(&assignment.checkpoints),
        gpu_memory: reserved.map(|bytes| bytes.saturating_sub(process)),
        threads: assignment.threads,
        device: assignment.device.clone(),
        checkpoints: Some(assignment.checkpoints.clone()),
        resume: assignment.resume.clone(),
        trunk_steps: assignment.trunk_steps.clone(),
        ..Options::default()
    };
    log(&format!(
        "attempt {} at run {} on {} with {} thread(s)",
        assignment.attempt,
        assignment.run_id.short(),
        assignment.device,
        assignment.threads
    ));
    let mut tell = |event: Event| {
        note(assignment, &event);
        if let Some(line) = line(assignment, event) {
            say(&line);
        }
        if stop.load(Ordering::SeqCst) { Control::Stop } else { Control::Continue }
    };
    let ended =
        desk.corpus(assignment).and_then(|dataset| isoloss_train::train(&assignment.run, dataset, &options, &mut tell));
    match ended {
        Ok(End::Outcome(result)) => {
            log(&said(&result));
            let (run_id, attempt) = (assignment.run_id, assignment.attempt);
            say(&FromChild::Outcome { run_id, attempt, result, again: desk.clear(stop) });
            EXIT_DONE
        }
        Ok(End::Yielded { step }) => {
            log(&format!("stopped as asked after step {step}"));
            EXIT_YIELDED
        }
        Err(error) if error.of_file().is_some_and(is_of_storage) => {
            log(&chain(&error));
            EXIT_STORAGE
        }
        Err(error) => match error.of_gpu() {
            Some(Fault::Service) => {
                log(&chain(&error));
                EXIT_DEVICE
            }
            Some(Fault::Context) => {
                log(&chain(&error));
                EXIT_CONTEXT
            }
            Some(Fault::Own) | None => broken(assignment, chain(&error), error.retry()),
        },
    }
}

fn broken(assignment: &Assignment, reason: String, retry: bool) -> i32 {
    log(&format!("failed: {reason}"));
    let result = Outcome::Failed(Failed { reason, retry });
    say(&FromChild::Outcome { run_id: assignment.run_id, attempt: assignment.attempt, result, again: false });
    if retry { EXIT_RETRY } else { EXIT_NO_RETRY }
}

/// A line for people, on stderr: the worker passes it on as the run's log.
fn log(text: &str) {
    print::note(&format!("isoloss train: {text}"));
}

/// What of an event people want to read later.
fn note(assignment: &Assignment, event: &Event) {
    match event {
        Event::Began { step: 0, steps } => log(&format!("starts, {steps} steps")),
        Event::Began { step, steps } => {
            let from = assignment.resume.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
            log(&format!("goes on after step {step} of {steps} from {from}"));
        }
        Event::Checkpoint { path, step, .. } => log(&format!("checkpoint after step {step}: {}", path.display())),
        Event::Progress { .. } | Event::Eval(_) => {}
    }
}

fn said(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Finished(run) => format!("finished with {:.4} bits per byte", run.score.bits_per_byte),
        Outcome::Diverged(run) => format!("diverged at step {}: {}", run.step, run.reason),
        Outcome::Failed(run) => format!("failed: {}", run.reason),
    }
}

/// The event as a line of the protocol, where the protocol knows it.
fn line(assignment: &Assignment, event: Event) -> Option<FromChild> {
    let (run_id, attempt) = (assignment.run_id, assignment.attempt);
    Some(match event {
        Event::Began { step, .. } => FromChild::Began { run_id, attempt, step },
        Event::Progress { step, steps, tokens, loss_nats, tokens_per_second, memory_bytes } => FromChild::Progress {
            run_id,
            attempt,
            step,
            steps,
            tokens: tokens.get(),
            loss_nats,
            tokens_per_second,
            memory_bytes,
        },
        Event::Eval(point) => FromChild::Eval {
            run_id,
            attempt,
            step: point.step,
            tokens: point.tokens.get(),
            loss_nats: point.loss_nats,
            bits_per_byte: point.bits_per_byte,
        },
        Event::Checkpoint { path, step, digest } => FromChild::Checkpoint { run_id, attempt, path, step, digest },
    })
}

/// A worker that no longer listens wants nothing more from this process.
fn say(line: &FromChild) {
    if orders::say(&mut io::stdout().lock(), line).is_err() {
        std::process::exit(EXIT_RETRY);
    }
}

/// The error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// SIGTERM and Ctrl-C ask for a checkpoint and an end.
fn stop_on_signal(stop: Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        std::thread::spawn(move || {
            runtime.block_on(crate::signal::wait());
            stop.store(true, Ordering::SeqCst);
        });
    }
}
