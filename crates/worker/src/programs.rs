//! Files that travel with the command of a sweep: fetched by digest, and checked before each start, because a command
//! can write into its own folder. It runs nothing.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use isoloss_sweep::trainer::FILE_BYTES_MAX;
use isoloss_sweep::{Digest, Trainer};
use isoloss_wire::api::Code;
use isoloss_wire::{Client, ClientError};
use tokio::sync::Mutex;

use crate::disk;

/// Why a command's files are not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("cannot fetch the trainer's file {name:?}: {source}")]
    Fetch { name: String, source: ClientError },
    #[error("cannot store the trainer's files: {0}")]
    Disk(#[from] io::Error),
    #[error("the trainer's file {name:?} {defect}")]
    Defect { name: String, defect: &'static str },
}

impl ProgramError {
    /// Whether it is only that the coordinator cannot be reached now.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => {
                matches!(source, ClientError::Unreachable { .. }) || source.code() == Some(Code::Busy)
            }
            Self::Disk(_) | Self::Defect { .. } => false,
        }
    }
}

/// Folders of files, one for each set.
#[derive(Debug)]
pub(crate) struct Programs {
    root: PathBuf,
    /// Slots that start together fetch a file once.
    fetching: Mutex<()>,
}

impl Programs {
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        Ok(Self { root: root.canonicalize()?, fetching: Mutex::new(()) })
    }

    /// The folder where the command runs, with its files as they must be.
    pub(crate) async fn folder(&self, client: &Client, trainer: &Trainer) -> Result<PathBuf, ProgramError> {
        let _one_at_a_time = self.fetching.lock().await;
        let folder = self.root.join(trainer.folder().to_string());
        std::fs::create_dir_all(&folder)?;
        for (name, digest) in &trainer.files {
            if Path::new(name).file_name() != Some(name.as_ref()) {
                return Err(ProgramError::Defect { name: name.clone(), defect: "is not a plain file name" });
            }
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == *digest) {
                continue;
            }
            let bytes = fetch(client, name, *digest).await?;
            place(&path, &bytes)?;
        }
        Ok(folder)
    }
}

async fn fetch(client: &Client, name: &str, digest: Digest) -> Result<Vec<u8>, ProgramError> {
    let failed = |source| ProgramError::Fetch { name: name.to_owned(), source };
    let mut body = client.trainer_file(digest).await.map_err(failed)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > FILE_BYTES_MAX {
            break;
        }
    }
    if Digest::of(&bytes) == digest {
        return Ok(bytes);
    }
    Err(ProgramError::Defect { name: name.to_owned(), defect: "does not have its digest" })
}

/// Whole or not at all, and ready to run.
fn place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    disk::sync_parent(path)
}
