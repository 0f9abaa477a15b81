//! The survey: from a corpus as asked for to a folder with its manifest and artifacts, named by digest.

use std::path::Path;

use isoloss_sweep::corpus::{Artifact, Part, Source, TokenizerSpec};
use isoloss_sweep::{CorpusSpec, Digest, Manifest, Tokens};
use serde::Serialize;

use crate::CorpusError;
use crate::baseline::baselines;
use crate::dataset::{FORMAT_VERSION, TRAIN, VALIDATION};
use crate::shelf::Shelf;
use crate::source::{self, Document};
use crate::split::{Parts, split};
use crate::stream::{Span, Stream};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Bytes that a token of a byte-pair vocabulary rarely exceeds on average: a gap must be known in bytes before there
/// is a tokenizer.
const TOKEN_BYTES_MAX: usize = 8;

/// What a survey is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading or sampling the text.
    Read,
    /// Splitting and transforming it.
    Split,
    /// Training the tokenizer.
    Tokenizer,
    /// Encoding; counted in bytes of text.
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

/// What a corpus is known by: content alone. Paths, and the words in which a split or transform was asked for, are
/// not in it; what they did to the streams is.
#[derive(Serialize)]
struct Identity {
    version: u32,
    vocab: u32,
    tokenizer: Digest,
    train: Digest,
    validation: Digest,
    train_documents: Digest,
    validation_documents: Digest,
}

/// Surveys a corpus into `<corpora_dir>/<digest>/` and gives its manifest. `context` is the longest context that will
/// train on it. With unchanged input a second call reads no text.
pub fn survey(
    spec: &CorpusSpec,
    context: u32,
    corpora_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, CorpusError> {
    let shelf = Shelf::new(corpora_dir);
    let mut at = |stage| {
        progress(Progress {
            stage,
            done: 0,
            total: None,
        })
    };
    at(Stage::Read);
    let documents = match &spec.source {
        Source::Synthetic { preset, seed, bytes } => source::synthetic(*preset, *seed, *bytes),
        Source::Files { .. } => unimplemented!("files"),
    };
    at(Stage::Split);
    let parts = split(documents, Vec::new(), &spec.validation, gap(spec, context))?;
    at(Stage::Tokenizer);
    let tokenizer = tokenizer(&spec.tokenizer, &parts.train)?;
    let draft = Draft::new(spec, context, &parts, &tokenizer, progress)?;
    progress(Progress {
        stage: Stage::Write,
        done: 0,
        total: None,
    });
    let manifest = shelf.put(draft.manifest, &draft.files)?;
    Ok(manifest)
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
            let json = std::fs::read(path).map_err(|source| TokenizerError::Unreadable {
                path: path.into(),
                source,
            })?;
            Tokenizer::load(spec, &json)
        }
    }
}

/// A manifest and the files that go beside it.
struct Draft {
    manifest: Manifest,
    files: Vec<(String, Vec<u8>)>,
}

impl Draft {
    fn new(
        spec: &CorpusSpec,
        context: u32,
        parts: &Parts,
        tokenizer: &Tokenizer,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, CorpusError> {
        let train = encode(&parts.train, tokenizer, progress)?;
        let validation = encode(&parts.validation, tokenizer, progress)?;
        progress(Progress {
            stage: Stage::Baselines,
            done: 0,
            total: None,
        });
        let text: Vec<u8> = parts
            .validation
            .iter()
            .flat_map(|document| &document.text)
            .copied()
            .collect();
        let baselines = baselines(&text).map_err(|source| CorpusError::Codec { source })?;
        let files = vec![
            (format!("{TRAIN}.tokens"), train.tokens.to_bytes()),
            (
                format!("{TRAIN}.documents"),
                Stream::documents_to_bytes(&train.documents),
            ),
            (format!("{VALIDATION}.tokens"), validation.tokens.to_bytes()),
            (
                format!("{VALIDATION}.documents"),
                Stream::documents_to_bytes(&validation.documents),
            ),
            (crate::dataset::TOKENIZER.to_owned(), tokenizer.json().to_vec()),
        ];
        let artifacts: Vec<Artifact> = files
            .iter()
            .map(|(name, content)| Artifact {
                name: name.clone(),
                bytes: content.len() as u64,
                digest: Digest::of(content),
            })
            .collect();
        let identity = Identity {
            version: FORMAT_VERSION,
            vocab: tokenizer.vocab(),
            tokenizer: tokenizer.digest(),
            train: artifacts[0].digest,
            validation: artifacts[2].digest,
            train_documents: lengths(&train.documents),
            validation_documents: lengths(&validation.documents),
        };
        let manifest = Manifest {
            version: FORMAT_VERSION,
            digest: Digest::of_json(&identity),
            spec: spec.clone(),
            context,
            vocab: tokenizer.vocab(),
            tokenizer: tokenizer.digest(),
            train: part(&train),
            validation: part(&validation),
            baselines,
            artifacts,
        };
        Ok(Self { manifest, files })
    }
}

/// Digest of where documents lie. Surprisals are not in it: their last bits depend on the machine's logarithm.
fn lengths(documents: &[Span]) -> Digest {
    let bare: Vec<Span> = documents
        .iter()
        .map(|span| Span {
            true_bits: None,
            ..*span
        })
        .collect();
    Digest::of(&Stream::documents_to_bytes(&bare))
}

fn part(stream: &Stream) -> Part {
    Part {
        documents: stream.documents.len() as u64,
        tokens: Tokens(stream.len() as u64),
        bytes: stream.documents.iter().map(|span| span.bytes).sum(),
        true_bits: stream.documents.iter().map(|span| span.true_bits).sum(),
    }
}

/// Documents to a stream, each with the boundary token before it.
fn encode(
    documents: &[Document],
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Stream, TokenizerError> {
    let mut stream = Stream::new(tokenizer.vocab());
    let mut tokens = Vec::new();
    let total: usize = documents.iter().map(|document| document.text.len()).sum();
    let mut done = 0;
    for (index, document) in documents.iter().enumerate() {
        tokens.clear();
        tokens.push(tokenizer.boundary());
        tokenizer.encode(&document.text, &mut tokens)?;
        stream.tokens.extend(&tokens);
        stream.documents.push(Span {
            tokens: tokens.len() as u64,
            bytes: document.text.len() as u64,
            true_bits: document.true_bits,
        });
        done += document.text.len() as u64;
        if index % 256 == 0 {
            progress(Progress {
                stage: Stage::Encode,
                done,
                total: Some(total as u64),
            });
        }
    }
    Ok(stream)
}
