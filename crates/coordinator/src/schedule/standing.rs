//! How many runs stand where, kept as they move: whoever asks does not pass over all of them. It decides nothing.

use std::collections::BTreeMap;

use isoloss_store::Status;
use isoloss_sweep::RunId;

use super::State;

/// Where runs stand. The finished ones, which are most in a long life, are those that are not in here.
#[derive(Debug, Default)]
pub(super) struct Standing {
    others: BTreeMap<RunId, Status>,
    counts: BTreeMap<Status, usize>,
}

impl Standing {
    /// The run stands here now.
    pub(super) fn note(&mut self, run_id: RunId, status: Status) {
        let before = match status {
            Status::Finished => self.others.remove(&run_id),
            _ => self.others.insert(run_id, status),
        };
        if before == Some(status) {
            return;
        }
        if let Some(count) = before.and_then(|before| self.counts.get_mut(&before)) {
            *count -= 1;
        }
        if status != Status::Finished {
            *self.counts.entry(status).or_default() += 1;
        }
    }
}

impl State {
    /// Runs and trunks by where they stand.
    pub fn counts(&self) -> BTreeMap<Status, usize> {
        let Standing { others, counts } = &self.standing;
        let mut all = counts.clone();
        all.insert(Status::Finished, self.ledger.len() - others.len());
        all.retain(|_, count| *count > 0);
        all
    }
}
