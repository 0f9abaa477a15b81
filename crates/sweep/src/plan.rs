//! `plan(spec, inputs)`: the ordered, finite set of runs that a sweep means, with counts, dependencies and reasons.
//! A pure function: it starts nothing, stores nothing and reads no file.

mod asked;
mod draft;
mod evaluated;
mod experts;
mod foreign;
mod gpu_jobs;
mod gpu_limits;
mod gpu_memory;
mod gpu_speed;
mod json;
mod ladder;
mod memory;
mod packing;
mod point;
mod probe;
mod recipe;
mod refusal;
mod resolve;
mod sharing;
#[cfg(test)]
mod tests;
mod totals;
mod trunk;
mod tune;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::corpus::{CorpusSpec, Manifest};
use crate::count::{Flops, ParamCounts, Tokens};
use crate::digest::Digest;
use crate::run::{EngineKind, Precision, Run, RunId, SweepId, TrunkId};
use crate::spec::{FitSpec, Resources, Retry, SweepSpec};
use draft::Draft;
pub use evaluated::{FIRST_POINT_COST, POINT_RATIO, evaluated_tokens};
pub use gpu_limits::gpu_defect;
pub use gpu_memory::{GPU_PROCESS_BYTES, GPU_ROWS_MOST, gpu_memory_bytes};
pub use gpu_speed::{GpuShape, GpuSpeed, Gpus};
pub use json::{PlanJson, RunJson, TrunkJson};
pub use memory::memory_bytes;
pub use probe::{Probe, Rate};
pub(crate) use recipe::RECIPES;
pub use refusal::{PlanError, Refusal};
use resolve::References;

/// Points of a grid before merging; a larger product is a mistake in the file.
pub const RUNS_MAX: usize = 100_000;

/// Whole steps may add this much to a budget before the plan remarks on it.
const BEYOND_MAX: f64 = 1.05;

/// What planning reads beside the sweep file.
pub struct Inputs<'a> {
    /// Surveys of [`SweepSpec::corpora`], in any order.
    pub manifests: &'a [Manifest],
    /// Speed of this machine or fleet, where it was measured.
    pub probe: Option<&'a Probe>,
    /// Whether a finished outcome of this run is stored.
    pub known: &'a dyn Fn(RunId) -> bool,
    pub capabilities: &'a Capabilities,
    /// Digests of [`SweepSpec::trainer_files`] by their plain names.
    pub files: &'a BTreeMap<String, Digest>,
}

/// A survey that a plan needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    pub corpus: CorpusSpec,
    /// The longest context of the runs on it.
    pub context: u32,
}

/// Engines that workers offer, best first: `engine = "auto"` takes the first with the wanted precision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub engines: Vec<Capability>,
}

/// One engine and what it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    pub engine: EngineKind,
    pub precisions: Vec<Precision>,
    pub moe: bool,
}

impl Capabilities {
    /// The reference engine alone, which every build has.
    pub fn reference() -> Self {
        Self {
            engines: vec![Capability { engine: EngineKind::Reference, precisions: vec![Precision::F32], moe: true }],
        }
    }
}

/// What a sweep file means here and now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub sweep_id: SweepId,
    pub name: String,
    /// Arm by arm, each in the order of its axes.
    pub runs: Vec<PlannedRun>,
    pub trunks: Vec<Trunk>,
    pub totals: Totals,
    pub warnings: Vec<String>,
    pub retry: Retry,
    pub fit: FitSpec,
    pub resources: Resources,
}

/// One run of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRun {
    pub run_id: RunId,
    pub run: Run,
    pub arm: String,
    /// Axis name to value, as on the grid.
    pub point: BTreeMap<String, String>,
    pub params: ParamCounts,
    pub tokens: Tokens,
    pub flops: Flops,
    pub flops_6nd: Flops,
    pub memory_bytes: u64,
    /// What the engine allocated of a GPU for a run of this shape, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_block_bytes: Option<u64>,
    /// Estimated from the probe; on a GPU among as many others as share it.
    pub seconds: Option<f64>,
    pub action: Action,
    /// The reason of the action, for people.
    pub why: String,
    pub depends_on: Option<Dependency>,
}

