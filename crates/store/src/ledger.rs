//! The state that the records add up to, and the rules by which a record is accepted. Pure: the journal's replay, the
//! store's gate and the scheduler all use this one function of the records. It knows no time and no living worker.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use isoloss_sweep::{Digest, RunId, SweepId};
use serde::{Deserialize, Serialize};

use crate::record::{
    Admission, Checkpoint, Lapse, Name, Needs, Planned, Retry, Target, is_priority_usual, priority_usual,
};

mod carried;
mod end;
pub mod planted;
mod rules;
mod sweeps;

pub use carried::Carried;
pub(crate) use carried::Kept;
pub use end::End;
pub use sweeps::Sweeps;

/// Lost attempts that are remembered of each run.
pub const PAST_MAX: usize = 16;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Blocked(Block),
    Leased,
    Finished,
    Diverged,
    Failed,
    Cancelled,
    Quarantined,
}

impl Status {
    /// Whether nothing more will happen unless a person asks for it.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Leased | Self::Blocked(Block::Waiting))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Blocked(_) => "blocked",
            Self::Leased => "leased",
            Self::Finished => "finished",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
        }
    }
}

/// Why a branch may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Its trunk has not yet published the checkpoint.
    Waiting,
    /// Its trunk ended without it.
    TrunkDiverged,
    TrunkFailed,
    TrunkCancelled,
}

/// A sweep, its runs in plan order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    pub name: String,
    /// Rises with every admission: the earlier of two sweeps that have the same goes first.
    pub order: u64,
    /// Milliseconds since 1970 by the coordinator's clock; shown, never compared.
    pub submitted_at_ms: i64,
    pub retry: Retry,
    /// Higher goes first; sweeps of the same share the slots.
    #[serde(default = "priority_usual", skip_serializing_if = "is_priority_usual")]
    pub priority: u32,
    /// Clones share them, and no order changes them; an index leaves them out, since the admission says them.
    #[serde(skip)]
    pub members: Arc<[Member]>,
    pub cancelled: bool,
    pub paused: bool,
    /// The runs that it lets go, where not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<BTreeSet<RunId>>,
}

impl SweepRow {
    /// Whether the run may be granted for this sweep.
    pub fn lets_go(&self, run_id: RunId) -> bool {
        !self.cancelled && !self.paused && self.chosen.as_ref().is_none_or(|chosen| chosen.contains(&run_id))
    }
}

/// A sweep's own name for a run that other sweeps may share.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub run_id: RunId,
    pub arm: Name,
}

/// All that is known for good of one run. There are as many of these as runs, so that what most lack is kept small.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRow {
    /// As it was admitted first, without its labels, with what it needs by now.
    pub planned: Arc<Planned>,
    pub sweeps: Sweeps,
    /// The newest attempt granted, 0 before the first: the fencing token.
    pub attempt: u64,
    pub lease: Option<Held>,
    /// Attempts lost since the last retry, by cause.
    pub failures: u32,
    pub preemptions: u32,
    /// Workers that vanished while they held this run.
    pub took_down: BTreeSet<String>,
    /// The last attempts that gave no lasting outcome, oldest first, at most [`PAST_MAX`].
    pub past: Vec<Past>,
    pub settled: Option<Box<Settled>>,
    pub quarantined: Option<String>,
    pub cancelled: bool,
    pub paused: bool,
    /// Whether what it needs was said anew since it was admitted.
    pub amended: bool,
    pub checkpoints: BTreeMap<u64, Checkpoint>,
}

/// An attempt that ended without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub attempt: u64,
    pub held: Option<Held>,
    pub lapse: Lapse,
}

/// Who holds the newest attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub worker: String,
    pub slot: String,
}

/// The accepted outcome in short; the whole of it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settled {
    pub attempt: u64,
    pub worker: String,
    /// Where it ran, as far as the lease was still known.
    pub slot: Option<String>,
    pub digest: Digest,
    pub end: End,
}

