//! From a sweep file to its plan: read, survey, plan, admit. `isoloss plan` and a submission both come this way. It
//! stores nothing but surveyed corpora and the files of trainers.

mod apart;
mod blame;
mod errand;
mod files;
mod reach;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use isoloss_corpus::Stage;
use isoloss_store::{Admission, Branch, PRIORITY_USUAL, Planned, Retry};
use isoloss_sweep::plan::{Capabilities, Inputs, Probe, Refusal, Survey, Trunk};
use isoloss_sweep::{Manifest, Plan, PlanError, Run, RunId, SpecError, SweepSpec};
use isoloss_wire::api::Submit;
use jiff::Timestamp;

pub(crate) use apart::survey_apart;
pub use errand::{Errand, Said, Trouble};
pub use reach::Reach;

/// What planning needs to know of the place where it happens.
#[derive(Debug, Clone)]
pub struct Site {
    pub corpora_dir: PathBuf,
    /// Memory that the survey of a corpus may take.
    pub survey_memory_bytes: u64,
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
    #[error("{file}: cannot make the corpus: {message}")]
    Corpus { file: String, message: String },
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
    let asked = Asked::read(submit, site)?;
    let mut manifests = Vec::new();
    for errand in &asked.errands {
        manifests.push(asked.surveyed(submit, errand, errand.run(progress))?);
    }
    asked.plan(submit, site, known, manifests)
}

/// A sweep file that was read, and the corpora that must be surveyed before it is planned.
#[derive(Debug)]
pub(crate) struct Asked {
    spec: SweepSpec,
    pub(crate) errands: Vec<Errand>,
}

impl Asked {
    pub(crate) fn read(submit: &Submit, site: &Site) -> Result<Self, PlanningError> {
        let spec = isoloss_sweep::spec::parse(&submit.file, &submit.toml, &submit.set)?;
        let base = site.reach.base(&submit.base);
        let mut errands = Vec::new();
        for Survey { corpus, context } in spec.corpora()? {
            if let Some(outside) = site.reach.outside(&corpus, base) {
                let message =
                    format!("{} is not below a folder from which this coordinator reads corpora", outside.word);
                let expected = "expected a file below a --corpus-root of the coordinator, or a synthetic corpus";
                return Err(spec.refuse_corpus(&corpus, outside.keys, Some(&outside.word), message, expected).into());
            }
            let (base, corpora_dir) = (base.to_owned(), site.corpora_dir.clone());
            errands.push(Errand { corpus, base, context, corpora_dir, memory_bytes: site.survey_memory_bytes });
        }
        Ok(Self { spec, errands })
    }

    /// What came of an errand, with a mistake shown at its line of the file.
    pub(crate) fn surveyed(
        &self,
        submit: &Submit,
        errand: &Errand,
        made: Result<Manifest, Trouble>,
    ) -> Result<Manifest, PlanningError> {
        let Trouble { message, blame } = match made {
            // The plan looks its corpora up by the words of the file.
            Ok(manifest) => return Ok(Manifest { spec: errand.corpus.clone(), ..manifest }),
            Err(trouble) => trouble,
        };
        let Some(blame) = blame else {
            return Err(PlanningError::Corpus { file: submit.file.clone(), message });
        };
        let keys: Vec<&str> = blame.keys.iter().map(String::as_str).collect();
        Err(self.spec.refuse_corpus(&errand.corpus, &keys, blame.word.as_deref(), message, &blame.expected).into())
    }

    /// With the manifests of its errands.
    pub(crate) fn plan(
        &self,
        submit: &Submit,
        site: &Site,
        known: &dyn Fn(RunId) -> bool,
        manifests: Vec<Manifest>,
    ) -> Result<Planning, PlanningError> {
        let files = files::gather(&self.spec, submit, site)?;
        let inputs = Inputs {
            manifests: &manifests,
            probe: site.probe.as_ref(),
            known,
            capabilities: &site.capabilities,
            files: &files,
        };
        let mut plan = isoloss_sweep::plan(&self.spec, &inputs)?;
        plan.warnings.extend(files::forgotten(&self.spec, submit, site));
        Ok(Planning { plan, manifests })
    }
}

/// The settings of the fit that a stored sweep file asks for.
pub(crate) fn reread(toml: &str, set: &[String]) -> Result<SweepSpec, SpecError> {
    isoloss_sweep::spec::parse("sweep.toml", toml, set)
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
