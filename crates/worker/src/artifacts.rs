//! The artifact store: where checkpoints go so that other workers can start from them. A folder that machines share or
//! a bucket of an S3-compatible server. An object's name holds the digest of its bytes, so that nobody can replace what
//! another wrote. It does not decide what stays or which checkpoint an attempt starts from.

mod open;
mod transfer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::CheckpointRef;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::{Mutex, MutexGuard};
use tokio_stream::StreamExt;

pub(crate) use transfer::TransferError;

/// The folder of all checkpoints. A name is `checkpoints/<run>/<step>-<digest>`.
const FOLDER: &str = "checkpoints";
/// A store that does not answer a few small requests in this time is of no use.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);

/// Why a store of artifacts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    #[error("{url:?} is no place for artifacts: expected a folder, file:///folder or s3://bucket/prefix")]
    NotAPlace { url: String },
    #[error(
        "an artifact URL must not hold a user or password: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead"
    )]
    Credentials,
    #[error("cannot use the artifact folder {folder}: {source} (make or mount it first)")]
    Folder { folder: String, source: std::io::Error },
    #[error("cannot open the artifacts at {url}: {source}")]
    Open { url: String, source: object_store::Error },
    #[error("the artifacts at {label} cannot be {action}: {source}")]
    Unusable { label: String, action: &'static str, source: object_store::Error },
    #[error("the artifacts at {label} did not answer within {} s", PROBE_PATIENCE.as_secs())]
    Silent { label: String },
}

/// A place that all workers who name it read and write.
#[derive(Clone)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    label: String,
    variables: Vec<String>,
    fetching: Arc<Mutex<()>>,
}

impl fmt::Debug for Artifacts {
    /// The store itself holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts").field("label", &self.label).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// The canonical URL: workers of the same one read each other's checkpoints.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Names of the environment variables that it was opened with, which no child needs to see.
    pub(crate) fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Held while something is fetched and noted, so that slots that want the same checkpoint fetch it once.
    pub(crate) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.fetching.lock().await
    }

    /// Writes, reads and removes a small object.
    pub async fn probe(&self) -> Result<(), ArtifactsError> {
        let tried = tokio::time::timeout(PROBE_PATIENCE, self.try_out()).await;
        tried.unwrap_or_else(|_| Err(ArtifactsError::Silent { label: self.label.clone() }))
    }

    async fn try_out(&self) -> Result<(), ArtifactsError> {
        let not = |action| move |source| ArtifactsError::Unusable { label: self.label.clone(), action, source };
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
        let name = Path::from(format!("probe-{random:016x}"));
        self.store.put(&name, PutPayload::from_static(b"probe")).await.map_err(not("written"))?;
        let read = async { self.store.get(&name).await?.bytes().await };
        read.await.map_err(not("read"))?;
        self.store.delete(&name).await.map_err(not("cleared up"))
    }

    /// Checkpoints of the run, the latest step first.
    pub(crate) async fn list(&self, run_id: RunId) -> Result<Vec<CheckpointRef>, object_store::Error> {
        let folder = Path::from(format!("{FOLDER}/{run_id}"));
        let mut objects = self.store.list(Some(&folder));
        let mut found = Vec::new();
        while let Some(object) = objects.next().await.transpose()? {
            found.extend(read_name(object.location.as_ref()).filter(|(of, _)| *of == run_id).map(|(_, one)| one));
        }
        found.sort_by(|a, b| (b.step, &b.path).cmp(&(a.step, &a.path)));
        Ok(found)
    }

    /// Runs that have checkpoints here.
    pub(crate) async fn runs(&self) -> Result<Vec<RunId>, object_store::Error> {
        let listed = self.store.list_with_delimiter(Some(&Path::from(FOLDER))).await?;
        Ok(listed.common_prefixes.iter().filter_map(|folder| folder.filename()?.parse().ok()).collect())
    }

    /// Removes all but the `kept` latest checkpoints of the run. What cannot be removed is told and left.
    pub(crate) async fn thin_out(&self, run_id: RunId, kept: usize) {
        let objects = match self.list(run_id).await {
            Ok(objects) => objects,
            Err(error) => return tracing::warn!(run = %run_id.short(), %error, "cannot list the run's artifacts"),
        };
        for one in objects.iter().skip(kept) {
            match self.store.delete(&Path::from(one.path.as_str())).await {
                // Another worker may clear up after the same run.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => tracing::warn!(object = one.path, %error, "cannot remove an artifact"),
            }
        }
    }
}

fn name(run_id: RunId, step: u64, digest: Digest) -> String {
    format!("{FOLDER}/{run_id}/{step}-{digest}")
}

/// What a name says; `None` for anything that is no checkpoint's name, letter by letter.
pub(crate) fn read_name(text: &str) -> Option<(RunId, CheckpointRef)> {
    let (run, file) = text.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
    let (step, digest) = file.split_once('-')?;
    let (run_id, step, digest) = (run.parse().ok()?, step.parse().ok()?, digest.parse().ok()?);
    let checkpoint = CheckpointRef { path: name(run_id, step, digest), step, digest };
    (checkpoint.path == text).then_some((run_id, checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_checkpoints_are_read_and_they_say_what_they_hold() {
        let (run_id, digest) = (RunId(Digest::of(b"run")), Digest::of(b"bytes"));
        let good = name(run_id, 40, digest);
        let (of, checkpoint) = read_name(&good).unwrap();
        assert_eq!((of, checkpoint.step, checkpoint.digest), (run_id, 40, digest));
        let upper = good.replace(&digest.to_string(), &digest.to_string().to_uppercase());
        for bad in [
            format!("{FOLDER}/../{run_id}/40-{digest}"),
            format!("/{good}"),
            format!("../{good}"),
            format!("{good}/x"),
            format!("{FOLDER}/{run_id}/040-{digest}"),
            format!("{FOLDER}/{run_id}/+40-{digest}"),
            format!("{FOLDER}/{run_id}/40-"),
            format!("{run_id}/1/40.safetensors"),
            String::new(),
            upper,
        ] {
            assert_eq!(read_name(&bad), None, "{bad}");
        }
    }
}
