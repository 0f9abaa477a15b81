//! The inner life of one attempt: the loop over steps, when to score and save, and the outcome it adds up to.

use std::sync::Arc;
use std::time::Instant;

use isoloss_corpus::{Dataset, Sampler, Scoring};
use isoloss_sweep::outcome::{Cost, CurvePoint, Diverged, Finished, Provenance, Score};
use isoloss_sweep::run::Schedule;
use isoloss_sweep::{Flops, Run, Tokens};

use super::reporter::Reporter;
use super::{Control, Event, Options, TrainError};
use crate::assess::{self, Assessment};
use crate::checkpoint::{Checkpoint, Snapshot};
use crate::engine::{Batch, Engine, GpuMemory, StepReport, Update};
use crate::init::initial_state;
use crate::ledger::Ledger;
use crate::memory;
use crate::select::build;

/// Steps that are made together take at most about so long: between them the attempt says that it lives, and can stop.
const TOGETHER_SECONDS: f64 = 0.5;

/// A training loss above this many times that of a uniform guess, after warmup, is divergence.
const LOSS_CEILING_RATIO: f64 = 1.5;

/// Why the loop ended early.
pub(super) enum Halt {
    Stopped,
    Diverged(String),
    Broken(TrainError),
}

impl<E: Into<TrainError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

pub(super) struct Attempt<'a> {
    run: &'a Run,
    options: &'a Options,
    dataset: &'a Dataset,
    /// The run whose learning rate is followed: without decay for a trunk.
    schedule: Run,
    engine: Box<dyn Engine>,
    sampler: Sampler,
    /// The validation text of curve points.
    curve: Arc<Scoring>,
    ledger: Ledger,
    reporter: Reporter<'a>,
    /// Optimizer steps made, and where they end.
    step: u64,
    end: u64,
    started: Instant,
    saved: Instant,
    /// Batches of the steps that are made together, one after the other, and seconds of one such step when last measured.
    batches: Vec<Vec<u32>>,
    step_seconds: Option<f64>,
}

impl<'a> Attempt<'a> {
    pub(super) fn open(
        run: &'a Run,
        dataset: &'a Dataset,
        options: &'a Options,
        events: &'a mut dyn FnMut(Event) -> Control,
    ) -> Result<Self, TrainError> {
        fits(run, dataset)?;
        let engine = build(run, options)?;
        Self::on(engine, run, dataset, options, events)
    }

    /// On an engine that is there already.
    pub(super) fn on(
        mut engine: Box<dyn Engine>,
        run: &'a Run,
        dataset: &'a Dataset,
        options: &'a Options,
        events: &'a mut dyn FnMut(Event) -> Control,
    ) -> Result<Self, TrainError> {
        let started = Instant::now();
        let (ledger, step) = start(run, options, engine.as_mut())?;
        let context = run.model.context;
        let sampler = dataset.sampler(context, run.train.seed, run.data.tokens_unique)?;
        let curve = dataset.scoring(context, run.data.curve_bytes);
        if curve.tokens_scored() == 0 {
            return Err(TrainError::NothingToScore(run.data.curve_bytes));
        }
        let mut schedule = run.clone();
        let trunk_end = options.trunk_steps.last();
        if trunk_end.is_some() {
            schedule.train.schedule = Schedule::Wsd { decay_steps: 0 };
            schedule.train.steps = u64::MAX;
        }
        let end = trunk_end.copied().unwrap_or(run.train.steps);
        Ok(Self {
            run,
            options,
            dataset,
            schedule,
            engine,
            sampler,
            curve: Arc::new(curve),
            ledger,
            reporter: Reporter::new(events, options.report_interval, end),
            step,
            end,
            started,
            saved: started,
            batches: Vec::new(),
            step_seconds: None,
        })
    }

    /// Trains to the end and scores the result.
    pub(super) fn complete(&mut self) -> Result<Finished, Halt> {
        // Asked to stop already, it stops at the first step.
        self.reporter.tell(Event::Began { step: self.step, steps: self.end });
        loop {
            let known = self.ledger.curve.last().is_some_and(|point| point.step == self.step);
            if !known && assess::due(self.step, self.run, &self.curve) {
                let point = self.point()?;
                self.ledger.curve.push(point);
            }
            if self.step >= self.end {
                break;
            }
            if self.options.trunk_steps.contains(&self.step) || self.saved.elapsed() >= self.options.checkpoint_interval
            {
                self.save()?;
            }
            self.advance()?;
        }
        self.save()?;
        self.finish()
    }

