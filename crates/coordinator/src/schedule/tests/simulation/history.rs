//! The checker: what the world has seen happen, and what may never be. It knows the promises and not how the code keeps
//! them: it counts attempts, budgets, times and FLOPs itself, from records that are durable and answers that were given.

use super::*;

/// How much later than its deadline a lease may still stand: the coordinator looks twice a second.
const SLACK_MS: Millis = 2_000;

/// What one durable outcome says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Accepted {
    pub(super) attempt: u64,
    /// The mark that the child put on it; none on endings that the coordinator made.
    pub(super) stamp: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// Marks of outcomes, and whose they are.
    produced: BTreeMap<u64, (RunId, u64)>,
    /// Newest attempt of each run by durable records.
    granted: BTreeMap<RunId, u64>,
    /// To whom each attempt was given: worker, slot, and which life of the worker.
    told: BTreeMap<(RunId, u64), (String, String, u64)>,
    pub(super) accepted: BTreeMap<RunId, Accepted>,
    /// Outcomes whose workers were told that they are safe.
    acknowledged: BTreeMap<RunId, u64>,
    /// Failures and preemptions since the last retry.
    lost: BTreeMap<RunId, (u32, u32)>,
    /// When each lease was last heard of, by the coordinator's monotonic clock.
    heard: BTreeMap<RunId, Millis>,
    /// When leases began or were found again, by the time that the scheduler was told.
    begun: BTreeMap<RunId, Millis>,
    /// Slot milliseconds that should have been freed, and were.
    slot_ms: (Millis, Millis),
    /// No lease is blamed for silence before this.
    grace: Millis,
    ticked: Millis,
    flops: f64,
    pub(super) stale: u64,
    pub(super) broken: Option<String>,
}

