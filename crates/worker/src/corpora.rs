//! Corpora by digest: found under the worker's own roots, else fetched from the coordinator and checked. It does not
//! read text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use isoloss_corpus::DatasetError;
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
    #[error("what the coordinator gave for corpus {corpus} is another: {error}; it must be surveyed there again")]
    Unproven { corpus: Digest, error: DatasetError },
}

impl CorpusError {
    /// Whether it is only that the coordinator cannot be reached now.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Fetch(error) => matches!(error, ClientError::Unreachable { .. }) || error.code() == Some(Code::Busy),
            Self::Disk(_) | Self::Artifact { .. } | Self::Other { .. } | Self::Unproven { .. } => false,
        }
    }
}

/// The roots of this worker; what is fetched goes to the first.
#[derive(Debug)]
pub(crate) struct Corpora {
    roots: Vec<PathBuf>,
    /// Slots that start together fetch a corpus once.
    fetching: Mutex<()>,
    /// Folders whose files had their digests, as they stood then.
    proven: std::sync::Mutex<BTreeMap<PathBuf, Vec<Stamp>>>,
}

/// Of a file: inode, size, and the time of its last change of any kind, which no program can set.
type Stamp = (u64, u64, i64, i64);

impl Corpora {
    pub(crate) fn open(own: PathBuf, others: &[PathBuf]) -> io::Result<Self> {
        std::fs::create_dir_all(&own)?;
        let roots = std::iter::once(own.canonicalize()?).chain(others.iter().cloned()).collect();
        Ok(Self { roots, fetching: Mutex::new(()), proven: std::sync::Mutex::default() })
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
        let folder = self.roots[0].join(corpus.to_string());
        for here in self.roots.iter().map(|root| root.join(corpus.to_string())) {
            if !here.join(MANIFEST).is_file() {
                continue;
            }
            if self.is_whole(&here, corpus).await? {
                return Ok(std::path::absolute(here)?);
            }
            // A command of some sweep, or a failing disk: a loss on other text is worse than none.
            if here == folder {
                std::fs::remove_dir_all(&here)?;
            }
        }
        let partial = self.roots[0].join(format!(".{corpus}.partial"));
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        fetch(client, corpus, &partial).await?;
        // Each file has the digest that the manifest names; whether that is the manifest of this corpus is seen here.
        let fetched = partial.clone();
        let proof = tokio::task::spawn_blocking(move || isoloss_corpus::prove(&fetched, corpus));
        if let Err(error) = proof.await.map_err(io::Error::other)? {
            let _ = std::fs::remove_dir_all(&partial);
            return Err(CorpusError::Unproven { corpus, error });
        }
        std::fs::rename(&partial, &folder)?;
        disk::sync_parent(&folder)?;
        tracing::info!(corpus = %corpus.short(), "fetched corpus");
        Ok(folder)
    }

    /// Whether a folder holds `corpus`, its manifest and all. Read once; afterwards only changed files are suspect.
    async fn is_whole(&self, folder: &Path, corpus: Digest) -> Result<bool, CorpusError> {
        let Ok(before) = stamps(folder) else { return Ok(false) };
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven().get(folder) == Some(&before) {
            return Ok(true);
        }
        let place = folder.to_owned();
        let proof = tokio::task::spawn_blocking(move || isoloss_corpus::prove(&place, corpus));
        if let Err(error) = proof.await.map_err(io::Error::other)? {
            tracing::error!(folder = %folder.display(), %error, "a corpus is not what it was");
            return Ok(false);
        }
        proven().insert(folder.to_owned(), before);
        Ok(true)
    }
}

/// Every file of a corpus, its manifest first.
fn stamps(folder: &Path) -> io::Result<Vec<Stamp>> {
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(folder.join(MANIFEST))?)?;
    let names = std::iter::once(MANIFEST).chain(manifest.artifacts.iter().map(|artifact| artifact.name.as_str()));
    names.map(|name| std::fs::metadata(folder.join(name)).map(|file| stamp(&file))).collect()
}

fn stamp(file: &std::fs::Metadata) -> Stamp {
    (file.ino(), file.size(), file.ctime(), file.ctime_nsec())
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

#[cfg(test)]
mod tests {
    use isoloss_sweep::CorpusSpec;
    use isoloss_sweep::corpus::{Preset, Source, TokenizerSpec, Validation};

    use super::*;

    #[tokio::test]
    async fn a_corpus_that_was_changed_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let corpora = Corpora::open(dir.path().to_owned(), &[]).unwrap();
        let spec = CorpusSpec {
            source: Source::Synthetic { preset: Preset::Tiny, sentences: None, seed: 1, bytes: 300_000 },
            tokenizer: TokenizerSpec::Bytes,
            validation: Validation::Tail(0.2),
            transforms: Vec::new(),
        };
        let mut manifest = isoloss_corpus::survey(&spec, 64, dir.path(), &mut |_| {}).unwrap();
        let corpus = manifest.digest;
        let folder = dir.path().join(corpus.to_string());
        let is_whole = async || corpora.is_whole(&folder, corpus).await.unwrap();
        assert!(is_whole().await && is_whole().await);
        // The same length at the same place: only the digest tells, and the time of change that it must be read again.
        let text = folder.join("train.tokens");
        let mut bytes = std::fs::read(&text).unwrap();
        let sound = bytes.clone();
        bytes[1000] ^= 1;
        std::fs::write(&text, &bytes).unwrap();
        assert!(!is_whole().await);
        // The manifest goes along with it: that is another corpus.
        let artifact = manifest.artifacts.iter_mut().find(|artifact| artifact.name == "train.tokens").unwrap();
        artifact.digest = Digest::of(&bytes);
        std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert!(!is_whole().await);
        manifest.artifacts.iter_mut().find(|artifact| artifact.name == "train.tokens").unwrap().digest =
            Digest::of(&sound);
        std::fs::write(&text, &sound).unwrap();
        std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert!(is_whole().await);
        std::fs::remove_file(text).unwrap();
        assert!(!is_whole().await);
    }
}
