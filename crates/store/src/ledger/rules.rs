//! Which records are accepted and what they change. `judge` never changes anything; `apply` never refuses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoloss_sweep::{Digest, Outcome, RunId, SweepId};

use super::planted::{Bug, is_planted};
use super::{End, Held, Key, Ledger, Member, PAST_MAX, Past, Refusal, RunRow, Settled, SweepRow, Sweeps};
use crate::record::{Admission, Branch, Checkpoint, Labels, Lapse, Name, Needs, Planned, Record, Target};

impl Ledger {
    /// Whether the record may be written now. For an outcome this is the fencing check.
    pub fn judge(&self, record: &Record) -> Result<(), Refusal> {
        match record {
            Record::Admitted { admission } => self.judge_admission(admission),
            Record::Granted { run_id, attempt, .. } => {
                let row = self.open_row(*run_id)?;
                if *attempt == row.attempt + 1 && row.lease.is_none() {
                    Ok(())
                } else {
                    Err(Refusal::Stale { newest: row.attempt })
                }
            }
            Record::Adopted { run_id, attempt, .. } => {
                let row = self.open_row(*run_id)?;
                if row.lease.is_some() {
                    return Err(Refusal::Stale { newest: row.attempt });
                }
                newest(row, *attempt)
            }
            Record::Lapsed { run_id, attempt, .. } => {
                let row = self.open_row(*run_id)?;
                newest(row, *attempt)
            }
            Record::Settled { run_id, attempt, outcome, .. } => self.judge_outcome(*run_id, *attempt, outcome),
            Record::Published { run_id, attempt, checkpoint } => {
                let row = self.row(*run_id)?;
                if row.checkpoints.get(&checkpoint.step) == Some(checkpoint) {
                    return Err(Refusal::AlreadyRecorded);
                }
                newest(self.open_row(*run_id)?, *attempt)
            }
            Record::Quarantined { run_id, .. } => self.open_row(*run_id).map(|_| ()),
            Record::Cancelled { target } | Record::Paused { target } | Record::Resumed { target } => {
                self.judge_target(*target)
            }
            Record::Revived { sweep_id } | Record::Chosen { sweep_id, .. } | Record::Ranked { sweep_id, .. } => {
                self.judge_target(Target::Sweep(*sweep_id))
            }
            Record::Drained { worker, on } if self.drained.contains(worker) == *on => Err(Refusal::AlreadyRecorded),
            Record::Drained { .. } => Ok(()),
            Record::Retried { runs } => runs.iter().try_for_each(|id| self.row(*id).map(|_| ())),
            Record::Amended { needs } => needs.iter().try_for_each(|needs| self.row(needs.run_id).map(|_| ())),
            Record::Carried { carried } => self.judge_carried(carried),
        }
    }

    fn row(&self, id: RunId) -> Result<&RunRow, Refusal> {
        self.run(id).ok_or(Refusal::UnknownRun)
    }

    fn open_row(&self, id: RunId) -> Result<&RunRow, Refusal> {
        let row = self.row(id)?;
        if row.settled.is_some() { Err(Refusal::Ended) } else { Ok(row) }
    }

    fn judge_target(&self, target: Target) -> Result<(), Refusal> {
        match target {
            Target::Run(id) => self.row(id).map(|_| ()),
            Target::Sweep(id) => self.sweeps.get(&id).map(|_| ()).ok_or(Refusal::UnknownSweep),
        }
    }

    fn judge_admission(&self, admission: &Admission) -> Result<(), Refusal> {
        if self.sweeps.contains_key(&admission.sweep_id) {
            return Err(Refusal::AlreadyRecorded);
        }
        let own: BTreeSet<RunId> = admission.runs.iter().map(|planned| planned.run_id).collect();
        for planned in &admission.runs {
            if let Some(branch) = planned.branch
                && !own.contains(&branch.trunk)
                && !self.runs.contains_key(&branch.trunk)
            {
                return Err(Refusal::UnknownTrunk { branch: planned.run_id, trunk: branch.trunk });
            }
        }
        Ok(())
    }

