//! From a sweep file to its plan: read, survey, plan, admit. `isoloss plan` and a submission both come this way. It
//! stores nothing but surveyed corpora and the files of trainers.

mod blame;
mod files;
mod reach;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isoloss_corpus::{CorpusError, Stage};
use isoloss_store::{Admission, Branch, PRIORITY_USUAL, Planned, Retry};
use isoloss_sweep::corpus::{CorpusSpec, Source, TokenizerSpec, Validation};
use isoloss_sweep::plan::{Capabilities, Inputs, Probe, Refusal, Survey, Trunk};
use isoloss_sweep::{Manifest, Plan, PlanError, Run, RunId, SpecError, SweepSpec};
use isoloss_wire::api::Submit;
use jiff::Timestamp;

pub use reach::Reach;

/// What planning needs to know of the place where it happens.
#[derive(Debug, Clone)]
pub struct Site {
    pub corpora_dir: PathBuf,
    /// Files of trainers by digest.
    pub trainers_dir: PathBuf,
    pub capabilities: Capabilities,
    pub probe: Option<Probe>,
    /// Which files its corpora and trainers may be made of.
    pub reach: Reach,
}

/// A planned sweep with the corpora it was planned on.
#[derive(Debug, Clone)]
pub struct Planning {
    pub plan: Plan,
    pub manifests: Vec<Manifest>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanningError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No fault of the sweep: a disk that is full or fails, mostly.
    #[error("{file}: cannot make the corpus: {source}")]
    Corpus { file: String, source: CorpusError },
    #[error("{file}: cannot keep the trainer's file {path}: {source}")]
    TrainerFile { file: String, path: String, source: std::io::Error },
}

impl PlanningError {
    /// Whether the sweep is sound but too expensive.
    pub fn is_over_budget(&self) -> bool {
        matches!(self, Self::Plan(error) if error.refusal == Refusal::Budget)
    }

    /// Whether the sweep may be sound, and this machine is at fault.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::Corpus { .. } | Self::TrainerFile { .. })
    }
}

/// Plans a sweep; `known` says which runs have a result already. Reads and surveys corpora, so it takes its time.
pub fn plan(
    submit: &Submit,
    site: &Site,
    known: &dyn Fn(RunId) -> bool,
    progress: &mut dyn FnMut(Stage),
) -> Result<Planning, PlanningError> {
    let spec = isoloss_sweep::spec::parse(&submit.file, &submit.toml, &submit.set)?;
    let mut manifests = Vec::new();
    for wanted in spec.corpora()? {
        let manifest = survey(&spec, &wanted, submit, site, progress)?;
        manifests.push(manifest);
    }
    let files = files::gather(&spec, submit, site)?;
    let inputs = Inputs {
        manifests: &manifests,
        probe: site.probe.as_ref(),
        known,
        capabilities: &site.capabilities,
        files: &files,
    };
    let mut plan = isoloss_sweep::plan(&spec, &inputs)?;
    plan.warnings.extend(files::forgotten(&spec, submit, site));
    Ok(Planning { plan, manifests })
}

/// The settings of the fit that a stored sweep file asks for.
pub(crate) fn reread(toml: &str, set: &[String]) -> Result<SweepSpec, SpecError> {
    isoloss_sweep::spec::parse("sweep.toml", toml, set)
}

fn survey(
    spec: &SweepSpec,
    wanted: &Survey,
    submit: &Submit,
    site: &Site,
    progress: &mut dyn FnMut(Stage),
) -> Result<Manifest, PlanningError> {
    let base = site.reach.base(&submit.base);
    if let Some(outside) = site.reach.outside(&wanted.corpus, base) {
        let message = format!("{} is not below a folder from which this coordinator reads corpora", outside.word);
        let expected = "expected a file below a --corpus-root of the coordinator, or a synthetic corpus";
        return Err(spec.refuse_corpus(&wanted.corpus, outside.keys, Some(&outside.word), message, expected).into());
    }
    let placed = at(base, &wanted.corpus);
    let mut report = |step: isoloss_corpus::Progress| progress(step.stage);
    let surveyed = isoloss_corpus::survey(&placed, wanted.context, &site.corpora_dir, &mut report);
    let manifest = surveyed.map_err(|source| match blame::blame(&source, &wanted.corpus, base) {
        Some(blame) => {
            spec.refuse_corpus(&wanted.corpus, blame.keys, blame.word, source.to_string(), blame.expected).into()
        }
        None => PlanningError::Corpus { file: submit.file.clone(), source },
    })?;
    // The plan looks its corpora up by the words of the file.
    Ok(Manifest { spec: wanted.corpus.clone(), ..manifest })
}

