//! The store: ledger, journal and index as one thing. A record is judged, staged and applied in one call; it may be
//! acknowledged after [`Store::commit`]. One process opens a directory at a time.
//!
//! Attempts are fenced by a `Granted` record that is durable before the worker hears of it, not by a boot epoch in the
//! token: a group of grants costs one fsync, attempts stay small numbers that rise by one, and the newest attempt is
//! known exactly after any crash, so that an outcome of an older one is never taken for it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::disk::{Disk, Folder};
use crate::index::{Index, Places};
use crate::journal::{Damage, DamageKind, Journal, JournalError, PAYLOAD_BYTES_MAX, Place, Scan, Tip};
use crate::ledger::{Key, Ledger};
use crate::record::Record;

mod backup;
mod compact;
mod error;
mod gist;
mod inspect;
mod lock;
mod loss;
mod opening;
mod salvage;
#[cfg(test)]
mod tests;
mod written;

pub use compact::Compacted;
pub use error::StoreError;
pub use inspect::Inspected;
pub use loss::Loss;
pub use salvage::{LostOutcome, Salvaged};
pub use written::Written;

use lock::Lock;

/// Folder of the index, beside the journal.
const INDEX: &str = "index";

/// Told bytes done and bytes in all, now and then.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Rows of the index written at once while it is rebuilt.
const REBUILD_ROWS: usize = 4096;

/// How a store came up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Records read from the journal; the others came from the index.
    pub replayed: u64,
    /// Whether the index had to be made anew.
    pub index_rebuilt: bool,
    /// The torn tail that was set aside.
    pub torn: Option<Damage>,
}

/// An open store.
pub struct Store {
    journal: Journal,
    ledger: Ledger,
    places: Places,
    index: Option<Index>,
    touched: BTreeSet<Key>,
    opened: Opened,
    lock: Option<Lock>,
}

impl Store {
    /// Opens or makes the store in `folder`.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_through(folder, |disk| Box::new(disk))
    }

    /// Opens a store on any disk, without an index: for simulations.
    pub fn open_on(disk: Box<dyn Disk>) -> Result<Self, StoreError> {
        Self::assemble(disk, None, None)
    }

    /// Opens the store in `folder` through a disk that may fail where a test wants it to.
    pub fn open_through(folder: &Path, through: impl FnOnce(Folder) -> Box<dyn Disk>) -> Result<Self, StoreError> {
        let disk = Folder::open(folder)?;
        let lock = Lock::take(folder)?;
        Self::assemble(through(disk), Some(folder), Some(lock))
    }

    /// Says where this process serves the store, for whoever finds it in use.
    pub fn sign(&mut self, place: &str) {
        if let Some(lock) = &mut self.lock {
            lock.sign(place);
        }
    }

    /// How the store came up.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Every sweep and run; uncommitted records are already in it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Judges a record, stages it and applies it, in one step. For an outcome this is the fencing check. It must not
    /// be acknowledged before [`Self::commit`].
    pub fn append(&mut self, record: &Record) -> Result<(), StoreError> {
        let payload = encode(record)?;
        self.ledger.judge(record)?;
        let place = self.journal.append(&payload)?;
        self.touched.extend(take(&mut self.ledger, &mut self.places, record, place));
        Ok(())
    }

    /// Makes all that was appended durable with one fsync. After an error the process must end.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.journal.commit()?;
        self.write_index();
        Ok(())
    }

    /// The index may lag or fail: it is rebuilt at the next opening.
    fn write_index(&mut self) {
        let touched: Vec<Key> = std::mem::take(&mut self.touched).into_iter().collect();
        let Some(index) = &mut self.index else {
            return;
        };
        if touched.is_empty() {
            return;
        }
        // A part of a rebuild must not claim the tip: a crash before the last part means another rebuild.
        let mut parts = touched.chunks(REBUILD_ROWS).peekable();
        while let Some(part) = parts.next() {
            let tip = if parts.peek().is_some() { Tip::nowhere() } else { self.journal.tip() };
            if let Err(error) = index.write(part.iter().copied(), &self.ledger, &self.places, tip) {
                tracing::error!(%error, "going on without an index");
                self.index = None;
                return;
            }
        }
    }

    /// Reads the whole journal and checks every frame, and that replaying it gives the ledger in memory.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut ledger = Ledger::default();
        let mut places = Places::default();
        let mut failed = None;
        let scan = self.journal.scan(&mut |entry| match Record::decode(entry.payload) {
            Ok(record) => drop(take(&mut ledger, &mut places, &record, entry.place)),
            Err(error) => failed = failed.take().or_else(|| Some(not_understood(entry.place, &error))),
        })?;
        let agrees = ledger == self.ledger && places == self.places;
        failed.map_or(Ok(Verified { scan, agrees }), Err)
    }

    /// Bytes of the journal.
    pub fn size_bytes(&self) -> u64 {
        self.journal.size_bytes()
    }

    /// Records in the journal.
    pub fn records(&self) -> u64 {
        self.journal.tip().sequence
    }
}

/// What a check of the whole journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub scan: Scan,
    /// Whether memory, and so the index, says what the journal says.
    pub agrees: bool,
}

impl Verified {
    pub fn is_sound(&self) -> bool {
        self.agrees && self.scan.damage.is_none()
    }

    /// Whether durable bytes have changed.
    pub fn has_rot(&self) -> bool {
        matches!(self.scan.damage, Some(damage) if damage.kind == DamageKind::Rot)
    }
}

fn take(ledger: &mut Ledger, places: &mut Places, record: &Record, place: Place) -> Vec<Key> {
    match record {
        Record::Admitted { admission } => drop(places.admissions.insert(admission.sweep_id, place)),
        Record::Settled { run_id, .. } => drop(places.outcomes.insert(*run_id, place)),
        _ => {}
    }
    ledger.apply(record)
}

/// Whether a record can be written at all: known before anything is decided on it.
pub fn check(record: &Record) -> Result<(), StoreError> {
    let payload = encode(record)?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(JournalError::TooLarge(payload.len()).into());
    }
    Ok(())
}

/// JSON that reads back as the same record, or a refusal: a NaN would become null and never be read again.
fn encode(record: &Record) -> Result<Vec<u8>, StoreError> {
    let unwritable = |error: serde_json::Error| StoreError::Unwritable(error.to_string());
    let payload = serde_json::to_vec(record).map_err(unwritable)?;
    let read = Record::decode(&payload).map_err(unwritable)?;
    if read == *record {
        Ok(payload)
    } else {
        Err(StoreError::Unwritable("it reads back as another record".to_owned()))
    }
}

fn not_understood(place: Place, message: &dyn std::fmt::Display) -> StoreError {
    StoreError::NotUnderstood { offset: place.offset, sequence: place.sequence, message: message.to_string() }
}