/// Why a record is not taken. The first two are answers to a repeated message and not errors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this is already recorded")]
    AlreadyRecorded,
    #[error("attempt {attempt} has settled with a different outcome, {recorded:?}")]
    Conflict { attempt: u64, recorded: Digest },
    #[error("stale attempt: the newest is {newest}")]
    Stale { newest: u64 },
    #[error("attempt {attempt} was never granted: the newest is {newest}")]
    NeverGranted { attempt: u64, newest: u64 },
    #[error("no such run")]
    UnknownRun,
    #[error("no such sweep")]
    UnknownSweep,
    #[error("the run has ended")]
    Ended,
    #[error(
        "it was cancelled, so nothing of it would run: `isoloss submit` with its sweep file revives it, and then `isoloss retry` works"
    )]
    Unwanted,
    #[error("a branch of {branch} names the trunk {trunk}, which is in no admission")]
    UnknownTrunk { branch: RunId, trunk: RunId },
}

/// A row that a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Sweep(SweepId),
    Run(RunId),
    /// The names of workers that are drained, all in one row.
    Drained,
}

/// Every sweep and run. Clones share the rows that neither changes: store and scheduler each have one, and most of a
/// long life's runs are settled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    sweeps: BTreeMap<SweepId, SweepRow>,
    runs: BTreeMap<RunId, Arc<RunRow>>,
    /// Workers that get no runs: an order that outlives them and the coordinator.
    drained: BTreeSet<String>,
}

impl Ledger {
    /// Workers that get no runs.
    pub fn drained(&self) -> &BTreeSet<String> {
        &self.drained
    }

    pub(crate) fn restore_drained(&mut self, drained: BTreeSet<String>) {
        self.drained = drained;
    }

    /// Puts a sweep's row in the place of the one that its admission gave; `false` for a sweep that was not admitted.
    pub(crate) fn restore_sweep(&mut self, id: SweepId, row: SweepRow) -> bool {
        self.sweeps.get_mut(&id).map(|known| *known = SweepRow { members: Arc::clone(&known.members), ..row }).is_some()
    }

    /// Brings a run to where an index kept it; `false` for a run that was not admitted.
    pub(crate) fn restore_run(&mut self, kept: Kept) -> bool {
        let run_id = kept.history.run_id;
        self.carry(&kept.history);
        let Some(row) = self.runs.get_mut(&run_id).map(Arc::make_mut) else {
            return false;
        };
        row.settled = kept.settled;
        if let Some(planned) = kept.planned {
            row.planned = Arc::new(planned);
        }
        true
    }

    /// Takes over another ledger's row of a run where both say the same, so that it is kept once.
    pub fn share(&mut self, id: RunId, other: &Self) {
        if let (Some(own), Some(others)) = (self.runs.get_mut(&id), other.runs.get(&id))
            && !Arc::ptr_eq(own, others)
            && own == others
        {
            *own = Arc::clone(others);
        }
    }

    /// Takes over another ledger's list of the members of a sweep.
    pub fn share_members(&mut self, id: SweepId, other: &Self) {
        if let (Some(own), Some(others)) = (self.sweeps.get_mut(&id), other.sweeps.get(&id))
            && own.members == others.members
        {
            own.members = Arc::clone(&others.members);
        }
    }

    /// What runs of an admission, where they are known, need by it and not by what was said last.
    pub fn other_needs<'a>(&'a self, admission: &'a Admission) -> impl Iterator<Item = Needs> + 'a {
        let known = admission.runs.iter().filter_map(|planned| Some((planned, self.run(planned.run_id)?)));
        known.filter(|(planned, row)| planned.needs() != row.planned.needs()).map(|(planned, _)| planned.needs())
    }