    /// Some optimizer steps: one, or as many as the engine likes to make before it is asked for their reports.
    pub(super) fn advance(&mut self) -> Result<(), Halt> {
        let count = self.together();
        let train = &self.run.train;
        self.batches.resize(count, Vec::new());
        for (step, tokens) in (self.step..).zip(&mut self.batches) {
            self.sampler.fill(step, train.batch, tokens);
        }
        let begun = Instant::now();
        let (sequences, context) = (train.batch as usize, self.run.model.context as usize);
        let batches: Vec<Batch<'_>> = self.batches.iter().map(|tokens| Batch { tokens, sequences, context }).collect();
        let updates: Vec<Update> = (self.step..).take(count).map(|step| self.update(step)).collect();
        let reports = self.engine.steps(&batches, &updates)?;
        let seconds = begun.elapsed().as_secs_f64();
        self.step_seconds = Some(seconds / count as f64);
        self.ledger.seconds_training += seconds;
        for report in reports {
            self.step += 1;
            let tokens = self.tokens_of(1);
            self.ledger.record(self.step, &report);
            self.ledger.tokens_timed += tokens.get();
            self.ledger.flops_spent += self.run.model.training_flops(tokens).get();
            self.judge(&report)?;
        }
        self.pulse(self.step == self.end)
    }

    /// How many steps to make before anything else is due; the first is made alone, to learn how long it takes.
    fn together(&self) -> usize {
        let Some(seconds) = self.step_seconds else { return 1 };
        let most = (TOGETHER_SECONDS / seconds.max(1e-6)) as u64;
        let most = most.clamp(1, self.engine.together() as u64).min(self.end - self.step);
        let stops = |&count: &u64| {
            let step = self.step + count;
            self.options.trunk_steps.contains(&step) || assess::due(step, self.run, &self.curve)
        };
        (1..most).find(stops).unwrap_or(most) as usize
    }

    fn update(&self, step: u64) -> Update {
        let train = &self.run.train;
        Update {
            step,
            learning_rate: self.schedule.learning_rate(step),
            weight_decay: train.weight_decay,
            beta1: train.beta1,
            beta2: train.beta2,
            epsilon: train.epsilon,
            clip: train.clip,
        }
    }

    /// Whether the loss is still in the range of sense.
    fn judge(&self, report: &StepReport) -> Result<(), Halt> {
        let (loss, norm) = (report.loss_nats, report.gradient_norm);
        if !loss.is_finite() || !norm.is_finite() {
            return Err(Halt::Diverged(format!("training loss {loss}, gradient norm {norm}")));
        }
        let ceiling = LOSS_CEILING_RATIO * f64::from(self.run.model.vocab).ln();
        if self.step > self.run.train.warmup_steps && loss > ceiling {
            return Err(Halt::Diverged(format!("training loss {loss:.3} is above the ceiling of {ceiling:.3} nats")));
        }
        Ok(())
    }

    fn pulse(&mut self, always: bool) -> Result<(), Halt> {
        let tokens = self.tokens_of(self.step);
        match self.reporter.progress(self.step, tokens, &self.ledger, always) {
            Control::Continue => Ok(()),
            Control::Stop => Err(Halt::Stopped),
        }
    }

    /// The validation score now, as a point of the curve.
    pub(super) fn point(&mut self) -> Result<CurvePoint, Halt> {
        let assessment = self.assess(&Arc::clone(&self.curve))?;
        let point = CurvePoint {
            step: self.step,
            tokens: self.tokens_of(self.step),
            loss_nats: assessment.score.loss_nats,
            bits_per_byte: assessment.score.bits_per_byte,
            train_loss_nats: self.ledger.last_loss(),
        };
        match self.reporter.tell(Event::Eval(point)) {
            Control::Continue => Ok(point),
            Control::Stop => Err(Halt::Stopped),
        }
    }

    fn assess(&mut self, scoring: &Scoring) -> Result<Assessment, Halt> {
        let (step, tokens) = (self.step, self.tokens_of(self.step));
        let (reporter, ledger) = (&mut self.reporter, &self.ledger);
        let mut pulse = || reporter.progress(step, tokens, ledger, false) == Control::Stop;
        let found = assess::assess(self.engine.as_mut(), scoring, &self.run.model, &mut pulse)?;
        let assessment = found.ok_or(Halt::Stopped)?;
        self.ledger.flops_evaluation += assessment.flops;
        let Score { loss_nats, .. } = assessment.score;
        if loss_nats.is_finite() { Ok(assessment) } else { Err(Halt::Diverged(format!("validation loss {loss_nats}"))) }
    }