    /// An outcome is taken once, from the newest attempt; a repeated message gets the stored answer.
    fn judge_outcome(&self, run_id: RunId, attempt: u64, outcome: &Outcome) -> Result<(), Refusal> {
        let row = self.row(run_id)?;
        if let Some(settled) = row.settled.as_ref().filter(|_| !is_planted(Bug::NoDedupe)) {
            if settled.digest == Digest::of_json(outcome) {
                return Err(Refusal::AlreadyRecorded);
            }
            if settled.attempt == attempt {
                return Err(Refusal::Conflict { attempt, recorded: settled.digest });
            }
            return Err(Refusal::Stale { newest: row.attempt });
        }
        newest(row, attempt)
    }

    /// Takes a record that was judged, at any time since, to be acceptable; says which rows changed.
    pub fn apply(&mut self, record: &Record) -> Vec<Key> {
        match record {
            Record::Admitted { admission } => self.admit(admission),
            Record::Granted { run_id, attempt, worker, slot } => self.change(*run_id, |row| {
                row.attempt = *attempt;
                row.lease = Some(Held { worker: worker.clone(), slot: slot.clone() });
            }),
            Record::Adopted { run_id, worker, slot, .. } => self.change(*run_id, |row| row.adopt(worker, slot)),
            Record::Lapsed { run_id, lapse, .. } => self.change(*run_id, |row| row.lapse(lapse)),
            Record::Settled { run_id, attempt, worker, outcome } => {
                self.change(*run_id, |row| row.settle(*attempt, worker, outcome))
            }
            Record::Published { run_id, checkpoint, .. } => self.change(*run_id, |row| row.publish(checkpoint.clone())),
            Record::Quarantined { run_id, reason } => self.change(*run_id, |row| {
                row.quarantined = Some(reason.clone());
                row.lease = None;
            }),
            Record::Cancelled { target } => {
                self.mark(*target, |sweep| sweep.cancelled = true, |row| row.cancelled = true)
            }
            Record::Revived { sweep_id } => self.revive(*sweep_id),
            Record::Paused { target } => self.mark(*target, |sweep| sweep.paused = true, |row| row.paused = true),
            Record::Resumed { target } => self.mark(*target, |sweep| sweep.paused = false, |row| row.paused = false),
            Record::Chosen { sweep_id, runs } => self.choose(*sweep_id, runs.as_deref()),
            Record::Ranked { sweep_id, priority } => {
                self.mark(Target::Sweep(*sweep_id), |sweep| sweep.priority = *priority, |_| {})
            }
            Record::Drained { worker, on } => self.drain(worker, *on),
            Record::Retried { runs } => runs.iter().flat_map(|id| self.change(*id, RunRow::start_afresh)).collect(),
            Record::Amended { needs } => {
                needs.iter().flat_map(|needs| self.change(needs.run_id, |row| row.amend(*needs))).collect()
            }
            Record::Carried { carried } => self.carry(carried),
        }
    }

    fn change(&mut self, id: RunId, edit: impl FnOnce(&mut RunRow)) -> Vec<Key> {
        let Some(row) = self.runs.get_mut(&id) else {
            return Vec::new();
        };
        edit(Arc::make_mut(row));
        vec![Key::Run(id)]
    }

    fn mark(&mut self, target: Target, sweep: impl FnOnce(&mut SweepRow), run: impl FnOnce(&mut RunRow)) -> Vec<Key> {
        match target {
            Target::Run(id) => self.change(id, run),
            Target::Sweep(id) => {
                let Some(row) = self.sweeps.get_mut(&id) else {
                    return Vec::new();
                };
                sweep(row);
                vec![Key::Sweep(id)]
            }
        }
    }

