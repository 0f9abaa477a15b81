//! The scheduler as a pure function: [`step`] takes the state, one event and the time, and says what follows. No I/O,
//! no clock, no randomness; the same events give the same effects.
//!
//! The facts stand in a [`Ledger`] and change only through records, by the same rules as in the store. What else is
//! here is liveness (workers, deadlines, progress) and the queue: it is rebuilt after a restart and never written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use isoloss_store::{Key, Ledger, Record, Refusal, RunRow, Status, Target};
use isoloss_sweep::{RunId, SweepId};

mod breaker;
mod ending;
mod event;
mod explain;
mod lease;
mod leases;
mod order;
mod place;
mod queue;
mod shares;
mod shortage;
mod stall;
mod standing;
mod tenure;
#[cfg(test)]
mod tests;

pub use breaker::Health;
pub use event::{
    Alarm, Device, Effect, Ending, Event, GpuRest, Grant, Holding, Instance, Millis, Occupied, Progress, Resting, Slot,
    StopReason, WorkerId, WorkerSpec,
};
pub use shortage::Shortage;

use leases::Leases;
use queue::Queue;
use shares::{Share, Shares};
use stall::Pace;
use standing::Standing;

/// The scheduler's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// A lease that is not renewed for this long is over.
    pub lease_ms: Millis,
    /// Wait after a first failure; it doubles with each further one up to `backoff_max_ms`.
    pub backoff_ms: Millis,
    pub backoff_max_ms: Millis,
    /// A run is quarantined after this many distinct workers vanished under it before its first step.
    pub quarantine_workers: usize,
    /// A worker is held back after this many different runs failed on it, each within `breaker_fast_ms` of its start.
    pub breaker_runs: usize,
    pub breaker_fast_ms: Millis,
    /// For so long at first; it doubles with each further time up to `breaker_max_ms`.
    pub breaker_ms: Millis,
    pub breaker_max_ms: Millis,
    /// A run that made no step for this long, and for many times its usual step, is told of.
    pub stall_ms: Millis,
    /// An attempt that made no step for this long has failed; missing: it goes on.
    pub stall_end_ms: Option<Millis>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            backoff_ms: 1_000,
            backoff_max_ms: 60_000,
            quarantine_workers: 3,
            breaker_runs: 3,
            breaker_fast_ms: 60_000,
            breaker_ms: 30_000,
            breaker_max_ms: 600_000,
            stall_ms: 300_000,
            stall_end_ms: None,
        }
    }
}

/// All that the scheduler knows.
#[derive(Debug)]
pub struct State {
    config: Config,
    ledger: Ledger,
    workers: BTreeMap<WorkerId, Worker>,
    /// Liveness of the leases in the ledger: the same set of runs.
    leases: Leases,
    queue: Queue,
    standing: Standing,
    shares: Shares,
    /// When leases will have made no step for too long; an entry may be out of date, and is then renewed.
    stalls: BTreeSet<(Millis, RunId)>,
    /// Trunk to its branches.
    branches: BTreeMap<RunId, BTreeSet<RunId>>,
    ticked: Millis,
    /// Too little room on the disk; memory alone.
    shortage: Option<Shortage>,
}

/// A worker that has joined in this life of the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub spec: Arc<WorkerSpec>,
    /// When its process joined.
    pub joined: Millis,
    /// When it was last heard of.
    pub seen: Millis,
    /// What it said of itself when it renewed last.
    pub resting: Resting,
    /// When that was.
    rested: Millis,
    health: Health,
}

/// The living side of a lease.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    pub worker: WorkerId,
    pub slot: String,
    pub attempt: u64,
    pub deadline: Millis,
    pub since: Millis,
    pub progress: Option<Progress>,
    /// When the step last rose.
    pub moved: Millis,
    /// Of a trunk, the step to which it was asked to train.
    pub goal: Option<u64>,
    /// Whether it was told of as making no step.
    pub stalled: bool,
    pace: Pace,
    share: Share,
}

/// Takes one event. Effects are in order: a record comes before what depends on it.
pub fn step(state: &mut State, event: Event, now: Millis) -> Vec<Effect> {
    let mut effects = Vec::new();
    let out = &mut effects;
    match event {
        Event::Submit { admission } => state.submit(&admission, now, out),
        Event::Join { spec, holding } => state.join(spec, &holding, now, out),
        Event::Leave { worker, instance } => {
            if state.speaks(&worker, instance.as_deref(), now, out) {
                state.leave(&worker, now, out);
            }
        }
        Event::Drain { worker, on } => state.drain(&worker, on, now, out),
        Event::Acquire { worker, instance, slot } => {
            if state.speaks(&worker, instance.as_deref(), now, out) {
                state.acquire(&worker, &slot, now, out);
            }
        }
        Event::Renew { worker, instance, holding, resting } => {
            if state.speaks(&worker, instance.as_deref(), now, out) {
                state.rest(&worker, resting, now);
                state.renew(&worker, &holding, now, out);
            }
        }
        Event::Settle { worker, run_id, attempt, ending } => {
            state.see(&worker, now);
            state.settle(worker, run_id, attempt, ending, now, out);
        }
        Event::Publish { worker, run_id, attempt, checkpoint } => {
            state.see(&worker, now);
            state.write(Record::Published { run_id, attempt, checkpoint }, now, out);
        }
        Event::Cancel { target } => state.counted(target, out, |state, out| state.cancel(target, now, out)),
        Event::Pause { target } => state.counted(target, out, |state, out| state.pause(target, true, now, out)),
        Event::Choose { sweep_id, runs } => state.counted(Target::Sweep(sweep_id), out, |state, out| {
            state.choose(sweep_id, runs.as_deref(), now, out);
        }),
        Event::Resume { target } => state.counted(target, out, |state, out| state.pause(target, false, now, out)),
        Event::Retry { target } => state.counted(target, out, |state, out| state.retry(target, now, out)),
        Event::Room { shortage } => state.shortage = shortage,
        Event::Tick => state.tick(now, out),
    }
    effects
}

