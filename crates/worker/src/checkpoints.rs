//! Where checkpoints lie on this worker's storage and which one an attempt starts from. It does not look inside them.

use std::io;
use std::path::{Path, PathBuf};

use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::{CheckpointRef, Lease};

use crate::disk;

/// The folder of all checkpoints of one storage.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    root: PathBuf,
}

impl Checkpoints {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        Ok(Self { root: root.canonicalize()? })
    }

    /// The folder that this attempt writes to. Each has its own, so a fenced attempt cannot spoil its successor's.
    pub(crate) fn folder(&self, run_id: RunId, attempt: u64) -> io::Result<PathBuf> {
        let folder = self.root.join(run_id.to_string()).join(attempt.to_string());
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Notes a checkpoint that a child reports; `None` if it does not lie on this storage.
    pub(crate) fn record(&self, run_id: RunId, path: &Path, step: u64, digest: Digest) -> Option<CheckpointRef> {
        let inside = path.strip_prefix(&self.root).ok()?;
        let checkpoint = CheckpointRef { path: inside.to_str()?.to_owned(), step, digest };
        let mut noted = self.noted(run_id);
        noted.retain(|known| known.step != step);
        noted.push(checkpoint.clone());
        if let Err(error) = disk::write_json(&self.notes(run_id), &noted) {
            tracing::warn!(run = %run_id.short(), %error, "cannot note a checkpoint");
        }
        Some(checkpoint)
    }

    fn notes(&self, run_id: RunId) -> PathBuf {
        self.root.join(run_id.to_string()).join("checkpoints.json")
    }

    fn noted(&self, run_id: RunId) -> Vec<CheckpointRef> {
        let notes = std::fs::read(self.notes(run_id)).ok();
        notes.and_then(|notes| serde_json::from_slice(&notes).ok()).unwrap_or_default()
    }

    /// Where the attempt starts: at the run's own newest checkpoint, else at its trunk's, else at step 0. A checkpoint
    /// whose bytes are not the ones noted is passed over; a trunk's that is needed and missing is an error. A trunk of
    /// which a step was asked for that it has passed goes back to before that step.
    pub(crate) fn start(&self, lease: &Lease) -> io::Result<Option<PathBuf>> {
        let mut own = self.noted(lease.run_id);
        let is_there = |step: &u64| own.iter().any(|own| own.step == *step && self.verified(own).is_ok());
        if let Some(missing) = lease.trunk_steps.iter().copied().find(|step| !is_there(step)) {
            own.retain(|own| own.step < missing);
        }
        own.retain(|own| lease.resume.as_ref().is_none_or(|trunk| own.step > trunk.step));
        own.sort_by_key(|own| std::cmp::Reverse(own.step));
        if let Some(path) = own.iter().find_map(|own| self.verified(own).ok()) {
            return Ok(Some(path));
        }
        lease.resume.as_ref().map(|trunk| self.verified(trunk)).transpose()
    }

    /// Checkpoints that earlier attempts at this trunk wrote for its branches. They are made known again, because the
    /// worker may have died before it could.
    pub(crate) fn of_trunk(&self, lease: &Lease) -> Vec<CheckpointRef> {
        let mut earlier = self.noted(lease.run_id);
        earlier.retain(|one| lease.trunk_steps.contains(&one.step) && self.verified(one).is_ok());
        earlier
    }

    fn verified(&self, checkpoint: &CheckpointRef) -> io::Result<PathBuf> {
        let relative = Path::new(&checkpoint.path);
        if !relative.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            return Err(io::Error::other(format!("checkpoint path {:?} leaves the storage", checkpoint.path)));
        }
        let path = self.root.join(relative);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(std::fs::File::open(&path)?)?;
        let found = Digest::from_bytes(*hasher.finalize().as_bytes());
        if found != checkpoint.digest {
            return Err(io::Error::other(format!("checkpoint {:?} does not have its digest", checkpoint.path)));
        }
        Ok(path)
    }
}
