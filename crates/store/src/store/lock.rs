//! One process at a time has a store open: a lock on a file that says who. The lock goes with its process; what the file
//! says stays, and counts only while somebody has the lock.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StoreError;
use crate::disk::PRIVATE;

const FILE: &str = "lock";
/// Of what a lock file says; the rest is not shown.
const SAID_BYTES_MAX: u64 = 200;

/// The lock on a folder.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock, and says in it which process has it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(PRIVATE);
        let mut lock = Self::of(options.open(folder.join(FILE))?, folder)?;
        lock.write(&format!("pid {}", std::process::id()));
        Ok(lock)
    }

    /// Takes the lock of a store that is only read. `None` where there is no lock file: nobody has opened that store yet, or
    /// it is a copy.
    pub(super) fn look(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join(FILE);
        if path.exists() { Self::of(File::open(path)?, folder).map(Some) } else { Ok(None) }
    }

    fn of(file: File, folder: &Path) -> Result<Self, StoreError> {
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Locked { folder: folder.to_owned(), holder: holder(&file).unwrap_or_default() })
            }
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Adds where the process serves.
    pub(super) fn sign(&mut self, place: &str) {
        self.write(&format!("pid {}, at {place}", std::process::id()));
    }

    /// For people alone: whether it succeeds changes nothing.
    fn write(&mut self, said: &str) {
        let begun = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        let _ = begun.and_then(|_| writeln!(self.file, "{said}"));
    }
}

/// What a lock file says, in brackets.
fn holder(file: &File) -> Option<String> {
    let mut said = String::new();
    file.take(SAID_BYTES_MAX).read_to_string(&mut said).ok()?;
    let line = said.lines().next()?;
    (!line.is_empty() && line.chars().all(|c| c.is_ascii_graphic() || c == ' ')).then(|| format!(" ({line})"))
}
