//! Why a run is where it is, in words. Reads only.

use isoloss_store::{Block, Lapse, RunRow, Status};
use isoloss_sweep::RunId;
use isoloss_sweep::spec::bytes_words;

use super::place::{Misfit, misfit};
use super::queue::Class;
use super::{Lease, Millis, State, Worker};

/// Slots whose reasons are told one by one.
const SLOTS_MAX: usize = 20;

impl State {
    /// The reasons, most important first; `None` for a run that is not known. Of a run that has ended its end is the reason, and
    /// no attempt before it.
    pub fn explain(&self, run_id: RunId, now: Millis) -> Option<Vec<String>> {
        let row = self.ledger.run(run_id)?;
        let status = self.ledger.status(row);
        let mut reasons = match status {
            Status::Pending => self.why_pending(run_id, row, now),
            Status::Blocked(block) => vec![why_blocked(block, row)],
            Status::Leased => self.why_leased(run_id, row, now),
            Status::Finished | Status::Diverged | Status::Failed => row.settled.iter().map(|s| s.end.words()).collect(),
            Status::Cancelled => self.why_cancelled(row),
            Status::Quarantined => row.quarantined.iter().cloned().collect(),
        };
        if let Some(past) = row.past.last().filter(|_| row.settled.is_none()) {
            reasons.push(format!("attempt {} was lost: {}", past.attempt, lost(&past.lapse)));
        }
        Some(reasons)
    }

    fn why_cancelled(&self, row: &RunRow) -> Vec<String> {
        let sweeps = row.sweeps.iter().filter_map(|id| Some((id, self.ledger.sweep(*id)?)));
        let names: Vec<String> = sweeps.map(|(id, sweep)| format!("{} ({})", sweep.name, id.short())).collect();
        let names = names.join(", ");
        let (what, again) = if row.cancelled {
            ("an order cancelled this run".to_owned(), "the sweep")
        } else if row.sweeps.len() > 1 {
            (format!("orders cancelled every sweep that wants it: {names}"), "one of them")
        } else {
            (format!("an order cancelled its sweep {names}"), "the sweep")
        };
        let revive = format!("`isoloss submit` with the file of {again} revives it");
        vec![what, if row.cancelled { format!("{revive}: {names}") } else { revive }]
    }

    fn why_leased(&self, run_id: RunId, row: &RunRow, now: Millis) -> Vec<String> {
        let Some(lease) = self.leases.get(run_id) else {
            return Vec::new();
        };
        let age = |since: Millis| now.saturating_sub(since) / 1000;
        let mut reasons = vec![format!(
            "attempt {} runs on {} {} for {} s",
            lease.attempt,
            lease.worker,
            lease.slot,
            age(lease.since)
        )];
        reasons.push(match lease.progress {
            Some(progress) => format!("step {} of {}, {} s ago", progress.step, progress.steps, age(lease.moved)),
            None => "no step was reported yet".to_owned(),
        });
        if lease.stalled {
            reasons.insert(0, format!("it lives and made no step for {} s", age(lease.moved)));
        }
        if let Some(silent) = self.why_silent(lease, now) {
            reasons.insert(0, silent);
        }
        if let Some(paused) = self.why_paused(row) {
            reasons.push(format!("{paused}; this attempt goes on, and none follows it until then"));
        }
        reasons
    }

    /// How long nothing came from the holder of a lease, where that is longer than between two of its words.
    fn why_silent(&self, lease: &Lease, now: Millis) -> Option<String> {
        let left = lease.deadline.saturating_sub(now);
        let silent = self.config.lease_ms.saturating_sub(left);
        if silent <= self.config.lease_ms / 5 {
            return None;
        }
        let (worker, silent, left) = (&lease.worker, silent / 1000, left.div_ceil(1000));
        let what = match self.workers.get(worker) {
            Some(known) if now.saturating_sub(known.seen) <= self.config.lease_ms / 5 => {
                format!("{worker} lives and said nothing of this attempt for {silent} s")
            }
            Some(_) => format!("nothing was heard of {worker} for {silent} s"),
            None => format!("{worker} has not come back since this coordinator started {silent} s ago"),
        };
        Some(format!("{what}: if that stays so, its lease ends in {left} s and the run is tried again"))
    }

    /// What of people's orders keeps the run from being granted.
    fn why_paused(&self, row: &RunRow) -> Option<String> {
        if row.paused {
            let id = row.planned.run_id.short();
            return Some(format!("the run is paused: `isoloss resume {id}` lets it go on"));
        }
        if !self.ledger.is_paused(row) {
            return None;
        }
        let sweeps = || row.sweeps.iter().filter_map(|id| Some((id, self.ledger.sweep(*id)?)));
        let paused = sweeps().find(|(_, sweep)| sweep.paused && !sweep.cancelled);
        let chosen = sweeps().any(|(_, sweep)| sweep.chosen.is_some() && !sweep.paused && !sweep.cancelled);
        Some(match paused.filter(|_| !chosen) {
            Some((id, _)) => format!("its sweep is paused: `isoloss resume {}` lets it go on", id.short()),
            None => "its sweep makes chosen runs only, and this one was not chosen so far".to_owned(),
        })
    }

    fn why_pending(&self, run_id: RunId, row: &RunRow, now: Millis) -> Vec<String> {
        if let Some(paused) = self.why_paused(row) {
            return vec![paused];
        }
        if let Some(until) = self.queue.not_before(run_id).filter(|until| *until > now) {
            return vec![format!("it waits {} s more after a lost attempt", (until - now).div_ceil(1000))];
        }
        if let Some(shortage) = self.shortage {
            return vec![shortage.to_string()];
        }
        let mut reasons = self.why_unplaced(row, now);
        if let Some(ahead) = self.queue.ahead(run_id) {
            let waits = if reasons.is_empty() { ", and it waits for a worker to ask" } else { "" };
            let share = self.why_shared(row);
            reasons.push(format!("{ahead} runs are ahead of it{waits}{share}"));
        }
        reasons
    }

