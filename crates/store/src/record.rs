//! What the journal says: one record for each fact that cannot be recomputed. It does not hold liveness (heartbeats,
//! deadlines, progress): that lives in the scheduler's memory and is never written.

use std::collections::BTreeSet;
use std::sync::Arc;

use isoloss_sweep::{Digest, Flops, Manifest, Outcome, Run, RunId, SweepId};
use serde::{Deserialize, Serialize};

use crate::ledger::Carried;

mod decode;
mod labels;
mod name;

pub use labels::Labels;
pub use name::Name;

/// A resolved sweep as it is admitted. Its runs are in the order of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admission {
    pub sweep_id: SweepId,
    pub name: String,
    /// The sweep file as written and its `key=value` changes, for people and for re-planning.
    pub toml: String,
    pub set: Vec<String>,
    /// Milliseconds since 1970 by the coordinator's clock; shown, never compared.
    pub submitted_at_ms: i64,
    pub manifests: Vec<Manifest>,
    pub retry: Retry,
    /// Higher goes first; sweeps of the same share the slots.
    #[serde(default = "priority_usual", skip_serializing_if = "is_priority_usual")]
    pub priority: u32,
    /// Whether it lets none of its runs go before they are chosen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    #[serde(with = "shared::list")]
    pub runs: Vec<Arc<Planned>>,
}

/// Of a sweep that says nothing.
pub const PRIORITY_USUAL: u32 = 50;

pub(crate) fn priority_usual() -> u32 {
    PRIORITY_USUAL
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(crate) fn is_priority_usual(priority: &u32) -> bool {
    *priority == PRIORITY_USUAL
}

/// How many attempts may be lost before a run counts as failed, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Attempts that broke by themselves.
    pub failures: u32,
    /// Attempts taken away: lost workers, expired leases, preemption.
    pub preemptions: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { failures: 1, preemptions: 100 }
    }
}

/// One run of a plan: what is computed and what the scheduler needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// For a trunk, its trunk id as a run id.
    pub run_id: RunId,
    pub arm: Name,
    /// Axis values and the like, for tables; never interpreted.
    pub labels: Labels,
    /// For a trunk, the run of its longest branch.
    pub run: Run,
    /// Not empty for a trunk: the steps at which branches leave, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk_steps: Vec<u64>,
    /// The checkpoint that must be published before this run may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<Branch>,
    pub memory_bytes: u64,
    /// Threads that its slot must have; 0 where any will do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub threads: u32,
    /// Expected seconds; orders runs, promises nothing.
    pub seconds: f64,
    pub flops: Flops,
    /// The foreign command that trains it: only workers started with leave to do so may take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(threads: &u32) -> bool {
    *threads == 0
}

impl Planned {
    /// What it takes of a machine.
    pub fn needs(&self) -> Needs {
        Needs { run_id: self.run_id, memory_bytes: self.memory_bytes, threads: self.threads }
    }

    /// Whether this is a set of checkpoints and not a run with a result of its own.
    pub fn is_trunk(&self) -> bool {
        !self.trunk_steps.is_empty()
    }

    /// The trunk with these checkpoints, at the cost of going to the last of them.
    #[must_use]
    pub fn with_steps(&self, steps: impl IntoIterator<Item = u64>) -> Self {
        let steps: BTreeSet<u64> = steps.into_iter().collect();
        let share = match (steps.last(), self.trunk_steps.last()) {
            (Some(new), Some(old)) => *new as f64 / (*old).max(1) as f64,
            _ => 1.0,
        };
        Self {
            trunk_steps: steps.into_iter().collect(),
            seconds: self.seconds * share,
            flops: Flops(self.flops.get() * share),
            ..self.clone()
        }
    }
}

/// What a run takes of the machine that trains it; its id leaves this out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    pub run_id: RunId,
    pub memory_bytes: u64,
    /// 0 where any will do.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub threads: u32,
}

