//! Checkpoints on their way to the store and back, a part at a time; bytes that do not have their digest arrive nowhere.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use isoloss_sweep::{Digest, RunId};
use isoloss_wire::api::CheckpointRef;
use nix::fcntl::OFlag;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;

use super::{Artifacts, name};
use crate::disk;

/// S3 takes 10,000 parts: 160 GB. Smaller files go in one request.
const PART_BYTES: usize = 16 << 20;
/// Parts under way at a time, each in memory.
const PARTS: usize = 2;
const READ_BYTES: usize = 1 << 20;

/// Why a checkpoint did not get there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("the artifact store failed: {0}")]
    Store(#[from] object_store::Error),
    #[error("cannot read or write a checkpoint: {0}")]
    Disk(#[from] io::Error),
    #[error("a checkpoint is not there any more: {0}")]
    Gone(io::Error),
    #[error("the artifact {0:?} does not have its digest")]
    Corrupt(String),
}

impl Artifacts {
    /// Stores the file under its name. A file that is no longer what `digest` says is not stored.
    pub(crate) async fn upload(
        &self,
        run_id: RunId,
        file: &Path,
        step: u64,
        digest: Digest,
    ) -> Result<CheckpointRef, TransferError> {
        let path = name(run_id, step, digest);
        // A child may have put anything there.
        let careful = (OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits();
        let file = std::fs::File::options().read(true).custom_flags(careful).open(file).map_err(TransferError::Gone)?;
        if !file.metadata()?.is_file() {
            return Err(TransferError::Gone(io::Error::other("it is no plain file")));
        }
        let mut file = tokio::fs::File::from_std(file);
        let to = object_store::path::Path::from(path.as_str());
        let mut writer = BufWriter::with_capacity(self.store.clone(), to, PART_BYTES).with_max_concurrency(PARTS);
        let sent = send(&mut file, &mut writer, digest).await;
        if let Err(error) = sent {
            // Parts of an upload that is given up cost room until somebody removes them.
            if let Err(error) = writer.abort().await {
                tracing::debug!(%error, "cannot abort an upload");
            }
            return Err(match error.kind() {
                io::ErrorKind::InvalidData => TransferError::Corrupt(path),
                _ => error.into(),
            });
        }
        Ok(CheckpointRef { path, step, digest })
    }

    /// Whether the checkpoint is stored, by its name and size.
    pub(crate) async fn has(&self, run_id: RunId, file: &Path, one: &CheckpointRef) -> Result<bool, TransferError> {
        let bytes = std::fs::symlink_metadata(file)?.len();
        match self.store.head(&object_store::path::Path::from(name(run_id, one.step, one.digest))).await {
            Ok(object) => Ok(object.size == bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches a checkpoint into `file`, which is there whole or not at all.
    pub(crate) async fn fetch(&self, one: &CheckpointRef, file: &Path) -> Result<(), TransferError> {
        let partial = file.with_extension("partial");
        let received = self.receive(one, &partial).await;
        if received.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        received?;
        std::fs::rename(&partial, file)?;
        disk::sync_parent(file)?;
        Ok(())
    }

    async fn receive(&self, one: &CheckpointRef, partial: &Path) -> Result<(), TransferError> {
        let object = self.store.get(&object_store::path::Path::from(one.path.as_str())).await?;
        let mut parts = object.into_stream();
        let mut file = tokio::fs::File::create(partial).await?;
        let mut hasher = blake3::Hasher::new();
        while let Some(part) = parts.next().await.transpose()? {
            hasher.update(&part);
            file.write_all(&part).await?;
        }
        file.sync_all().await?;
        if Digest::from_bytes(*hasher.finalize().as_bytes()) == one.digest {
            return Ok(());
        }
        Err(TransferError::Corrupt(one.path.clone()))
    }
}

/// Sends the file; it becomes visible only with its digest.
async fn send(file: &mut tokio::fs::File, writer: &mut BufWriter, digest: Digest) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; READ_BYTES];
    loop {
        let bytes = file.read(&mut piece).await?;
        if bytes == 0 {
            break;
        }
        hasher.update(&piece[..bytes]);
        writer.write_all(&piece[..bytes]).await?;
    }
    if Digest::from_bytes(*hasher.finalize().as_bytes()) != digest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file changed"));
    }
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::read_name;

    /// What holds on every store.
    async fn round_trip(artifacts: &Artifacts) {
        let dir = tempfile::tempdir().unwrap();
        let run_id = RunId(Digest::of(dir.path().to_str().unwrap().as_bytes()));
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        artifacts.probe().await.unwrap();
        // Of several parts, the last of them short; and of no bytes at all.
        for (step, bytes) in [(1, 2 * PART_BYTES + 12_345), (2, 0), (3, 1000)] {
            let content: Vec<u8> = (0..bytes).map(|at| (at / 7 % 251) as u8).collect();
            std::fs::write(&from, &content).unwrap();
            let digest = Digest::of(&content);
            let stored = artifacts.upload(run_id, &from, step, digest).await.unwrap();
            assert_eq!(read_name(&stored.path), Some((run_id, stored.clone())));
            assert_eq!(artifacts.upload(run_id, &from, step, digest).await.unwrap(), stored, "again is the same");
            assert!(artifacts.has(run_id, &from, &stored).await.unwrap());
            artifacts.fetch(&stored, &to).await.unwrap();
            assert_eq!(std::fs::read(&to).unwrap(), content);
        }
        // What is not what it is said to be is neither stored nor taken.
        std::fs::remove_file(&to).unwrap();
        let wrong = artifacts.upload(run_id, &from, 4, Digest::of(b"else")).await;
        assert!(matches!(wrong, Err(TransferError::Corrupt(_))), "{wrong:?}");
        let listed = artifacts.list(run_id).await.unwrap();
        assert_eq!(listed.iter().map(|one| one.step).collect::<Vec<_>>(), [3, 2, 1]);
        let lie = CheckpointRef { digest: Digest::of(b"else"), ..listed[0].clone() };
        assert!(matches!(artifacts.fetch(&lie, &to).await, Err(TransferError::Corrupt(_))));
        assert!(!to.exists() && !to.with_extension("partial").exists());
        assert!(matches!(artifacts.upload(run_id, &to, 4, lie.digest).await, Err(TransferError::Gone(_))));
        assert!(artifacts.runs().await.unwrap().contains(&run_id));
        artifacts.thin_out(run_id, 1).await;
        assert_eq!(artifacts.list(run_id).await.unwrap(), listed[..1]);
        artifacts.thin_out(run_id, 0).await;
        assert_eq!(artifacts.list(run_id).await.unwrap(), []);
        let gone = artifacts.fetch(&listed[0], &to).await;
        assert!(matches!(gone, Err(TransferError::Store(object_store::Error::NotFound { .. }))), "{gone:?}");
    }

    #[tokio::test]
    async fn a_folder_keeps_checkpoints_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        round_trip(&Artifacts::open(dir.path().to_str().unwrap(), []).unwrap()).await;
    }

    /// `ISOLOSS_TEST_S3=s3://bucket/prefix` with the `AWS_*` variables of a server whose bucket is there.
    #[tokio::test]
    async fn a_bucket_keeps_checkpoints_whole_or_not_at_all() {
        let Ok(url) = std::env::var("ISOLOSS_TEST_S3") else {
            return eprintln!("skipped: ISOLOSS_TEST_S3 names no bucket");
        };
        round_trip(&Artifacts::open(&url, std::env::vars()).unwrap()).await;
    }
}
