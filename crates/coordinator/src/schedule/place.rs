//! Which run fits which slot, and the grant. Memory is reserved by lease; slots of one GPU share its memory.

use isoloss_store::{Checkpoint, Record, RunRow};
use isoloss_sweep::RunId;

use super::queue::{Class, Lane, Need};
use super::shares::Share;
use super::stall::Pace;
use super::{Device, Effect, Grant, Lease, Millis, Slot, State, Worker};

/// Why a run does not go into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    Class,
    Threads { threads: u32 },
    Memory { free_bytes: u64 },
    Storage,
    Commands,
}

impl State {
    /// Gives the slot its work: the lease that it holds already, or the first run that fits.
    pub(super) fn acquire(&mut self, worker: &str, slot: &str, now: Millis, out: &mut Vec<Effect>) {
        self.see(worker, now);
        let known = self.workers.get(worker).and_then(|known| {
            let slot = known.spec.slots.iter().find(|own| own.name == slot)?;
            Some((known.clone(), slot.clone()))
        });
        let Some((worker, slot)) = known else {
            out.push(Effect::Rejoin { worker: worker.to_owned() });
            return;
        };
        if let Some(run_id) = self.leases.holder(&worker.spec.worker, &slot.name) {
            self.extend(run_id, now);
            out.push(Effect::Grant(self.grant(run_id)));
            return;
        }
        if self.shortage.is_some()
            || self.is_draining(&worker.spec.worker)
            || self.held_back(&worker, now).is_some()
            || self.is_on_trial(&worker, now)
        {
            return;
        }
        let free_bytes = self.free_bytes(&worker, &slot);
        let is_met = |need: &Need| misfit(need, &worker, &slot, free_bytes).is_none();
        let fit = self.lanes_in_turn(slot.class()).into_iter().find_map(|lane| self.queue.first(lane, is_met));
        if let Some(run_id) = fit {
            self.lease_to(run_id, &worker.spec.worker, &slot.name, now, out);
        }
    }

    fn lease_to(&mut self, run_id: RunId, worker: &str, slot: &str, now: Millis, out: &mut Vec<Effect>) {
        let attempt = self.row(run_id).attempt + 1;
        let record = Record::Granted { run_id, attempt, worker: worker.to_owned(), slot: slot.to_owned() };
        let ready = self.queue.since(run_id).unwrap_or(now);
        if self.write(record, now, out) {
            self.live(run_id, worker, slot, attempt, now);
            out.push(Effect::Waited { ms: now.saturating_sub(ready) });
            out.push(Effect::Grant(self.grant(run_id)));
        }
    }

    /// Begins the living side of a lease.
    pub(super) fn live(&mut self, run_id: RunId, worker: &str, slot: &str, attempt: u64, now: Millis) {
        let deadline = now + self.config.lease_ms;
        let row = self.row(run_id);
        let goal = row.planned.trunk_steps.last().copied();
        let share = Share { class: Class::of(row), lane: self.lane(row), width: self.width(worker, slot) };
        self.shares.begin(share);
        let lease = Lease {
            worker: worker.to_owned(),
            slot: slot.to_owned(),
            attempt,
            deadline,
            since: now,
            progress: None,
            moved: now,
            goal,
            stalled: false,
            pace: Pace::default(),
            share,
        };
        self.leases.insert(run_id, lease);
        self.watch(run_id);
    }

    /// What a lease on the slot takes of the machines; 1 for one that is not known.
    fn width(&self, worker: &str, slot: &str) -> u64 {
        let known = self.workers.get(worker).and_then(|worker| worker.spec.slots.iter().find(|own| own.name == slot));
        match known.map(|slot| &slot.device) {
            Some(Device::Cpu { threads }) => u64::from(*threads).max(1),
            Some(Device::Gpu { .. }) | None => 1,
        }
    }

    /// The sweeps in the order in which a slot of the class is offered to them: by priority, then to whom has least.
    fn lanes_in_turn(&self, class: Class) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = self.queue.lanes().collect();
        lanes.sort_by_key(|lane| (lane.priority, self.shares.taken(class, *lane), lane.order));
        lanes
    }

    fn grant(&self, run_id: RunId) -> Grant {
        let row = self.row(run_id);
        let lease = self.leases.get(run_id).expect("only leases are handed out");
        Grant {
            worker: lease.worker.clone(),
            slot: lease.slot.clone(),
            run_id,
            attempt: lease.attempt,
            lease_ms: self.config.lease_ms,
            planned: row.planned.clone(),
            resume: self.start(row).cloned(),
        }
    }

    /// The checkpoint that a branch starts from.
    pub(super) fn start(&self, row: &RunRow) -> Option<&Checkpoint> {
        let branch = row.planned.branch?;
        self.row(branch.trunk).checkpoints.get(&branch.step)
    }

    /// Memory of the slot's device that no lease has reserved.
    pub(super) fn free_bytes(&self, worker: &Worker, slot: &Slot) -> u64 {
        let shares = |name: &str| {
            name == slot.name
                || worker.spec.slots.iter().any(|other| {
                    other.name == name && matches!(other.device, Device::Gpu { .. }) && other.device == slot.device
                })
        };
        let leases = self.leases.of(&worker.spec.worker).filter(|(slot, _)| shares(slot));
        let reserved: u64 = leases.map(|(_, run_id)| self.row(run_id).planned.memory_bytes).sum();
        slot.memory_bytes.saturating_sub(reserved)
    }
}

/// Why a run with this need cannot go into the slot now.
pub(super) fn misfit(need: &Need, worker: &Worker, slot: &Slot, free_bytes: u64) -> Option<Misfit> {
    if need.class != slot.class() {
        return Some(Misfit::Class);
    }
    if need.commands && !worker.spec.allow_commands {
        return Some(Misfit::Commands);
    }
    if need.storage.as_ref().is_some_and(|storage| *storage != worker.spec.storage) {
        return Some(Misfit::Storage);
    }
    if let Device::Cpu { threads } = slot.device
        && need.threads > threads
    {
        return Some(Misfit::Threads { threads });
    }
    (need.memory_bytes > free_bytes).then_some(Misfit::Memory { free_bytes })
}

impl Device {
    pub(super) fn is_gpu(&self, uuid: &str) -> bool {
        matches!(self, Self::Gpu { uuid: own } if own == uuid)
    }
}

impl Slot {
    pub(super) fn class(&self) -> Class {
        match self.device {
            Device::Cpu { .. } => Class::Cpu,
            Device::Gpu { .. } => Class::Gpu,
        }
    }
}
