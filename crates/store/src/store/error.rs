//! Why the store does not do what was asked, and how to go on.

use std::io;
use std::path::PathBuf;

use super::Loss;
use crate::journal::{DamageKind, JournalError};
use crate::ledger::Refusal;

/// Why the store does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{} is in use by another coordinator{holder}", .folder.display())]
    Locked {
        folder: PathBuf,
        /// What is known of it, in brackets, or nothing.
        holder: String,
    },
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
    Io(#[from] io::Error),
    /// The file that was to be made, not the store.
    #[error("cannot write {}: {source}", .path.display())]
    Unmade { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Found before anything was changed.
    #[error("{}: {loss}; nothing was changed", .journal.display())]
    Lost { journal: PathBuf, loss: Loss },
    #[error("no sweep in {} is whole: there is nothing to salvage; restore a backup, or hand the sweeps in again elsewhere", .0.display())]
    NothingLeft(PathBuf),
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
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "; what was acknowledged is safe: make room there, or move the data directory, and start again"
                }
                _ => "; what was acknowledged is safe: look after the disk (dmesg), then start again",
            },
            Self::Journal(JournalError::Damaged { kind: DamageKind::TornTail, .. }) => {
                "; nothing was recorded in it, and a coordinator that starts here begins it anew"
            }
            Self::Journal(JournalError::Damaged { kind: DamageKind::Rot, .. }) => Loss::WAYS_OUT,
            Self::Lost { loss, .. } => loss.advice(),
            Self::Locked { .. } => "; stop that one first, or name another data directory with --data-dir",
            Self::NotUnderstood { .. } | Self::Missing(_) | Self::NoFile(_) | Self::Unmade { .. } => "",
            Self::NotABackup { .. } | Self::BadBackup { .. } | Self::NothingLeft(_) => "",
            Self::Journal(_) | Self::Refused(_) | Self::Unwritable(_) | Self::Occupied(_) | Self::Unfaithful => "",
        }
    }
}
