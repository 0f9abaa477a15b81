//! Documents from where they come: the synthetic language or files. It reads; it does not split or tokenize.

mod file;
mod paths;

use std::path::PathBuf;

use isoloss_sweep::Digest;
use isoloss_sweep::corpus::Preset;

use crate::language::Language;
use crate::survey::{Progress, Stage};

pub(crate) use file::Reader;
pub(crate) use paths::{relocate, resolve};

/// Text that is not where it should be, or not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("the corpus names no path; give corpus.paths at least one file or glob")]
    NoPaths,
    #[error("no file {pattern}; relative paths start at {from}")]
    Missing { pattern: String, from: PathBuf },
    #[error("the glob {pattern} matches no file; relative paths start at {from}")]
    NoMatch { pattern: String, from: PathBuf },
    #[error("{pattern} is not a glob: {source}")]
    Glob { pattern: String, source: glob::PatternError },
    #[error("{path} is not a regular file: a corpus is read whole, so it needs an end")]
    NotAFile { path: PathBuf },
    #[error("{path} is a folder; name its files, for example {path}/*.txt")]
    Folder { path: PathBuf },
    #[error("{path} is a Parquet file, which is not read; convert it to .jsonl")]
    Parquet { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}, line {line}: {what}; expected a JSON object with text under {field:?}")]
    Line { path: PathBuf, line: usize, what: String, field: String },
    #[error("there is no text in {files} files, the first of them {first}")]
    Empty { files: usize, first: PathBuf },
}

/// A text, and its surprisal under the true source where that is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    pub(crate) text: Vec<u8>,
    pub(crate) true_bits: Option<f64>,
    /// Of the text: equal digests, equal documents.
    pub(crate) digest: Digest,
}

impl Document {
    pub(crate) fn new(text: Vec<u8>, true_bits: Option<f64>) -> Self {
        Self { digest: Digest::of(&text), text, true_bits }
    }
}

/// The files that these paths and globs of a sweep stand for; none is opened.
pub fn files(patterns: &[String]) -> Result<Vec<PathBuf>, SourceError> {
    resolve(patterns)
}

/// The documents of `files` in order.
pub(crate) fn read(
    reader: Reader<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Document>, SourceError> {
    let mut documents = Vec::new();
    let mut parted = false;
    for (done, path) in files.iter().enumerate() {
        let of_file = reader.read(path)?;
        parted |= of_file.len() > 1;
        documents.extend(of_file);
        progress(Progress { stage: Stage::Read, done: done as u64 + 1, total: Some(files.len() as u64) });
    }
    if let Some(separator) = reader.separator.filter(|_| !parted) {
        // A mistyped separator would make one document of a library, and nobody would see why.
        tracing::warn!(separator, files = files.len(), "no line that is the separator parts any file into documents");
    }
    match files.first() {
        Some(first) if documents.is_empty() => Err(SourceError::Empty { files: files.len(), first: first.clone() }),
        _ => Ok(documents),
    }
}

/// The first documents of a language, until `bytes` bytes of text are there.
pub(crate) fn synthetic(preset: Preset, sentences: Option<&str>, seed: u64, bytes: u64) -> Vec<Document> {
    let language = match sentences {
        Some(letters) => Language::with_sentences(preset, letters, seed),
        None => Language::new(preset, seed),
    };
    let mut documents = Vec::new();
    let mut written = 0;
    for index in 0.. {
        if written >= bytes {
            break;
        }
        let document = language.document(index);
        written += document.text.len() as u64;
        documents.push(Document::new(document.text, Some(document.bits)));
    }
    documents
}

#[cfg(test)]
mod tests;
