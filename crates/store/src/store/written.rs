//! Records as they stand in the journal, read in two steps: the bytes under the eye of whoever owns the store, what they
//! say by whoever asked. The second takes ten times as long.

use std::sync::Arc;

use isoloss_sweep::{Outcome, RunId, SweepId};

use super::{Store, StoreError, not_understood};
use crate::journal::Place;
use crate::record::{Admission, Record};

/// A record whose checksum was tested.
#[derive(Debug)]
pub struct Written {
    place: Place,
    payload: Vec<u8>,
}

impl Written {
    /// The outcome that it is.
    pub fn outcome(&self) -> Result<Outcome, StoreError> {
        match self.record()? {
            Record::Settled { outcome, .. } => Ok(*outcome),
            _ => Err(not_understood(self.place, &"expected an outcome")),
        }
    }

    /// The admission that it is.
    pub fn admission(&self) -> Result<Arc<Admission>, StoreError> {
        match self.record()? {
            Record::Admitted { admission } => Ok(admission),
            _ => Err(not_understood(self.place, &"expected an admission")),
        }
    }

    fn record(&self) -> Result<Record, StoreError> {
        Record::decode(&self.payload).map_err(|error| not_understood(self.place, &error))
    }
}

impl Store {
    /// The accepted outcome of a run.
    pub fn written_outcome(&self, run_id: RunId) -> Result<Option<Written>, StoreError> {
        // A reopened run keeps its old place in the journal; only a settled one has an outcome.
        if self.ledger.run(run_id).is_none_or(|row| row.settled.is_none()) {
            return Ok(None);
        }
        self.places.outcomes.get(&run_id).map(|place| self.written(*place)).transpose()
    }

    /// A sweep as it was admitted.
    pub fn written_admission(&self, sweep_id: SweepId) -> Result<Option<Written>, StoreError> {
        self.places.admissions.get(&sweep_id).map(|place| self.written(*place)).transpose()
    }

    /// The whole accepted outcome of a run.
    pub fn outcome(&self, run_id: RunId) -> Result<Option<Outcome>, StoreError> {
        self.written_outcome(run_id)?.map(|written| written.outcome()).transpose()
    }

    pub(super) fn written(&self, place: Place) -> Result<Written, StoreError> {
        Ok(Written { place, payload: self.journal.read(place)? })
    }
}
