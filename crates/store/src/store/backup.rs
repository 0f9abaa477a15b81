//! Backups: one file that is a journal, checked frame by frame as it is copied and once more as it lies there. Nothing
//! of the store that is copied is locked or changed, so that its coordinator goes on meanwhile.
//!
//! The journal only grows, and every frame vouches for all before it: what is read up to the last whole frame is what a
//! power cut at that moment could have left, at least all that was acknowledged before the copy began.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, Folder, Single, sync_parent};
use crate::index;
use crate::journal::{DamageKind, FILE, HEADER, Journal, JournalError, Scan};

use super::{Inspected, Progress, Store, StoreError, lock};

impl Store {
    /// Copies the journal in `folder` to the new file `to`, while a coordinator may be at work.
    pub fn backup(folder: &Path, to: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        if !folder.join(FILE).is_file() {
            return Err(StoreError::Missing(folder.to_owned()));
        }
        copy(Box::new(Folder::existing(folder)), to, Tail::MayGrow, progress)
    }

    /// Makes a store in `folder`, where there is none, from a backup.
    pub fn restore(from: &Path, folder: &Path, progress: Progress<'_>) -> Result<Inspected, StoreError> {
        if !from.is_file() {
            return Err(StoreError::NoFile(from.to_owned()));
        }
        let journal = folder.join(FILE);
        if journal.exists() {
            return Err(StoreError::Occupied(journal));
        }
        drop(Folder::open(folder)?);
        let _lock = lock(folder)?;
        // Of a store that is gone.
        index::remove(&folder.join("index")).map_err(io::Error::other)?;
        copy(Box::new(Single::existing(from)?), &journal, Tail::MustBeWhole, progress)
    }
}

/// What an unfinished end of the source means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Somebody is writing.
    MayGrow,
    /// The file is damaged.
    MustBeWhole,
}

fn copy(source: Box<dyn Disk>, to: &Path, tail: Tail, progress: Progress<'_>) -> Result<Inspected, StoreError> {
    if to.exists() {
        return Err(StoreError::Occupied(to.to_owned()));
    }
    let partial = beside(to, "partial");
    let copied = copy_checked(source, &partial, tail, progress).and_then(|inspected| {
        publish(&partial, to)?;
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
    tail: Tail,
    progress: Progress<'_>,
) -> Result<Inspected, StoreError> {
    let size = source.size(FILE)?.unwrap_or(0);
    let journal = Journal::existing(source)?;
    // Half of the work is to read what was written.
    let scan = write_frames(&journal, partial, &mut |done| progress(done, 2 * size))?;
    match scan.damage {
        Some(damage) if damage.kind == DamageKind::Rot || tail == Tail::MustBeWhole => {
            return Err(JournalError::Damaged { offset: damage.offset, kind: damage.kind }.into());
        }
        _ => {}
    }
    let inspected =
        Inspected::of(Box::new(Single::existing(partial)?), &mut |done, _| progress(size + done, 2 * size))?;
    if inspected.scan != (Scan { tip: scan.tip, damage: None }) {
        return Err(StoreError::Unfaithful);
    }
    Ok(inspected)
}

fn write_frames(journal: &Journal, partial: &Path, progress: &mut dyn FnMut(u64)) -> Result<Scan, StoreError> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot write {}: {error}", partial.display()));
    let mut file = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(named)?);
    file.write_all(HEADER)?;
    let mut written = Ok(());
    let scan = journal.scan(&mut |entry| {
        if written.is_ok() {
            written = file.write_all(entry.frame);
            progress(entry.place.offset);
        }
    })?;
    written?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(scan)
}

/// Gives a finished file its name, unless that name has been taken meanwhile.
fn publish(partial: &Path, to: &Path) -> Result<(), StoreError> {
    match fs::hard_link(partial, to) {
        Ok(()) => fs::remove_file(partial)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StoreError::Occupied(to.to_owned()));
        }
        // Some file systems have no second names.
        Err(_) => fs::rename(partial, to)?,
    }
    Ok(sync_parent(to)?)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{ending}"));
    path.with_file_name(name)
}
