//! The runs that may be granted now. Each sweep has a lane, and within a lane the longest run goes first, so that no long
//! run is left alone at the end. A lane keeps its runs by what they need of a slot: a slot is answered by a look at each
//! kind of need, of which there are few, and never by passing over every run that does not fit.

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

/// What a run needs of the slot that it goes to. Runs of one shape of model need the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    pub(super) class: Class,
    /// The disk with the checkpoint that it starts from.
    pub(super) storage: Option<String>,
    pub(super) commands: bool,
    /// 0 where any slot will do.
    pub(super) threads: u32,
    pub(super) memory_bytes: u64,
}

/// The place of a sweep among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    /// Higher goes first.
    pub(super) priority: Reverse<u32>,
    pub(super) order: u64,
}

/// Within a lane: milliseconds that the run and, for a trunk, its longest branch are expected to take.
type Rank = (Reverse<u64>, RunId);

#[derive(Debug, Clone)]
struct Entry {
    lane: Lane,
    need: Need,
    rank: Rank,
    since: Millis,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeMap<Lane, BTreeMap<Need, BTreeSet<Rank>>>,
    entries: BTreeMap<RunId, Entry>,
    /// Runs that wait out a failure.
    not_before: BTreeMap<RunId, Millis>,
    wakes: BTreeSet<(Millis, RunId)>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane> {
        self.ready.keys().copied()
    }

    /// The first run of a lane whose need is met.
    pub(super) fn first(&self, lane: Lane, is_met: impl Fn(&Need) -> bool) -> Option<RunId> {
        let needs = self.ready.get(&lane).into_iter().flatten().filter(|(need, _)| is_met(need));
        needs.filter_map(|(_, ranks)| ranks.first()).min().map(|(_, run_id)| *run_id)
    }

    /// Runs of the same class in the same lane that go before this one; `None` for one that is not queued.
    pub(super) fn ahead(&self, run_id: RunId) -> Option<usize> {
        let own = self.entries.get(&run_id)?;
        let needs = self.ready.get(&own.lane)?.iter().filter(|(need, _)| need.class == own.need.class);
        Some(needs.map(|(_, ranks)| ranks.range(..own.rank).count()).sum())
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
        self.entries.get(&run_id).map(|entry| entry.since)
    }

    fn remove(&mut self, run_id: RunId) {
        let Some(entry) = self.entries.remove(&run_id) else {
            return;
        };
        let Some(needs) = self.ready.get_mut(&entry.lane) else {
            return;
        };
        if let Some(ranks) = needs.get_mut(&entry.need) {
            ranks.remove(&entry.rank);
            if ranks.is_empty() {
                needs.remove(&entry.need);
            }
        }
        if needs.is_empty() {
            self.ready.remove(&entry.lane);
        }
    }

    fn insert(&mut self, entry: Entry) {
        let needs = self.ready.entry(entry.lane).or_default();
        needs.entry(entry.need.clone()).or_default().insert(entry.rank);
        self.entries.insert(entry.rank.1, entry);
    }
}

impl State {
    /// Puts the run where it belongs: into the queue, or out of it.
    pub(super) fn enqueue(&mut self, run_id: RunId, now: Millis) {
        let since = self.queue.since(run_id).unwrap_or(now);
        self.queue.remove(run_id);
        let status = self.ledger.status(self.row(run_id));
        self.standing.note(run_id, status);
        let row = self.row(run_id);
        let waits = self.queue.not_before(run_id).is_some_and(|until| until > now);
        if waits || status != Status::Pending || self.ledger.is_paused(row) {
            return;
        }
        let rank = (Reverse(self.longest_ms(run_id, row)), run_id);
        self.queue.insert(Entry { lane: self.lane(row), need: self.need(row), rank, since });
    }

    /// The lane of the sweep of highest priority, and among those the earliest, that lets the run go.
    pub(super) fn lane(&self, row: &RunRow) -> Lane {
        let sweeps = row.sweeps.iter().filter_map(|id| self.ledger.sweep(*id));
        let live = sweeps.filter(|sweep| sweep.lets_go(row.planned.run_id));
        let lanes = live.map(|sweep| Lane { priority: Reverse(sweep.priority), order: sweep.order });
        lanes.min().unwrap_or(Lane { priority: Reverse(0), order: u64::MAX })
    }

    pub(super) fn need(&self, row: &RunRow) -> Need {
        Need {
            class: Class::of(row),
            storage: self.start(row).map(|checkpoint| checkpoint.storage.clone()),
            commands: row.planned.command.is_some(),
            threads: row.planned.threads,
            memory_bytes: row.planned.memory_bytes,
        }
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
