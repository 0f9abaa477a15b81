//! `trial`: what the probe starts, as a worker starts `train`. Orders on stdin, an answer to each as a line of JSON on
//! stdout: a run is opened as it would be made, and timed. It decides nothing about what to time or what that means.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use isoloss_corpus::Dataset;
use isoloss_sweep::Run;
use isoloss_sweep::run::EngineKind;
use isoloss_train::cuda::cards;
use isoloss_train::session::{Options, Pace, TrainError, Trial, endless};
use serde::{Deserialize, Serialize};

/// What the probe asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum Order {
    Open(Box<Task>),
    Train {
        seconds: f64,
    },
    Evaluate {
        seconds: f64,
    },
    Save,
    /// Says what memory of the GPU is free.
    Look,
    Close,
}

/// A run to be timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) run: Run,
    /// Folder of the corpus.
    pub(crate) corpus: PathBuf,
    /// Where compiled kernels are kept.
    pub(crate) kernels: PathBuf,
    /// Folder for a checkpoint, which nobody needs.
    pub(crate) scratch: PathBuf,
    /// Memory of the GPU that the engine may take, bytes.
    pub(crate) gpu_memory: Option<u64>,
}

/// One answer to each order, and `Ready` at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(crate) enum Answer {
    Ready,
    Opened(Opened),
    Paced {
        tokens: u64,
        seconds: f64,
    },
    Saved {
        seconds: f64,
    },
    Free {
        bytes: Option<u64>,
    },
    Closed,
    /// The last answer of this process.
    Failed {
        reason: String,
    },
}

/// A run that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// Reading the corpus, which a process does once.
    pub(crate) corpus_seconds: f64,
    /// From nothing to the end of the first step and the first point of the curve.
    pub(crate) seconds: f64,
    /// Tokens of these.
    pub(crate) step_tokens: u64,
    pub(crate) point_tokens: u64,
    pub(crate) block_bytes: Option<u64>,
}

