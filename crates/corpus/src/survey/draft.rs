//! The artifacts of a survey in memory: streams encoded, baselines measured, the manifest that names them.

use isoloss_sweep::corpus::{Artifact, Part};
use isoloss_sweep::{CorpusSpec, Digest, Manifest, Tokens};

use super::{Progress, Stage};
use crate::CorpusError;
use crate::baseline::baselines;
use crate::dataset::{FORMAT_VERSION, TOKENIZER, TRAIN, VALIDATION, documents_file, tokens_file};
use crate::identity::identify;
use crate::shelf::NamedFile;
use crate::source::Document;
use crate::split::Parts;
use crate::stream::{Span, Stream};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Documents between two reports of progress.
const REPORT_DOCUMENTS: usize = 256;

/// The manifest of a split corpus, and the files that go beside it by name.
pub(super) fn draft(
    spec: &CorpusSpec,
    context: u32,
    parts: &Parts,
    tokenizer: &Tokenizer,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Manifest, Vec<NamedFile>), CorpusError> {
    let train = encode(&parts.train, tokenizer, progress)?;
    let validation = encode(&parts.validation, tokenizer, progress)?;
    progress(Progress::begin(Stage::Baselines));
    let text: Vec<u8> = parts.validation.iter().flat_map(|document| &document.text).copied().collect();
    let baselines = baselines(&text).map_err(CorpusError::Codec)?;
    let files = vec![
        (tokens_file(TRAIN), train.tokens.to_bytes()),
        (documents_file(TRAIN), Stream::documents_to_bytes(&train.documents)),
        (tokens_file(VALIDATION), validation.tokens.to_bytes()),
        (documents_file(VALIDATION), Stream::documents_to_bytes(&validation.documents)),
        (TOKENIZER.to_owned(), tokenizer.json().to_vec()),
    ];
    let content = |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice());
    let digest = identify(tokenizer.vocab(), tokenizer.digest(), content);
    let artifacts = files.iter().map(|(name, bytes)| Artifact {
        name: name.clone(),
        bytes: bytes.len() as u64,
        digest: Digest::of(bytes),
    });
    let manifest = Manifest {
        version: FORMAT_VERSION,
        digest: digest.expect("all four stream files were just made"),
        spec: spec.clone(),
        context,
        vocab: tokenizer.vocab(),
        tokenizer: tokenizer.digest(),
        train: part(&train),
        validation: part(&validation),
        baselines,
        artifacts: artifacts.collect(),
    };
    Ok((manifest, files))
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
        if index % REPORT_DOCUMENTS == 0 {
            progress(Progress { stage: Stage::Encode, done, total: Some(total as u64) });
        }
    }
    Ok(stream)
}
