//! Whether the index beside a journal proves that the journal has lost something. The index is written after the fsync of
//! what it shows, so that it is never ahead of its own journal: where it is, bytes are gone that were acknowledged. An
//! index that lags, is torn or belongs to another journal proves nothing and is made anew.

use std::fmt;
use std::path::Path;

use super::StoreError;
use crate::index::{Index, Witness};
use crate::journal::{DamageKind, FILE, HEADER, Journal, JournalError, Scan};
use crate::ledger::Ledger;

/// What an index has seen and its journal does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Bytes of the journal's file.
    pub size_bytes: u64,
    /// Whole records in it.
    pub records: u64,
    /// Acknowledged records that the index has seen, and where the last of them ended.
    pub records_seen: u64,
    pub end_seen: u64,
    /// Of runs whose accepted outcomes the journal does not have.
    pub outcomes: u64,
}

impl Loss {
    /// What helps where bytes are gone, to be read behind what was found.
    pub const WAYS_OUT: &str = "; restore a backup into another data directory, or write what is sound here into one \
                                       with `isoloss store salvage --to DIR`";

    fn of(witness: &Witness, size_bytes: u64, records: u64, ledger: &Ledger) -> Self {
        Self {
            size_bytes,
            records,
            records_seen: witness.tip.sequence,
            end_seen: witness.tip.end,
            outcomes: witness.lost_outcomes(ledger).count() as u64,
        }
    }

    /// How to go on.
    pub fn advice(&self) -> &'static str {
        match self.records {
            0 => {
                "; put the journal back, or restore a backup into another data directory; to begin anew without what was \
                 recorded, move this store away first"
            }
            _ => Self::WAYS_OUT,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size_bytes, records, records_seen, end_seen, outcomes } = self;
        match (size_bytes, records) {
            (0, _) => write!(f, "it is missing or empty")?,
            (_, 0) => write!(f, "it has no whole record in {size_bytes} bytes")?,
            _ if records < records_seen => write!(f, "it ends after {records} whole record(s), at byte {size_bytes}")?,
            _ => write!(f, "it is not the one that its index was made from")?,
        }
        write!(f, ", and its index has seen {records_seen} acknowledged record(s), up to byte {end_seen}: ")?;
        match records_seen.saturating_sub(*records) {
            0 => write!(f, "{outcomes} outcome(s) of them are not in it"),
            lost => write!(f, "{lost} record(s) are lost, {outcomes} outcome(s) among them"),
        }
    }
}

/// Refuses a journal without a record where its index has seen some.
pub(super) fn judge_bare(index: &mut Index, size: Option<u64>, folder: &Path) -> Result<(), StoreError> {
    let size = size.unwrap_or(0);
    if size > HEADER.len() as u64 {
        return Ok(());
    }
    let Ok(witness) = index.witness() else {
        return Ok(());
    };
    Err(StoreError::Lost { journal: folder.join(FILE), loss: Loss::of(&witness, size, 0, &Ledger::default()) })
}

/// Refuses a journal, read from its first record on as far as it is good, that lacks what its index has seen.
pub(super) fn judge(
    index: &mut Index,
    journal: &Journal,
    scan: &Scan,
    ledger: &Ledger,
    folder: &Path,
) -> Result<(), StoreError> {
    let Ok(Some(tip)) = index.tip() else {
        return Ok(());
    };
    let is_ahead = tip.sequence > scan.tip.sequence;
    if !is_ahead && journal.holds(tip) {
        return Ok(());
    }
    let witness = match index.witness() {
        Ok(witness) => witness,
        Err(error) => {
            tracing::warn!(%error, "the index proves nothing");
            return Ok(());
        }
    };
    let is_its_own = is_ahead && (journal.holds(tip) || witness.stands_in(journal, scan.tip.end));
    // Or a journal that parted from this index: a copy of it that went on elsewhere, or one that was put back.
    let has_lost = is_its_own || (witness.shares_a_sweep_with(ledger) && witness.knows_more_than(ledger));
    if !has_lost {
        return Ok(());
    }
    let size_bytes = journal.file_bytes()?;
    match scan.damage {
        Some(damage) if is_ahead && size_bytes >= tip.end => {
            Err(JournalError::Damaged { offset: damage.offset, kind: DamageKind::Rot }.into())
        }
        _ => {
            let loss = Loss::of(&witness, size_bytes, scan.tip.sequence, ledger);
            Err(StoreError::Lost { journal: folder.join(FILE), loss })
        }
    }
}
