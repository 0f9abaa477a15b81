//! Corpora by digest: found under the worker's own roots, else fetched from the coordinator and checked. It does not
//! read text.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use isoloss_sweep::corpus::{Artifact, Part};
use isoloss_sweep::{Digest, Manifest};
use isoloss_wire::api::Code;
use isoloss_wire::{Client, ClientError};
use tokio::sync::Mutex;

use crate::disk;

const MANIFEST: &str = "manifest.json";

/// Why a corpus is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CorpusError {
    #[error("cannot fetch corpus: {0}")]
    Fetch(#[from] ClientError),
    #[error("cannot store corpus: {0}")]
    Disk(#[from] io::Error),
    #[error("corpus file {name:?} {defect}")]
    Artifact { name: String, defect: String },
    #[error("asked for corpus {asked}, got {got}")]
    Other { asked: Digest, got: Digest },
}

impl CorpusError {
    /// Whether it is only that the coordinator cannot be reached now.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Fetch(error) => matches!(error, ClientError::Unreachable { .. }) || error.code() == Some(Code::Busy),
            Self::Disk(_) | Self::Artifact { .. } | Self::Other { .. } => false,
        }
    }
}

/// The roots of this worker; what is fetched goes to the first.
#[derive(Debug)]
pub(crate) struct Corpora {
    roots: Vec<PathBuf>,
    /// Slots that start together fetch a corpus once.
    fetching: Mutex<()>,
}

impl Corpora {
    pub(crate) fn open(own: PathBuf, others: &[PathBuf]) -> io::Result<Self> {
        std::fs::create_dir_all(&own)?;
        let roots = std::iter::once(own.canonicalize()?).chain(others.iter().cloned()).collect();
        Ok(Self { roots, fetching: Mutex::new(()) })
    }

    /// The training part of a corpus that is here.
    pub(crate) fn training_text(&self, corpus: Digest) -> Option<Part> {
        let read = |root: &PathBuf| std::fs::read(root.join(corpus.to_string()).join(MANIFEST)).ok();
        let manifest: Manifest = serde_json::from_slice(&self.roots.iter().find_map(read)?).ok()?;
        Some(manifest.train)
    }

    /// The folder of the corpus.
    pub(crate) async fn resolve(&self, client: &Client, corpus: Digest) -> Result<PathBuf, CorpusError> {
        let _one_at_a_time = self.fetching.lock().await;
        let folders = self.roots.iter().map(|root| root.join(corpus.to_string()));
        if let Some(here) = folders.into_iter().find(|folder| folder.join(MANIFEST).is_file()) {
            return Ok(std::path::absolute(here)?);
        }
        let partial = self.roots[0].join(format!(".{corpus}.partial"));
        let folder = self.roots[0].join(corpus.to_string());
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        fetch(client, corpus, &partial).await?;
        std::fs::rename(&partial, &folder)?;
        disk::sync_parent(&folder)?;
        tracing::info!(corpus = %corpus.short(), "fetched corpus");
        Ok(folder)
    }
}

async fn fetch(client: &Client, corpus: Digest, folder: &Path) -> Result<(), CorpusError> {
    let manifest: Manifest = client.manifest(corpus).await?;
    if manifest.digest != corpus {
        return Err(CorpusError::Other { asked: corpus, got: manifest.digest });
    }
    for artifact in &manifest.artifacts {
        fetch_artifact(client, corpus, artifact, folder).await?;
    }
    // Last, because a manifest in place says that all is.
    disk::write_json(&folder.join(MANIFEST), &manifest)?;
    Ok(())
}

async fn fetch_artifact(
    client: &Client,
    corpus: Digest,
    artifact: &Artifact,
    folder: &Path,
) -> Result<(), CorpusError> {
    let defect = |defect: String| CorpusError::Artifact { name: artifact.name.clone(), defect };
    let name = Path::new(&artifact.name);
    if name.file_name() != Some(name.as_os_str()) {
        return Err(defect("is not a plain file name".to_owned()));
    }
    let mut file = std::fs::File::create(folder.join(name))?;
    let mut hasher = blake3::Hasher::new();
    let mut body = client.artifact(corpus, artifact.digest).await?;
    let mut bytes = 0;
    while let Some(chunk) = body.chunk().await? {
        bytes += chunk.len() as u64;
        if bytes > artifact.bytes {
            return Err(defect(format!("is longer than its {} bytes", artifact.bytes)));
        }
        hasher.update(&chunk);
        file.write_all(&chunk)?;
    }
    let found = Digest::from_bytes(*hasher.finalize().as_bytes());
    if found != artifact.digest {
        return Err(defect(format!("has digest {}, expected {}", found.short(), artifact.digest.short())));
    }
    file.sync_all()?;
    Ok(())
}
