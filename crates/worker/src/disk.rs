//! Writing small files so that a crash leaves the old or the new one, never half of either.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// Whether the storage itself failed or is full, which says nothing about who wanted to use it.
pub(crate) fn is_of_storage(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded)
        || error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
}

/// Writes `value` as JSON beside `path`, makes it durable, and moves it into place.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    sync_parent(path)
}

/// Makes a created, renamed or removed name durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
