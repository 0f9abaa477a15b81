//! `store backup`, `restore` and `compact`: what people do with the store of a data directory besides running it. Corpora,
//! checkpoints, logs and the token are no part of the store and are left where they are.

use std::path::{Path, PathBuf};

use isoloss_store::{Progress, Store};
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

fn store_dir(data_dir: &Path) -> PathBuf {
    Config::new(data_dir.to_owned()).store_dir()
}
