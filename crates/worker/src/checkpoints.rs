//! Where checkpoints lie on this worker's storage and which one an attempt starts from. It does not look inside them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::{CheckpointRef, Lease};

use crate::artifacts::{Artifacts, TransferError};
use crate::disk;
use crate::held::Key;

/// Lists the checkpoints of an attempt, in its folder.
pub(crate) const NOTES: &str = "checkpoints.json";
/// What was fetched lies beside what attempts wrote, as if it were of an attempt: they count from 1.
const FETCHED: u64 = 0;

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
        let folder = self.place(run_id, attempt);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Notes a checkpoint that a child reports; `None` if it does not lie in the attempt's own folder. The notes lie there
    /// too: an attempt that is stale, here or on another worker of the same storage, cannot reach those of a newer one.
    pub(crate) fn record(&self, key: Key, path: &Path, step: u64, digest: Digest) -> Option<CheckpointRef> {
        let (run_id, attempt) = key;
        path.strip_prefix(self.place(run_id, attempt)).ok()?;
        let inside = path.strip_prefix(&self.root).ok().filter(|inside| is_plain(inside))?;
        let checkpoint = CheckpointRef { path: inside.to_str()?.to_owned(), step, digest };
        let mut noted = self.noted_by(run_id, attempt);
        noted.retain(|known| known.step != step);
        noted.push(checkpoint.clone());
        if let Err(error) = disk::write_json(&self.place(run_id, attempt).join(NOTES), &noted) {
            tracing::warn!(run = %run_id.short(), %error, "cannot note a checkpoint");
        }
        Some(checkpoint)
    }

    /// Removes what an attempt noted before its last two checkpoints: the newest, and one more should it be damaged.
    pub(crate) fn keep_two(&self, key: Key) {
        let (run_id, attempt) = key;
        let mut noted = self.noted_by(run_id, attempt);
        noted.sort_by_key(|one| std::cmp::Reverse(one.step));
        let old = noted.split_off(noted.len().min(2));
        if old.is_empty() {
            return;
        }
        if let Err(error) = disk::write_json(&self.place(run_id, attempt).join(NOTES), &noted) {
            return tracing::warn!(run = %run_id.short(), %error, "cannot note which checkpoints stay");
        }
        let stays = |one: &CheckpointRef| noted.iter().any(|kept| kept.path == one.path);
        for one in old.iter().filter(|one| !stays(one)) {
            // A child may have removed it itself.
            let _ = std::fs::remove_file(self.path(one));
        }
    }

    pub(crate) fn place(&self, run_id: RunId, attempt: u64) -> PathBuf {
        self.root.join(run_id.to_string()).join(attempt.to_string())
    }

    fn noted_by(&self, run_id: RunId, attempt: u64) -> Vec<CheckpointRef> {
        let notes = std::fs::read(self.place(run_id, attempt).join(NOTES)).ok();
        notes.and_then(|notes| serde_json::from_slice(&notes).ok()).unwrap_or_default()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, checkpoint: &CheckpointRef) -> PathBuf {
        self.root.join(&checkpoint.path)
    }

    /// Runs that have a folder here.
    pub(crate) fn runs(&self) -> Vec<RunId> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The run's newest checkpoint that has its digest.
    pub(crate) fn newest(&self, run_id: RunId) -> Option<CheckpointRef> {
        let mut noted = self.noted(run_id);
        noted.sort_by_key(|one| std::cmp::Reverse(one.step));
        noted.into_iter().find(|one| self.verified(one).is_ok())
    }

    /// Attempts at the run that have a folder here, newest first.
    pub(crate) fn attempts(&self, run_id: RunId) -> Vec<u64> {
        let entries = std::fs::read_dir(self.root.join(run_id.to_string())).into_iter().flatten().flatten();
        let mut attempts: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        attempts.sort_unstable_by_key(|attempt| std::cmp::Reverse(*attempt));
        attempts
    }

    /// What all attempts noted, those of newer attempts first.
    pub(crate) fn noted(&self, run_id: RunId) -> Vec<CheckpointRef> {
        self.attempts(run_id).into_iter().flat_map(|attempt| self.noted_by(run_id, attempt)).collect()
    }

    /// Where the attempt starts: at the run's own newest checkpoint, else at its trunk's, else at step 0. A checkpoint
    /// whose bytes are not the ones noted is passed over and told of; a trunk's that is needed and missing is an error.
    pub(crate) fn start(&self, lease: &Lease, pass: impl Fn(u64, &io::Error)) -> io::Result<Option<PathBuf>> {
        for own in self.own(lease, &[]) {
            match self.verified(&own) {
                Ok(path) => return Ok(Some(path)),
                Err(error) => pass(own.step, &error),
            }
        }
        lease.resume.as_ref().map(|trunk| self.verified(trunk)).transpose()
    }

    /// The run's own checkpoints that the attempt may start from, the latest first: those noted here, and at the same step
    /// after them those that are `stored` elsewhere. A trunk of which a step was asked for that it has passed goes back to
    /// before that step.
    pub(crate) fn own(&self, lease: &Lease, stored: &[CheckpointRef]) -> Vec<CheckpointRef> {
        let mut own = self.noted(lease.run_id);
        let is_there = |step: &u64| {
            stored.iter().any(|one| one.step == *step)
                || own.iter().any(|own| own.step == *step && self.verified(own).is_ok())
        };
        let missing = lease.trunk_steps.iter().copied().find(|step| !is_there(step));
        own.extend_from_slice(stored);
        own.retain(|own| missing.is_none_or(|missing| own.step < missing));
        own.retain(|own| lease.resume.as_ref().is_none_or(|trunk| own.step > trunk.step));
        own.sort_by_key(|own| std::cmp::Reverse(own.step));
        own
    }

    /// The checkpoint's file here; fetched, if it is not, and then noted as of the attempt before all attempts.
    pub(crate) async fn fetched(
        &self,
        artifacts: &Artifacts,
        run_id: RunId,
        one: &CheckpointRef,
    ) -> Result<PathBuf, TransferError> {
        let _alone = artifacts.alone().await;
        let is_it = |noted: &&CheckpointRef| noted.step == one.step && noted.digest == one.digest;
        if let Some(here) = self.noted(run_id).iter().filter(is_it).find_map(|noted| self.verified(noted).ok()) {
            return Ok(here);
        }
        let path = self.folder(run_id, FETCHED)?.join(format!("{}-{}", one.step, one.digest));
        artifacts.fetch(one, &path).await?;
        self.record((run_id, FETCHED), &path, one.step, one.digest);
        Ok(path)
    }

    /// Checkpoints that earlier attempts at this trunk wrote for its branches. They are made known again, because the
    /// worker may have died before it could.
    pub(crate) fn of_trunk(&self, lease: &Lease) -> Vec<CheckpointRef> {
        let mut earlier = self.noted(lease.run_id);
        let mut steps = BTreeSet::new();
        earlier.retain(|one| {
            lease.trunk_steps.contains(&one.step) && !steps.contains(&one.step) && self.verified(one).is_ok() && {
                steps.insert(one.step)
            }
        });
        earlier
    }

    pub(crate) fn verified(&self, checkpoint: &CheckpointRef) -> io::Result<PathBuf> {
        let relative = Path::new(&checkpoint.path);
        if !is_plain(relative) {
            return Err(io::Error::other(format!("checkpoint path {:?} leaves the storage", checkpoint.path)));
        }
        let path = self.root.join(relative);
        if disk::digest_of(&path)? != checkpoint.digest {
            return Err(io::Error::other(format!("checkpoint {:?} does not have its digest", checkpoint.path)));
        }
        Ok(path)
    }
}

fn is_plain(relative: &Path) -> bool {
    relative.components().all(|part| matches!(part, std::path::Component::Normal(_)))
}
