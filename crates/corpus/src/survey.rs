//! The survey: from a corpus as asked for to a folder with its manifest and artifacts, named by digest.

mod draft;

use std::path::{Path, PathBuf};

use isoloss_sweep::corpus::{Source, TokenizerSpec, Validation};
use isoloss_sweep::{CorpusSpec, Manifest};
use serde::{Deserialize, Serialize};

use crate::cache::Memory;
use crate::shelf::Shelf;
use crate::source::{self, Document, Reader, SourceError};
use crate::split::split;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::{CorpusError, identity, transform};
use draft::draft;

/// Bytes that a token of a byte-pair vocabulary rarely exceeds on average: a gap must be known in bytes before there
/// is a tokenizer.
const TOKEN_BYTES_MAX: usize = 8;
/// The key of JSON lines in validation files of a synthetic corpus, which has no key of its own.
const FIELD: &str = "text";
/// Bytes of memory for each byte of text, at least: the text, its two parts and their tokens are there at once. Measured
/// with one token a byte: 3.3; a trained vocabulary takes more.
const MEMORY_PER_BYTE: u64 = 3;

/// What a survey is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading files (counted) or sampling the language.
    Read,
    /// Splitting and transforming the text.
    Split,
    /// Training the tokenizer.
    Tokenizer,
    /// Encoding, counted in bytes of text.
    Encode,
    /// Measuring the baselines.
    Baselines,
    /// Writing the artifacts.
    Write,
}

/// How far a survey is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    pub done: u64,
    /// Where `done` ends, if that is known.
    pub total: Option<u64>,
}

impl Progress {
    fn begin(stage: Stage) -> Self {
        Self { stage, done: 0, total: None }
    }
}

