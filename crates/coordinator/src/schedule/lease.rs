//! The life of leases: workers that join, renew, leave and fall silent. Only a lease that ran out, and then the fencing
//! of its attempt, allows a second try: a worker that cannot be seen is not a worker that has failed.

use std::sync::Arc;

use isoloss_store::{Lapse, Record, Status};
use isoloss_sweep::RunId;

use super::{Effect, GpuRest, Holding, Millis, Resting, State, StopReason, Worker, WorkerSpec};

impl State {
    pub(super) fn join(&mut self, spec: WorkerSpec, holding: &[Holding], now: Millis, out: &mut Vec<Effect>) {
        if let Some(occupied) = self.occupant(&spec, now) {
            out.push(Effect::Occupied(occupied));
            return;
        }
        let (worker, joined) = (spec.worker.clone(), self.joined(&spec, now));
        // A worker that crashed and comes back is the machine that it was.
        let health = self.workers.get(&worker).map(|known| known.health.clone()).unwrap_or_default();
        let resting = Resting::default();
        let known = Worker { spec: Arc::new(spec), joined, seen: now, resting, rested: now, health };
        self.workers.insert(worker.clone(), known);
        let named =
            |run_id: RunId, attempt: u64| holding.iter().any(|held| held.run_id == run_id && held.attempt == attempt);
        for (run_id, attempt) in self.held(&worker) {
            if !named(run_id, attempt) {
                self.give_back(run_id, attempt, "the worker restarted without it", now, out);
            }
        }
        self.renew(&worker, holding, now, out);
    }

    /// What the worker says of itself. Of GPUs that it does not offer nothing is kept, which bounds their number.
    pub(super) fn rest(&mut self, worker: &str, mut resting: Resting, now: Millis) {
        if let Some(known) = self.workers.get_mut(worker) {
            resting.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
            resting.gpus.dedup_by(|a, b| a.uuid == b.uuid);
            resting.gpus.retain(|gpu| known.spec.slots.iter().any(|slot| slot.device.is_gpu(&gpu.uuid)));
            (known.resting, known.rested) = (resting, now);
        }
    }

    /// The worker's GPUs that rest or have to prove themselves, with the time that is left of each rest.
    pub fn resting_gpus(&self, worker: &Worker, now: Millis) -> Vec<GpuRest> {
        let passed = now.saturating_sub(worker.rested);
        let left = |gpu: &GpuRest| GpuRest { ms: gpu.ms.saturating_sub(passed), ..gpu.clone() };
        worker.resting.gpus.iter().map(left).collect()
    }

    pub(super) fn leave(&mut self, worker: &str, now: Millis, out: &mut Vec<Effect>) {
        for (run_id, attempt) in self.held(worker) {
            self.give_back(run_id, attempt, "the worker left", now, out);
        }
        self.workers.remove(worker);
    }

    /// An order that stays until it is taken back, whatever becomes of the worker.
    pub(super) fn drain(&mut self, worker: &str, on: bool, now: Millis, out: &mut Vec<Effect>) {
        let is_draining = self.is_draining(worker);
        if !is_draining && !self.workers.contains_key(worker) {
            out.push(Effect::Rejoin { worker: worker.to_owned() });
        } else if is_draining != on {
            self.write(Record::Drained { worker: worker.to_owned(), on }, now, out);
        }
    }

    pub(super) fn renew(&mut self, worker: &str, holding: &[Holding], now: Millis, out: &mut Vec<Effect>) {
        if !self.workers.contains_key(worker) {
            out.push(Effect::Rejoin { worker: worker.to_owned() });
            return;
        }
        self.see(worker, now);
        for held in holding {
            let effect = match self.keep(worker, held, now, out) {
                Ok(()) => Effect::Keep {
                    worker: worker.to_owned(),
                    run_id: held.run_id,
                    attempt: held.attempt,
                    lease_ms: self.config.lease_ms,
                },
                Err(reason) => {
                    Effect::Stop { worker: worker.to_owned(), run_id: held.run_id, attempt: held.attempt, reason }
                }
            };
            out.push(effect);
        }
    }

    fn keep(&mut self, worker: &str, held: &Holding, now: Millis, out: &mut Vec<Effect>) -> Result<(), StopReason> {
        let row = self.ledger.run(held.run_id).ok_or(StopReason::Unknown)?;
        if row.settled.is_some() || row.quarantined.is_some() {
            return Err(StopReason::Ended);
        }
        if held.attempt < row.attempt {
            return Err(StopReason::Superseded);
        }
        if !self.ledger.is_wanted(row) {
            return Err(StopReason::Cancelled);
        }
        let mine = |lease: &super::Lease| lease.worker == worker && lease.attempt == held.attempt;
        if !self.leases.get(held.run_id).is_some_and(mine) {
            self.adopt(worker, held, now, out)?;
        }
        self.extend(held.run_id, now);
        self.hear(held, now, out);
        Ok(())
    }

