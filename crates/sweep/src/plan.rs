//! `plan(spec, inputs)`: the ordered, finite set of runs that a sweep means, with counts, dependencies and reasons.
//! A pure function: it starts nothing, stores nothing and reads no file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::corpus::{CorpusSpec, Manifest};
use crate::count::{Flops, ParamCounts, Tokens};
use crate::run::{EngineKind, Precision, Run, RunId, SweepId, TrunkId};
use crate::spec::{Diagnostic, FitSpec, Resources, Retry, SweepSpec};

/// Points of a grid before merging; a larger product is a mistake in the file.
pub const RUNS_MAX: usize = 100_000;

/// What planning reads beside the sweep file.
pub struct Inputs<'a> {
    /// Surveys of [`SweepSpec::corpora`], in any order.
    pub manifests: &'a [Manifest],
    /// Speed of this machine or fleet, where it was measured.
    pub probe: Option<&'a Probe>,
    /// Whether a finished outcome of this run is stored.
    pub known: &'a dyn Fn(RunId) -> bool,
    pub capabilities: &'a Capabilities,
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
            engines: vec![Capability {
                engine: EngineKind::Reference,
                precisions: vec![Precision::F32],
                moe: true,
            }],
        }
    }
}

/// Measured training speed of one slot, and how many slots there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub slots: u32,
    pub rates: Vec<Rate>,
}

/// A measurement: models of this cost per token train at this rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    pub engine: EngineKind,
    pub flops_per_token: f64,
    pub tokens_per_second: f64,
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
    /// Estimated from the probe.
    pub seconds: Option<f64>,
    pub action: Action,
    /// The reason of the action, for people.
    pub why: String,
    pub depends_on: Option<Dependency>,
}

/// What is to be done for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
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
    /// Wall time over the probe's slots.
    pub seconds: Option<f64>,
    /// Slot hours of runs on the CUDA engine.
    pub gpu_hours: Option<f64>,
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The grid has no points, or too many.
    Grid,
    /// No model of the wanted size or shape.
    Shape,
    /// The experts cannot be.
    Experts,
    /// No possible token budget, step count or hyper-parameter.
    Training,
    /// A corpus was not surveyed or cannot give what is asked.
    Corpus,
    /// No worker can do it.
    Capability,
    /// Over `[budget]`.
    Budget,
    /// An expression has no value or the wrong type.
    Expression,
}

/// A sweep that cannot be planned, with the line that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    pub refusal: Refusal,
    pub diagnostic: Box<Diagnostic>,
}

impl PlanError {
    /// 6 when the plan is refused for its cost, else 2.
    pub fn exit_code(&self) -> i32 {
        match self.refusal {
            Refusal::Budget => 6,
            _ => 2,
        }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic.fmt(f)
    }
}

impl std::error::Error for PlanError {}

impl SweepSpec {
    /// The distinct corpora of the sweep, to be surveyed before planning.
    pub fn corpora(&self) -> Result<Vec<Survey>, PlanError> {
        unimplemented!()
    }
}

/// The runs that `spec` means.
pub fn plan(spec: &SweepSpec, inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let _ = (spec, inputs);
    unimplemented!()
}
