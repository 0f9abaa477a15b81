//! Runs: the row that lists show and exports write, one run whole, and why it is where it is.

use isoloss_sweep::outcome::{CurvePoint, GpuUse};
use isoloss_sweep::{Flops, Outcome, Params, Run, RunId, SweepId, Tokens};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Pending,
    /// Waits for a trunk, or can never run; the reason says which.
    Blocked,
    Leased,
    Finished,
    Diverged,
    Failed,
    Cancelled,
    /// Took down too many workers.
    Quarantined,
}

impl RunState {
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Blocked,
        Self::Leased,
        Self::Finished,
        Self::Diverged,
        Self::Failed,
        Self::Cancelled,
        Self::Quarantined,
    ];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Blocked => "blocked",
            Self::Leased => "leased",
            Self::Finished => "finished",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A run with a result of its own, or a trunk: checkpoints that runs branch from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Run,
    Trunk,
}

/// One run in a list: `status --json` and `export --format jsonl` print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRow {
    pub run_id: RunId,
    pub kind: Kind,
    pub arm: String,
    pub state: RunState,
    /// Why it is blocked, failed or quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub attempts: u64,
    pub params_total: Params,
    pub params_non_embedding: Params,
    pub params_active: Params,
    pub params_active_non_embedding: Params,
    pub layers: u32,
    pub width: u32,
    /// Routed experts per layer; missing for a dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    pub tokens: Tokens,
    pub flops: Flops,
    pub seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_nats: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The GPU that it had, once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
    /// Only while leased, from the last renewal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// What a leased run last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    pub worker: String,
    /// The slot it runs in.
    pub device: String,
    /// The slot's GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
    pub attempt: u64,
    pub step: u64,
    pub steps: u64,
    pub tokens: Tokens,
    pub tokens_per_second: f64,
    /// Latest training loss; missing before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_nats: Option<f64>,
    /// Latest validation loss; missing before the first evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    pub memory_bytes: u64,
    /// Since the grant.
    pub seconds: f64,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most 1000, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Runs of a sweep in the order of its plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    pub schema_version: u32,
    pub runs: Vec<RunRow>,
    /// Missing on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One run, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunDetail {
    pub schema_version: u32,
    pub row: RunRow,
    pub run: Run,
    pub sweeps: Vec<SweepId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of the outcome, or of the live attempt so far.
    pub curve: Vec<CurvePoint>,
}

/// Runs of a sweep with all that is known of each: what reports and exports are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Results {
    pub schema_version: u32,
    pub results: Vec<RunDetail>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Why a run is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    pub schema_version: u32,
    pub run_id: RunId,
    pub state: RunState,
    /// For people, most important first.
    pub reasons: Vec<String>,
    pub depends_on: Vec<RunId>,
    pub attempts: Vec<AttemptRow>,
}

/// One lease's try at a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptRow {
    pub attempt: u64,
    pub worker: String,
    pub device: String,
    /// When it was granted, if that was in this life of the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Timestamp>,
    /// How it ended; missing while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
}

/// From where to read a log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct LogQuery {
    /// Lines with a greater number.
    #[serde(default)]
    pub after: u64,
}

/// Lines of a run's log. The coordinator keeps the last ones of each run only, in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogPage {
    pub schema_version: u32,
    pub lines: Vec<LogLine>,
    /// Whether more may come.
    pub live: bool,
}

/// What a run said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// From 1 on, over all attempts.
    pub number: u64,
    pub attempt: u64,
    pub text: String,
}
