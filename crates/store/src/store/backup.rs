//! Backups: one file that is a journal, checked frame by frame as it is copied and once more as it lies there. Nothing
//! of the store that is copied is locked or changed, so that its coordinator goes on meanwhile.
//!
//! The journal only grows, and every frame vouches for all before it: what is read up to the last whole frame is what a
//! power cut at that moment could have left, at least all that was acknowledged before the copy began.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Folder, PRIVATE, Single, sync_parent};
use crate::index;
use crate::journal::{self, DamageKind, FILE, HEADER, Journal, JournalError, Scan};
use crate::ledger::Ledger;

use super::{INDEX, Inspected, Lock, Progress, Store, StoreError, inspect, loss};

impl Store {
    /// Copies the journal in `folder` to the new file `to`, while a coordinator may be at work.
    pub fn backup(folder: &Path, to: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        // Looked at first: what it has seen by now is in the journal before the copy begins.
        let mut glimpse = inspect::glimpse(folder)?;
        let judge = &mut |journal: &Journal, scan: &Scan, ledger: &Ledger| match &mut glimpse {
            Some(glimpse) => loss::judge(&mut glimpse.index, journal, scan, ledger, folder),
            None => Ok(()),
        };
        copy(Box::new(Folder::existing(folder)), to, Source::AtWork(judge), progress)
    }

    /// Makes a store in `folder`, where there is none, from a backup.
    pub fn restore(from: &Path, folder: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        let journal = folder.join(FILE);
        if journal.exists() {
            return Err(StoreError::Occupied(journal));
        }
        // Nothing is made or removed here for a file that is not good to its end.
        let looked = look_at(from, &mut |done, all| progress(done, 3 * all))?;
        if let Some(damage) = looked.damage_of_backup(from) {
            return Err(damage);
        }
        let all = looked.size_bytes;
        drop(looked);
        drop(Folder::open(folder)?);
        let _lock = Lock::take(folder)?;
        // Of a store that is gone.
        index::remove(&folder.join(INDEX)).map_err(io::Error::other)?;
        let source = Box::new(Single::existing(from)?);
        copy(source, &journal, Source::Backup, &mut |done, _| progress(all + done, 3 * all))
    }
}

impl Inspected {
    /// What keeps the file from being a backup: that it does not end with a whole record.
    pub fn damage_of_backup(&self, file: &Path) -> Option<StoreError> {
        let damage = self.scan.damage?;
        let what = match damage.kind {
            DamageKind::TornTail => "and it is cut off or changed there",
            DamageKind::Rot => "its bytes have changed there, and records behind are whole again",
        };
        let (path, records) = (file.to_owned(), self.scan.tip.sequence);
        Some(StoreError::BadBackup { path, offset: damage.offset, size: self.size_bytes, records, what })
    }
}

/// Reads a file that is called a backup by whoever names it.
pub(super) fn look_at(file: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
    let source = offered(file)?;
    let size = source.size(FILE)?.unwrap_or(0);
    Inspected::of(Box::new(source), progress).map_err(|error| match error {
        StoreError::Journal(JournalError::Damaged { offset, .. }) => StoreError::BadBackup {
            path: file.to_owned(),
            offset,
            size,
            records: 0,
            what: "and its first line is not what it was",
        },
        error => error,
    })
}

/// A plain file that begins as a journal does.
fn offered(file: &Path) -> Result<Single, StoreError> {
    let refused = |what: String| Err(StoreError::NotABackup { path: file.to_owned(), what });
    let about = match fs::metadata(file) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoFile(file.to_owned())),
        Err(error) => return refused(format!("it cannot be looked at: {error}")),
    };
    if about.is_dir() {
        return refused(
            "it is a folder; name the file that `isoloss store backup` made, or a data directory with --data-dir"
                .to_owned(),
        );
    }
    if !about.is_file() {
        return refused("it is no plain file".to_owned());
    }
    let source = match Single::existing(file) {
        Ok(source) => source,
        Err(error) => return refused(format!("it cannot be opened: {error}")),
    };
    let length = usize::try_from(about.len()).unwrap_or(usize::MAX).min(HEADER.len());
    let begun = source.read(FILE, 0, length)?;
    if begun.is_empty() {
        return refused("it is empty".to_owned());
    }
    // The number of the format stands behind the name, and is judged when the journal is opened.
    if let Some(at) = begun.iter().zip(journal::NAME).position(|(found, meant)| found != meant) {
        return refused(format!(
            "it does not begin with {:?}: byte {at} is another; name a file that `isoloss store backup` made",
            String::from_utf8_lossy(journal::NAME)
        ));
    }
    if begun.len() < HEADER.len() {
        return refused(format!("it is cut off at byte {length}, within its first line; copy it again"));
    }
    Ok(source)
}

/// Says whether a journal lacks what its index has seen.
type Judge<'a> = &'a mut dyn FnMut(&Journal, &Scan, &Ledger) -> Result<(), StoreError>;

/// What is copied.
enum Source<'a> {
    /// The journal of a store: somebody may be writing, so that its end may be unfinished.
    AtWork(Judge<'a>),
    /// A file that ends with a whole record, or is damaged.
    Backup,
}

fn copy(source: Box<dyn Disk>, to: &Path, kind: Source<'_>, progress: Progress<'_>) -> Result<Inspected, StoreError> {
    if to.exists() {
        return Err(StoreError::Occupied(to.to_owned()));
    }
    let partial = beside(to, "partial");
    let copied = copy_checked(source, &partial, kind, progress).and_then(|inspected| {
        publish(&partial, to).map_err(|source| StoreError::Unmade { path: to.to_owned(), source })?;
        Ok(inspected)
    });
    if copied.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&partial);
    }
    copied
}

fn copy_checked(
    source: Box<dyn Disk>,
    partial: &Path,
    kind: Source<'_>,
    progress: Progress<'_>,
) -> Result<Inspected, StoreError> {
    let size = source.size(FILE)?.unwrap_or(0);
    let journal = Journal::existing(source)?;
    // Half of the work is to read what was written.
    let scan = write_frames(&journal, partial, &mut |done| progress(done, 2 * size))?;
    match scan.damage {
        Some(damage) if damage.kind == DamageKind::Rot || matches!(kind, Source::Backup) => {
            return Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind }.into());
        }
        _ => {}
    }
    let copied = Inspected::of(Box::new(Single::existing(partial)?), &mut |done, _| progress(size + done, 2 * size))?;
    if copied.scan != (Scan { tip: scan.tip, damage: None }) {
        return Err(StoreError::Unfaithful);
    }
    if let Source::AtWork(judge) = kind {
        judge(&journal, &scan, &copied.ledger)?;
    }
    Ok(copied)
}

fn write_frames(journal: &Journal, partial: &Path, progress: &mut dyn FnMut(u64)) -> Result<Scan, StoreError> {
    let named = |source: io::Error| StoreError::Unmade { path: partial.to_owned(), source };
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(PRIVATE).open(partial).map_err(named)?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(HEADER).map_err(named)?;
    let mut written = Ok(());
    let scan = journal.scan(&mut |entry| {
        if written.is_ok() {
            written = file.write_all(entry.frame);
            progress(entry.place.offset);
        }
    })?;
    written.map_err(named)?;
    file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all()).map_err(named)?;
    Ok(scan)
}

/// Gives a finished file its name, unless that name has been taken meanwhile.
pub(super) fn publish(partial: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(partial, to) {
        Ok(()) => fs::remove_file(partial)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        // Some file systems have no second names.
        Err(_) => fs::rename(partial, to)?,
    }
    sync_parent(to)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}
