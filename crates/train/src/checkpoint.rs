//! Checkpoint files: everything that a run needs to go on as if it had never stopped. Local files only; who publishes
//! them is not known here.
//!
//! A file is a magic word, a length, a JSON header of that length, the state's four buffers as little-endian f32, and
//! the BLAKE3 digest of all that. It is written under a temporary name, synced, read back, renamed and the folder
//! synced; only then are files older than its predecessor removed. A file that could not be written whole is removed at
//! once: on a full disk its half would take the room that the next attempt needs.

mod stream;

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use isoloss_sweep::run::Schedule;
use isoloss_sweep::{Digest, Run};
use serde::{Deserialize, Serialize};

use crate::engine::State;
use crate::ledger::Ledger;

const MAGIC: &[u8; 8] = b"ISOLOSSC";
const FORMAT_VERSION: u32 = 1;
const EXTENSION: &str = "checkpoint";
const PARTIAL: &str = "partial";
/// Files kept besides those asked for: the newest, and one more should the disk have lied about it.
const KEPT: usize = 2;

/// A file that is no usable checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("checkpoint {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("checkpoint {path} is damaged: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("checkpoint {path} has format version {found}, expected {FORMAT_VERSION}")]
    Version { path: PathBuf, found: u32 },
    #[error("checkpoint {path} cannot continue this run: {why}")]
    Foreign { path: PathBuf, why: &'static str },
}

/// What will be in a file, where it lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub(crate) run: &'a Run,
    pub(crate) trunk: bool,
    pub(crate) state: &'a State,
    pub(crate) ledger: &'a Ledger,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The run that was trained; its numerics and data are the state's.
    pub run: Run,
    /// Trained for its trunk: the learning rate has never decayed.
    pub trunk: bool,
    pub state: State,
    pub ledger: Ledger,
}

/// A written file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub path: PathBuf,
    /// Of the whole file.
    pub digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    run: Run,
    trunk: bool,
    step: u64,
    params: usize,
    router_bias: usize,
    ledger: Ledger,
}

/// The step at which the learning rate of a run starts to fall: up to there its state is its trunk's.
pub fn branch_step(run: &Run) -> Option<u64> {
    match run.train.schedule {
        Schedule::Cosine { .. } => None,
        Schedule::Wsd { decay_steps } => Some(run.train.steps.saturating_sub(decay_steps)),
    }
}

impl Snapshot<'_> {
    /// Writes `<dir>/<step>.checkpoint` and removes older ones, except those at the steps `keep`.
    pub(crate) fn write(&self, dir: &Path, keep: &[u64]) -> Result<Written, CheckpointError> {
        let step = self.state.step;
        let path = dir.join(format!("{step:010}.{EXTENSION}"));
        let temporary = dir.join(format!("{step:010}.{}.{PARTIAL}", std::process::id()));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| CheckpointError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io(dir))?;
        let put =
            self.put(&temporary).and_then(|digest| fs::rename(&temporary, &path).map(|()| digest).map_err(io(&path)));
        let digest = put.inspect_err(|_| {
            // Gone already is as good, and why it could not be written is what is told.
            drop(fs::remove_file(&temporary));
        })?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        prune(dir, step, keep).map_err(io(dir))?;
        Ok(Written { path, digest })
    }

    /// Writes a whole file, waits for the disk, and reads it back; its digest.
    fn put(&self, path: &Path) -> Result<Digest, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let file = File::create(path).map_err(io)?;
        let digest = stream::encode(&self.header(), self.state, BufWriter::new(&file)).map_err(io)?;
        file.sync_all().map_err(io)?;
        drop(file);
        if File::open(path).and_then(stream::digest_of).map_err(io)? == digest {
            return Ok(digest);
        }
        Err(damaged(path, "the disk gave back other bytes than were written"))
    }

    fn header(&self) -> Vec<u8> {
        let header = Header {
            version: FORMAT_VERSION,
            run: self.run.clone(),
            trunk: self.trunk,
            step: self.state.step,
            params: self.state.params.len(),
            router_bias: self.state.router_bias.len(),
            ledger: self.ledger.clone(),
        };
        serde_json::to_vec(&header).expect("a header is plain data with string keys")
    }
}

impl Checkpoint {
    #[cfg(test)]
    pub(crate) fn write(&self, dir: &Path, keep: &[u64]) -> Result<Written, CheckpointError> {
        self.snapshot().write(dir, keep)
    }

    #[cfg(test)]
    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { run: &self.run, trunk: self.trunk, state: &self.state, ledger: &self.ledger }
    }

    /// Reads a file and checks its digest.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| CheckpointError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        Self::decoded(BufReader::new(file), size, path)
    }

    fn decoded(from: impl io::Read, size: u64, path: &Path) -> Result<Self, CheckpointError> {
        let (header, state) = stream::decode(from, size, path)?;
        Ok(Self { run: header.run, trunk: header.trunk, state, ledger: header.ledger })
    }

    /// Whether `run` may go on from here. `end` is the last step for which the learning rate does not decay, where the
    /// file is wanted as a trunk's.
    pub(crate) fn admit(&self, run: &Run, end: Option<u64>, path: &Path) -> Result<(), CheckpointError> {
        let foreign = |why| CheckpointError::Foreign { path: path.to_owned(), why };
        if !self.trunk && self.run == *run && end.is_none() {
            return Ok(());
        }
        match (self.run.trunk_id(), run.trunk_id()) {
            (Some(mine), Some(wanted)) if mine == wanted => {}
            _ => return Err(foreign("it belongs to another configuration")),
        }
        let decays = if self.trunk { None } else { branch_step(&self.run) };
        if decays.is_some_and(|step| self.state.step > step) {
            return Err(foreign("its learning rate has already decayed"));
        }
        if end.or_else(|| branch_step(run)).is_some_and(|step| self.state.step > step) {
            return Err(foreign("it lies behind the step where this run branches off"));
        }
        Ok(())
    }
}

/// The part of every header that must stay readable.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn damaged(path: &Path, what: &'static str) -> CheckpointError {
    CheckpointError::Damaged { path: path.to_owned(), what }
}

/// Checkpoints of `dir` by step, oldest first.
pub fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let step = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(step), Some(EXTENSION)) = (step, path.extension().and_then(|e| e.to_str())) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Also removes what a killed attempt left half written.
fn prune(dir: &Path, newest: u64, keep: &[u64]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL) {
            fs::remove_file(path)?;
        }
    }
    let mut older = list(dir)?;
    older.retain(|(step, _)| *step <= newest && !keep.contains(step));
    for (_, path) in older.iter().rev().skip(KEPT) {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
