//! Corpora by digest: found under the worker's own roots, else fetched from the coordinator and checked. It does not
//! read text.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

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
            if self.is_whole(&here).await? {
                return Ok(std::path::absolute(here)?);
            }
            // A command of some sweep, or a failing disk: a loss on other text is worse than none.
            tracing::error!(folder = %here.display(), "files of a corpus are not what they were: not used");
            if here == folder {
                std::fs::remove_dir_all(&here)?;
            }
        }
        let partial = self.roots[0].join(format!(".{corpus}.partial"));
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        fetch(client, corpus, &partial).await?;
        std::fs::rename(&partial, &folder)?;
        disk::sync_parent(&folder)?;
        tracing::info!(corpus = %corpus.short(), "fetched corpus");
        Ok(folder)
    }

    /// Whether all files of a folder have the digests of its manifest. Read once; afterwards only changed ones are suspect.
    async fn is_whole(&self, folder: &Path) -> Result<bool, CorpusError> {
        let manifest: Manifest = match serde_json::from_slice(&std::fs::read(folder.join(MANIFEST))?) {
            Ok(manifest) => manifest,
            Err(_) => return Ok(false),
        };
        let paths: Vec<PathBuf> = manifest.artifacts.iter().map(|artifact| folder.join(&artifact.name)).collect();
        let known = |paths: &[PathBuf]| -> io::Result<Vec<Stamp>> {
            paths.iter().map(|path| std::fs::metadata(path).map(|file| stamp(&file))).collect()
        };
        let Ok(before) = known(&paths) else { return Ok(false) };
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven().get(folder) == Some(&before) {
            return Ok(true);
        }
        let digests: Vec<Digest> = manifest.artifacts.iter().map(|artifact| artifact.digest).collect();
        let read = tokio::task::spawn_blocking(move || -> io::Result<bool> {
            for (path, digest) in paths.iter().zip(digests) {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(std::fs::File::open(path)?)?;
                if Digest::from_bytes(*hasher.finalize().as_bytes()) != digest {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        let whole = read.await.map_err(io::Error::other)??;
        if whole {
            proven().insert(folder.to_owned(), before);
        }
        Ok(whole)
    }
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
    use isoloss_sweep::Tokens;
    use isoloss_sweep::corpus::{Baselines, CorpusSpec, Source, TokenizerSpec, Validation};

    use super::*;

    #[tokio::test]
    async fn a_corpus_that_was_changed_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let corpora = Corpora::open(dir.path().to_owned(), &[]).unwrap();
        let folder = dir.path().join("corpus");
        std::fs::create_dir(&folder).unwrap();
        let text = b"some text to learn from";
        std::fs::write(folder.join("train.tokens"), text).unwrap();
        let artifact = Artifact { name: "train.tokens".to_owned(), bytes: text.len() as u64, digest: Digest::of(text) };
        let part = Part { documents: 1, tokens: Tokens(23), bytes: 23, true_bits: None };
        let manifest = Manifest {
            version: 1,
            digest: Digest::of(b"corpus"),
            spec: CorpusSpec {
                source: Source::Files { paths: Vec::new(), separator: None, field: "text".to_owned() },
                tokenizer: TokenizerSpec::Bytes,
                validation: Validation::Tail(0.1),
                transforms: Vec::new(),
            },
            context: 64,
            vocab: 256,
            tokenizer: Digest::of(b"bytes"),
            train: part.clone(),
            validation: part,
            baselines: Baselines { order0: 4.0, gzip: 3.0, xz: 3.0 },
            artifacts: vec![artifact],
        };
        std::fs::write(folder.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        assert!(corpora.is_whole(&folder).await.unwrap() && corpora.is_whole(&folder).await.unwrap());
        // The same length at the same place: only the digest tells, and the time of change that it must be read again.
        std::fs::write(folder.join("train.tokens"), b"other text of same size").unwrap();
        assert!(!corpora.is_whole(&folder).await.unwrap());
        std::fs::remove_file(folder.join("train.tokens")).unwrap();
        assert!(!corpora.is_whole(&folder).await.unwrap());
    }
}
