//! What `plan --json` prints: the plan without what only programs of this project need.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::{Action, Dependency, Plan, PlannedRun, Totals, Trunk};
use crate::run::{RunId, SweepId, TrunkId};
use crate::trainer::Trainer;

/// Version of this JSON.
const SCHEMA_VERSION: u32 = 1;

/// A plan for programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanJson {
    pub schema_version: u32,
    pub sweep_id: SweepId,
    pub name: String,
    pub runs: Vec<RunJson>,
    pub trunks: Vec<TrunkJson>,
    pub totals: Totals,
    pub warnings: Vec<String>,
    /// The foreign program that trains all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Trainer>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunJson {
    pub run_id: RunId,
    pub arm: String,
    pub action: Action,
    pub why: String,
    pub point: BTreeMap<String, String>,
    pub params_total: u64,
    pub params_non_embedding: u64,
    pub params_active: u64,
    pub params_active_non_embedding: u64,
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    pub tokens: u64,
    pub batch: u32,
    pub steps: u64,
    pub learning_rate: f64,
    pub warmup_steps: u64,
    pub weight_decay: f64,
    pub beta2: f64,
    pub flops: f64,
    pub flops_6nd: f64,
    pub memory_bytes: u64,
    /// What the engine was measured to allocate of a GPU for this shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_block_bytes: Option<u64>,
    pub depends_on: Option<Dependency>,
    pub seconds: Option<f64>,
}

/// One trunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrunkJson {
    pub trunk_id: TrunkId,
    pub steps: Vec<u64>,
    pub flops: f64,
    pub memory_bytes: u64,
    pub seconds: Option<f64>,
}

impl From<&Plan> for PlanJson {
    fn from(plan: &Plan) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            sweep_id: plan.sweep_id,
            name: plan.name.clone(),
            runs: plan.runs.iter().map(RunJson::from).collect(),
            trunks: plan.trunks.iter().map(TrunkJson::from).collect(),
            totals: plan.totals,
            warnings: plan.warnings.clone(),
            trainer: plan.runs.first().and_then(|planned| planned.run.trainer.clone()),
        }
    }
}

impl From<&PlannedRun> for RunJson {
    fn from(planned: &PlannedRun) -> Self {
        Self {
            run_id: planned.run_id,
            arm: planned.arm.clone(),
            action: planned.action,
            why: planned.why.clone(),
            point: planned.point.clone(),
            params_total: planned.params.total.get(),
            params_non_embedding: planned.params.non_embedding.get(),
            params_active: planned.params.active.get(),
            params_active_non_embedding: planned.params.active_non_embedding.get(),
            layers: planned.run.model.layers,
            width: planned.run.model.width,
            heads: planned.run.model.heads,
            tokens: planned.tokens.get(),
            batch: planned.run.train.batch,
            steps: planned.run.train.steps,
            learning_rate: planned.run.train.learning_rate,
            warmup_steps: planned.run.train.warmup_steps,
            weight_decay: planned.run.train.weight_decay,
            beta2: planned.run.train.beta2,
            flops: planned.flops.get(),
            flops_6nd: planned.flops_6nd.get(),
            memory_bytes: planned.memory_bytes,
            gpu_block_bytes: planned.gpu_block_bytes,
            depends_on: planned.depends_on,
            seconds: planned.seconds,
        }
    }
}

impl From<&Trunk> for TrunkJson {
    fn from(trunk: &Trunk) -> Self {
        Self {
            trunk_id: trunk.trunk_id,
            steps: trunk.steps.clone(),
            flops: trunk.flops.get(),
            memory_bytes: trunk.memory_bytes,
            seconds: trunk.seconds,
        }
    }
}
