//! What the simulated world has seen happen, kept apart from the code under test.

use super::*;

#[derive(Default)]
pub(super) struct History {
    pub(super) granted: BTreeMap<RunId, u64>,
    pub(super) accepted: BTreeMap<RunId, (u64, End)>,
    pub(super) faults: u64,
    pub(super) stale: u64,
}

impl History {
    /// At most one outcome a run, and that of the newest lease.
    pub(super) fn check(&mut self, record: &Record) {
        match record {
            Record::Granted { run_id, attempt, .. } => {
                let before = self.granted.insert(*run_id, *attempt).unwrap_or(0);
                assert!(*attempt > before, "attempt {attempt} after {before}");
                assert!(!self.accepted.contains_key(run_id), "granted after its outcome was accepted");
            }
            Record::Settled { run_id, attempt, outcome, .. } => {
                assert_eq!(self.granted.get(run_id), Some(attempt), "the outcome of a lease that is not the newest");
                let end = match &**outcome {
                    Outcome::Finished(finished) => End::Finished {
                        score: finished.score,
                        seconds: finished.cost.seconds,
                        device: finished.provenance.device.clone(),
                    },
                    Outcome::Diverged(d) => {
                        End::Diverged { step: d.step, reason: d.reason.clone(), seconds: d.seconds }
                    }
                    Outcome::Failed(failed) => End::Failed { reason: failed.reason.clone() },
                };
                assert!(self.accepted.insert(*run_id, (*attempt, end)).is_none(), "two outcomes for one run");
            }
            _ => {}
        }
    }
}