pub(crate) fn run() -> ExitCode {
    isoloss_worker::die_with_parent();
    // Wakes the driver, so that it is not counted with the first run. A process without one is told so by its run.
    let _ = cards();
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Obeys until the orders end or a run breaks.
fn serve(orders: &mut dyn BufRead, answers: &mut dyn Write) -> io::Result<()> {
    say(answers, &Answer::Ready)?;
    while let Some(order) = next(orders)? {
        let ended = match order {
            Order::Open(task) => hold(&task, orders, answers)?,
            _ => Err("nothing is open".to_owned()),
        };
        if let Err(reason) = ended {
            // A device that broke may stay broken: the process is not used again.
            say(answers, &Answer::Failed { reason: reason.clone() })?;
            return Err(io::Error::other(reason));
        }
        say(answers, &Answer::Closed)?;
    }
    Ok(())
}

/// Holds one run until it is closed or the orders end. The inner error is the run's.
fn hold(task: &Task, orders: &mut dyn BufRead, answers: &mut dyn Write) -> io::Result<Result<(), String>> {
    let worded = |error: TrainError| error.to_string();
    let begun = Instant::now();
    let dataset = match Dataset::open(&task.corpus) {
        Ok(dataset) => dataset,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let corpus_seconds = begun.elapsed().as_secs_f64();
    let run = endless(&task.run);
    let options = Options {
        kernels: task.kernels.clone(),
        gpu_memory: task.gpu_memory.filter(|_| run.numerics.engine == EngineKind::Cuda),
        checkpoints: Some(task.scratch.clone()),
        ..Options::default()
    };
    let begun = Instant::now();
    let mut trial = match Trial::open(&run, &dataset, &options) {
        Ok(trial) => trial,
        Err(error) => return Ok(Err(worded(error))),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (step_tokens, point_tokens) = trial.tokens();
    let block_bytes = trial.gpu_memory().map(|memory| memory.taken);
    say(answers, &Answer::Opened(Opened { corpus_seconds, seconds, step_tokens, point_tokens, block_bytes }))?;
    while let Some(order) = next(orders)? {
        let paced = |pace: Pace| Answer::Paced { tokens: pace.tokens, seconds: pace.seconds };
        let answer = match order {
            Order::Train { seconds } => trial.train(time(seconds)).map(paced),
            Order::Evaluate { seconds } => trial.evaluate(time(seconds)).map(paced),
            Order::Save => trial.save().map(|seconds| Answer::Saved { seconds }),
            Order::Look => Ok(Answer::Free { bytes: trial.gpu_memory().and_then(|memory| memory.free) }),
            Order::Open(_) => return Ok(Err("a run is open already".to_owned())),
            Order::Close => return Ok(Ok(())),
        };
        match answer {
            Ok(answer) => say(answers, &answer)?,
            Err(error) => return Ok(Err(worded(error))),
        }
    }
    Ok(Ok(()))
}

fn time(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn next(orders: &mut dyn BufRead) -> io::Result<Option<Order>> {
    let mut line = String::new();
    if orders.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

fn say(answers: &mut dyn Write, answer: &Answer) -> io::Result<()> {
    serde_json::to_writer(&mut *answers, answer)?;
    answers.write_all(b"\n")?;
    answers.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample;

    /// A run on cores: the process that times runs does not care which engine.
    fn task(dir: &std::path::Path) -> Task {
        let toml = "schema = 1\nname = 't'\n[corpus]\nsource = 'synthetic'\nbytes = '300kB'\n[model]\ncontext = 32\n\
                    params = '3k'\n[axes]\ntokens = ['60k']\n[train]\nengine = 'cpu'\nbatch = 4\n";
        let plan = sample::planned(dir, toml);
        let run = plan.runs[0].run.clone();
        let corpus = dir.join("corpora").join(run.data.corpus.to_string());
        let scratch = dir.join("scratch");
        std::fs::create_dir_all(&scratch).unwrap();
        Task { run, corpus, kernels: dir.join("kernels"), scratch, gpu_memory: None }
    }

    fn answers(orders: &[Order]) -> Vec<Answer> {
        let lines: Vec<String> = orders.iter().map(|order| serde_json::to_string(order).unwrap() + "\n").collect();
        let mut said = Vec::new();
        let _ = serve(&mut lines.concat().as_bytes(), &mut said);
        said.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    #[test]
    fn orders_are_answered_one_by_one_and_a_second_run_follows_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let task = Box::new(task(dir.path()));
        let (open, seconds) = (Order::Open(task), 0.02);
        let timed = [Order::Train { seconds }, Order::Evaluate { seconds }, Order::Save, Order::Look, Order::Close];
        let orders = [&[open.clone()][..], &timed, &[open, Order::Close]].concat();
        let said = answers(&orders);
        let [Answer::Ready, Answer::Opened(opened), trained, evaluated, saved, free, Answer::Closed, again, last] =
            &said[..]
        else {
            panic!("{said:?}")
        };
        assert_eq!((opened.step_tokens, opened.block_bytes), (4 * 32, None));
        assert!(opened.point_tokens > 0 && opened.seconds > 0.0 && opened.corpus_seconds > 0.0);
        assert!(matches!(trained, Answer::Paced { tokens, seconds } if *tokens >= 256 && *seconds >= 0.02), "{said:?}");
        assert!(matches!(evaluated, Answer::Paced { tokens, .. } if tokens.is_multiple_of(opened.point_tokens)));
        assert!(matches!(saved, Answer::Saved { seconds } if *seconds > 0.0));
        assert_eq!((free, last), (&Answer::Free { bytes: None }, &Answer::Closed));
        assert!(matches!(again, Answer::Opened(_)));
    }

    #[test]
    fn what_cannot_be_done_is_the_last_answer() {
        let dir = tempfile::tempdir().unwrap();
        let mut lost = task(dir.path());
        lost.corpus = dir.path().join("nowhere");
        let open = Order::Open(Box::new(lost));
        let said = answers(&[open.clone(), open]);
        assert!(
            matches!(&said[..], [Answer::Ready, Answer::Failed { reason }] if reason.contains("nowhere")),
            "{said:?}"
        );
        assert!(matches!(&answers(&[Order::Save])[..], [Answer::Ready, Answer::Failed { .. }]));
    }
}
