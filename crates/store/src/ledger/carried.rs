//! What one run's records add up to, without its outcome: a compacted journal says it in one record instead of in all
//! the grants, lapses and orders that led there.

use std::collections::BTreeSet;
use std::sync::Arc;

use isoloss_sweep::RunId;
use serde::{Deserialize, Serialize};

use super::{Held, Key, Ledger, Past, Refusal, RunRow, Settled};
use crate::record::{Checkpoint, Needs, Planned, Record};

/// The history of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    pub run_id: RunId,
    /// The newest attempt granted.
    pub attempt: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Held>,
    pub failures: u32,
    pub preemptions: u32,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub took_down: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
    pub cancelled: bool,
    pub paused: bool,
    /// Where they were said anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
    /// By their steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
}

/// A run as an index keeps it, beside what its admissions say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) history: Carried,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settled: Option<Box<Settled>>,
    /// Of a trunk, whose steps grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) planned: Option<Planned>,
}

impl Kept {
    pub(crate) fn of(run_id: RunId, row: &RunRow) -> Self {
        let mut open = row.clone();
        let settled = open.settled.take();
        let planned = row.planned.is_trunk().then(|| Planned::clone(&row.planned));
        Self { history: Carried::of(run_id, &open), settled, planned }
    }

    /// Whether the run stands as it was admitted.
    pub(crate) fn is_as_admitted(&self) -> bool {
        self.settled.is_none() && self.planned.is_none() && self.history == Carried::untouched(self.history.run_id)
    }
}

impl Carried {
    /// The history of a row, so that it and the outcome, if there is one, give the same row again.
    pub(crate) fn of(run_id: RunId, row: &RunRow) -> Self {
        // Every field is named: a new one must be carried too, or known to need no carrying.
        let RunRow {
            planned,
            sweeps: _,
            attempt,
            lease,
            failures,
            preemptions,
            took_down,
            past,
            settled,
            quarantined,
            cancelled,
            paused,
            amended,
            checkpoints,
        } = row.clone();
        Self {
            run_id,
            attempt,
            lease: settled.map_or(lease, |settled| held_at_the_end(*settled, &past)),
            failures,
            preemptions,
            took_down,
            past,
            quarantined,
            cancelled,
            paused,
            needs: amended.then(|| planned.needs()),
            checkpoints: checkpoints.into_values().collect(),
        }
    }

    /// Of a run as it was admitted.
    fn untouched(run_id: RunId) -> Self {
        Self {
            run_id,
            attempt: 0,
            lease: None,
            failures: 0,
            preemptions: 0,
            took_down: BTreeSet::new(),
            past: Vec::new(),
            quarantined: None,
            cancelled: false,
            paused: false,
            needs: None,
            checkpoints: Vec::new(),
        }
    }

    /// The record that says it: none for a run as it was admitted, a grant where nothing else happened.
    pub(crate) fn record(self) -> Option<Record> {
        let untouched = Self::untouched(self.run_id);
        if self == untouched {
            return None;
        }
        match &self.lease {
            Some(Held { worker, slot })
                if self == (Self { attempt: self.attempt, lease: self.lease.clone(), ..untouched }) =>
            {
                let (worker, slot) = (worker.clone(), slot.clone());
                Some(Record::Granted { run_id: self.run_id, attempt: self.attempt, worker, slot })
            }
            _ => Some(Record::Carried { carried: Box::new(self) }),
        }
    }
}

/// The lease that settling the run took, where no lapse remembers it.
fn held_at_the_end(settled: Settled, past: &[Past]) -> Option<Held> {
    let slot = settled.slot?;
    let lapsed = past.iter().rev().find(|past| past.attempt == settled.attempt);
    match lapsed.and_then(|past| past.held.as_ref()) {
        Some(held) if held.slot == slot => None,
        _ => Some(Held { worker: settled.worker, slot }),
    }
}

impl Ledger {
    pub(super) fn judge_carried(&self, carried: &Carried) -> Result<(), Refusal> {
        let row = self.run(carried.run_id).ok_or(Refusal::UnknownRun)?;
        if carried.attempt < row.attempt { Err(Refusal::Stale { newest: row.attempt }) } else { Ok(()) }
    }

    /// Takes up a run at an attempt that was given to nobody here: a salvaged store does not know who had it.
    pub(crate) fn reopen(&mut self, run_id: RunId, attempt: u64) {
        if let Some(row) = self.runs.get_mut(&run_id).map(Arc::make_mut) {
            (row.attempt, row.lease, row.settled) = (attempt, None, None);
        }
    }

    /// Raises the number of the newest attempt of a run, never lowers it.
    pub(crate) fn raise(&mut self, run_id: RunId, attempt: u64) {
        if let Some(row) = self.runs.get_mut(&run_id).filter(|row| row.attempt < attempt) {
            Arc::make_mut(row).attempt = attempt;
        }
    }

    pub(super) fn carry(&mut self, carried: &Carried) -> Vec<Key> {
        let Some(row) = self.runs.get_mut(&carried.run_id) else {
            return Vec::new();
        };
        let carried = carried.clone();
        *row = Arc::new(RunRow {
            planned: Arc::clone(&row.planned),
            sweeps: row.sweeps.clone(),
            attempt: carried.attempt,
            lease: carried.lease,
            failures: carried.failures,
            preemptions: carried.preemptions,
            took_down: carried.took_down,
            past: carried.past,
            settled: None,
            quarantined: carried.quarantined,
            cancelled: carried.cancelled,
            paused: carried.paused,
            amended: false,
            checkpoints: carried.checkpoints.into_iter().map(|checkpoint| (checkpoint.step, checkpoint)).collect(),
        });
        if let Some(needs) = carried.needs {
            Arc::make_mut(row).amend(needs);
        }
        vec![Key::Run(carried.run_id)]
    }
}