/// What is to be done for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Train from the start.
    Run,
    /// Nothing: its outcome is stored, or an earlier run of this plan is the same.
    Reuse,
    /// Train from a trunk's checkpoint.
    Branch,
}

/// The checkpoint that a branch starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dependency {
    pub trunk: TrunkId,
    pub step: u64,
}

/// The shared, undecayed part of several WSD runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trunk {
    pub trunk_id: TrunkId,
    /// The longest of its branches: what the trunk trains until its last step.
    pub run: Run,
    /// Checkpoints to write, ascending; training ends at the last.
    pub steps: Vec<u64>,
    pub flops: Flops,
    pub memory_bytes: u64,
    pub seconds: Option<f64>,
}

/// Sums over the distinct runs of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Distinct runs.
    pub runs: u64,
    pub to_run: u64,
    pub to_branch: u64,
    pub reused: u64,
    /// FLOPs that this plan will compute: runs, branches after their fork, and trunks.
    pub flops: f64,
    /// FLOPs that sharing trunks saves.
    pub flops_saved: f64,
    /// Tokens that this plan will train on.
    pub tokens: u64,
    pub memory_bytes_max: u64,
    /// Wall time over the probe's slots and GPUs, which work at the same time.
    pub seconds: Option<f64>,
    /// Hours of whole GPUs that runs on the CUDA engine take: of one that shares a GPU with three others a quarter counts.
    pub gpu_hours: Option<f64>,
    /// What a process takes of a GPU beside its run's own memory, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_process_bytes: Option<u64>,
}

/// The runs that `spec` means.
pub fn plan(spec: &SweepSpec, inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let trainer = foreign::trainer(spec, inputs.files)?;
    let mut drafts = Vec::new();
    for point in spec.points()? {
        drafts.extend(Draft::of(spec, point, inputs.manifests)?);
    }
    if drafts.is_empty() {
        return Err(spec.refuse(Refusal::Grid, Default::default(), "the grid has no points: all are excluded"));
    }
    let drafts = replicated(spec, tune::expand(spec, drafts)?)?;
    let references = References::of(&drafts);
    let mut runs = Vec::new();
    let mut seen = BTreeSet::new();
    let mut beyond = 0;
    for draft in &drafts {
        let run = resolve::run(spec, draft, &references, inputs.capabilities, trainer.as_ref())?;
        gpu_limits::within(spec, draft, &run, inputs.probe)?;
        beyond += usize::from(run.tokens().as_f64() > BEYOND_MAX * draft.tokens.as_f64());
        let id = run.id();
        if seen.insert((draft.point.arm.clone(), id)) {
            runs.push(planned(spec, draft, run, id, inputs));
        }
    }
    reuse_repeated(&mut runs);
    let mut trunks = trunk::share(&mut runs);
    totals::estimate(&mut runs, &mut trunks, inputs);
    let plan = Plan {
        sweep_id: identity(spec, &runs),
        name: spec.name.clone(),
        totals: totals::totals(&runs, &trunks, inputs),
        warnings: totals::warnings(spec, &drafts, &runs, inputs.probe, beyond),
        runs,
        trunks,
        retry: spec.retry,
        fit: spec.fit.clone(),
        resources: spec.resources,
    };
    totals::within_budget(spec, &plan)?;
    Ok(plan)
}

