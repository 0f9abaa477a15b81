//! The runs that may be granted now, in the order in which they should be: earlier sweeps first, and within a sweep the
//! longest first, so that no long run is left alone at the end. It does not know who asks for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use isoloss_store::{RunRow, Status};
use isoloss_sweep::RunId;
use isoloss_sweep::run::EngineKind;

use super::{Millis, State};

/// What kind of slot a run needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Cpu,
    Gpu,
}

impl Class {
    pub(super) fn of(row: &RunRow) -> Self {
        match row.planned.run.numerics.engine {
            EngineKind::Cpu | EngineKind::Reference => Self::Cpu,
            EngineKind::Cuda => Self::Gpu,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    sweep: u64,
    /// Milliseconds that the run and, for a trunk, its longest branch are expected to take.
    longest: Reverse<u64>,
    run_id: RunId,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeMap<Class, BTreeSet<Rank>>,
    ranks: BTreeMap<RunId, (Class, Rank)>,
    /// Since when each queued run is ready.
    since: BTreeMap<RunId, Millis>,
    /// Runs that wait out a failure.
    not_before: BTreeMap<RunId, Millis>,
    wakes: BTreeSet<(Millis, RunId)>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    pub(super) fn ready(&self, class: Class) -> impl Iterator<Item = RunId> + '_ {
        self.ready.get(&class).into_iter().flatten().map(|rank| rank.run_id)
    }

    pub(super) fn not_before(&self, run_id: RunId) -> Option<Millis> {
        self.not_before.get(&run_id).copied()
    }

    pub(super) fn delay(&mut self, run_id: RunId, until: Millis) {
        if let Some(before) = self.not_before.insert(run_id, until) {
            self.wakes.remove(&(before, run_id));
        }
        self.wakes.insert((until, run_id));
    }

    /// The runs whose wait is over.
    pub(super) fn woken(&mut self, now: Millis) -> Vec<RunId> {
        let mut woken = Vec::new();
        while let Some(first) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&first);
            self.not_before.remove(&first.1);
            woken.push(first.1);
        }
        woken
    }

    /// Since when the run could have been granted; `None` for one that is not queued.
    pub(super) fn since(&self, run_id: RunId) -> Option<Millis> {
        self.since.get(&run_id).copied()
    }

    fn remove(&mut self, run_id: RunId) {
        self.since.remove(&run_id);
        if let Some((class, rank)) = self.ranks.remove(&run_id) {
            self.ready.entry(class).or_default().remove(&rank);
        }
    }

    fn insert(&mut self, class: Class, rank: Rank, since: Millis) {
        self.since.insert(rank.run_id, since);
        self.ranks.insert(rank.run_id, (class, rank));
        self.ready.entry(class).or_default().insert(rank);
    }
}

impl State {
    /// Puts the run where it belongs: into the queue, or out of it.
    pub(super) fn enqueue(&mut self, run_id: RunId, now: Millis) {
        let since = self.queue.since(run_id).unwrap_or(now);
        self.queue.remove(run_id);
        let row = self.row(run_id);
        let waits = self.queue.not_before(run_id).is_some_and(|until| until > now);
        if waits || self.ledger.status(row) != Status::Pending || self.ledger.is_paused(row) {
            return;
        }
        let rank = Rank { sweep: self.sweep_order(row), longest: Reverse(self.longest_ms(run_id, row)), run_id };
        let class = Class::of(row);
        self.queue.insert(class, rank, since);
    }

    fn sweep_order(&self, row: &RunRow) -> u64 {
        let sweeps = row.sweeps.iter().filter_map(|id| self.ledger.sweep(*id));
        let live = sweeps.filter(|sweep| sweep.lets_go(row.planned.run_id));
        live.map(|sweep| sweep.order).min().unwrap_or(u64::MAX)
    }

    fn longest_ms(&self, run_id: RunId, row: &RunRow) -> u64 {
        let branches = self.branches.get(&run_id).into_iter().flatten();
        let tail = branches.map(|branch| millis(self.row(*branch).planned.seconds)).max().unwrap_or(0);
        millis(row.planned.seconds).saturating_add(tail)
    }
}

/// Whole milliseconds, 0 for what is no duration.
fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}
