//! What must stay of a journal: sweeps, orders, all outcomes and one history for each run; read from a journal, and
//! written as a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use isoloss_sweep::{RunId, SweepId};

use super::{StoreError, encode, not_understood, take};
use crate::disk::Single;
use crate::index::Places;
use crate::journal::{Journal, Place, Scan};
use crate::ledger::{Carried, Ledger, SweepRow};
use crate::record::{Record, Target};

/// Bytes of the new journal that share an fsync.
const GROUP_BYTES: u64 = 8 << 20;

/// What must stay.
#[derive(Default)]
pub(super) struct Gist {
    pub(super) ledger: Ledger,
    pub(super) records: u64,
    admissions: Vec<Place>,
    /// How sweeps were admitted: whether held, and with what priority.
    admitted: BTreeMap<SweepId, (bool, u32)>,
    /// All of them, in order.
    pub(super) outcomes: Vec<(RunId, Place)>,
    places: Places,
}

impl Gist {
    /// Reads a journal from its first record on, as far as it is good.
    pub(super) fn of(journal: &Journal, progress: &mut dyn FnMut(u64)) -> Result<(Self, Scan), StoreError> {
        let mut gist = Self::default();
        let mut failed = None;
        let scan = journal.scan(&mut |entry| {
            progress(entry.place.offset);
            match Record::decode(entry.payload) {
                Ok(record) => gist.take(&record, entry.place),
                Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
            }
        })?;
        failed.map_or(Ok((gist, scan)), Err)
    }

    /// Adds the next record.
    pub(super) fn take(&mut self, record: &Record, place: Place) {
        self.records += 1;
        match record {
            Record::Admitted { admission } => {
                self.admissions.push(place);
                self.admitted.insert(admission.sweep_id, (admission.held, admission.priority));
            }
            Record::Settled { run_id, .. } => self.outcomes.push((*run_id, place)),
            _ => {}
        }
        drop(take(&mut self.ledger, &mut self.places, record, place));
    }

    /// Sweeps in order, then what was ordered of them, outcomes that later attempts replaced, the histories of runs, and
    /// the outcomes that hold.
    pub(super) fn write(&self, from: &Journal, to: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let mut writer = Writer { journal: Journal::open(Box::new(Single::create(to)?))?, synced: 0, progress };
        for place in &self.admissions {
            writer.add(&from.read(*place)?)?;
        }
        let mut sweeps: Vec<_> = self.ledger.sweeps().collect();
        sweeps.sort_by_key(|(_, row)| row.order);
        for (sweep_id, row) in sweeps {
            for record in orders(sweep_id, row, self.admitted[&sweep_id]) {
                writer.add(&encode(&record)?)?;
            }
        }
        for worker in self.ledger.drained() {
            writer.add(&encode(&Record::Drained { worker: worker.clone(), on: true })?)?;
        }
        let last: BTreeMap<RunId, Place> = self.outcomes.iter().copied().collect();
        let holds = |(run_id, place): &&(RunId, Place)| {
            last[run_id] == *place && self.ledger.run(*run_id).is_some_and(|row| row.settled.is_some())
        };
        let mut reopened = BTreeSet::new();
        for (run_id, place) in self.outcomes.iter().filter(|outcome| !holds(outcome)) {
            writer.add(&from.read(*place)?)?;
            reopened.insert(*run_id);
        }
        for (run_id, row) in self.ledger.runs() {
            let carried = Carried::of(run_id, row);
            // Only the full record takes an earlier outcome back.
            let record = match reopened.contains(&run_id) {
                true => Some(Record::Carried { carried: Box::new(carried) }),
                false => carried.record(),
            };
            if let Some(record) = record {
                writer.add(&encode(&record)?)?;
            }
        }
        for (_, place) in self.outcomes.iter().filter(holds) {
            writer.add(&from.read(*place)?)?;
        }
        Ok(writer.journal.commit()?)
    }
}

/// What was ordered of a sweep since it was admitted, held or not and with its priority.
fn orders(sweep_id: SweepId, row: &SweepRow, (held, priority): (bool, u32)) -> impl Iterator<Item = Record> {
    let target = Target::Sweep(sweep_id);
    let runs = row.chosen.as_ref().map(|runs| runs.iter().copied().collect());
    let chosen = (row.chosen != held.then(BTreeSet::new)).then_some(Record::Chosen { sweep_id, runs });
    let cancelled = row.cancelled.then_some(Record::Cancelled { target });
    let paused = row.paused.then_some(Record::Paused { target });
    let ranked = (row.priority != priority).then_some(Record::Ranked { sweep_id, priority: row.priority });
    [chosen, cancelled, paused, ranked].into_iter().flatten()
}

struct Writer<'a> {
    journal: Journal,
    synced: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Writer<'_> {
    fn add(&mut self, payload: &[u8]) -> Result<(), StoreError> {
        self.journal.append(payload)?;
        let size = self.journal.size_bytes();
        if size - self.synced >= GROUP_BYTES {
            self.journal.commit()?;
            self.synced = size;
            (self.progress)(size);
        }
        Ok(())
    }
}
