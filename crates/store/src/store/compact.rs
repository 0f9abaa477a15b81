//! A journal written anew without what has no say any more: grants and lapses of attempts that are over, orders that
//! were taken back, checkpoints that were replaced. Sweeps, every outcome, attempt numbers and all that the ledger knows
//! stay; the new journal is read back and must give the very same ledger before it takes the old one's place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use isoloss_sweep::{RunId, SweepId};

use crate::disk::{Folder, Single, sync_parent};
use crate::index::{self, Places};
use crate::journal::{DamageKind, FILE, Journal, JournalError, Place};
use crate::ledger::{Carried, Ledger, SweepRow};
use crate::record::{Record, Target};

use super::{Inspected, Progress, Store, StoreError, encode, lock, not_understood, take};

/// Bytes of the new journal that share an fsync.
const GROUP_BYTES: u64 = 8 << 20;

/// What compaction did.
#[derive(Debug)]
pub struct Compacted {
    pub records_before: u64,
    pub bytes_before: u64,
    /// The journal as it is now.
    pub now: Inspected,
    /// Where the journal from before is kept.
    pub old: Option<PathBuf>,
}

impl Store {
    /// Compacts the journal in `folder`; refused while a coordinator uses it. The old one stays beside it as
    /// `journal.old` when `keep_old`.
    pub fn compact(folder: &Path, keep_old: bool, progress: Progress<'_>) -> Result<Compacted, StoreError> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        let _lock = lock(folder)?;
        let bytes_before = fs::metadata(&path)?.len();
        let journal = Journal::existing(Box::new(Folder::existing(folder)))?;
        let gist = Gist::of(&journal, &mut |done| progress(done, 3 * bytes_before))?;
        let new = folder.join("journal.compacted");
        if new.exists() {
            // Of a compaction that did not end.
            fs::remove_file(&new)?;
        }
        gist.write(&journal, &new, &mut |done| progress(bytes_before + done, 3 * bytes_before))?;
        let check = &mut |done, _| progress(2 * bytes_before + done, 3 * bytes_before);
        let now = Inspected::of(Box::new(Single::existing(&new)?), check)?;
        if now.ledger != gist.ledger || now.outcomes != gist.outcomes.len() as u64 || now.scan.damage.is_some() {
            fs::remove_file(&new)?;
            return Err(StoreError::Unfaithful);
        }
        if now.scan.tip.sequence == gist.records {
            // Nothing was without a say: the journal stays, and so does what an earlier compaction kept.
            fs::remove_file(&new)?;
            return Ok(Compacted { records_before: gist.records, bytes_before, now, old: None });
        }
        let old = folder.join("journal.old");
        if keep_old {
            if old.exists() {
                fs::remove_file(&old)?;
            }
            fs::hard_link(&path, &old)?;
        }
        fs::rename(&new, &path)?;
        sync_parent(&path)?;
        // It belongs to the old journal; the next opening would find out by itself.
        index::remove(&folder.join("index")).map_err(std::io::Error::other)?;
        Ok(Compacted { records_before: gist.records, bytes_before, now, old: keep_old.then_some(old) })
    }
}

/// What must stay.
#[derive(Default)]
struct Gist {
    ledger: Ledger,
    records: u64,
    admissions: Vec<Place>,
    /// How sweeps were admitted: whether held, and with what priority.
    admitted: BTreeMap<SweepId, (bool, u32)>,
    /// All of them, in order.
    outcomes: Vec<(RunId, Place)>,
}

impl Gist {
    fn of(journal: &Journal, progress: &mut dyn FnMut(u64)) -> Result<Self, StoreError> {
        let mut gist = Self::default();
        let (mut places, mut failed) = (Places::default(), None);
        let scan = journal.scan(&mut |entry| {
            progress(entry.place.offset);
            match Record::decode(entry.payload) {
                Ok(record) => {
                    gist.records += 1;
                    match &record {
                        Record::Admitted { admission } => {
                            gist.admissions.push(entry.place);
                            gist.admitted.insert(admission.sweep_id, (admission.held, admission.priority));
                        }
                        Record::Settled { run_id, .. } => gist.outcomes.push((*run_id, entry.place)),
                        _ => {}
                    }
                    drop(take(&mut gist.ledger, &mut places, &record, entry.place));
                }
                Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
            }
        })?;
        match scan.damage {
            // A torn tail was never acknowledged, and the old file keeps it.
            Some(damage) if damage.kind == DamageKind::Rot => {
                Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind }.into())
            }
            _ => failed.map_or(Ok(gist), Err),
        }
    }

    /// Sweeps in order, then what was ordered of them, outcomes that later attempts replaced, the histories of runs, and
    /// the outcomes that hold.
    fn write(&self, from: &Journal, to: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
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
