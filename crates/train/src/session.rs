//! One attempt at a run, from its first or resumed step to its end: data, learning rate, curve, checkpoints, divergence.
//!
//! It knows no network, store or lease: what happens is told to a callback, which can also ask it to stop.

mod attempt;
mod reporter;
#[cfg(test)]
mod tests;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use isoloss_corpus::{Dataset, DatasetError};
use isoloss_sweep::outcome::CurvePoint;
use isoloss_sweep::{Digest, Outcome, Run, Tokens};

use crate::checkpoint::CheckpointError;
use crate::engine::EngineError;
use attempt::{Attempt, Halt};

pub use isoloss_gpu::Fault;
pub use trial::{Pace, Trial, endless};

/// How to go about a run, none of which can change its result.
#[derive(Debug, Clone)]
pub struct Options {
    pub threads: u32,
    /// Where compiled GPU kernels are kept from run to run.
    pub kernels: PathBuf,
    /// GPU memory that the run may take, bytes; all that is free if `None`.
    pub gpu_memory: Option<u64>,
    /// For the provenance: for example `cpu:0-1` or a GPU's UUID.
    pub device: String,
    /// Folder for this run's checkpoints; `None` writes none.
    pub checkpoints: Option<PathBuf>,
    /// Checkpoint to go on from.
    pub resume: Option<PathBuf>,
    /// Set for a trunk, ascending: a checkpoint at each of these steps, the end at the last, no decay.
    pub trunk_steps: Vec<u64>,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// Least time between reports of progress.
    pub report_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            kernels: PathBuf::from("isoloss-kernels"),
            gpu_memory: None,
            device: "cpu".to_owned(),
            checkpoints: None,
            resume: None,
            trunk_steps: Vec::new(),
            checkpoint_interval: Duration::from_secs(60),
            report_interval: Duration::from_millis(500),
        }
    }
}

/// What happens during an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Once, when all is ready: after how many steps this attempt begins, and where it ends.
    Began {
        step: u64,
        steps: u64,
    },
    /// After the first and the last step, and at intervals; also while scoring, as a sign of life.
    Progress {
        step: u64,
        steps: u64,
        tokens: Tokens,
        loss_nats: f64,
        tokens_per_second: f64,
        memory_bytes: u64,
    },
    Eval(CurvePoint),
    Checkpoint {
        path: PathBuf,
        step: u64,
        digest: Digest,
    },
}

/// The callback's answer to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    Continue,
    /// Write a checkpoint and end with [`End::Yielded`].
    Stop,
}

/// How an attempt ended that did not break.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// `Finished` or `Diverged`. A trunk's is scored at its last step, undecayed.
    Outcome(Outcome),
    /// Stopped as asked, after this step; the newest checkpoint is of it.
    Yielded { step: u64 },
}

/// What an attempt can break on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("the corpus is {found}, the run wants {wanted}")]
    WrongCorpus { wanted: Digest, found: Digest },
    #[error("the corpus has a vocabulary of {found} tokens, the model {wanted}")]
    WrongVocabulary { wanted: u32, found: u32 },
    #[error("nothing to score: the validation text within {0} bytes is empty")]
    NothingToScore(u64),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl TrainError {
    /// What the operating system said where a file could not be read or written.
    pub fn of_file(&self) -> Option<&std::io::Error> {
        match self {
            Self::Dataset(DatasetError::Unreadable { source, .. })
            | Self::Checkpoint(CheckpointError::Io { source, .. }) => Some(source),
            _ => None,
        }
    }

    /// Whose fault it is, where a GPU broke.
    pub fn of_gpu(&self) -> Option<Fault> {
        match self {
            Self::Engine(EngineError::Gpu(error)) => Some(error.fault()),
            Self::Engine(EngineError::Full(_)) => Some(Fault::Service),
            _ => None,
        }
    }

    /// Whether another attempt may succeed where this one failed.
    pub fn retry(&self) -> bool {
        match self {
            Self::WrongCorpus { .. } | Self::WrongVocabulary { .. } | Self::NothingToScore(_) => false,
            Self::Engine(error) => matches!(error, EngineError::Tensor(_) | EngineError::Gpu(_) | EngineError::Full(_)),
            Self::Dataset(error) => matches!(error, DatasetError::Unreadable { .. }),
            Self::Checkpoint(error) => matches!(error, CheckpointError::Io { .. }),
        }
    }
}

/// Trains `run` on `dataset`, from its beginning or from `options.resume`.
pub fn train(
    run: &Run,
    dataset: &Dataset,
    options: &Options,
    events: &mut dyn FnMut(Event) -> Control,
) -> Result<End, TrainError> {
    ended(Attempt::open(run, dataset, options, events)?)
}

/// Trains on an engine that is there already.
#[cfg(test)]
pub(crate) fn train_on(
    engine: Box<dyn crate::engine::Engine>,
    run: &Run,
    dataset: &Dataset,
    options: &Options,
    events: &mut dyn FnMut(Event) -> Control,
) -> Result<End, TrainError> {
    ended(Attempt::on(engine, run, dataset, options, events)?)
}

fn ended(mut attempt: Attempt<'_>) -> Result<End, TrainError> {
    match attempt.complete() {
        Ok(finished) => Ok(End::Outcome(Outcome::Finished(Box::new(finished)))),
        Err(Halt::Diverged(reason)) => Ok(End::Outcome(Outcome::Diverged(attempt.diverged(reason)))),
        Err(Halt::Stopped) => Ok(End::Yielded { step: attempt.save()? }),
        Err(Halt::Broken(error)) => Err(error),
    }
}
