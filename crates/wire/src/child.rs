//! The child protocol: one JSON object a line, between a worker and the process that trains.
//!
//! The child reads [`ToChild`] on stdin; end of input means stop at once. It writes [`FromChild`] on stdout. It may take
//! several runs, one after another, if it says so with each outcome ([`FromChild::Outcome`], `again`): it then writes
//! nothing until the next run comes, and answers that with [`FromChild::Taken`]. Whether one comes is the worker's to say.

use std::path::PathBuf;

use isoloss_sweep::{Digest, Outcome, Run, RunId};
use serde::{Deserialize, Serialize};

/// Version of this protocol.
pub const CHILD_PROTOCOL: u32 = 1;
/// The attempt ended well (its outcome may be `diverged`).
pub const EXIT_DONE: i32 = 0;
/// The GPU, or the service between it and the child, was not to be had (EX_UNAVAILABLE): no fault of the run, which is tried
/// again elsewhere or later and loses nothing but the attempt. The last line on stderr says what failed.
pub const EXIT_DEVICE: i32 = 69;
/// The GPU's context broke (EX_SOFTWARE); another attempt may succeed. Where several processes share one, it may have been
/// another's fault: this is said instead of an outcome, and the last line on stderr says what broke.
pub const EXIT_CONTEXT: i32 = 70;
/// The machine's storage failed or is full (EX_IOERR): no fault of the run, which is tried again elsewhere or later and
/// loses nothing but the attempt. The last line on stderr says what failed.
pub const EXIT_STORAGE: i32 = 74;
/// Broke; another attempt may succeed (EX_TEMPFAIL).
pub const EXIT_RETRY: i32 = 75;
/// Broke; do not try again (EX_CONFIG).
pub const EXIT_NO_RETRY: i32 = 78;
/// Wrote a checkpoint and gave the device back.
pub const EXIT_YIELDED: i32 = 85;
/// What the system calls an error of the device itself; it has no [`std::io::ErrorKind`].
const EIO: i32 = 5;

/// Whether the storage itself failed or is full, which says nothing about who wanted to use it: such an error ends a child
/// with [`EXIT_STORAGE`].
pub fn is_of_storage(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded) || error.raw_os_error() == Some(EIO)
}

/// Parent to child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ToChild {
    Run(Box<Assignment>),
    /// Checkpoint, report and exit with [`EXIT_YIELDED`].
    Stop,
}

/// One attempt at a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub protocol: u32,
    pub run_id: RunId,
    /// The fencing token.
    pub attempt: u64,
    pub run: Run,
    /// Folder of the corpus: its manifest and artifacts.
    pub corpus: PathBuf,
    /// Folder for this run's checkpoints.
    pub checkpoints: PathBuf,
    /// Checkpoint file to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<PathBuf>,
    /// Set for a trunk: write a checkpoint at each of these steps and end at the last, without decay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk_steps: Vec<u64>,
    /// Threads the child may use.
    pub threads: u32,
    /// For example `cpu:0-1` or a GPU's UUID.
    pub device: String,
    /// Memory of the device that is reserved for this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What of it a process takes of a GPU beside the engine's own block, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_process_bytes: Option<u64>,
}

/// Child to parent; every line names its run and attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum FromChild {
    /// The order was read. Needed, and at once, of a child that had other runs before; any other line of the run says the
    /// same.
    Taken {
        run_id: RunId,
        attempt: u64,
    },
    /// All is ready: the first step of this attempt begins.
    Began {
        run_id: RunId,
        attempt: u64,
        /// Steps that are behind it.
        step: u64,
    },
    Progress {
        run_id: RunId,
        attempt: u64,
        step: u64,
        steps: u64,
        tokens: u64,
        /// Training loss, nats per token.
        loss_nats: f64,
        tokens_per_second: f64,
        memory_bytes: u64,
    },
    Eval {
        run_id: RunId,
        attempt: u64,
        step: u64,
        tokens: u64,
        loss_nats: f64,
        bits_per_byte: f64,
    },
    Checkpoint {
        run_id: RunId,
        attempt: u64,
        path: PathBuf,
        step: u64,
        digest: Digest,
    },
    Outcome {
        run_id: RunId,
        attempt: u64,
        result: Outcome,
        /// Nothing is left of the run, and another may be given.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
}

impl FromChild {
    /// The run and attempt that the line speaks of.
    pub fn subject(&self) -> (RunId, u64) {
        match self {
            Self::Taken { run_id, attempt }
            | Self::Began { run_id, attempt, .. }
            | Self::Progress { run_id, attempt, .. }
            | Self::Eval { run_id, attempt, .. }
            | Self::Checkpoint { run_id, attempt, .. }
            | Self::Outcome { run_id, attempt, .. } => (*run_id, *attempt),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::is_of_storage;

    #[test]
    fn a_full_or_failing_disk_is_told_from_a_file_that_is_not_there() {
        assert!(is_of_storage(&Error::from(ErrorKind::StorageFull)));
        assert!(is_of_storage(&Error::from_raw_os_error(5)), "an error of the device");
        assert!(!is_of_storage(&Error::from(ErrorKind::NotFound)));
    }
}