    /// Runs and trunks of all sweeps.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn sweeps(&self) -> impl Iterator<Item = (SweepId, &SweepRow)> {
        self.sweeps.iter().map(|(id, row)| (*id, row))
    }

    pub fn sweep(&self, id: SweepId) -> Option<&SweepRow> {
        self.sweeps.get(&id)
    }

    pub fn runs(&self) -> impl Iterator<Item = (RunId, &RunRow)> {
        self.runs.iter().map(|(id, row)| (*id, row.as_ref()))
    }

    /// The runs behind this one in the order of their ids.
    pub fn runs_after(&self, id: Option<RunId>) -> impl Iterator<Item = (RunId, &RunRow)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.runs.range((from, Bound::Unbounded)).map(|(id, row)| (*id, row.as_ref()))
    }

    pub fn run(&self, id: RunId) -> Option<&RunRow> {
        self.runs.get(&id).map(Arc::as_ref)
    }

    /// The row itself, for whoever keeps it: a later change leaves it as it is.
    pub fn shared_run(&self, id: RunId) -> Option<Arc<RunRow>> {
        self.runs.get(&id).cloned()
    }

    /// The runs that a target means: a run, or a sweep's members.
    pub fn targeted(&self, target: Target) -> Vec<RunId> {
        match target {
            Target::Run(id) => self.runs.contains_key(&id).then_some(id).into_iter().collect(),
            Target::Sweep(id) => {
                self.sweep(id).map_or_else(Vec::new, |row| row.members.iter().map(|member| member.run_id).collect())
            }
        }
    }

    /// Whether some live sweep wants the run and nobody cancelled it.
    pub fn is_wanted(&self, row: &RunRow) -> bool {
        !row.cancelled && row.sweeps.iter().any(|id| !self.sweeps[id].cancelled)
    }

    /// Whether the run may be granted as far as people are concerned.
    pub fn is_paused(&self, row: &RunRow) -> bool {
        row.paused || !row.sweeps.iter().any(|id| self.sweeps[id].lets_go(row.planned.run_id))
    }

    /// The most generous budgets among the live sweeps that want the run.
    pub fn budget(&self, row: &RunRow) -> Retry {
        let live = row.sweeps.iter().map(|id| &self.sweeps[id]).filter(|sweep| !sweep.cancelled);
        live.fold(Retry { failures: 0, preemptions: 0 }, |most, sweep| Retry {
            failures: most.failures.max(sweep.retry.failures),
            preemptions: most.preemptions.max(sweep.retry.preemptions),
        })
    }

    /// Where a run stands: a function of the facts alone.
    pub fn status(&self, row: &RunRow) -> Status {
        match row.settled.as_ref().map(|settled| &settled.end) {
            Some(End::Finished { .. }) => return Status::Finished,
            Some(End::Diverged { .. }) => return Status::Diverged,
            Some(End::Failed { .. }) => return Status::Failed,
            None => {}
        }
        if row.quarantined.is_some() {
            return Status::Quarantined;
        }
        if row.lease.is_some() {
            return Status::Leased;
        }
        if !self.is_wanted(row) {
            return Status::Cancelled;
        }
        self.block(row).map_or(Status::Pending, Status::Blocked)
    }

    fn block(&self, row: &RunRow) -> Option<Block> {
        let branch = row.planned.branch?;
        let trunk = self.runs.get(&branch.trunk).expect("a branch is admitted with or after its trunk");
        if trunk.checkpoints.contains_key(&branch.step) {
            return None;
        }
        Some(match self.status(trunk) {
            Status::Pending | Status::Blocked(_) | Status::Leased => Block::Waiting,
            Status::Diverged => Block::TrunkDiverged,
            // It goes on when a branch is chosen that needs more of it.
            Status::Finished if !trunk.planned.trunk_steps.contains(&branch.step) => Block::Waiting,
            // A trunk that says it finished without this checkpoint has failed its branch.
            Status::Failed | Status::Quarantined | Status::Finished => Block::TrunkFailed,
            Status::Cancelled => Block::TrunkCancelled,
        })
    }
}
