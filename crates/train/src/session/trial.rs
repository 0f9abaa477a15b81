//! A run as it would be made, for a moment: how fast it goes is measured, and nothing of it is kept.

use std::time::{Duration, Instant};

use isoloss_corpus::Dataset;
use isoloss_sweep::Run;

use super::attempt::{Attempt, Halt};
use super::{Control, Options, TrainError};
use crate::engine::{Engine, GpuMemory};

/// Groups of steps before the clock starts: the first of a run is one step, and tells how many to make together.
const GROUPS_BEFORE: usize = 2;

/// The same run without an end and with a learning rate of zero: however long it is timed it neither ends nor diverges.
pub fn endless(run: &Run) -> Run {
    let mut run = run.clone();
    run.train.steps = 1 << 32;
    run.train.learning_rate = 0.0;
    run
}

/// Tokens that went through the model, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub tokens: u64,
    pub seconds: f64,
}

/// An attempt that is at its first step for ever.
pub struct Trial<'a> {
    attempt: Attempt<'a>,
}

impl<'a> Trial<'a> {
    /// Everything that a run does before it goes at full speed: engine, first step, first point of its curve. `run` is an
    /// [`endless`] one.
    pub fn open(run: &'a Run, dataset: &'a Dataset, options: &'a Options) -> Result<Self, TrainError> {
        Self::begun(Attempt::open(run, dataset, options, silent())?)
    }

    /// On an engine that is there already.
    pub fn on(
        engine: Box<dyn Engine>,
        run: &'a Run,
        dataset: &'a Dataset,
        options: &'a Options,
    ) -> Result<Self, TrainError> {
        Self::begun(Attempt::on(engine, run, dataset, options, silent())?)
    }

    fn begun(attempt: Attempt<'a>) -> Result<Self, TrainError> {
        let mut trial = Self { attempt };
        trial.steps()?;
        trial.score()?;
        Ok(trial)
    }

    /// Trains for so long at least, as a run does that is under way.
    pub fn train(&mut self, time: Duration) -> Result<Pace, TrainError> {
        for _ in 0..GROUPS_BEFORE {
            self.steps()?;
        }
        let (begun, mut tokens) = (Instant::now(), 0);
        while tokens == 0 || begun.elapsed() < time {
            tokens += self.steps()?;
        }
        Ok(Pace { tokens, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Scores the text of curve points for so long at least.
    pub fn evaluate(&mut self, time: Duration) -> Result<Pace, TrainError> {
        let (begun, mut tokens) = (Instant::now(), 0);
        while tokens == 0 || begun.elapsed() < time {
            tokens += self.score()?;
        }
        Ok(Pace { tokens, seconds: begun.elapsed().as_secs_f64() })
    }

    /// Writes a checkpoint into the folder of the options; says how many seconds that took.
    pub fn save(&mut self) -> Result<f64, TrainError> {
        let begun = Instant::now();
        self.attempt.save()?;
        Ok(begun.elapsed().as_secs_f64())
    }

    pub fn gpu_memory(&self) -> Option<GpuMemory> {
        self.attempt.gpu_memory()
    }

    /// Tokens of a step, and of a point of the curve.
    pub fn tokens(&self) -> (u64, u64) {
        (self.attempt.tokens_of(1).get(), self.attempt.curve_tokens())
    }

    /// What was trained on.
    fn steps(&mut self) -> Result<u64, TrainError> {
        let before = self.attempt.steps_made();
        broken(self.attempt.advance())?;
        Ok(self.attempt.tokens_of(self.attempt.steps_made() - before).get())
    }

    /// What was scored.
    fn score(&mut self) -> Result<u64, TrainError> {
        broken(self.attempt.point().map(drop))?;
        Ok(self.attempt.curve_tokens())
    }
}

/// A loss without sense makes a step no slower.
fn broken(ended: Result<(), Halt>) -> Result<(), TrainError> {
    match ended {
        Err(Halt::Broken(error)) => Err(error),
        Ok(()) | Err(Halt::Stopped | Halt::Diverged(_)) => Ok(()),
    }
}

/// Nobody listens. It holds nothing, so nothing is lost with it.
fn silent<'a>() -> &'a mut dyn FnMut(super::Event) -> Control {
    Box::leak(Box::new(|_| Control::Continue))
}
