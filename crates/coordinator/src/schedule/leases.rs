//! The living side of leases, found by run, by slot and by deadline without looking at the others. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use isoloss_sweep::RunId;

use super::{Lease, Millis, WorkerId};

/// All leases. A slot holds at most one.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_run: BTreeMap<RunId, Lease>,
    by_slot: BTreeMap<WorkerId, BTreeMap<String, RunId>>,
    deadlines: BTreeSet<(Millis, RunId)>,
}

impl Leases {
    pub(super) fn get(&self, run_id: RunId) -> Option<&Lease> {
        self.by_run.get(&run_id)
    }

    /// For what is said of the attempt; slot and deadline are indexed and stay as they are.
    pub(super) fn get_mut(&mut self, run_id: RunId) -> Option<&mut Lease> {
        self.by_run.get_mut(&run_id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RunId, &Lease)> {
        self.by_run.iter().map(|(id, lease)| (*id, lease))
    }

    pub(super) fn insert(&mut self, run_id: RunId, lease: Lease) {
        self.remove(run_id);
        self.deadlines.insert((lease.deadline, run_id));
        self.by_slot.entry(lease.worker.clone()).or_default().insert(lease.slot.clone(), run_id);
        self.by_run.insert(run_id, lease);
    }

    pub(super) fn remove(&mut self, run_id: RunId) -> Option<Lease> {
        let lease = self.by_run.remove(&run_id)?;
        self.deadlines.remove(&(lease.deadline, run_id));
        if let Some(slots) = self.by_slot.get_mut(&lease.worker) {
            if slots.get(&lease.slot) == Some(&run_id) {
                slots.remove(&lease.slot);
            }
            if slots.is_empty() {
                self.by_slot.remove(&lease.worker);
            }
        }
        Some(lease)
    }

    pub(super) fn extend(&mut self, run_id: RunId, deadline: Millis) {
        if let Some(lease) = self.by_run.get_mut(&run_id) {
            self.deadlines.remove(&(lease.deadline, run_id));
            lease.deadline = deadline;
            self.deadlines.insert((deadline, run_id));
        }
    }

    /// Every lease gets the same new deadline, and nobody is blamed for the steps of the last `slept` milliseconds.
    pub(super) fn extend_all(&mut self, deadline: Millis, slept: Millis) {
        for lease in self.by_run.values_mut() {
            lease.deadline = deadline;
            lease.moved += slept;
        }
        self.deadlines = self.by_run.keys().map(|run_id| (deadline, *run_id)).collect();
    }

    /// The run whose lease ran out first, if any has.
    pub(super) fn overdue(&self, now: Millis) -> Option<RunId> {
        self.deadlines.first().filter(|(deadline, _)| *deadline <= now).map(|(_, run_id)| *run_id)
    }

    /// The run that a slot holds.
    pub(super) fn holder(&self, worker: &str, slot: &str) -> Option<RunId> {
        self.by_slot.get(worker)?.get(slot).copied()
    }

    /// What a worker holds: slot names and their runs.
    pub(super) fn of(&self, worker: &str) -> impl Iterator<Item = (&str, RunId)> {
        let slots = self.by_slot.get(worker).into_iter().flatten();
        slots.map(|(slot, run_id)| (slot.as_str(), *run_id))
    }
}