/// Where a branch leaves its trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The trunk's entry in the same or an earlier admission.
    pub trunk: RunId,
    pub step: u64,
}

/// A published checkpoint: a file named by digest on a storage that some workers can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    pub step: u64,
    /// Relative to the checkpoint folder of the storage.
    pub path: String,
    pub digest: Digest,
    /// Storage label of the worker that wrote it; workers with the same label can read it.
    pub storage: String,
}

/// Why an attempt ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Lapse {
    /// It broke; counts against the failure budget.
    Failed { reason: String },
    /// The lease ran out. `worker_lost` when nothing at all was heard from the worker meanwhile, and the attempt had
    /// made no step: a run that does this again and again may be what takes the workers down.
    Expired { worker_lost: bool },
    /// The worker gave it back: preempted, drained, restarted or leaving.
    Yielded { reason: String },
    /// Nobody wants the run any more; counts against nothing.
    Cancelled,
}

/// What a person's command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Sweep(SweepId),
    Run(RunId),
}

/// One line of the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    Admitted {
        #[serde(with = "shared::one")]
        admission: Arc<Admission>,
    },
    /// A lease was given. Written before the worker is told, so that attempt numbers never repeat.
    Granted {
        run_id: RunId,
        attempt: u64,
        worker: String,
        slot: String,
    },
    /// A lease that had run out is taken up again: its worker still holds it, and nothing newer was granted.
    Adopted {
        run_id: RunId,
        attempt: u64,
        worker: String,
        slot: String,
    },
    Lapsed {
        run_id: RunId,
        attempt: u64,
        lapse: Lapse,
    },
    Settled {
        run_id: RunId,
        attempt: u64,
        worker: String,
        outcome: Box<Outcome>,
    },
    Published {
        run_id: RunId,
        attempt: u64,
        checkpoint: Checkpoint,
    },
    /// The run took down too many workers to be tried again.
    Quarantined {
        run_id: RunId,
        reason: String,
    },
    Cancelled {
        target: Target,
    },
    /// A cancelled sweep, or one with cancelled runs, was submitted again.
    Revived {
        sweep_id: SweepId,
    },
    Paused {
        target: Target,
    },
    Resumed {
        target: Target,
    },
    /// A sweep lets only chosen runs go: these too from now on, or all of them again.
    Chosen {
        sweep_id: SweepId,
        runs: Option<Vec<RunId>>,
    },
    /// A sweep goes before others, or behind them.
    Ranked {
        sweep_id: SweepId,
        priority: u32,
    },
    /// A worker gets no more runs, or gets some again.
    Drained {
        worker: String,
        on: bool,
    },
    /// Failed, diverged, quarantined or cancelled runs start afresh with full budgets.
    Retried {
        runs: Vec<RunId>,
    },
    /// Runs need other memory or threads from their next attempt on: a sweep that was handed in again says so.
    Amended {
        needs: Vec<Needs>,
    },
    /// What earlier records of a run, left out by compaction, add up to.
    Carried {
        carried: Box<Carried>,
    },
}

/// Values behind an [`Arc`] are written as themselves.
pub(crate) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) mod one {
        use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

        pub(crate) fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
            value.as_ref().serialize(serializer)
        }

        pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Arc<T>, D::Error>
        where
            T: Deserialize<'de>,
            D: Deserializer<'de>,
        {
            T::deserialize(deserializer).map(Arc::new)
        }
    }

    pub(crate) mod list {
        use super::{Arc, Deserialize, Deserializer, Serialize, Serializer};

        pub(crate) fn serialize<T: Serialize, S: Serializer>(
            list: &[Arc<T>],
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(list.iter().map(Arc::as_ref))
        }

        pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<Arc<T>>, D::Error>
        where
            T: Deserialize<'de>,
            D: Deserializer<'de>,
        {
            Ok(Vec::<T>::deserialize(deserializer)?.into_iter().map(Arc::new).collect())
        }
    }
}
