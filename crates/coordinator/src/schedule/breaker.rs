//! The circuit breaker of a worker: a machine on which one run after the other fails at once gets none for a while, or it
//! would eat the whole queue. One run that fails everywhere says nothing about machines, and the last worker in sight is
//! never held back: whoever is ill then, somebody must try.

use std::collections::BTreeSet;

use isoloss_store::Lapse;
use isoloss_sweep::RunId;

use super::{Alarm, Effect, Millis, State, Worker, WorkerId};

/// How a worker has fared with its last runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Different runs that failed soon after their start, none having ended well in between; at most the bound.
    failed: BTreeSet<RunId>,
    trips: u32,
    /// It gets no run before, and then one at a time until one ends well.
    until: Option<Millis>,
}

impl State {
    /// How long a worker is held back yet; `None` for one that may have runs.
    pub fn held_back(&self, worker: &Worker, now: Millis) -> Option<Millis> {
        let left = worker.health.until?.checked_sub(now).filter(|left| *left > 0)?;
        self.has_other(worker, now).then_some(left)
    }

    /// Whether a worker that failed of late tries one run at this moment, and must not have another.
    pub(super) fn is_on_trial(&self, worker: &Worker, now: Millis) -> bool {
        worker.health.until.is_some()
            && self.has_other(worker, now)
            && self.held_by(&worker.spec.worker).any(|run_id| {
                self.lease(run_id).is_some_and(|lease| now.saturating_sub(lease.since) < self.config.breaker_fast_ms)
            })
    }

    /// An attempt ended well: whatever failed there before was not the machine.
    pub(super) fn fared_well(&mut self, worker: &str) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.health = Health::default();
        }
    }

    /// An attempt that began at `since` failed.
    pub(super) fn fared_badly(
        &mut self,
        worker: &str,
        run_id: RunId,
        since: Millis,
        now: Millis,
        out: &mut Vec<Effect>,
    ) {
        let failed = self.row(run_id).past.iter().filter(|past| matches!(past.lapse, Lapse::Failed { .. }));
        let held = failed.filter_map(|past| past.held.as_ref());
        let others: Vec<WorkerId> = held.map(|held| held.worker.clone()).filter(|other| other != worker).collect();
        for other in &others {
            if let Some(other) = self.workers.get_mut(other) {
                other.health.failed.remove(&run_id);
            }
        }
        if !others.is_empty() || now.saturating_sub(since) > self.config.breaker_fast_ms {
            return;
        }
        let config = self.config;
        let Some(known) = self.workers.get(worker) else {
            return;
        };
        let (has_other, mut health) = (self.has_other(known, now), known.health.clone());
        if health.failed.len() < config.breaker_runs {
            health.failed.insert(run_id);
        }
        let runs = health.failed.len();
        if runs >= config.breaker_runs && has_other && health.until.is_none_or(|until| until <= now) {
            let ms = (config.breaker_ms << health.trips.min(16)).min(config.breaker_max_ms);
            health.trips += 1;
            health.until = Some(now + ms);
            out.push(Effect::Alarm(Alarm::HeldBack { worker: worker.to_owned(), runs, ms }));
        }
        self.workers.get_mut(worker).expect("it was just there").health = health;
    }

    /// Whether another worker is in sight that may have runs.
    fn has_other(&self, worker: &Worker, now: Millis) -> bool {
        self.workers.values().any(|other| {
            other.spec.worker != worker.spec.worker
                && !self.is_draining(&other.spec.worker)
                && other.seen + self.config.lease_ms > now
                && other.health.until.is_none_or(|until| until <= now)
        })
    }
}