impl History {
    pub(super) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some(what());
        }
    }

    pub(super) fn produce(&mut self, stamp: u64, run_id: RunId, attempt: u64) {
        self.produced.insert(stamp, (run_id, attempt));
    }

    /// A record is durable. `now` is what the scheduler was told, `mono` what is true.
    pub(super) fn record(&mut self, record: &Record, now: Millis, mono: Millis) {
        match record {
            Record::Granted { run_id, attempt, .. } => {
                let before = self.granted.insert(*run_id, *attempt).unwrap_or(0);
                self.must(*attempt == before + 1, || format!("token: attempt {attempt} follows {before}"));
                let ended = self.accepted.contains_key(run_id);
                self.must(!ended, || "double: granted after its outcome was accepted".to_owned());
                self.begin(*run_id, now, mono);
            }
            Record::Adopted { run_id, attempt, .. } => {
                let newest = self.granted.get(run_id) == Some(attempt);
                self.must(newest, || format!("fencing: attempt {attempt} taken up again is not the newest"));
                let lost = self.lost.entry(*run_id).or_default();
                lost.1 = lost.1.saturating_sub(1);
                self.begin(*run_id, now, mono);
            }
            Record::Lapsed { run_id, attempt, lapse } => self.lapse(*run_id, *attempt, lapse, now, mono),
            Record::Settled { run_id, attempt, outcome, .. } => {
                self.end(*run_id, now);
                self.settle(*run_id, *attempt, outcome);
            }
            Record::Quarantined { run_id, .. } => self.end(*run_id, now),
            Record::Admitted { admission } => {
                // A finished trunk that lacks a checkpoint of the new sweep goes on.
                for planned in admission.runs.iter().filter(|planned| planned.is_trunk()) {
                    let accepted = self.accepted.get(&planned.run_id).and_then(|accepted| accepted.stamp);
                    if accepted.is_some_and(|stamp| stamp.is_multiple_of(2)) {
                        self.forget(planned.run_id);
                    }
                }
            }
            Record::Retried { runs } => runs.iter().for_each(|run_id| {
                self.lost.remove(run_id);
                self.forget(*run_id);
            }),
            _ => {}
        }
    }

    /// The run may have another outcome: it was asked for.
    fn forget(&mut self, run_id: RunId) {
        self.accepted.remove(&run_id);
        self.acknowledged.remove(&run_id);
    }

    fn begin(&mut self, run_id: RunId, now: Millis, mono: Millis) {
        self.heard.insert(run_id, mono);
        self.begun.insert(run_id, now);
    }

    fn end(&mut self, run_id: RunId, now: Millis) {
        if let Some(begun) = self.begun.remove(&run_id) {
            self.slot_ms.0 += now.saturating_sub(begun);
        }
    }

    fn lapse(&mut self, run_id: RunId, attempt: u64, lapse: &Lapse, now: Millis, mono: Millis) {
        let newest = self.granted.get(&run_id) == Some(&attempt);
        self.must(newest, || format!("fencing: attempt {attempt} that lapsed is not the newest"));
        let lost = self.lost.entry(run_id).or_default();
        match lapse {
            Lapse::Failed { .. } => lost.0 += 1,
            Lapse::Expired { .. } | Lapse::Yielded { .. } => lost.1 += 1,
            Lapse::Cancelled => {}
        }
        self.end(run_id, now);
        let silent = mono.saturating_sub(self.heard.get(&run_id).copied().unwrap_or(0));
        let early = matches!(lapse, Lapse::Expired { .. }) && silent + 1 < LEASE;
        self.must(!early, || format!("clock: a lease was taken {silent} ms after it was renewed"));
    }

    fn settle(&mut self, run_id: RunId, attempt: u64, outcome: &Outcome) {
        let newest = self.granted.get(&run_id).copied();
        self.must(newest == Some(attempt), || format!("fencing: the outcome of attempt {attempt}, newest {newest:?}"));
        let stamp = stamp_of(outcome);
        if let Some(stamp) = stamp {
            let by = self.produced.get(&stamp).copied();
            self.must(by == Some((run_id, attempt)), || {
                format!("fencing: outcome {stamp} of attempt {attempt} is {by:?}'s")
            });
        }
        if let Outcome::Finished(finished) = outcome {
            self.flops += finished.flops_spent.get();
        }
        let before = self.accepted.insert(run_id, Accepted { attempt, stamp });
        self.must(before.is_none(), || format!("double: outcome {stamp:?} after {before:?}"));
    }

    /// An answer leaves for a worker: what it says must stay true.
    pub(super) fn acknowledge(&mut self, run_id: RunId, stamp: u64) {
        self.acknowledged.insert(run_id, stamp);
    }

    /// A lease is handed to a worker: the attempt is its own for good.
    pub(super) fn tell(&mut self, grant: &Grant, life: u64, mono: Millis) {
        self.heard.insert(grant.run_id, mono);
        let to = (grant.worker.clone(), grant.slot.clone(), life);
        let before = self.told.insert((grant.run_id, grant.attempt), to.clone());
        let same = before.as_ref().is_none_or(|before| *before == to);
        self.must(same, || format!("token: attempt {} given to {before:?} and to {to:?}", grant.attempt));
    }

    pub(super) fn keep(&mut self, run_id: RunId, mono: Millis) {
        self.heard.insert(run_id, mono);
    }

    pub(super) fn freed(&mut self, ms: Millis) {
        self.slot_ms.1 += ms;
    }

    /// The coordinator looks at the time: no lease may stand that is overdue.
    pub(super) fn tick(&mut self, ledger: &Ledger, mono: Millis) {
        if mono.saturating_sub(self.ticked) > LEASE / 2 {
            self.grace = mono;
        }
        self.ticked = mono;
        let held: Vec<RunId> = self.begun.keys().copied().collect();
        for run_id in held {
            let heard = self.heard.get(&run_id).copied().unwrap_or(0).max(self.grace);
            let leased = ledger.run(run_id).is_some_and(|row| row.lease.is_some());
            let silent = mono.saturating_sub(heard);
            self.must(!leased || silent <= LEASE + SLACK_MS, || {
                format!("clock: a lease stands {silent} ms after its renewal")
            });
        }
        let (due, freed) = self.slot_ms;
        self.must(due == freed, || format!("accounts: {freed} ms of slots were freed, {due} ms were due"));
    }

    /// A coordinator has come up: what was durable or told must be in its ledger, and all of that is now served.
    /// `open` are the records of the group that was under way when the last one died, durable or not.
    pub(super) fn reopen(&mut self, ledger: &Ledger, open: &[Record], mono: Millis) {
        for record in open {
            match record {
                Record::Retried { runs } => self.reopened(ledger, runs.iter().copied()),
                Record::Admitted { admission } => self.reopened(ledger, admission.runs.iter().map(|run| run.run_id)),
                _ => {}
            }
        }
        self.compare(ledger);
        (self.begun, self.heard, self.slot_ms) = Default::default();
        (self.grace, self.ticked) = (mono, mono);
        for (run_id, row) in ledger.runs() {
            self.granted.insert(run_id, row.attempt);
            self.lost.insert(run_id, (row.failures, row.preemptions));
            if let Some(settled) = &row.settled {
                let stamp = stamp_in(&settled.end);
                let by = stamp.and_then(|stamp| self.produced.get(&stamp).copied());
                let own = stamp.is_none() || by == Some((run_id, settled.attempt));
                self.must(own, || format!("fencing: outcome {stamp:?} of attempt {} is {by:?}'s", settled.attempt));
                self.accepted.entry(run_id).or_insert(Accepted { attempt: settled.attempt, stamp });
            }
            if row.lease.is_some() {
                self.begin(run_id, 0, mono);
            }
        }
    }

    fn reopened(&mut self, ledger: &Ledger, runs: impl Iterator<Item = RunId>) {
        let open = |id: &RunId| ledger.run(*id).is_none_or(|row| row.settled.is_none());
        runs.filter(open).for_each(|id| self.forget(id));
    }

    /// What was durable or acknowledged is there.
    pub(super) fn compare(&mut self, ledger: &Ledger) {
        let end = |id: &RunId| ledger.run(*id).and_then(|row| row.settled.as_ref());
        let mut lost = Vec::new();
        for (run_id, accepted) in &self.accepted {
            let found = end(run_id).map(|settled| Accepted { attempt: settled.attempt, stamp: stamp_in(&settled.end) });
            if found != Some(*accepted) {
                lost.push(format!("lost: {accepted:?} was durable, there is {found:?}"));
            }
        }
        for (run_id, stamp) in &self.acknowledged {
            let found = end(run_id).and_then(|settled| stamp_in(&settled.end));
            if found != Some(*stamp) {
                lost.push(format!("lost: outcome {stamp} was acknowledged, there is {found:?}"));
            }
        }
        for (run_id, attempt) in &self.granted {
            let found = ledger.run(*run_id).map_or(0, |row| row.attempt);
            if found < *attempt {
                lost.push(format!("token: attempt {attempt} was granted, the newest is {found}"));
            }
        }
        self.must(lost.is_empty(), || lost.swap_remove(0));
    }

    /// All has ended: the accounts add up.
    pub(super) fn close(&mut self, store: &Store) {
        let ledger = store.ledger();
        self.compare(ledger);
        for (run_id, row) in ledger.runs() {
            let own = self.lost.get(&run_id).copied().unwrap_or_default();
            let theirs = (row.failures, row.preemptions);
            self.must(own == theirs, || format!("accounts: {theirs:?} attempts lost, {own:?} counted"));
            let granted = self.granted.get(&run_id).copied().unwrap_or(0);
            self.must(granted == row.attempt, || format!("accounts: {} attempts, {granted} counted", row.attempt));
            let budget = ledger.budget(row);
            let kept = row.failures <= budget.failures.max(1) && row.preemptions <= budget.preemptions + 1;
            self.must(kept || !ledger.is_wanted(row), || {
                format!("accounts: {theirs:?} lost of run {} over {budget:?}", run_id.short())
            });
        }
        let mut flops = 0.0;
        for (run_id, row) in ledger.runs() {
            let outcome = store.outcome(run_id).expect("a sound journal can be read");
            let stamp = outcome.as_ref().and_then(stamp_of);
            let accepted = self.accepted.get(&run_id).and_then(|accepted| accepted.stamp);
            self.must(stamp == accepted, || format!("lost: {accepted:?} was accepted, {stamp:?} is served"));
            self.must(outcome.is_some() == row.settled.is_some(), || "lost: a row without its outcome".to_owned());
            if let Some(Outcome::Finished(finished)) = outcome {
                flops += finished.flops_spent.get();
            }
        }
        let expected: f64 = self.accepted.values().filter_map(|accepted| accepted.stamp).map(flops_of).sum();
        self.must((flops - expected).abs() < 0.5, || format!("accounts: {flops} FLOPs served, {expected} accepted"));
    }
}

/// The mark on an outcome.
fn stamp_of(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::Finished(finished) => Some(finished.score.loss_nats as u64),
        Outcome::Diverged(diverged) => Some(diverged.step),
        Outcome::Failed(_) => None,
    }
}

fn stamp_in(end: &End) -> Option<u64> {
    match end {
        End::Finished { score, .. } => Some(score.loss_nats as u64),
        End::Diverged { step, .. } => Some(*step),
        End::Failed { .. } => None,
    }
}

/// FLOPs of the outcome with this mark: only finished runs have some, and their marks are even.
pub(super) fn flops_of(stamp: u64) -> f64 {
    if stamp.is_multiple_of(2) { stamp as f64 } else { 0.0 }
}