/// The corpus with relative paths read from `base`.
fn at(base: &Path, corpus: &CorpusSpec) -> CorpusSpec {
    // Joining an absolute path gives that path.
    let place = |path: &String| base.join(path).to_string_lossy().into_owned();
    let mut placed = corpus.clone();
    if let Source::Files { paths, .. } = &mut placed.source {
        paths.iter_mut().for_each(|path| *path = place(path));
    }
    if let TokenizerSpec::File { path } = &mut placed.tokenizer {
        *path = place(path);
    }
    if let Validation::Files(paths) = &mut placed.validation {
        paths.iter_mut().for_each(|path| *path = place(path));
    }
    placed
}

/// The plan as it is admitted: trunks first, so that every branch follows its trunk, and each run of an arm once.
pub(crate) fn admission(submit: &Submit, planning: Planning, now: Timestamp) -> Admission {
    let Planning { plan, manifests } = planning;
    let trunks = plan.trunks.iter().map(|trunk| Arc::new(planned_trunk(trunk, &plan)));
    let mut seen = BTreeSet::new();
    let runs = plan.runs.iter().filter(|run| seen.insert((run.run_id, run.arm.clone()))).map(|run| {
        Arc::new(Planned {
            run_id: run.run_id,
            arm: run.arm.as_str().into(),
            labels: run.point.clone().into(),
            run: run.run.clone(),
            trunk_steps: Vec::new(),
            branch: run.depends_on.map(|on| Branch { trunk: RunId(on.trunk.0), step: on.step }),
            memory_bytes: plan.resources.memory_bytes.unwrap_or(run.memory_bytes),
            threads: plan.resources.threads.unwrap_or(0),
            seconds: seconds(run.seconds, run.flops.get()),
            flops: run.flops,
            command: command(&run.run),
        })
    });
    Admission {
        sweep_id: plan.sweep_id,
        name: plan.name.clone(),
        toml: submit.toml.clone(),
        set: submit.set.clone(),
        submitted_at_ms: now.as_millisecond(),
        retry: Retry { failures: plan.retry.failures, preemptions: plan.retry.preemptions },
        priority: plan.resources.priority.unwrap_or(PRIORITY_USUAL),
        held: submit.hold,
        runs: trunks.chain(runs).collect(),
        manifests,
    }
}

fn planned_trunk(trunk: &Trunk, plan: &Plan) -> Planned {
    let branch = plan.runs.iter().find(|run| run.depends_on.is_some_and(|on| on.trunk == trunk.trunk_id));
    Planned {
        run_id: RunId(trunk.trunk_id.0),
        arm: branch.map_or("trunk", |run| run.arm.as_str()).into(),
        labels: branch.map(|run| run.point.clone()).unwrap_or_default().into(),
        run: trunk.run.clone(),
        trunk_steps: trunk.steps.clone(),
        branch: None,
        memory_bytes: plan.resources.memory_bytes.unwrap_or(trunk.memory_bytes),
        threads: plan.resources.threads.unwrap_or(0),
        seconds: seconds(trunk.seconds, trunk.flops.get()),
        flops: trunk.flops,
        command: command(&trunk.run),
    }
}

fn command(run: &Run) -> Option<Vec<String>> {
    run.trainer.as_ref().map(|trainer| trainer.command.clone())
}

/// Without a measurement, FLOPs order runs as well as seconds would on equal slots; a core does some 10 GFLOP/s.
fn seconds(measured: Option<f64>, flops: f64) -> f64 {
    measured.unwrap_or(flops / 1e10)
}
