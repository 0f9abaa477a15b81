//! All rows of an index, read without its journal: what they prove to have been acknowledged, whatever the journal beside
//! them says now.

use isoloss_sweep::{Digest, RunId, SweepId};

use super::{DRAINED, Index, IndexError, RUN, SWEEP, StoredRun, StoredSweep, guarded};
use crate::journal::{Journal, Place, Tip};
use crate::ledger::{Kept, Ledger, SweepRow};
use crate::record::Record;

/// What an index that is whole has seen.
pub(crate) struct Witness {
    pub(crate) tip: Tip,
    pub(crate) sweeps: Vec<SeenSweep>,
    pub(crate) runs: Vec<SeenRun>,
}

/// A sweep as the index has it.
pub(crate) struct SeenSweep {
    pub(crate) id: SweepId,
    /// Without members.
    pub(crate) row: SweepRow,
    place: Place,
}

/// A run of which more is known than its admission.
pub(crate) struct SeenRun {
    pub(crate) id: RunId,
    pub(crate) kept: Kept,
    outcome: Option<Place>,
}

impl SeenRun {
    /// The digest of its accepted outcome.
    pub(crate) fn outcome(&self) -> Option<Digest> {
        self.kept.settled.as_ref().map(|settled| settled.digest)
    }
}

impl Index {
    /// Reads all rows; an error where they are not whole, and then they prove nothing.
    pub(crate) fn witness(&mut self) -> Result<Witness, IndexError> {
        guarded(|| self.read_rows())
    }

    fn read_rows(&mut self) -> Result<Witness, IndexError> {
        let meta = self.meta()?.ok_or(IndexError::Unfaithful("it is empty"))?;
        self.rows = [0; 32];
        let mut witness = Witness { tip: meta.tip(), sweeps: Vec::new(), runs: Vec::new() };
        self.each(SWEEP, &mut |id, value| {
            let StoredSweep { row, place } = serde_json::from_slice(value)?;
            witness.sweeps.push(SeenSweep { id: SweepId(id), row, place: place.into() });
            Ok(())
        })?;
        self.each(RUN, &mut |id, value| {
            let StoredRun { kept, outcome } = serde_json::from_slice(value)?;
            witness.runs.push(SeenRun { id: RunId(id), kept, outcome: outcome.map(Place::from) });
            Ok(())
        })?;
        self.each(DRAINED, &mut |_, _| Ok(()))?;
        if self.rows != *meta.rows.as_bytes() {
            return Err(IndexError::Unfaithful("rows lost or old"));
        }
        Ok(witness)
    }
}

impl Witness {
    /// Whether all that it places before `end` stands there in the journal: then it was written from this one, and where it
    /// knows more, the journal has lost that.
    pub(crate) fn stands_in(&self, journal: &Journal, end: u64) -> bool {
        let read = |place| Record::decode(&journal.read(place).ok()?).ok();
        let admitted = |seen: &SeenSweep| match read(seen.place) {
            Some(Record::Admitted { admission }) => {
                admission.sweep_id == seen.id && admission.submitted_at_ms == seen.row.submitted_at_ms
            }
            _ => false,
        };
        let settled = |id: RunId, place| matches!(read(place), Some(Record::Settled { run_id, .. }) if run_id == id);
        let mut outcomes = self.runs.iter().filter_map(|seen| Some((seen.id, seen.outcome?)));
        self.sweeps.iter().filter(|seen| seen.place.offset < end).all(admitted)
            && outcomes.all(|(id, place)| place.offset >= end || settled(id, place))
    }

    /// Whether both speak of a sweep that was handed in once.
    pub(crate) fn shares_a_sweep_with(&self, ledger: &Ledger) -> bool {
        let known = |seen: &SeenSweep| ledger.sweep(seen.id).map(|row| row.submitted_at_ms);
        self.sweeps.iter().any(|seen| known(seen) == Some(seen.row.submitted_at_ms))
    }

    /// Sweeps that a ledger does not have.
    pub(crate) fn lost_sweeps<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = &'a SeenSweep> {
        self.sweeps.iter().filter(|seen| ledger.sweep(seen.id).is_none())
    }

    /// Runs whose accepted outcome a ledger does not have.
    pub(crate) fn lost_outcomes<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = &'a SeenRun> {
        let known = |id| ledger.run(id)?.settled.as_ref().map(|settled| settled.digest);
        self.runs.iter().filter(move |seen| seen.outcome().is_some_and(|digest| known(seen.id) != Some(digest)))
    }

    /// Whether it has seen a sweep, an outcome or an attempt that a ledger does not have.
    pub(crate) fn knows_more_than(&self, ledger: &Ledger) -> bool {
        let newest = |id| ledger.run(id).map_or(0, |row| row.attempt);
        self.lost_sweeps(ledger).next().is_some()
            || self.lost_outcomes(ledger).next().is_some()
            || self.runs.iter().any(|seen| seen.kept.history.attempt > newest(seen.id))
    }
}
