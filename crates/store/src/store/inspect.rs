//! A look at a store from outside: the whole journal is read and checked, nothing is made, written, mended or moved.
//! The index is not looked at: it is proved at each opening and made anew from the journal where it fails.

use std::fs::File;
use std::path::Path;

use crate::disk::Folder;
use crate::index::Places;
use crate::journal::{FILE, Journal, Scan};
use crate::ledger::Ledger;
use crate::record::Record;

use super::{Store, StoreError, not_understood, take, try_lock};

/// What the journal of a store says.
#[derive(Debug)]
pub struct Inspected {
    pub ledger: Ledger,
    /// How far the journal is good.
    pub scan: Scan,
    pub size_bytes: u64,
}

impl Store {
    /// Reads the store in `folder`; refused where there is none, or while a coordinator uses it.
    pub fn inspect(folder: &Path) -> Result<Inspected, StoreError> {
        if !folder.join(FILE).is_file() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        // Without the file nobody has opened this store yet, or it is a copy.
        let lock = folder.join("lock");
        let _lock = if lock.exists() { Some(try_lock(File::open(lock)?, folder)?) } else { None };
        let journal = Journal::existing(Box::new(Folder::existing(folder)))?;
        let (mut ledger, mut places, mut failed) = (Ledger::default(), Places::default(), None);
        let scan = journal.scan(&mut |entry| match Record::decode(entry.payload) {
            Ok(record) => drop(take(&mut ledger, &mut places, &record, entry.place)),
            Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
        })?;
        let size_bytes = std::fs::metadata(folder.join(FILE))?.len();
        failed.map_or(Ok(Inspected { ledger, scan, size_bytes }), Err)
    }
}