    /// A chosen branch brings its trunk, and the trunk trains as far as chosen branches need it. On its way it leaves the
    /// checkpoints of all branches of the sweep, so that those chosen later need not go back.
    fn choose(&mut self, sweep_id: SweepId, runs: Option<&[RunId]>) -> Vec<Key> {
        let Some(sweep) = self.sweeps.get(&sweep_id) else {
            return Vec::new();
        };
        let branch = |id: &RunId| self.runs.get(id).and_then(|row| row.planned.branch);
        let members: Vec<Branch> = sweep.members.iter().filter_map(|member| branch(&member.run_id)).collect();
        let mut reach: BTreeMap<RunId, u64> = BTreeMap::new();
        let let_go: Vec<Branch> = runs.map_or_else(|| members.clone(), |runs| runs.iter().filter_map(branch).collect());
        for Branch { trunk, step } in let_go {
            let furthest = reach.entry(trunk).or_default();
            *furthest = step.max(*furthest);
        }
        let mut touched = self.mark(
            Target::Sweep(sweep_id),
            |sweep| match runs {
                Some(runs) => sweep.chosen.get_or_insert_default().extend(runs.iter().chain(reach.keys()).copied()),
                None => sweep.chosen = None,
            },
            |_| {},
        );
        for (trunk, furthest) in reach {
            let steps = members.iter().filter(|branch| branch.trunk == trunk && branch.step <= furthest);
            let steps: Vec<u64> = steps.map(|branch| branch.step).collect();
            touched.extend(self.change(trunk, |row| row.extend_trunk(&row.planned.clone().with_steps(steps))));
        }
        touched
    }

    fn drain(&mut self, worker: &str, on: bool) -> Vec<Key> {
        match on {
            true => self.drained.insert(worker.to_owned()),
            false => self.drained.remove(worker),
        };
        vec![Key::Drained]
    }

    fn revive(&mut self, sweep_id: SweepId) -> Vec<Key> {
        let mut touched = self.mark(Target::Sweep(sweep_id), |sweep| sweep.cancelled = false, |_| {});
        for id in self.targeted(Target::Sweep(sweep_id)) {
            touched.extend(self.change(id, |row| row.cancelled = false));
        }
        touched
    }

    fn admit(&mut self, admission: &Admission) -> Vec<Key> {
        let id = admission.sweep_id;
        let mut touched = vec![Key::Sweep(id)];
        // As many rows as there are runs share these.
        let alone = Sweeps::from(vec![id]);
        let mut arms: BTreeSet<Name> = BTreeSet::new();
        let mut members = Vec::with_capacity(admission.runs.len());
        for planned in &admission.runs {
            let arm = arms.get(&planned.arm).unwrap_or(&planned.arm).clone();
            arms.insert(arm.clone());
            members.push(Member { run_id: planned.run_id, arm: arm.clone() });
            // The trunk of a held sweep grows with its chosen branches; until then it has its first step for a name.
            let held = admission.held && planned.is_trunk();
            match self.runs.entry(planned.run_id) {
                Entry::Occupied(known) => {
                    let row = Arc::make_mut(known.into_mut());
                    if !held {
                        row.extend_trunk(planned);
                    }
                    row.sweeps.insert(id);
                    // A new sweep wants it: an earlier cancellation of the single run does not bind that sweep.
                    row.cancelled = false;
                }
                Entry::Vacant(place) => {
                    let all = Planned::clone(planned);
                    let first = if held { all.with_steps(all.trunk_steps.first().copied()) } else { all };
                    let planned = Planned { arm, labels: Labels::default(), ..first };
                    place.insert(Arc::new(RunRow::new(planned, alone.clone())));
                }
            }
            touched.push(Key::Run(planned.run_id));
        }
        let order = self.sweeps.values().map(|sweep| sweep.order + 1).max().unwrap_or(0);
        self.sweeps.insert(
            id,
            SweepRow {
                name: admission.name.clone(),
                order,
                submitted_at_ms: admission.submitted_at_ms,
                retry: admission.retry,
                priority: admission.priority,
                members: members.into(),
                cancelled: false,
                paused: false,
                chosen: admission.held.then(BTreeSet::new),
            },
        );
        touched
    }
}

fn newest(row: &RunRow, attempt: u64) -> Result<(), Refusal> {
    match attempt.cmp(&row.attempt) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less if is_planted(Bug::NoFencing) => Ok(()),
        std::cmp::Ordering::Less => Err(Refusal::Stale { newest: row.attempt }),
        std::cmp::Ordering::Greater => Err(Refusal::NeverGranted { attempt, newest: row.attempt }),
    }
}