impl State {
    /// The state after a restart. Leases in the ledger are taken to live: their workers have one lease's time to speak.
    pub fn restore(config: Config, ledger: Ledger, now: Millis) -> Self {
        let mut state = Self {
            config,
            workers: BTreeMap::new(),
            leases: Leases::default(),
            queue: Queue::default(),
            standing: Standing::default(),
            shares: Shares::default(),
            stalls: BTreeSet::new(),
            branches: BTreeMap::new(),
            ticked: now,
            shortage: None,
            ledger,
        };
        let runs: Vec<RunId> = state.ledger.runs().map(|(id, _)| id).collect();
        for run_id in &runs {
            let row = state.row(*run_id);
            let (branch, held, attempt) = (row.planned.branch, row.lease.clone(), row.attempt);
            if let Some(branch) = branch {
                state.branches.entry(branch.trunk).or_default().insert(*run_id);
            }
            if let Some(held) = held {
                state.live(*run_id, &held.worker, &held.slot, attempt, now);
            }
        }
        for run_id in runs {
            state.enqueue(run_id, now);
        }
        state
    }

    pub fn config(&self) -> Config {
        self.config
    }

    /// The facts, as the store will have them once this step's records are durable.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Keeps a run's row once, where a store's ledger has an equal one.
    pub fn share(&mut self, run_id: RunId, ledger: &Ledger) {
        self.ledger.share(run_id, ledger);
    }

    /// Keeps a new sweep's list of members once.
    pub fn share_members(&mut self, sweep_id: SweepId, ledger: &Ledger) {
        self.ledger.share_members(sweep_id, ledger);
    }

    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    pub fn leases(&self) -> impl Iterator<Item = (RunId, &Lease)> {
        self.leases.iter()
    }

    pub fn lease(&self, run_id: RunId) -> Option<&Lease> {
        self.leases.get(run_id)
    }

    /// The runs that a worker holds.
    pub fn held_by(&self, worker: &str) -> impl Iterator<Item = RunId> {
        self.leases.of(worker).map(|(_, run_id)| run_id)
    }

    /// The worker as it joined.
    pub fn worker(&self, worker: &str) -> Option<&Worker> {
        self.workers.get(worker)
    }

    /// Where a run stands.
    pub fn status(&self, run_id: RunId) -> Option<Status> {
        self.ledger.run(run_id).map(|row| self.ledger.status(row))
    }

    /// Whether an order keeps runs from a worker.
    pub fn is_draining(&self, worker: &str) -> bool {
        self.ledger.drained().contains(worker)
    }

    /// Slots of workers that are in sight and hold nothing.
    pub fn idle_slots(&self, now: Millis) -> u64 {
        let seen = self.workers.values().filter(|worker| worker.seen + self.config.lease_ms > now);
        let slots = seen.flat_map(|worker| worker.spec.slots.iter().map(|slot| (&worker.spec.worker, &slot.name)));
        slots.filter(|(worker, slot)| self.leases.holder(worker, slot).is_none()).count() as u64
    }

    /// Whether any run could be granted to a slot that fits.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    fn row(&self, run_id: RunId) -> &RunRow {
        self.ledger.run(run_id).expect("only runs of the ledger are queued, leased or named in its records")
    }

    /// Judges and applies a record and brings queue and leases in line with it. A refusal is an effect of its own.
    fn write(&mut self, record: Record, now: Millis, out: &mut Vec<Effect>) -> bool {
        if let Err(refusal) = self.ledger.judge(&record) {
            out.push(Effect::Refused(refusal));
            return false;
        }
        let touched = self.ledger.apply(&record);
        out.push(Effect::Record(record));
        let mut runs = BTreeSet::new();
        for key in touched {
            match key {
                Key::Drained => {}
                Key::Run(run_id) => drop(runs.insert(run_id)),
                Key::Sweep(sweep_id) => {
                    runs.extend(self.ledger.targeted(Target::Sweep(sweep_id)));
                }
            }
        }
        for run_id in &runs {
            if let Some(branch) = self.row(*run_id).planned.branch {
                self.branches.entry(branch.trunk).or_default().insert(*run_id);
            }
        }
        let branches: Vec<RunId> = runs.iter().filter_map(|id| self.branches.get(id)).flatten().copied().collect();
        runs.extend(branches);
        for run_id in runs {
            self.follow(run_id, now, out);
            out.push(Effect::Changed { run_id });
        }
        true
    }

    /// Brings one run's lease and queue entry in line with its row.
    fn follow(&mut self, run_id: RunId, now: Millis, out: &mut Vec<Effect>) {
        if self.row(run_id).lease.is_none()
            && let Some(lease) = self.leases.remove(run_id)
        {
            self.shares.end(lease.share, now.saturating_sub(lease.since));
            let useful = matches!(self.status(run_id), Some(Status::Finished | Status::Diverged));
            out.push(Effect::Freed { useful, ms: now.saturating_sub(lease.since) });
        }
        self.enqueue(run_id, now);
    }

    fn see(&mut self, worker: &str, now: Millis) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.seen = now;
        }
    }
}

/// For the answer to a message that changed nothing because it was a repetition.
fn repeated(out: &mut Vec<Effect>) {
    out.push(Effect::Refused(Refusal::AlreadyRecorded));
}
