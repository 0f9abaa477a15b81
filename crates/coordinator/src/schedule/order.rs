//! What people order: submit, cancel, pause, retry. Every order may be given twice; what would change nothing is not
//! written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoloss_store::{Admission, Lapse, Needs, Record, Refusal, Status, Target};
use isoloss_sweep::{RunId, SweepId};

use super::{Effect, Millis, State, StopReason};

impl State {
    /// Admits a new sweep; a sweep known before is left alone, or revived where it was cancelled. One whose runs shall be
    /// chosen lets none go from then on, before it is revived; handed in without that wish it lets all go again.
    pub(super) fn submit(&mut self, admission: &Arc<Admission>, now: Millis, out: &mut Vec<Effect>) {
        let record = Record::Admitted { admission: Arc::clone(admission) };
        let sweep_id = admission.sweep_id;
        if self.ledger.judge(&record) != Err(Refusal::AlreadyRecorded) {
            if self.write(record, now, out) {
                self.amend(admission, now, out);
            }
            return;
        }
        self.amend(admission, now, out);
        let chosen = self.ledger.sweep(sweep_id).is_some_and(|sweep| sweep.chosen.is_some());
        if admission.held != chosen {
            let runs = admission.held.then(Vec::new);
            self.write(Record::Chosen { sweep_id, runs }, now, out);
        }
        let priority = self.ledger.sweep(sweep_id).map(|sweep| sweep.priority);
        if priority.is_some_and(|priority| priority != admission.priority) {
            self.write(Record::Ranked { sweep_id, priority: admission.priority }, now, out);
        }
        let whole = self.ledger.sweep(sweep_id).is_some_and(|sweep| sweep.cancelled);
        let part = || {
            let mut members = self.ledger.targeted(Target::Sweep(sweep_id)).into_iter();
            members.any(|id| self.row(id).cancelled)
        };
        if whole || part() {
            self.counted(Target::Sweep(sweep_id), out, |state, out| {
                state.write(Record::Revived { sweep_id }, now, out);
            });
        }
    }

    /// The newest word on what runs need holds for all that are not under way and have no result: it is no part of what they
    /// are.
    fn amend(&mut self, admission: &Admission, now: Millis, out: &mut Vec<Effect>) {
        let is_open = |run_id| !matches!(self.status(run_id), Some(Status::Leased | Status::Finished) | None);
        let needs: Vec<Needs> = self.ledger.other_needs(admission).filter(|needs| is_open(needs.run_id)).collect();
        if !needs.is_empty() {
            self.write(Record::Amended { needs }, now, out);
        }
    }

    /// Carries out an order and says how many runs of its target stand elsewhere than before. Trunks of a sweep are not
    /// counted, as they are not among its runs.
    pub(super) fn counted(
        &mut self,
        target: Target,
        out: &mut Vec<Effect>,
        order: impl FnOnce(&mut Self, &mut Vec<Effect>),
    ) {
        let before = self.standing(target);
        order(self, out);
        let after = self.standing(target);
        let runs = before.iter().filter(|(id, standing)| after.get(id) != Some(standing)).count() as u64;
        out.push(Effect::Ordered { runs });
    }

    /// Where each run of a target stands, and whether it is held back.
    fn standing(&self, target: Target) -> BTreeMap<RunId, (Status, bool)> {
        let runs: BTreeSet<RunId> = self.ledger.targeted(target).into_iter().collect();
        let shown = |id: &RunId| matches!(target, Target::Run(_)) || !self.row(*id).planned.is_trunk();
        let standing = |id: RunId| {
            let row = self.row(id);
            let status = self.ledger.status(row);
            (id, (status, !status.is_final() && self.ledger.is_paused(row)))
        };
        runs.into_iter().filter(shown).map(standing).collect()
    }