impl RunRow {
    fn new(planned: Planned, sweeps: Sweeps) -> Self {
        Self {
            planned: Arc::new(planned),
            sweeps,
            attempt: 0,
            lease: None,
            failures: 0,
            preemptions: 0,
            took_down: BTreeSet::new(),
            past: Vec::new(),
            settled: None,
            quarantined: None,
            cancelled: false,
            paused: false,
            amended: false,
            checkpoints: BTreeMap::new(),
        }
    }

    /// A later sweep may need further checkpoints of a trunk: its steps are joined, and a finished trunk that lacks
    /// one of them goes on from its last checkpoint.
    fn extend_trunk(&mut self, planned: &Planned) {
        if planned.trunk_steps.iter().all(|step| self.planned.trunk_steps.contains(step)) {
            return;
        }
        let longer =
            if planned.trunk_steps.last() > self.planned.trunk_steps.last() { planned } else { &*self.planned };
        let steps = self.planned.trunk_steps.iter().chain(&planned.trunk_steps).copied();
        // An admission does not say anew what was said anew since: a record of its own does, so that replay gives the same.
        let needs = if self.amended { self.planned.needs() } else { longer.needs() };
        self.planned = Arc::new(Planned {
            labels: Labels::default(),
            memory_bytes: needs.memory_bytes,
            threads: needs.threads,
            ..longer.with_steps(steps)
        });
        if matches!(&self.settled, Some(settled) if matches!(settled.end, End::Finished { .. })) {
            self.settled = None;
        }
    }

    pub(super) fn amend(&mut self, needs: Needs) {
        let Needs { run_id: _, memory_bytes, threads } = needs;
        self.planned = Arc::new(Planned { memory_bytes, threads, ..Planned::clone(&self.planned) });
        self.amended = true;
    }

    fn lapse(&mut self, lapse: &Lapse) {
        let held = self.lease.take();
        match lapse {
            Lapse::Failed { .. } => self.failures += 1,
            Lapse::Yielded { .. } => self.preemptions += 1,
            Lapse::Expired { worker_lost } => {
                self.preemptions += 1;
                if let (true, Some(held)) = (worker_lost, &held) {
                    self.took_down.insert(held.worker.clone());
                }
            }
            Lapse::Cancelled => {}
        }
        self.remember(Past { attempt: self.attempt, held, lapse: lapse.clone() });
    }

    fn remember(&mut self, past: Past) {
        if self.past.len() == PAST_MAX {
            self.past.remove(0);
        }
        self.past.push(past);
    }

    /// The lapse turned out not to be one.
    fn adopt(&mut self, worker: &str, slot: &str) {
        if self.past.last().is_some_and(|past| past.attempt == self.attempt) {
            self.past.pop();
            self.preemptions = self.preemptions.saturating_sub(1);
            self.took_down.remove(worker);
        }
        self.lease = Some(Held { worker: worker.to_owned(), slot: slot.to_owned() });
    }

    fn settle(&mut self, attempt: u64, worker: &str, outcome: &Outcome) {
        let lapsed = || self.past.iter().rev().find(|past| past.attempt == attempt)?.held.clone();
        let held = self.lease.take().or_else(lapsed);
        self.settled = Some(Box::new(Settled {
            attempt,
            worker: worker.to_owned(),
            slot: held.map(|held| held.slot),
            digest: Digest::of_json(outcome),
            end: End::of(outcome),
        }));
    }

    fn publish(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.insert(checkpoint.step, checkpoint);
    }

    fn start_afresh(&mut self) {
        if let Some(settled) = self.settled.take_if(|settled| !matches!(settled.end, End::Finished { .. })) {
            let Settled { attempt, worker, slot, end, .. } = *settled;
            // An attempt that had lapsed before its outcome came is remembered already.
            if self.past.last().is_none_or(|past| past.attempt != attempt) {
                let held = slot.map(|slot| Held { worker, slot });
                self.remember(Past { attempt, held, lapse: Lapse::Failed { reason: end.words() } });
            }
        }
        self.quarantined = None;
        self.cancelled = false;
        self.failures = 0;
        self.preemptions = 0;
        self.took_down.clear();
    }
}