/// Surveys a corpus into `<corpora_dir>/<digest>/` and gives its manifest. `context` is the longest context that will
/// train on it. Input that has not changed since an earlier survey is not read again.
pub fn survey(
    spec: &CorpusSpec,
    context: u32,
    corpora_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, CorpusError> {
    let shelf = Shelf::new(corpora_dir);
    let files = Files::of(spec)?;
    let memory = Memory::of(corpora_dir, spec, context, &files.all(spec));
    if let Some(known) = remembered(memory.as_ref(), &shelf, spec, context) {
        return Ok(known);
    }
    progress(Progress::begin(Stage::Read));
    let (documents, named) = read(spec, &files, progress)?;
    progress(Progress::begin(Stage::Split));
    let mut parts = split(documents, named, &spec.validation, gap(spec, context))?;
    let synthetic = matches!(spec.source, Source::Synthetic { .. });
    parts.train = transform::apply(parts.train, &spec.transforms, synthetic)?;
    progress(Progress::begin(Stage::Tokenizer));
    let tokenizer = tokenizer(&spec.tokenizer, &parts.train)?;
    let (manifest, files) = draft(spec, context, &parts, &tokenizer, progress)?;
    progress(Progress::begin(Stage::Write));
    shelf.put(&manifest, &files)?;
    if let Some(memory) = memory {
        memory.keep(manifest.digest);
    }
    Ok(manifest)
}

/// The manifest of an earlier survey of the same input, if there was one. It reads no text.
pub fn recall(spec: &CorpusSpec, context: u32, corpora_dir: &Path) -> Result<Option<Manifest>, CorpusError> {
    let memory = Memory::of(corpora_dir, spec, context, &Files::of(spec)?.all(spec));
    Ok(remembered(memory.as_ref(), &Shelf::new(corpora_dir), spec, context))
}

fn remembered(memory: Option<&Memory>, shelf: &Shelf, spec: &CorpusSpec, context: u32) -> Option<Manifest> {
    let known = memory.and_then(Memory::recall).and_then(|digest| shelf.get(digest))?;
    // Another request may have made the same corpus: the words are those of this one.
    Some(Manifest { spec: spec.clone(), context, ..known })
}

/// Refuses a corpus whose survey is sure to take more than `memory_bytes`, before a byte is read. Compressed files count
/// as they lie, so what passes here may still be too large.
pub fn weigh(spec: &CorpusSpec, memory_bytes: u64) -> Result<(), CorpusError> {
    let files = Files::of(spec)?;
    let generated = match &spec.source {
        Source::Synthetic { bytes, .. } => *bytes,
        Source::Files { .. } => 0,
    };
    // A file that cannot be looked at: reading will say why.
    let of_file = |path: &PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let text = files.all(spec).iter().map(of_file).fold(generated, u64::saturating_add);
    let needs = text.saturating_mul(MEMORY_PER_BYTE);
    if needs > memory_bytes { Err(CorpusError::TooLarge { text, needs, memory_bytes }) } else { Ok(()) }
}

/// Makes the corpus of `manifest` from the same sources under this machine's `roots`, and gives its folder. What is
/// there already is not made again.
pub fn rebuild(
    manifest: &Manifest,
    roots: &[PathBuf],
    corpora_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, CorpusError> {
    let shelf = Shelf::new(corpora_dir);
    if shelf.get(manifest.digest).is_some() {
        return Ok(shelf.place(manifest.digest));
    }
    let mut spec = manifest.spec.clone();
    let relocate = |path: &mut String| *path = source::relocate(path, roots);
    if let Source::Files { paths, .. } = &mut spec.source {
        paths.iter_mut().for_each(relocate);
    }
    if let Validation::Files(paths) = &mut spec.validation {
        paths.iter_mut().for_each(relocate);
    }
    if let TokenizerSpec::File { path } = &mut spec.tokenizer {
        relocate(path);
    }
    let got = survey(&spec, manifest.context, corpora_dir, progress)?.digest;
    if got == manifest.digest { Ok(shelf.place(got)) } else { Err(CorpusError::Differs { got, want: manifest.digest }) }
}

/// Puts a corpus that was fetched from elsewhere into `corpora_dir`, after comparing every digest, and gives its
/// folder. `files` are the manifest's artifacts by name.
pub fn install(manifest: &Manifest, files: &[(String, Vec<u8>)], corpora_dir: &Path) -> Result<PathBuf, CorpusError> {
    if !identity::matches(manifest, files) {
        return Err(CorpusError::NotThese { digest: manifest.digest });
    }
    let shelf = Shelf::new(corpora_dir);
    shelf.put(manifest, files)?;
    Ok(shelf.place(manifest.digest))
}

/// The files of a corpus, as its patterns resolve now.
struct Files {
    source: Vec<PathBuf>,
    validation: Vec<PathBuf>,
}

impl Files {
    fn of(spec: &CorpusSpec) -> Result<Self, SourceError> {
        let source = match &spec.source {
            Source::Files { paths, .. } => source::resolve(paths)?,
            Source::Synthetic { .. } => Vec::new(),
        };
        let validation = match &spec.validation {
            Validation::Files(paths) => source::resolve(paths)?,
            Validation::Fraction(_) | Validation::Tail(_) => Vec::new(),
        };
        Ok(Self { source, validation })
    }

    /// All that a survey reads.
    fn all(&self, spec: &CorpusSpec) -> Vec<PathBuf> {
        let mut all = [self.source.as_slice(), self.validation.as_slice()].concat();
        if let TokenizerSpec::File { path } = &spec.tokenizer {
            all.push(path.into());
        }
        all
    }
}

/// The documents of the source, and those of the validation files.
fn read(
    spec: &CorpusSpec,
    files: &Files,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Vec<Document>, Vec<Document>), CorpusError> {
    let (documents, reader) = match &spec.source {
        Source::Synthetic { preset, sentences, seed, bytes } => {
            let reader = Reader { separator: None, field: FIELD };
            (source::synthetic(*preset, sentences.as_deref(), *seed, *bytes), reader)
        }
        Source::Files { separator, field, .. } => {
            let reader = Reader { separator: separator.as_deref(), field };
            (source::read(reader, &files.source, progress)?, reader)
        }
    };
    let named =
        if files.validation.is_empty() { Vec::new() } else { source::read(reader, &files.validation, progress)? };
    Ok((documents, named))
}

/// Bytes left out of training beside a cut: one context.
fn gap(spec: &CorpusSpec, context: u32) -> usize {
    let token = match spec.tokenizer {
        TokenizerSpec::Bytes => 1,
        TokenizerSpec::Bpe { .. } | TokenizerSpec::File { .. } => TOKEN_BYTES_MAX,
    };
    context as usize * token
}

fn tokenizer(spec: &TokenizerSpec, train: &[Document]) -> Result<Tokenizer, TokenizerError> {
    match spec {
        TokenizerSpec::Bytes => Ok(Tokenizer::bytes()),
        TokenizerSpec::Bpe { vocab } => Tokenizer::train(*vocab, train.iter().map(|document| document.text.as_slice())),
        TokenizerSpec::File { path } => {
            let json =
                std::fs::read(path).map_err(|source| TokenizerError::Unreadable { path: path.into(), source })?;
            Tokenizer::load(spec, &json)
        }
    }
}

#[cfg(test)]
mod tests;