/// Adds the replicates: seeds after the point's own, of every point or of each arm's costliest.
fn replicated<'m>(spec: &SweepSpec, drafts: Vec<Draft<'m>>) -> Result<Vec<Draft<'m>>, PlanError> {
    let cost = |draft: &Draft<'_>| draft.model.training_flops(draft.tokens).get();
    let mut largest: BTreeMap<String, f64> = BTreeMap::new();
    for draft in &drafts {
        let most = largest.entry(draft.point.arm.clone()).or_insert(0.0);
        *most = most.max(cost(draft));
    }
    let mut all = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let wanted = spec.replicates.everywhere || cost(&draft) >= largest[&draft.point.arm];
        let seeds = if wanted { spec.replicates.seeds } else { 1 };
        if all.len() as u64 + seeds > RUNS_MAX as u64 {
            let message = format!("replicates make more than {RUNS_MAX} runs");
            return Err(spec.refuse(Refusal::Grid, draft.point.place, message));
        }
        let first = draft.point.count("seed").unwrap_or(1);
        for seed in 1..seeds {
            let mut replicate = draft.clone();
            replicate.point.set("seed", crate::spec::Value::Count(first.wrapping_add(seed)));
            all.push(replicate);
        }
        let at = all.len() + 1 - seeds as usize;
        all.insert(at, draft);
    }
    Ok(all)
}

fn planned(spec: &SweepSpec, draft: &Draft<'_>, run: Run, run_id: RunId, inputs: &Inputs<'_>) -> PlannedRun {
    let known = (inputs.known)(run_id);
    let gpus = inputs.probe.and_then(|probe| probe.gpus.as_ref());
    let mut point = draft.point.labels.clone();
    // What was tried, not the factor: tables and figures speak of rates.
    let tried =
        draft.factors.tuned().map(|parameter| (parameter.name().to_owned(), parameter.of(&run.train).to_string()));
    point.extend(tried);
    PlannedRun {
        run_id,
        arm: draft.point.arm.clone(),
        point,
        params: run.model.param_counts(),
        tokens: run.tokens(),
        flops: run.flops(),
        flops_6nd: run.model.flops_6nd(run.tokens()),
        memory_bytes: spec
            .resources
            .memory_bytes
            .unwrap_or_else(|| reserved(&run, spec.resources.threads.unwrap_or(1), gpus)),
        gpu_block_bytes: gpus.filter(|_| on_gpu(&run)).and_then(|gpus| gpus.block(&run)),
        seconds: None,
        action: if known { Action::Reuse } else { Action::Run },
        why: if known { "its outcome is stored" } else { "no outcome is stored" }.to_owned(),
        depends_on: None,
        run,
    }
}

/// Memory that a run wants of its slot: of the GPU for the engine `cuda`. Of a command only its shape is known.
fn reserved(run: &Run, threads: u32, gpus: Option<&Gpus>) -> u64 {
    if !on_gpu(run) {
        return memory_bytes(&run.model, threads);
    }
    let by_formula = gpu_memory_bytes(&run.model, run.numerics.precision, run.train.batch);
    gpus.map_or(by_formula, |gpus| gpus.reserved(run, by_formula - GPU_PROCESS_BYTES))
}

/// Whether the run trains on a GPU by an engine of this program.
fn on_gpu(run: &Run) -> bool {
    run.numerics.engine == EngineKind::Cuda && run.trainer.is_none()
}

/// A run of an earlier arm is not trained twice.
fn reuse_repeated(runs: &mut [PlannedRun]) {
    let mut first: BTreeMap<RunId, String> = BTreeMap::new();
    for planned in runs {
        match first.get(&planned.run_id) {
            None => {
                first.insert(planned.run_id, planned.arm.clone());
            }
            Some(arm) => {
                planned.action = Action::Reuse;
                planned.why = format!("the same run as in arm `{arm}`");
            }
        }
    }
}

/// Independent of key order, of what is already stored and of limits.
fn identity(spec: &SweepSpec, runs: &[PlannedRun]) -> SweepId {
    let members: BTreeSet<(&str, RunId)> = runs.iter().map(|planned| (planned.arm.as_str(), planned.run_id)).collect();
    SweepId(Digest::of_json(&(&spec.name, members, &spec.fit)))
}
