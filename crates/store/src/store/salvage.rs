//! What is left of a store that no coordinator starts on, written as a sound one elsewhere: records whose own checksums
//! hold, those behind damage too, and what the index has seen. The old store is not touched.
//!
//! Nobody may get an attempt number twice, and grants may be among what is lost. Each lost record gave at most one attempt
//! to one run, so that a run's number rises by as many as there may have been lost, and by [`MARGIN`] for what neither the
//! journal nor the index shows: sled writes with a delay of half a second, in which no run is granted so often. A run that
//! finished keeps its number, because nobody gets it again; a trunk may go on, and does not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use isoloss_sweep::{Digest, RunId, SweepId};

use crate::disk::{Folder, Single};
use crate::index::{self, Witness};
use crate::journal::{FILE, Gap, Journal, Place};
use crate::ledger::{End, Kept, RunRow};
use crate::record::{Lapse, Record};

use super::gist::Gist;
use super::{INDEX, Inspected, Lock, Progress, Store, StoreError, backup, inspect, not_understood};

/// Attempts that neither journal nor index may know of.
const MARGIN: u64 = 1000;

/// What was salvaged and what was not.
#[derive(Debug)]
pub struct Salvaged {
    /// The new store.
    pub now: Inspected,
    /// Where the old journal could not be read.
    pub gaps: Vec<Gap>,
    /// Whether an index showed what is lost.
    pub has_index: bool,
    /// Accepted outcomes that the index has seen and that are gone; their runs are open again.
    pub outcomes: Vec<LostOutcome>,
    /// Sweeps that are gone with all their runs.
    pub sweeps: BTreeMap<SweepId, String>,
    /// Whole records that say nothing without the lost ones.
    pub unused: u64,
    /// By how much attempt numbers were raised; 0 where nothing was lost.
    pub raised: u64,
}

/// An outcome of which the index knows the gist alone.
#[derive(Debug)]
pub struct LostOutcome {
    pub run_id: RunId,
    pub attempt: u64,
    /// How it ended, for people.
    pub said: String,
}

impl Store {
    /// Writes what is sound in `folder` as a new store in `to`, where there is none; refused while a coordinator uses it.
    pub fn salvage(folder: &Path, to: &Path, progress: Progress<'_>) -> Result<Salvaged, StoreError> {
        let made = to.join(FILE);
        if made.exists() {
            return Err(StoreError::Occupied(made));
        }
        let _lock = Lock::look(folder)?;
        let witness = inspect::glimpse(folder)?.and_then(|mut glimpse| glimpse.index.witness().ok());
        let journal = Journal::damaged(Box::new(Folder::existing(folder)))?;
        let size = journal.file_bytes()?;
        let mut remains = Remains::of(&journal, &mut |done| progress(done, 3 * size))?;
        if remains.gist.ledger.is_empty() {
            return Err(StoreError::NothingLeft(folder.join(FILE)));
        }
        remains.follow(&journal, witness);
        remains.raise();
        drop(Folder::open(to)?);
        let _made = Lock::take(to)?;
        // Of a store that is gone.
        index::remove(&to.join(INDEX)).map_err(io::Error::other)?;
        let partial = to.join("journal.salvaged");
        if partial.exists() {
            // Of a salvage that did not end.
            fs::remove_file(&partial)?;
        }
        remains.gist.write(&journal, &partial, &mut |done| progress(size + done, 3 * size))?;
        let check = &mut |done, _| progress(2 * size + done, 3 * size);
        let now = Inspected::of(Box::new(Single::existing(&partial)?), check)?;
        if !remains.is_said_by(&now) {
            fs::remove_file(&partial)?;
            return Err(StoreError::Unfaithful);
        }
        backup::publish(&partial, &made).map_err(|source| StoreError::Unmade { path: made, source })?;
        let Remains { gaps, unused, has_index, outcomes, sweeps, raised, .. } = remains;
        Ok(Salvaged { now, gaps, has_index, outcomes, sweeps, unused, raised })
    }
}

/// What could be read.
#[derive(Default)]
struct Remains {
    gist: Gist,
    /// Digests of the outcomes that were read, the last of each run.
    digests: BTreeMap<RunId, Digest>,
    /// Sequence number of the last whole record.
    last: u64,
    gaps: Vec<Gap>,
    unused: u64,
    has_index: bool,
    /// Records that the index has seen behind the last one that was read.
    cut: u64,
    /// Whether the index shows that nothing is missing.
    is_whole: bool,
    outcomes: Vec<LostOutcome>,
    sweeps: BTreeMap<SweepId, String>,
    raised: u64,
}

impl Remains {
    fn of(journal: &Journal, progress: &mut dyn FnMut(u64)) -> Result<Self, StoreError> {
        let (mut remains, mut failed) = (Self::default(), None);
        let gaps = journal.pieces(&mut |entry| {
            progress(entry.place.offset);
            let is_behind_a_gap = entry.place.sequence != remains.gist.records + remains.unused + 1;
            remains.last = entry.place.sequence;
            match Record::decode(entry.payload) {
                Ok(record) if !is_behind_a_gap => remains.take(&record, entry.place),
                Ok(record) => remains.take_alone(&record, entry.place),
                Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
            }
        })?;
        remains.gaps = gaps;
        failed.map_or(Ok(remains), Err)
    }

