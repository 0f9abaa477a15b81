//! The store: ledger, journal and index as one thing. A record is judged, staged and applied in one call; it may be
//! acknowledged after [`Store::commit`]. One process opens a directory at a time.
//!
//! Attempts are fenced by a `Granted` record that is durable before the worker hears of it, not by a boot epoch in the
//! token: a group of grants costs one fsync, attempts stay small numbers that rise by one, and the newest attempt is
//! known exactly after any crash, so that an outcome of an older one is never taken for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Folder, PRIVATE};
use crate::index::{self, Index, Places};
use crate::journal::{Damage, DamageKind, Journal, JournalError, PAYLOAD_BYTES_MAX, Place, Scan, Tip};
use crate::ledger::{Key, Ledger, Refusal};
use crate::record::Record;

mod backup;
mod compact;
mod inspect;
#[cfg(test)]
mod tests;
mod written;

pub use compact::Compacted;
pub use inspect::Inspected;
pub use written::Written;

/// Told bytes done and bytes in all, now and then.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Rows of the index written at once while it is rebuilt.
const REBUILD_ROWS: usize = 4096;

/// Why the store does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another coordinator", .0.display())]
    Locked(PathBuf),
    #[error("there is no store in {}", .0.display())]
    Missing(PathBuf),
    #[error("there is no file {}", .0.display())]
    NoFile(PathBuf),
    #[error("{} is no backup of a store: {what}", .path.display())]
    NotABackup { path: PathBuf, what: String },
    #[error(
        "the backup {} is damaged at byte {offset} of {size}: {records} record(s) before that are whole, {what}; copy it again \
         from where it was made, or take an older one: nothing was changed here", .path.display()
    )]
    BadBackup { path: PathBuf, offset: u64, size: u64, records: u64, what: &'static str },
    #[error("store: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not a finite number somewhere, mostly: what cannot be read back is never written.
    #[error("a record does not survive writing and reading: {0}")]
    Unwritable(String),
    #[error(
        "journal: record {sequence} at byte {offset} is not understood: {message}; if a newer isoloss wrote it, use that one: nothing was changed"
    )]
    NotUnderstood { offset: u64, sequence: u64, message: String },
    #[error("{} is there already and is never overwritten: move it away or choose another place", .0.display())]
    Occupied(PathBuf),
    /// Found before anything was put in its place.
    #[error("the journal written anew does not say what the old one says: the old one stays as it was")]
    Unfaithful,
}

impl StoreError {
    /// Whether the disk failed: nothing is acknowledged any more and the process must end.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Journal(JournalError::Io(_) | JournalError::Poisoned) | Self::Io(_))
    }

    /// How to go on, to be read behind the error; empty where the error says it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Io(error) | Self::Journal(JournalError::Io(error)) => match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    "; what was acknowledged is safe: make room there, or move the data directory, and start again"
                }
                _ => "; what was acknowledged is safe: look after the disk (dmesg), then start again",
            },
            Self::Journal(JournalError::Damaged { .. }) => {
                "; `isoloss store verify` says more; a backup can be restored into another data directory"
            }
            Self::NotUnderstood { .. } | Self::Locked(_) | Self::Missing(_) | Self::NoFile(_) => "",
            Self::NotABackup { .. } | Self::BadBackup { .. } => "",
            Self::Journal(_) | Self::Refused(_) | Self::Unwritable(_) | Self::Occupied(_) | Self::Unfaithful => "",
        }
    }
}

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
    _lock: Option<File>,
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
        let lock = lock(folder)?;
        Self::assemble(through(disk), Some(&folder.join("index")), Some(lock))
    }

    fn assemble(disk: Box<dyn Disk>, index_path: Option<&Path>, lock: Option<File>) -> Result<Self, StoreError> {
        let mut store = Self {
            journal: Journal::open(disk)?,
            ledger: Ledger::default(),
            places: Places::default(),
            index: None,
            touched: BTreeSet::new(),
            opened: Opened { replayed: 0, index_rebuilt: false, torn: None },
            _lock: lock,
        };
        let from = index_path.map_or_else(Tip::start, |path| store.open_index(path));
        // What is recorded behind rot would be lost with the index.
        store.journal.prove(from)?;
        store.replay(from)?;
        store.opened.index_rebuilt = index_path.is_some() && from == Tip::start() && store.opened.replayed > 0;
        store.write_index();
        Ok(store)
    }

    /// Takes the index for what it proves to be; returns the tip from which the journal must be replayed.
    fn open_index(&mut self, path: &Path) -> Tip {
        let admission = |place| self.written(place).and_then(|written| written.admission()).ok();
        let image = Index::open(path).and_then(|mut index| index.load(&admission).map(|image| (index, image)));
        match image {
            Ok((index, Some(image))) if self.journal.holds(image.tip) => {
                self.ledger = image.ledger;
                self.places = image.places;
                self.index = Some(index);
                return image.tip;
            }
            // New, or so torn that sled found nothing: filled from the journal.
            Ok((index, None)) => {
                self.index = Some(index);
                return Tip::start();
            }
            Ok((_, Some(image))) => {
                tracing::warn!(sequence = image.tip.sequence, "the index belongs to another journal and is rebuilt");
            }
            Err(error) => tracing::warn!(%error, "the index is rebuilt from the journal"),
        }
        match index::remove(path).and_then(|()| Index::open(path)) {
            Ok(index) => self.index = Some(index),
            Err(error) => tracing::error!(%error, "going on without an index"),
        }
        Tip::start()
    }

    fn replay(&mut self, from: Tip) -> Result<(), StoreError> {
        let Self { journal, ledger, places, touched, opened, .. } = self;
        let mut failed = None;
        opened.torn = journal.replay(from, &mut |entry| {
            if failed.is_some() {
                return;
            }
            match Record::decode(entry.payload) {
                Ok(record) => {
                    opened.replayed += 1;
                    touched.extend(take(ledger, places, &record, entry.place));
                }
                Err(error) => failed = Some(not_understood(entry.place, &error)),
            }
        })?;
        if let Some(damage) = opened.torn {
            tracing::warn!(offset = damage.offset, bytes = damage.bytes, "a torn tail of the journal was set aside");
        }
        failed.map_or(Ok(()), Err)
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

    /// Cuts a journal that was damaged by rot at the damage; the rest is kept in a file beside it. For a person to
    /// order, never done by itself. Says what was cut.
    pub fn cut(folder: &Path) -> Result<Option<Damage>, StoreError> {
        let disk = Folder::open(folder)?;
        let _lock = lock(folder)?;
        let mut journal = Journal::open(Box::new(disk))?;
        let scan = journal.scan(&mut |_| {})?;
        if let Some(damage) = scan.damage {
            journal.set_aside(damage.offset)?;
        }
        Ok(scan.damage)
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

fn lock(folder: &Path) -> Result<File, StoreError> {
    let file = File::options().create(true).truncate(false).write(true).mode(PRIVATE).open(folder.join("lock"))?;
    try_lock(file, folder)
}

fn try_lock(file: File, folder: &Path) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked(folder.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}