    /// How its sweep stands among those that have runs waiting too.
    fn why_shared(&self, row: &RunRow) -> String {
        let own = self.lane(row);
        let above = self.queue.lanes().filter(|lane| lane.priority < own.priority).count();
        let equal = self.queue.lanes().filter(|lane| lane.priority == own.priority && *lane != own).count();
        match (above, equal) {
            (0, 0) => String::new(),
            (0, _) => format!("; its sweep shares the slots with {equal} of equal priority"),
            _ => format!("; runs of {above} sweep(s) of higher priority go first"),
        }
    }

    /// What every joined worker lacks, slot by slot for the first of them; empty when some slot could take it now.
    fn why_unplaced(&self, row: &RunRow, now: Millis) -> Vec<String> {
        let (mut reasons, mut more) = (Vec::new(), 0);
        let mut tell = |reason: &dyn Fn() -> String| match reasons.len() {
            0..SLOTS_MAX => reasons.push(reason()),
            _ => more += 1,
        };
        let need = self.need(row);
        for worker in self.workers.values() {
            let name = &worker.spec.worker;
            if let Some(why) = self.why_idle(worker, now) {
                tell(&|| why.clone());
                continue;
            }
            let resting = self.resting_gpus(worker, now);
            for slot in &worker.spec.slots {
                let misfit = misfit(&need, worker, slot, self.free_bytes(worker, slot));
                let rest = resting.iter().find(|gpu| slot.device.is_gpu(&gpu.uuid));
                if let Some(rest) = rest.filter(|_| misfit != Some(Misfit::Class)) {
                    let then = match rest.ms {
                        0 => "gets one run at a time until one trains".to_owned(),
                        ms => format!("rests for {} s", ms.div_ceil(1000)),
                    };
                    tell(&|| format!("{name} {}: the GPU was not to be had and {then}: {}", slot.name, rest.reason));
                    continue;
                }
                if misfit.is_none() && self.leases.holder(name, &slot.name).is_none() {
                    return Vec::new();
                }
                let reason = || misfit.map_or_else(|| "holds another run".to_owned(), |misfit| misfit.words(row));
                tell(&|| format!("{name} {}: {}", slot.name, reason()));
            }
        }
        if more > 0 {
            reasons.push(format!("and {more} more slots or workers that cannot take it now"));
        }
        let gpus = |worker: &Worker| worker.spec.slots.iter().any(|slot| slot.class() == Class::Gpu);
        if reasons.is_empty() {
            reasons.push("no worker has joined".to_owned());
        } else if need.class == Class::Gpu && !self.workers.values().any(gpus) {
            let start = "start `isoloss worker --gpu auto` on a machine that has one";
            reasons.insert(0, format!("it wants a GPU and no worker offers one: {start}"));
        }
        reasons
    }
}

impl State {
    /// What keeps every run from a worker.
    fn why_idle(&self, worker: &Worker, now: Millis) -> Option<String> {
        let name = &worker.spec.worker;
        let silent = now.saturating_sub(worker.seen);
        if self.is_draining(name) {
            return Some(format!("{name} is draining: `isoloss undrain {name}` lets it have runs again"));
        }
        if silent > self.config.lease_ms {
            return Some(format!("nothing was heard of {name} for {} s", silent / 1000));
        }
        if let Some(left) = self.held_back(worker, now) {
            let seconds = left.div_ceil(1000);
            return Some(format!("{name} gets no run for {seconds} s more: one after the other failed there"));
        }
        worker.resting.why.as_ref().map(|why| format!("{name} asks for no work: {why}"))
    }
}

impl Misfit {
    fn words(self, row: &RunRow) -> String {
        match self {
            Self::Class => format!("not a device for the engine {}", row.planned.run.numerics.engine.name()),
            Self::Memory { free_bytes } => {
                let [needed, free] = [row.planned.memory_bytes, free_bytes].map(bytes_words);
                format!("needs {needed} of memory, {free} are free")
            }
            Self::Threads { threads } => format!("needs {} threads, it has {threads}", row.planned.threads),
            Self::Storage => "cannot read its trunk's checkpoint".to_owned(),
            Self::Commands => {
                let command = row.planned.command.as_deref().unwrap_or_default().join(" ");
                format!("may not run commands; the run needs a worker with --allow-commands for: {command}")
            }
        }
    }
}

fn why_blocked(block: Block, row: &RunRow) -> String {
    let Some(branch) = row.planned.branch else {
        return "blocked".to_owned();
    };
    let (trunk, step) = (branch.trunk.short(), branch.step);
    match block {
        Block::Waiting => format!("waits for step {step} of trunk {trunk}"),
        Block::TrunkDiverged => format!("trunk {trunk} diverged before step {step}"),
        Block::TrunkFailed => format!("trunk {trunk} failed before step {step}"),
        Block::TrunkCancelled => format!("trunk {trunk} was cancelled before step {step}"),
    }
}

fn lost(lapse: &Lapse) -> String {
    match lapse {
        Lapse::Failed { reason } | Lapse::Yielded { reason } => reason.clone(),
        Lapse::Expired { worker_lost: true } => "its worker vanished".to_owned(),
        Lapse::Expired { worker_lost: false } => "its lease ran out".to_owned(),
        Lapse::Cancelled => "it was cancelled".to_owned(),
    }
}
