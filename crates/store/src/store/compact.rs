//! A journal written anew without what has no say any more: grants and lapses of attempts that are over, orders that
//! were taken back, checkpoints that were replaced. Sweeps, every outcome, attempt numbers and all that the ledger knows
//! stay; the new journal is read back and must give the very same ledger before it takes the old one's place.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{Folder, Single, sync_parent};
use crate::index;
use crate::journal::{DamageKind, FILE, Journal, JournalError};

use super::gist::Gist;
use super::{INDEX, Inspected, Lock, Progress, Store, StoreError, inspect, loss};

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
        let lock = Lock::look(folder)?;
        let glimpse = inspect::glimpse(folder)?;
        let _lock = lock.map_or_else(|| Lock::take(folder), Ok)?;
        let journal = Journal::existing(Box::new(Folder::existing(folder)))?;
        let bytes_before = journal.file_bytes()?;
        let (gist, scan) = Gist::of(&journal, &mut |done| progress(done, 3 * bytes_before))?;
        if let Some(mut glimpse) = glimpse {
            loss::judge(&mut glimpse.index, &journal, &scan, &gist.ledger, folder)?;
        }
        if let Some(damage) = scan.damage.filter(|damage| damage.kind == DamageKind::Rot) {
            return Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind }.into());
        }
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
        // It is the old journal's, and beside the new one it would look as if records were lost: gone before that, for good.
        index::remove(&folder.join(INDEX)).map_err(std::io::Error::other)?;
        sync_parent(&path)?;
        fs::rename(&new, &path)?;
        sync_parent(&path)?;
        Ok(Compacted { records_before: gist.records, bytes_before, now, old: keep_old.then_some(old) })
    }
}
