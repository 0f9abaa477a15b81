//! What people order: submit, cancel, retry. Every order may be given twice.

use std::sync::Arc;

use isoloss_store::{Admission, Lapse, Record, Refusal, Status, Target};
use isoloss_sweep::RunId;

use super::{Effect, Millis, State, StopReason};

impl State {
    /// Admits a new sweep; a sweep known before is left alone, or revived where it was cancelled.
    pub(super) fn submit(&mut self, admission: &Arc<Admission>, now: Millis, out: &mut Vec<Effect>) {
        let record = Record::Admitted { admission: Arc::clone(admission) };
        let sweep_id = admission.sweep_id;
        if self.ledger.judge(&record) != Err(Refusal::AlreadyRecorded) {
            self.write(record, now, out);
            return;
        }
        let whole = self.ledger.sweep(sweep_id).is_some_and(|sweep| sweep.cancelled);
        let part = || {
            let mut members = self.ledger.targeted(Target::Sweep(sweep_id)).into_iter();
            members.any(|id| self.row(id).cancelled)
        };
        if whole || part() {
            self.write(Record::Revived { sweep_id }, now, out);
        }
    }

    /// Ends what nobody else wants. Results that exist are kept.
    pub(super) fn cancel(&mut self, target: Target, now: Millis, out: &mut Vec<Effect>) {
        if !self.write(Record::Cancelled { target }, now, out) {
            return;
        }
        for run_id in self.ledger.targeted(target) {
            let Some(lease) = self.leases.get(&run_id) else {
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
        if !runs.is_empty() {
            self.write(Record::Retried { runs }, now, out);
        }
    }
}
