//! Runs that live and make no step. A heartbeat says that a process breathes, not that it gets anywhere; whoever pays for
//! the machine must hear of it. Nothing is ended for it unless the configuration says after how long.

use isoloss_store::Lapse;
use isoloss_sweep::RunId;

use super::{Alarm, Effect, Lease, Millis, State};

/// Step times that the median is taken of.
const SAMPLES: usize = 9;
/// A run stands still when its step took so many times its usual time.
const TIMES: Millis = 20;
/// The first step comes after reading corpus and checkpoint: so many times the bound of later ones.
const START: Millis = 2;

/// The last step times of an attempt, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pace {
    steps_ms: [Millis; SAMPLES],
    seen: usize,
}

impl Pace {
    /// `steps` steps took `ms`.
    pub(super) fn hear(&mut self, steps: u64, ms: Millis) {
        self.steps_ms[self.seen % SAMPLES] = ms / steps.max(1);
        self.seen += 1;
    }

    fn median_ms(&self) -> Millis {
        let mut known = self.steps_ms[..self.seen.min(SAMPLES)].to_vec();
        known.sort_unstable();
        known.get(known.len() / 2).copied().unwrap_or(0)
    }
}

impl State {
    /// When the lease will have stood still for too long, should it make no step until then.
    fn stall_due(&self, lease: &Lease) -> Millis {
        let least = self.config.stall_ms;
        lease.moved
            + match lease.progress {
                None => least.saturating_mul(START),
                Some(_) => least.max(lease.pace.median_ms().saturating_mul(TIMES)),
            }
    }

    /// From now on the lease is looked after.
    pub(super) fn watch(&mut self, run_id: RunId) {
        if let Some(lease) = self.leases.get(run_id) {
            self.stalls.insert((self.stall_due(lease), run_id));
        }
    }

    /// Looks after the leases whose time has come: tells of those that made no step, and ends them where it is wished.
    pub(super) fn look_for_stalls(&mut self, now: Millis, out: &mut Vec<Effect>) {
        while let Some((due, run_id)) = self.stalls.first().copied().filter(|(due, _)| *due <= now) {
            self.stalls.remove(&(due, run_id));
            let Some(lease) = self.leases.get(run_id) else {
                continue;
            };
            let (due, attempt) = (self.stall_due(lease), lease.attempt);
            if due > now {
                self.stalls.insert((due, run_id));
                continue;
            }
            let ms = now.saturating_sub(lease.moved);
            if !lease.stalled {
                let (worker, slot) = (lease.worker.clone(), lease.slot.clone());
                out.push(Effect::Alarm(Alarm::NoProgress { run_id, attempt, worker, slot, ms }));
                out.push(Effect::Changed { run_id });
                self.leases.get_mut(run_id).expect("it was just there").stalled = true;
            }
            let Some(limit) = self.config.stall_end_ms else {
                continue;
            };
            if ms >= limit {
                let reason = format!("it made no step for {} s", ms / 1000);
                self.lapse(run_id, attempt, Lapse::Failed { reason }, now, out);
            } else {
                self.stalls.insert((now + (limit - ms), run_id));
            }
        }
    }
}
