//! A look at a store from outside: the whole journal is read and checked, nothing is made, written, mended or moved.
//! The index is not looked at: it is proved at each opening and made anew from the journal where it fails.

use std::fs::File;
use std::path::Path;

use crate::disk::{Disk, Folder};
use crate::index::Places;
use crate::journal::{FILE, Journal, Scan};
use crate::ledger::Ledger;
use crate::record::Record;

use super::{Progress, Store, StoreError, backup, not_understood, take, try_lock};

/// What the journal of a store says.
#[derive(Debug)]
pub struct Inspected {
    pub ledger: Ledger,
    /// How far the journal is good.
    pub scan: Scan,
    pub size_bytes: u64,
    /// Outcomes recorded, those of runs that were tried again included.
    pub outcomes: u64,
}

impl Inspected {
    pub(super) fn of(disk: Box<dyn Disk>, progress: Progress<'_>) -> Result<Self, StoreError> {
        let size_bytes = disk.size(FILE)?.unwrap_or(0);
        let journal = Journal::existing(disk)?;
        let (mut ledger, mut places, mut failed, mut outcomes) = (Ledger::default(), Places::default(), None, 0);
        let scan = journal.scan(&mut |entry| {
            progress(entry.place.offset, size_bytes);
            match Record::decode(entry.payload) {
                Ok(record) => {
                    outcomes += u64::from(matches!(record, Record::Settled { .. }));
                    drop(take(&mut ledger, &mut places, &record, entry.place));
                }
                Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
            }
        })?;
        failed.map_or(Ok(Self { ledger, scan, size_bytes, outcomes }), Err)
    }
}

impl Store {
    /// Reads the store in `folder`; refused where there is none, or while a coordinator uses it.
    pub fn inspect(folder: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        if !folder.join(FILE).is_file() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        // Without the file nobody has opened this store yet, or it is a copy.
        let lock = folder.join("lock");
        let _lock = if lock.exists() { Some(try_lock(File::open(lock)?, folder)?) } else { None };
        Inspected::of(Box::new(Folder::existing(folder)), progress)
    }

    /// Reads one file that is a journal: a backup.
    pub fn inspect_file(file: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        backup::look_at(file, progress)
    }
}