    /// Takes back a lease that ran out while its worker was out of sight, if nothing newer was granted.
    fn adopt(&mut self, worker: &str, held: &Holding, now: Millis, out: &mut Vec<Effect>) -> Result<(), StopReason> {
        let row = self.row(held.run_id);
        let expired = matches!(row.past.last(), Some(past)
            if past.attempt == held.attempt && matches!(past.lapse, Lapse::Expired { .. }));
        let given_up = row.lease.is_none() && row.past.last().is_some_and(|past| past.attempt == held.attempt);
        if given_up && !expired {
            return Err(StopReason::GivenUp);
        }
        if row.lease.is_some() || !expired || self.leases.holder(worker, &held.slot).is_some() {
            return Err(StopReason::Unknown);
        }
        // Its slot is free; the memory of the device may have gone to another slot of it meanwhile.
        let fits = self.workers.get(worker).is_none_or(|worker| {
            let slot = worker.spec.slots.iter().find(|own| own.name == held.slot);
            slot.is_none_or(|slot| row.planned.memory_bytes <= self.free_bytes(worker, slot))
        });
        if !fits {
            return Err(StopReason::GivenUp);
        }
        let record = Record::Adopted {
            run_id: held.run_id,
            attempt: held.attempt,
            worker: worker.to_owned(),
            slot: held.slot.clone(),
        };
        if !self.write(record, now, out) {
            return Err(StopReason::Unknown);
        }
        self.live(held.run_id, worker, &held.slot, held.attempt, now);
        Ok(())
    }

    pub(super) fn extend(&mut self, run_id: RunId, now: Millis) {
        self.leases.extend(run_id, now + self.config.lease_ms);
    }

    fn hear(&mut self, held: &Holding, now: Millis, out: &mut Vec<Effect>) {
        let Some(lease) = self.leases.get_mut(held.run_id) else {
            return;
        };
        if held.progress.is_none() || lease.progress == held.progress {
            return;
        }
        let before = lease.progress.map_or(0, |progress| progress.step);
        let step = held.progress.map_or(0, |progress| progress.step);
        let was_stalled = lease.stalled;
        if step > before {
            // The time to the first step that is heard of says more about the start than about steps.
            if lease.progress.is_some() {
                lease.pace.hear(step - before, now.saturating_sub(lease.moved));
            }
            lease.moved = now;
            lease.stalled = false;
        }
        let moves_again = was_stalled && !lease.stalled;
        lease.progress = held.progress;
        if moves_again {
            self.watch(held.run_id);
        }
        out.push(Effect::Changed { run_id: held.run_id });
    }

    /// Ends leases that ran out and wakes runs that waited.
    pub(super) fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        // The coordinator itself slept (stopped, suspended, a stuck disk): the silence was its own, so every lease gets
        // its time again.
        let slept = now.saturating_sub(self.ticked);
        if slept > self.config.lease_ms / 2 {
            self.leases.extend_all(now + self.config.lease_ms, slept);
            self.workers.values_mut().for_each(|worker| worker.seen = (worker.seen + slept).min(now));
        }
        self.ticked = now;
        while let Some(run_id) = self.leases.overdue(now) {
            self.expire(run_id, now, out);
        }
        self.look_for_stalls(now, out);
        self.shares.pass(now);
        for run_id in self.queue.woken(now) {
            self.enqueue(run_id, now);
            if self.status(run_id) == Some(Status::Pending) {
                out.push(Effect::Changed { run_id });
            }
        }
    }

    fn expire(&mut self, run_id: RunId, now: Millis, out: &mut Vec<Effect>) {
        let lease = self.leases.get(run_id).expect("only leases have deadlines");
        let attempt = lease.attempt;
        let silent = |worker: &Worker| worker.seen + self.config.lease_ms <= now;
        let lost = self.workers.get(&lease.worker).is_none_or(silent);
        let lapse = if self.ledger.is_wanted(self.row(run_id)) {
            Lapse::Expired { worker_lost: lost && lease.progress.is_none() }
        } else {
            Lapse::Cancelled
        };
        self.lapse(run_id, attempt, lapse, now, out);
        let workers = self.row(run_id).took_down.len();
        if workers >= self.config.quarantine_workers && self.row(run_id).settled.is_none() {
            let reason = format!("{workers} workers vanished under it before its first step");
            self.write(Record::Quarantined { run_id, reason }, now, out);
        }
    }

    fn give_back(&mut self, run_id: RunId, attempt: u64, reason: &str, now: Millis, out: &mut Vec<Effect>) {
        let lapse = Lapse::Yielded { reason: reason.to_owned() };
        self.lapse(run_id, attempt, lapse, now, out);
    }

    fn held(&self, worker: &str) -> Vec<(RunId, u64)> {
        self.held_by(worker).map(|run_id| (run_id, self.row(run_id).attempt)).collect()
    }
}