    /// Whether the sweep, or any that wants the run, was not cancelled.
    fn is_live(&self, target: Target) -> bool {
        let sweeps = match target {
            Target::Sweep(id) => vec![id],
            Target::Run(id) => self.ledger.run(id).map_or_else(Vec::new, |row| row.sweeps.iter().copied().collect()),
        };
        sweeps.iter().any(|id| self.ledger.sweep(*id).is_some_and(|sweep| !sweep.cancelled))
    }

    /// Whether nothing of the target will change any more unless it is asked for.
    fn is_over(&self, target: Target) -> bool {
        let runs = self.ledger.targeted(target);
        !runs.is_empty() && runs.iter().all(|id| self.ledger.status(self.row(*id)).is_final())
    }

    /// Lets these runs of a sweep go too, or all of them again.
    pub(super) fn choose(&mut self, sweep_id: SweepId, runs: Option<&[RunId]>, now: Millis, out: &mut Vec<Effect>) {
        let known = self.ledger.sweep(sweep_id).map(|sweep| sweep.chosen.as_ref());
        let same = match (known, runs) {
            (Some(None), None) => true,
            (Some(Some(chosen)), Some(runs)) => runs.iter().all(|run| chosen.contains(run)),
            _ => false,
        };
        if !same {
            self.write(Record::Chosen { sweep_id, runs: runs.map(<[RunId]>::to_vec) }, now, out);
        }
    }

    /// Holds the target back, or lets it go on.
    pub(super) fn pause(&mut self, target: Target, on: bool, now: Millis, out: &mut Vec<Effect>) {
        let held_back = match target {
            Target::Run(id) => self.ledger.run(id).is_some_and(|row| row.paused),
            Target::Sweep(id) => self.ledger.sweep(id).is_some_and(|sweep| sweep.paused),
        };
        let known = !self.ledger.targeted(target).is_empty();
        if known && (held_back == on || (on && self.is_over(target))) {
            return;
        }
        self.write(if on { Record::Paused { target } } else { Record::Resumed { target } }, now, out);
    }

    /// Ends what nobody else wants. Results that exist are kept, and a target that has ended stays as it is.
    pub(super) fn cancel(&mut self, target: Target, now: Millis, out: &mut Vec<Effect>) {
        if self.is_over(target) {
            return;
        }
        if !self.write(Record::Cancelled { target }, now, out) {
            return;
        }
        for run_id in self.ledger.targeted(target) {
            let Some(lease) = self.leases.get(run_id) else {
                continue;
            };
            if self.ledger.is_wanted(self.row(run_id)) {
                continue;
            }
            let stop = Effect::Stop {
                worker: lease.worker.clone(),
                run_id,
                attempt: lease.attempt,
                reason: StopReason::Cancelled,
            };
            let attempt = lease.attempt;
            self.lapse(run_id, attempt, Lapse::Cancelled, now, out);
            out.push(stop);
        }
    }

    pub(super) fn retry(&mut self, target: Target, now: Millis, out: &mut Vec<Effect>) {
        let broken = |status| match target {
            Target::Sweep(_) => matches!(status, Status::Failed | Status::Quarantined),
            Target::Run(_) => {
                matches!(status, Status::Failed | Status::Quarantined | Status::Diverged | Status::Cancelled)
            }
        };
        let runs: Vec<RunId> = self.ledger.targeted(target);
        let known = match target {
            Target::Run(_) => !runs.is_empty(),
            Target::Sweep(id) => self.ledger.sweep(id).is_some(),
        };
        if !known {
            out.push(Effect::Refused(match target {
                Target::Run(_) => Refusal::UnknownRun,
                Target::Sweep(_) => Refusal::UnknownSweep,
            }));
            return;
        }
        let runs: Vec<RunId> = runs.into_iter().filter(|id| self.status(*id).is_some_and(broken)).collect();
        if !runs.is_empty() && !self.is_live(target) {
            out.push(Effect::Refused(Refusal::Unwanted));
        } else if !runs.is_empty() {
            self.write(Record::Retried { runs }, now, out);
        }
    }
}