    fn take(&mut self, record: &Record, place: Place) {
        if let Record::Settled { run_id, outcome, .. } = record {
            self.digests.insert(*run_id, Digest::of_json(outcome));
        }
        self.gist.take(record, place);
    }

    /// A record was true when it was written. Where the lost ones would have led to it they are made good: an attempt that is
    /// newer than any known was granted.
    fn take_alone(&mut self, record: &Record, place: Place) {
        let ledger = &mut self.gist.ledger;
        if let Some((run_id, attempt)) = attempt(record)
            && ledger.run(run_id).is_some_and(|row| row.attempt < attempt)
        {
            ledger.reopen(run_id, attempt - u64::from(matches!(record, Record::Granted { .. })));
        }
        let is_outcome = matches!(record, Record::Settled { run_id, .. } if ledger.run(*run_id).is_some());
        let fits = is_outcome || ledger.judge(record).is_ok();
        if fits {
            self.take(record, place);
            return;
        }
        if let Record::Admitted { admission } = record
            && ledger.sweep(admission.sweep_id).is_none()
        {
            self.sweeps.insert(admission.sweep_id, admission.name.clone());
        }
        self.unused += 1;
    }

    /// Takes over what the index has seen of sweeps and runs that are known, and notes what it has seen of others.
    fn follow(&mut self, journal: &Journal, witness: Option<Witness>) {
        let is_its_own = |seen: &Witness| journal.holds(seen.tip) || seen.shares_a_sweep_with(&self.gist.ledger);
        let Some(witness) = witness.filter(is_its_own) else {
            return;
        };
        self.has_index = true;
        self.cut = witness.tip.sequence.saturating_sub(self.last);
        if let Some(Gap { records: records @ None, .. }) = self.gaps.last_mut()
            && journal.file_bytes().is_ok_and(|size| size <= witness.tip.end)
        {
            // What cannot be read at the end is a part of what the index has seen.
            *records = Some(std::mem::take(&mut self.cut));
        }
        self.is_whole = self.gaps.is_empty() && journal.holds(witness.tip);
        self.sweeps.extend(witness.lost_sweeps(&self.gist.ledger).map(|seen| (seen.id, seen.row.name.clone())));
        let is_newer = witness.tip.sequence < self.last;
        for seen in witness.sweeps.into_iter().filter(|_| !is_newer) {
            self.gist.ledger.restore_sweep(seen.id, seen.row);
        }
        for seen in witness.runs {
            let is_lost = seen.outcome().is_some() && seen.outcome().as_ref() != self.digests.get(&seen.id);
            if let Some(settled) = seen.kept.settled.as_ref().filter(|_| is_lost) {
                let (attempt, said) = (settled.attempt, settled.end.words());
                self.outcomes.push(LostOutcome { run_id: seen.id, attempt, said });
            }
            let attempt = seen.kept.history.attempt;
            if !is_newer {
                let settled = seen.kept.settled.filter(|_| !is_lost);
                self.gist.ledger.restore_run(Kept { history: seen.kept.history, settled, planned: None });
            }
            self.gist.ledger.raise(seen.id, attempt);
        }
    }

    /// Ends every lease and puts attempt numbers above all that may have been given out.
    fn raise(&mut self) {
        if self.is_whole {
            return;
        }
        self.raised = self.gaps.iter().map(Gap::records_max).sum::<u64>() + self.cut + MARGIN;
        let runs: Vec<(RunId, u64, bool)> =
            self.gist.ledger.runs().filter(|(_, row)| !is_done(row)).map(held).collect();
        for (run_id, attempt, is_held) in runs {
            if is_held {
                let lapse = Lapse::Yielded { reason: "its store was damaged and salvaged".to_owned() };
                self.gist.ledger.apply(&Record::Lapsed { run_id, attempt, lapse });
            }
            self.gist.ledger.raise(run_id, attempt + self.raised);
        }
    }

    /// Whether the new journal has every run where this has it, and every outcome.
    fn is_said_by(&self, now: &Inspected) -> bool {
        let same = |(run_id, row): (RunId, &RunRow)| {
            now.ledger.run(run_id).is_some_and(|now| now.attempt == row.attempt && now.settled == row.settled)
        };
        now.scan.damage.is_none()
            && now.outcomes == self.gist.outcomes.len() as u64
            && now.ledger.len() == self.gist.ledger.len()
            && self.gist.ledger.runs().all(same)
    }
}

/// Whether nobody will ever get the run again.
fn is_done(row: &RunRow) -> bool {
    !row.planned.is_trunk() && matches!(&row.settled, Some(settled) if matches!(settled.end, End::Finished { .. }))
}

fn held((run_id, row): (RunId, &RunRow)) -> (RunId, u64, bool) {
    (run_id, row.attempt, row.lease.is_some())
}

/// The attempt that a record speaks of.
fn attempt(record: &Record) -> Option<(RunId, u64)> {
    match record {
        Record::Granted { run_id, attempt, .. }
        | Record::Adopted { run_id, attempt, .. }
        | Record::Lapsed { run_id, attempt, .. }
        | Record::Settled { run_id, attempt, .. }
        | Record::Published { run_id, attempt, .. } => Some((*run_id, *attempt)),
        _ => None,
    }
}
