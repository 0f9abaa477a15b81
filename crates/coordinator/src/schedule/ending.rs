//! Ends of attempts: which is the end of the run, and which only costs a part of its budget.

use isoloss_store::{Lapse, Record, Status};
use isoloss_sweep::RunId;
use isoloss_sweep::outcome::{Failed, Outcome};

use super::{Effect, Ending, Millis, State, WorkerId, repeated};

impl State {
    pub(super) fn settle(
        &mut self,
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        ending: Ending,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        // Before the question whether it was counted already: a trunk that lacks a checkpoint is no result.
        let ending = match ending {
            // Asked for more while it trained: it did what it was told, and goes on from its last checkpoint.
            Ending::Outcome(outcome) if matches!(*outcome, Outcome::Finished(_)) && self.has_grown(run_id, attempt) => {
                Ending::Yielded { reason: "its trunk has to go further by now".to_owned(), wait: false }
            }
            Ending::Outcome(outcome) => Ending::Outcome(self.checked(run_id, outcome)),
            yielded @ Ending::Yielded { .. } => yielded,
        };
        if self.has_lapsed(run_id, attempt) && !matches!(ending, Ending::Outcome(ref o) if is_result(o)) {
            repeated(out);
            return;
        }
        let held = self.lease(run_id).filter(|lease| lease.attempt == attempt);
        let held = held.map(|lease| (lease.worker.clone(), lease.since));
        let is_well = matches!(&ending, Ending::Outcome(outcome) if is_result(outcome));
        // Somebody else's wish ended it, which says nothing of the machine.
        let is_neutral = matches!(ending, Ending::Yielded { wait: false, .. });
        match ending {
            Ending::Yielded { reason, wait } => {
                self.lapse(run_id, attempt, Lapse::Yielded { reason }, now, out);
                if wait && self.status(run_id) == Some(Status::Pending) {
                    self.back_off(run_id, self.row(run_id).preemptions, now);
                }
            }
            Ending::Outcome(outcome) => match *outcome {
                Outcome::Failed(Failed { ref reason, retry: true }) if self.may_fail_again(run_id) => {
                    // An order that ended it counts against nothing, whatever the attempt says of its end.
                    let is_wanted = self.ledger.run(run_id).is_some_and(|row| self.ledger.is_wanted(row));
                    let lapse = if is_wanted { Lapse::Failed { reason: reason.clone() } } else { Lapse::Cancelled };
                    self.lapse(run_id, attempt, lapse, now, out);
                }
                _ => self.accept(worker, run_id, attempt, outcome, now, out),
            },
        }
        match held {
            // Refused: it says nothing.
            Some(_) if self.lease(run_id).is_some_and(|lease| lease.attempt == attempt) => {}
            Some((worker, _)) if is_well => self.fared_well(&worker),
            Some((worker, since)) if !is_neutral => self.fared_badly(&worker, run_id, since, now, out),
            _ => {}
        }
    }

    /// The run's end, if the attempt is still the newest.
    fn accept(
        &mut self,
        worker: WorkerId,
        run_id: RunId,
        attempt: u64,
        outcome: Box<Outcome>,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let record = Record::Settled { run_id, attempt, worker, outcome };
        self.write(record, now, out);
    }

    /// The attempt is lost; the run waits, goes back into the queue, or has spent its budget.
    pub(super) fn lapse(&mut self, run_id: RunId, attempt: u64, lapse: Lapse, now: Millis, out: &mut Vec<Effect>) {
        let worker = self.lease(run_id).map_or_else(String::new, |lease| lease.worker.clone());
        let failed = matches!(lapse, Lapse::Failed { .. });
        let record = Record::Lapsed { run_id, attempt, lapse };
        if !self.write(record, now, out) {
            return;
        }
        let row = self.row(run_id);
        let budget = self.ledger.budget(row).preemptions;
        if failed {
            self.back_off(run_id, row.failures, now);
        } else if self.ledger.is_wanted(row) && row.preemptions > budget {
            let reason = format!("attempts were taken away {} times, over the budget of {budget}", row.preemptions);
            let outcome = Box::new(Outcome::Failed(Failed { reason, retry: false }));
            self.accept(worker, run_id, attempt, outcome, now, out);
        }
    }

    /// The run waits, the longer the more attempts were lost.
    fn back_off(&mut self, run_id: RunId, lost: u32, now: Millis) {
        let doublings = lost.saturating_sub(1).min(16);
        let wait = (self.config.backoff_ms << doublings).min(self.config.backoff_max_ms);
        self.queue.delay(run_id, now + wait);
        self.enqueue(run_id, now);
    }

    fn may_fail_again(&self, run_id: RunId) -> bool {
        self.ledger
            .run(run_id)
            .is_some_and(|row| !self.ledger.is_wanted(row) || row.failures < self.ledger.budget(row).failures)
    }

    /// Whether this attempt was already counted as lost.
    fn has_lapsed(&self, run_id: RunId, attempt: u64) -> bool {
        self.ledger.run(run_id).is_some_and(|row| {
            row.attempt == attempt && row.lease.is_none() && row.past.last().is_some_and(|past| past.attempt == attempt)
        })
    }

    /// Whether a trunk reached what it was asked for when it was granted, and lacks only what was asked for since.
    fn has_grown(&self, run_id: RunId, attempt: u64) -> bool {
        let lease = self.lease(run_id).filter(|lease| lease.attempt == attempt);
        let (Some(row), Some(goal)) = (self.ledger.run(run_id), lease.and_then(|lease| lease.goal)) else {
            return false;
        };
        let mut missing = row.planned.trunk_steps.iter().filter(|step| !row.checkpoints.contains_key(step)).peekable();
        missing.peek().is_some() && missing.all(|step| *step > goal)
    }

    /// A trunk that says it finished but left a checkpoint out has broken.
    fn checked(&self, run_id: RunId, outcome: Box<Outcome>) -> Box<Outcome> {
        let Some(row) = self.ledger.run(run_id) else {
            return outcome;
        };
        let mut missing = row.planned.trunk_steps.iter().filter(|step| !row.checkpoints.contains_key(step));
        match (&*outcome, missing.next()) {
            (Outcome::Finished(_), Some(step)) => Box::new(Outcome::Failed(Failed {
                reason: format!("the trunk ended without its checkpoint at step {step}"),
                retry: true,
            })),
            _ => outcome,
        }
    }
}

/// Whether the outcome is worth keeping even from an attempt that was given up.
fn is_result(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(_))
}
