//! Sweeps: handing one in, and where each stands.

use std::path::PathBuf;

use isoloss_sweep::{Manifest, RunId, SweepId, Trainer};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A sweep to plan and admit. The same text over the same corpus is the same sweep: handing it in again adds nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    pub schema_version: u32,
    /// The sweep file.
    pub toml: String,
    /// Name of the file, for messages.
    pub file: String,
    /// `key=value` changes, in order, as `--set` takes them.
    #[serde(default)]
    pub set: Vec<String>,
    /// Relative corpus paths are read from this folder of the coordinator's machine.
    pub base: PathBuf,
    /// Whether none of its runs starts before it is chosen; a sweep known before lets all go again without this.
    #[serde(default)]
    pub hold: bool,
}

/// Runs of a sweep that may start now, beside those that were chosen before; all of them again where none are named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    pub schema_version: u32,
    pub runs: Option<Vec<RunId>>,
}

/// The admitted sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    pub schema_version: u32,
    pub sweep_id: SweepId,
    pub name: String,
    /// Runs of the sweep.
    pub runs: u64,
    /// Those that no sweep had asked for before.
    pub added: u64,
    /// Those with a result already.
    pub reused: u64,
    /// Those that were cancelled, and wait again.
    #[serde(default)]
    pub revived: u64,
    /// Those that failed or are quarantined, and stay so until they are retried.
    #[serde(default)]
    pub failed: u64,
    /// Those that need other memory or threads from now on than they did when they were handed in last.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub amended: u64,
    /// Those that would, and are under way with what they were given.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept: u64,
    /// An order holds it back: none of its runs is granted for it until it is resumed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Whether runs of a sweep are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Active,
    Paused,
    Cancelled,
    /// No run of it will change any more.
    Ended,
}

impl Phase {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
        }
    }

    /// Whether something may still happen in it.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Paused)
    }
}

/// Runs of a sweep by state; trunks are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StateCounts {
    pub pending: u64,
    pub blocked: u64,
    pub leased: u64,
    pub finished: u64,
    pub diverged: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub quarantined: u64,
}

impl StateCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.pending + self.blocked + self.leased + self.ended()
    }

    /// Those that will not change without an order.
    pub fn ended(&self) -> u64 {
        self.finished + self.diverged + self.failed + self.cancelled + self.quarantined
    }
}

/// One sweep in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepRow {
    pub sweep_id: SweepId,
    pub name: String,
    pub phase: Phase,
    pub submitted_at: Timestamp,
    pub counts: StateCounts,
    /// Training FLOPs done over all of the sweep's, live runs counted by their steps.
    pub progress_ratio: f64,
    /// From the speed of live and finished runs; missing while nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_bits_per_byte: Option<f64>,
    /// Tokens per second of its live runs together.
    pub tokens_per_second: f64,
}

/// All sweeps, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sweeps {
    pub schema_version: u32,
    pub sweeps: Vec<SweepRow>,
    /// Missing on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One sweep, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SweepDetail {
    pub schema_version: u32,
    pub sweep: SweepRow,
    /// In the order of the file.
    pub arms: Vec<String>,
    /// The file as it was handed in, without `set`.
    pub toml: String,
    pub set: Vec<String>,
    pub manifests: Vec<Manifest>,
    /// The foreign program that trains its runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trainer: Option<Trainer>,
}

/// What an order changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    pub schema_version: u32,
    /// Runs whose state changed, trunks not counted.
    pub runs: u64,
    /// Why nothing changed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Questions to a sweep's fit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FitQuery {
    /// A law's name, or `auto`; missing: as the sweep file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub law: Option<String>,
    /// Only runs of this arm; missing: the sweep's dense runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// FLOPs to allocate; missing: the sweep's target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Tokens that the model will be used for, paid from the budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve_tokens: Option<f64>,
    /// Largest params to allocate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params_max: Option<f64>,
    /// Points to predict at, as `params=1e9,tokens=2e10` joined by `;`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predict: Option<String>,
    /// Hyper-parameters, joined by commas, of which only the best value of each size and budget is fitted; missing: as
    /// the sweep file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_of: Option<String>,
    /// Bootstrap resamples; bounded by the coordinator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resamples: Option<usize>,
}

/// A corpus being read for a submitted sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Survey {
    /// Name of the sweep file.
    pub file: String,
    /// What is being done, for people.
    pub phase: String,
    pub seconds: f64,
}

/// Surveys under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Surveys {
    pub schema_version: u32,
    pub surveys: Vec<Survey>,
    /// Missing on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
