//! What the keeper counts of its own doings for `/metrics`. It decides nothing.

use std::time::{Duration, Instant};

use isoloss_store::{Lapse, Record, Refusal};
use isoloss_sweep::Outcome;
use metrics::{counter, histogram};

use crate::meters;
use crate::schedule::{Alarm, Effect, Event, Millis, State};

/// Counts of one life of the keeper.
#[derive(Debug)]
pub(super) struct Tally {
    useful_ms: u64,
    lost_ms: u64,
    idle_ms: u64,
    looked: Instant,
}

/// What the runs that an event changes become, and why.
pub(super) type Meaning = Option<(&'static str, &'static str)>;

/// Of an order; other events say it by their records.
pub(super) fn meaning(event: &Event) -> Meaning {
    match event {
        Event::Cancel { .. } => Some(("cancelled", "order")),
        Event::Retry { .. } => Some(("pending", "retried")),
        Event::Submit { .. } => Some(("pending", "revived")),
        _ => None,
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { useful_ms: 0, lost_ms: 0, idle_ms: 0, looked: Instant::now() }
    }

    pub(super) fn effect(&mut self, effect: &Effect, meaning: Meaning) {
        match effect {
            Effect::Record(record) => count(record),
            Effect::Ordered { runs } => {
                if let Some((to, reason)) = meaning {
                    meters::transitions(to, reason, *runs);
                }
            }
            Effect::Waited { ms } => {
                histogram!("isoloss_run_queue_wait_seconds").record(Duration::from_millis(*ms));
            }
            Effect::Freed { useful, ms } => {
                *(if *useful { &mut self.useful_ms } else { &mut self.lost_ms }) += ms;
                meters::device_seconds("useful", self.useful_ms);
                meters::device_seconds("lost", self.lost_ms);
            }
            Effect::Alarm(alarm) => {
                let kind = match alarm {
                    Alarm::HeldBack { .. } => "worker_held_back",
                    Alarm::NoProgress { .. } => "no_progress",
                };
                counter!("isoloss_alarms_total", "kind" => kind).increment(1);
                tracing::warn!("{alarm}");
            }
            _ => {}
        }
    }

    /// So many slots were idle since the last look.
    pub(super) fn idle(&mut self, slots: u64) {
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        self.idle_ms += slots * Millis::try_from(passed.as_millis()).unwrap_or(0);
        meters::device_seconds("idle", self.idle_ms);
    }

    /// Whom an alarm is about at this moment.
    pub(super) fn alarmed(state: &State, now: Millis) {
        let held_back = state.workers().filter(|worker| state.held_back(worker, now).is_some()).count();
        let stalled = state.leases().filter(|(_, lease)| lease.stalled).count();
        meters::alarmed(held_back, stalled);
        let lease_ms = state.config().lease_ms;
        // What one that fell silent said last is old.
        let heard = state.workers().filter(|worker| now.saturating_sub(worker.seen) <= lease_ms);
        meters::gpus_resting(heard.map(|worker| worker.resting.gpus.len()).sum());
        meters::draining(state.workers().filter(|worker| state.is_draining(&worker.spec.worker)).count());
    }
}

fn count(record: &Record) {
    match record {
        Record::Granted { .. } => meters::transitions("leased", "granted", 1),
        Record::Adopted { .. } => meters::transitions("leased", "adopted", 1),
        Record::Lapsed { lapse, .. } => match lapse {
            Lapse::Failed { .. } => meters::transitions("pending", "failed", 1),
            Lapse::Yielded { .. } => meters::transitions("pending", "yielded", 1),
            Lapse::Expired { .. } => {
                meters::transitions("pending", "expired", 1);
                counter!("isoloss_lease_expirations_total").increment(1);
            }
            // Counted with the order that cancelled it.
            Lapse::Cancelled => {}
        },
        Record::Settled { outcome, .. } => {
            let to = match **outcome {
                Outcome::Finished(_) => "finished",
                Outcome::Diverged(_) => "diverged",
                Outcome::Failed(_) => "failed",
            };
            meters::transitions(to, "outcome", 1);
            counter!("isoloss_results_recorded_total").increment(1);
        }
        Record::Quarantined { .. } => meters::transitions("quarantined", "workers_lost", 1),
        _ => {}
    }
}

pub(super) fn refusal(refusal: &Refusal) {
    match refusal {
        Refusal::AlreadyRecorded => counter!("isoloss_duplicate_results_total").increment(1),
        Refusal::Conflict { .. } => {
            counter!("isoloss_fenced_results_total").increment(1);
            tracing::error!(%refusal, "one attempt reported two outcomes");
        }
        _ => counter!("isoloss_fenced_results_total").increment(1),
    }
}
