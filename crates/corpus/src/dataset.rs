//! A surveyed corpus opened for use: its manifest, both token streams, and what draws from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isoloss_sweep::corpus::{Artifact, Part};
use isoloss_sweep::{Digest, Manifest, Tokens};

use crate::sampler::Sampler;
use crate::scoring::Scoring;
use crate::stream::{Packed, Stream};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Version of the manifest and of the files beside it.
pub(crate) const FORMAT_VERSION: u32 = 1;
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const TRAIN: &str = "train";
pub(crate) const VALIDATION: &str = "validation";

/// Name of a stream's tokens.
pub(crate) fn tokens_file(part: &str) -> String {
    format!("{part}.tokens")
}

/// Name of the file that says where a stream's documents lie.
pub(crate) fn documents_file(part: &str) -> String {
    format!("{part}.documents")
}

/// A folder that is not the corpus it should be, or a request that it cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("cannot read {path}: {source}; survey the corpus again")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a manifest: {source}")]
    Manifest { path: PathBuf, source: serde_json::Error },
    #[error("{path} has format version {got}, this program reads {FORMAT_VERSION}; survey the corpus again")]
    Version { path: PathBuf, got: u32 },
    #[error("{path} has {got} bytes, the manifest says {want}; delete the folder and survey the corpus again")]
    Size { path: PathBuf, got: u64, want: u64 },
    #[error("{path} has digest {got:?}, the manifest says {want:?}; delete the folder and survey the corpus again")]
    Content { path: PathBuf, got: Digest, want: Digest },
    #[error("{path} holds corpus {got}, not {want}; delete the folder and survey the corpus again")]
    Other { path: PathBuf, got: Digest, want: Digest },
    #[error("{path} does not fit its manifest: {what}")]
    Inconsistent { path: PathBuf, what: &'static str },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error("tokens_unique = {wanted} is more than the {available} training tokens of the corpus")]
    TokensUnique { wanted: u64, available: u64 },
    #[error("{tokens} tokens are too few for windows of context {context}: more than {context} are needed")]
    ShorterThanContext { tokens: u64, context: u32 },
}

/// An open corpus. Both streams are in memory, a byte or two a token.
#[derive(Debug)]
pub struct Dataset {
    dir: PathBuf,
    manifest: Manifest,
    train: Arc<Stream>,
    validation: Arc<Stream>,
    tokenizer: Tokenizer,
}

impl Dataset {
    /// Opens a folder that [`crate::survey`] made. Sizes are checked, digests are not: see [`Self::verify`].
    pub fn open(dir: &Path) -> Result<Self, DatasetError> {
        let manifest = read_manifest(dir)?;
        for artifact in &manifest.artifacts {
            check_size(dir, artifact)?;
        }
        let train = read_stream(dir, TRAIN, &manifest, &manifest.train)?;
        let validation = read_stream(dir, VALIDATION, &manifest, &manifest.validation)?;
        let tokenizer = Tokenizer::load(&manifest.spec.tokenizer, &read(&dir.join(TOKENIZER))?)?;
        if tokenizer.vocab() != manifest.vocab {
            return Err(DatasetError::Inconsistent { path: dir.join(TOKENIZER), what: "another vocabulary size" });
        }
        Ok(Self { dir: dir.to_owned(), manifest, train: Arc::new(train), validation: Arc::new(validation), tokenizer })
    }

    /// Reads every artifact and compares its digest with the manifest's.
    pub fn verify(&self) -> Result<(), DatasetError> {
        for artifact in &self.manifest.artifacts {
            let path = self.dir.join(&artifact.name);
            let got = Digest::of(&read(&path)?);
            if got != artifact.digest {
                return Err(DatasetError::Content { path, got, want: artifact.digest });
            }
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The training stream.
    pub fn train(&self) -> &Stream {
        &self.train
    }

    /// The validation stream.
    pub fn validation(&self) -> &Stream {
        &self.validation
    }

    /// Batches of the training stream, or of its first `tokens_unique` tokens.
    pub fn sampler(&self, context: u32, seed: u64, tokens_unique: Option<Tokens>) -> Result<Sampler, DatasetError> {
        Sampler::new(Arc::clone(&self.train), context, seed, tokens_unique)
    }

    /// The windows that score up to `bytes_max` bytes of the validation text: the same bytes whatever the context.
    pub fn scoring(&self, context: u32, bytes_max: u64) -> Scoring {
        Scoring::new(&self.validation, context, bytes_max, |token| self.tokenizer.token_bytes(token).len() as u64)
    }

    /// The text of a stream's documents, in order.
    pub fn texts<'a>(&'a self, stream: &'a Stream) -> impl Iterator<Item = Vec<u8>> + 'a {
        let mut start = 0;
        let mut tokens = Vec::new();
        stream.documents().iter().map(move |span| {
            let end = start + span.tokens as usize;
            tokens.clear();
            stream.copy(start + 1..end, &mut tokens);
            start = end;
            self.tokenizer.decode(&tokens)
        })
    }
}

/// The manifest of a folder, its version checked.
pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest, DatasetError> {
    let path = dir.join(MANIFEST);
    let bytes = read(&path)?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|source| DatasetError::Manifest { path: path.clone(), source })?;
    if manifest.version != FORMAT_VERSION {
        return Err(DatasetError::Version { path, got: manifest.version });
    }
    Ok(manifest)
}

/// That an artifact is there and has its size.
pub(crate) fn check_size(dir: &Path, artifact: &Artifact) -> Result<(), DatasetError> {
    let path = dir.join(&artifact.name);
    match std::fs::metadata(&path) {
        Err(source) => Err(DatasetError::Unreadable { path, source }),
        Ok(meta) if meta.len() != artifact.bytes => {
            Err(DatasetError::Size { path, got: meta.len(), want: artifact.bytes })
        }
        Ok(_) => Ok(()),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    std::fs::read(path).map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })
}

fn read_stream(dir: &Path, name: &str, manifest: &Manifest, part: &Part) -> Result<Stream, DatasetError> {
    let path = dir.join(tokens_file(name));
    let inconsistent = |what| DatasetError::Inconsistent { path: path.clone(), what };
    let tokens = Packed::from_bytes(manifest.vocab, read(&path)?).ok_or_else(|| inconsistent("a torn token"))?;
    let index = read(&dir.join(documents_file(name)))?;
    let documents = Stream::documents_from_bytes(&index).ok_or_else(|| inconsistent("a torn index"))?;
    let indexed: u64 = documents.iter().map(|span| span.tokens).sum();
    if indexed != tokens.len() as u64 || indexed != part.tokens.get() || documents.len() as u64 != part.documents {
        return Err(inconsistent("other counts of tokens or documents"));
    }
    Ok(Stream { tokens, documents })
}
