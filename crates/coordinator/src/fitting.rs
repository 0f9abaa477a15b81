//! Fits on demand, over whatever results a sweep has so far. Equal results and equal questions are fitted once. The
//! arithmetic is the `fit` crate's.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use isoloss_fit::observation::{Exclusion, LossUnit, Observation, Observations};
use isoloss_fit::settings::Settings;
use isoloss_fit::{Asked, NotAsked};
use isoloss_sweep::spec::FitSpec;
use isoloss_sweep::{Digest, Outcome, SweepId};
use isoloss_wire::api::FitQuery;
use serde_json::Value;
use tokio::sync::Semaphore;

/// A question asks for at most this many resamples: a fit must not hold the coordinator for minutes.
const RESAMPLES_MAX: usize = 10_000;
/// Answers kept.
const ANSWERS_MAX: usize = 64;

/// A question that is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FitError {
    #[error("{0}")]
    Question(String),
    #[error("the fit broke: {0}")]
    Broke(String),
}

/// A run's result with the arm by which the sweep knows it.
pub(crate) struct ArmResult {
    pub(crate) arm: String,
    pub(crate) run: isoloss_sweep::Run,
    pub(crate) outcome: Outcome,
}

/// Fits and their answers.
#[derive(Debug)]
pub(crate) struct Fits {
    answers: Mutex<VecDeque<(Digest, Arc<Value>)>>,
    /// The last answer about each of the sweeps that were asked about last, all of its arms.
    newest: Mutex<VecDeque<(SweepId, Arc<Value>)>>,
    /// One fit at a time: the cores belong to training.
    turn: Semaphore,
}

impl Fits {
    pub(crate) fn new() -> Self {
        Self { answers: Mutex::default(), newest: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// The fit's record as JSON.
    pub(crate) async fn answer(
        &self,
        results: Vec<ArmResult>,
        spec: &FitSpec,
        query: &FitQuery,
    ) -> Result<Arc<Value>, FitError> {
        let mut settings = settings(spec, query)?;
        // The generator of a synthetic text knows the entropy of the scored bytes.
        settings.entropy = results.iter().find_map(|result| match &result.outcome {
            Outcome::Finished(finished) => finished.score.true_bits_per_byte,
            Outcome::Diverged(_) | Outcome::Failed(_) => None,
        });
        let observations = observe(results, query.arm.as_deref());
        let key = Digest::of_json(&(observations.digest(), observations.excluded(), format!("{settings:?}")));
        let _turn = self.turn.acquire().await.map_err(|error| FitError::Broke(error.to_string()))?;
        if let Some(answer) = self.known(key) {
            return Ok(answer);
        }
        let fitting = tokio::task::spawn_blocking(move || {
            serde_json::to_value(isoloss_fit::fit(&observations, &settings, &mut |_| {}))
        });
        let record = fitting.await.map_err(|error| FitError::Broke(error.to_string()))?;
        let answer = Arc::new(record.map_err(|error| FitError::Broke(error.to_string()))?);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push_front((key, answer.clone()));
        answers.truncate(ANSWERS_MAX);
        Ok(answer)
    }

    /// Remembers what was answered about a sweep.
    pub(crate) fn remember(&self, sweep_id: SweepId, answer: Arc<Value>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.retain(|(known, _)| *known != sweep_id);
        newest.push_front((sweep_id, answer));
        newest.truncate(ANSWERS_MAX);
    }

    /// What was last answered about a sweep.
    pub(crate) fn newest(&self, sweep_id: SweepId) -> Option<Arc<Value>> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.iter().find(|(known, _)| *known == sweep_id).map(|(_, answer)| answer.clone())
    }

    fn known(&self, key: Digest) -> Option<Arc<Value>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().find(|(known, _)| *known == key).map(|(_, answer)| answer.clone())
    }
}

/// Finished runs as observations in bits per byte; the others are named with their reason.
fn observe(results: Vec<ArmResult>, arm: Option<&str>) -> Observations {
    let mut rows = Vec::new();
    let mut excluded = Vec::new();
    for result in results.into_iter().filter(|result| arm.is_none_or(|arm| arm == result.arm)) {
        let id = result.run.id().to_string();
        match result.outcome {
            Outcome::Finished(finished) => {
                rows.push(Observation::of_run(result.arm, &result.run, &finished, LossUnit::BitsPerByte));
            }
            Outcome::Diverged(diverged) => {
                rows.push(Observation::of_diverged(result.arm, &result.run));
                excluded.push(Exclusion { id, reason: format!("diverged at step {}", diverged.step) });
            }
            Outcome::Failed(failed) => excluded.push(Exclusion { id, reason: format!("failed: {}", failed.reason) }),
        }
    }
    Observations::new(rows, excluded, "params_active_non_embedding")
}

/// The sweep's own wishes, and what the question says otherwise.
fn settings(spec: &FitSpec, query: &FitQuery) -> Result<Settings, FitError> {
    let unclear = |error: &dyn std::fmt::Display| FitError::Question(error.to_string());
    let mut settings = Settings::default();
    let percent = (spec.holdout.fraction * 100.0).clamp(1.0, 50.0);
    let rule = format!("largest {percent}% by {}", measure(spec.holdout.by));
    settings.holdout = rule.parse().map_err(|error| unclear(&error))?;
    settings.best_of = match &query.best_of {
        None => spec.best_of.clone(),
        Some(names) => names.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|error| unclear(&error))?,
    };
    let law = query.law.as_deref().or(match spec.laws.as_slice() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    if let Some(law) = law {
        settings.laws = law.parse().map_err(|error| unclear(&error))?;
    }
    settings.budget = query.budget.or(spec.target.and_then(|target| target.flops));
    (settings.serve_tokens, settings.params_max) = (query.serve_tokens, query.params_max);
    for amount in settings.serve_tokens.iter().chain(&settings.params_max) {
        if !(amount.is_finite() && *amount > 0.0) {
            return Err(FitError::Question(format!("expected a positive amount, got {amount}")));
        }
    }
    if let Some(budget) = settings.budget
        && !(budget.is_finite() && budget > 0.0)
    {
        return Err(FitError::Question(format!("expected a positive budget, got {budget}")));
    }
    if let Some(resamples) = query.resamples {
        settings.resamples = resamples.min(RESAMPLES_MAX);
    }
    if let Some((Some(params), Some(tokens))) = spec.target.map(|target| (target.params, target.tokens)) {
        settings.predict.push(Asked::dense(params, tokens));
    }
    for point in query.predict.iter().flat_map(|points| points.split(';')) {
        settings.predict.push(point.parse().map_err(|error: NotAsked| unclear(&error))?);
    }
    Ok(settings)
}

fn measure(by: isoloss_sweep::spec::Measure) -> &'static str {
    match by {
        isoloss_sweep::spec::Measure::Flops => "flops",
        isoloss_sweep::spec::Measure::Params => "params",
        isoloss_sweep::spec::Measure::Tokens => "tokens",
    }
}