    /// Writes a checkpoint, if there is a folder for it; says of which step.
    pub(super) fn save(&mut self) -> Result<u64, TrainError> {
        self.saved = Instant::now();
        let Some(dir) = &self.options.checkpoints else {
            return Ok(self.step);
        };
        let mut ledger = self.ledger.clone();
        ledger.seconds = self.seconds();
        let state = self.engine.state()?;
        let snapshot =
            Snapshot { run: self.run, trunk: !self.options.trunk_steps.is_empty(), state: &state, ledger: &ledger };
        let written = snapshot.write(dir, &self.options.trunk_steps)?;
        self.reporter.tell(Event::Checkpoint { path: written.path, step: self.step, digest: written.digest });
        Ok(self.step)
    }

    pub(super) fn diverged(self, reason: String) -> Diverged {
        Diverged { step: self.step, reason, seconds: self.seconds(), curve: self.ledger.curve, gpu: None }
    }

    /// The final score, on its own validation text, and everything else that is kept for ever.
    fn finish(&mut self) -> Result<Finished, Halt> {
        let mut curve = self.ledger.curve.clone();
        if curve.last().is_none_or(|point| point.step != self.step) {
            curve.push(self.point()?);
        }
        let scoring = self.dataset.scoring(self.run.model.context, self.run.data.scored_bytes);
        let Assessment { score, load, .. } = self.assess(&scoring)?;
        let model = &self.run.model;
        let tokens = self.tokens_of(self.end);
        let part = &self.dataset.manifest().train;
        let ledger = &self.ledger;
        let routing = |experts| assess::routing(experts, &load, ledger.dropped_fraction());
        Ok(Finished {
            params: model.param_counts(),
            steps: self.end,
            tokens,
            tokens_unique: self.sampler.tokens_unique().min(tokens),
            bytes: (tokens.as_f64() * part.bytes as f64 / part.tokens.as_f64()).round() as u64,
            flops: model.training_flops(tokens),
            flops_6nd: model.flops_6nd(tokens),
            flops_spent: Flops(ledger.flops_spent),
            flops_evaluation: Flops(ledger.flops_evaluation),
            score,
            train_loss_nats: ledger.train_loss(self.end),
            curve,
            routing: model.experts.as_ref().map(routing),
            cost: Cost {
                seconds: self.seconds(),
                tokens_per_second: ledger.tokens_per_second(),
                peak_memory_bytes: memory::peak_bytes(),
                gpu_memory_bytes: self.gpu_memory().map(|memory| memory.taken),
            },
            provenance: Provenance {
                device: self.options.device.clone(),
                instruction_set: self.engine.instruction_set(),
                threads: self.options.threads,
                code_version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            gpu: None,
        })
    }

    pub(super) fn steps_made(&self) -> u64 {
        self.step
    }

    /// Tokens that go through the model for a point of the curve.
    pub(super) fn curve_tokens(&self) -> u64 {
        (self.curve.windows() * self.curve.context()) as u64
    }

    pub(super) fn gpu_memory(&self) -> Option<GpuMemory> {
        self.engine.gpu_memory()
    }

    pub(super) fn tokens_of(&self, steps: u64) -> Tokens {
        Tokens(steps * u64::from(self.run.train.batch) * u64::from(self.run.model.context))
    }

    /// Wall time of this attempt and of those it goes on from.
    fn seconds(&self) -> f64 {
        self.ledger.seconds + self.started.elapsed().as_secs_f64()
    }
}

/// That the corpus is the run's.
fn fits(run: &Run, dataset: &Dataset) -> Result<(), TrainError> {
    let manifest = dataset.manifest();
    if manifest.digest != run.data.corpus {
        return Err(TrainError::WrongCorpus { wanted: run.data.corpus, found: manifest.digest });
    }
    if manifest.vocab != run.model.vocab {
        return Err(TrainError::WrongVocabulary { wanted: run.model.vocab, found: manifest.vocab });
    }
    Ok(())
}

/// Gives the engine its first state; says what is known of the steps behind it, and how many they are.
fn start(run: &Run, options: &Options, engine: &mut dyn Engine) -> Result<(Ledger, u64), TrainError> {
    let Some(path) = &options.resume else {
        engine.restore(initial_state(&run.model, run.train.seed))?;
        return Ok((Ledger::default(), 0));
    };
    let checkpoint = Checkpoint::read(path)?;
    let trunk = !options.trunk_steps.is_empty();
    checkpoint.admit(run, options.trunk_steps.last().copied(), path)?;
    let own = checkpoint.trunk == trunk && checkpoint.run == *run;
    let step = checkpoint.state.step;
    engine.restore(checkpoint.state)?;
    let ledger = checkpoint.ledger;
    Ok((if own { ledger } else { ledger.branched() }, step))
}
