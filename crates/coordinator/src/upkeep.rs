//! `store backup`, `restore`, `compact` and `salvage`: what people do with the store of a data directory besides running it. Corpora,
//! checkpoints, logs and the token are no part of the store and are left where they are.

use std::path::{Path, PathBuf};

use isoloss_store::journal::Gap;
use isoloss_store::{LostOutcome, Progress, Store};
use serde::Serialize;

use crate::Config;
use crate::verify::{StoreSummary, VerifyError};

/// What compaction did.
#[derive(Debug, Clone, Serialize)]
pub struct StoreShrunk {
    pub records_before: u64,
    pub bytes_before: u64,
    pub now: StoreSummary,
    /// Where the journal from before is kept.
    pub old: Option<PathBuf>,
}

/// Copies the store to the new file `to`; its coordinator may be running.
pub fn backup_store(data_dir: &Path, to: &Path, progress: Progress<'_>) -> Result<StoreSummary, VerifyError> {
    let inspected = Store::backup(&store_dir(data_dir), to, progress)?;
    Ok(StoreSummary::of(&inspected))
}

/// Makes the store of a data directory that has none from a backup.
pub fn restore_store(data_dir: &Path, from: &Path, progress: Progress<'_>) -> Result<StoreSummary, VerifyError> {
    let inspected = Store::restore(from, &store_dir(data_dir), progress)?;
    Ok(StoreSummary::of(&inspected))
}

/// Writes the journal anew without records that have no say any more; refused while a coordinator uses it.
pub fn compact_store(data_dir: &Path, keep_old: bool, progress: Progress<'_>) -> Result<StoreShrunk, VerifyError> {
    let compacted = Store::compact(&store_dir(data_dir), keep_old, progress)?;
    Ok(StoreShrunk {
        records_before: compacted.records_before,
        bytes_before: compacted.bytes_before,
        now: StoreSummary::of(&compacted.now),
        old: compacted.old,
    })
}

/// What was written of a damaged store, and what was lost.
#[derive(Debug, Clone, Serialize)]
pub struct StoreSalvaged {
    pub now: StoreSummary,
    /// Where the old journal could not be read.
    pub gaps: Vec<StoreGap>,
    /// Whether the old store had an index that shows what is lost; without one `lost_outcomes` is empty.
    pub has_index: bool,
    /// Accepted outcomes that are gone; their runs are open again.
    pub lost_outcomes: Vec<LostRun>,
    /// Sweeps that are gone with all their runs.
    pub lost_sweeps: Vec<LostSweep>,
    /// Whole records that say nothing without the lost ones.
    pub unused_records: u64,
    /// By how much the attempt numbers of open runs were raised, so that none is given out twice.
    pub attempts_raised_by: u64,
}

/// A stretch of the old journal.
#[derive(Debug, Clone, Serialize)]
pub struct StoreGap {
    pub offset: u64,
    pub bytes: u64,
    /// Records that stood there; not known at the end of the file.
    pub records: Option<u64>,
}

/// A run whose outcome is gone.
#[derive(Debug, Clone, Serialize)]
pub struct LostRun {
    pub run_id: String,
    pub attempt: u64,
    /// How it had ended.
    pub said: String,
}

/// A sweep that is gone.
#[derive(Debug, Clone, Serialize)]
pub struct LostSweep {
    pub sweep_id: String,
    pub name: String,
}

/// Writes what is sound of a store that no coordinator starts on into another data directory, which has no store.
pub fn salvage_store(data_dir: &Path, to: &Path, progress: Progress<'_>) -> Result<StoreSalvaged, VerifyError> {
    let salvaged = Store::salvage(&store_dir(data_dir), &store_dir(to), progress)?;
    let gap = |gap: &Gap| StoreGap { offset: gap.offset, bytes: gap.bytes, records: gap.records };
    let run = |lost: LostOutcome| LostRun { run_id: lost.run_id.to_string(), attempt: lost.attempt, said: lost.said };
    let sweeps = salvaged.sweeps.into_iter();
    Ok(StoreSalvaged {
        now: StoreSummary::of(&salvaged.now),
        gaps: salvaged.gaps.iter().map(gap).collect(),
        has_index: salvaged.has_index,
        lost_outcomes: salvaged.outcomes.into_iter().map(run).collect(),
        lost_sweeps: sweeps.map(|(id, name)| LostSweep { sweep_id: id.to_string(), name }).collect(),
        unused_records: salvaged.unused,
        attempts_raised_by: salvaged.raised,
    })
}

fn store_dir(data_dir: &Path) -> PathBuf {
    Config::new(data_dir.to_owned()).store_dir()
}
