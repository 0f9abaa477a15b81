//! A look at an index that nobody may change, or that a coordinator has open: sled mends and rewrites what it opens, so a
//! copy is opened. A copy made while sled writes may be torn; then it proves nothing, as any torn index.

use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::{Index, IndexError};

/// Copies of an index in use, until one is whole.
const TRIES: u32 = 3;

/// An open copy, gone when it is dropped.
pub(crate) struct Glimpse {
    pub(crate) index: Index,
    _folder: TempDir,
}

/// The index at `path` as it is now, if there is one that says how far it is.
pub(crate) fn glimpse(path: &Path) -> Option<Glimpse> {
    for _ in 0..TRIES {
        if !path.is_dir() {
            return None;
        }
        match take(path) {
            Ok(found) => return found,
            Err(error) => tracing::debug!(%error, "a copy of the index is not whole"),
        }
    }
    tracing::warn!(path = %path.display(), "the index cannot be read: what follows goes by the journal alone");
    None
}

fn take(path: &Path) -> Result<Option<Glimpse>, IndexError> {
    let folder = tempfile::tempdir()?;
    let copied = folder.path().join("index");
    copy(path, &copied)?;
    let index = Index::open(&copied)?;
    let is_told = index.tip()?.is_some();
    Ok(is_told.then_some(Glimpse { index, _folder: folder }))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    crate::disk::private_folder(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
