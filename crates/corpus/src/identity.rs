//! What a corpus is known by: content alone. Paths, and the words in which a split or a transform was asked for, are
//! not in it; what they did to the streams is.

use isoloss_sweep::{Digest, Manifest};
use serde::Serialize;

use crate::dataset::{FORMAT_VERSION, TRAIN, VALIDATION, documents_file, tokens_file};
use crate::shelf::NamedFile;
use crate::stream::Stream;

#[derive(Serialize)]
struct Identity {
    version: u32,
    vocab: u32,
    tokenizer: Digest,
    train: Digest,
    train_documents: Digest,
    validation: Digest,
    validation_documents: Digest,
}

/// The digest of a corpus, from its tokenizer and the contents of its four stream files by name; `None` if one is
/// missing or torn.
pub(crate) fn identify<'a>(
    vocab: u32,
    tokenizer: Digest,
    content: impl Fn(&str) -> Option<&'a [u8]>,
) -> Option<Digest> {
    Some(Digest::of_json(&Identity {
        version: FORMAT_VERSION,
        vocab,
        tokenizer,
        train: Digest::of(content(&tokens_file(TRAIN))?),
        train_documents: layout(content(&documents_file(TRAIN))?)?,
        validation: Digest::of(content(&tokens_file(VALIDATION))?),
        validation_documents: layout(content(&documents_file(VALIDATION))?)?,
    }))
}

/// Whether files are the ones that a manifest speaks of, and the manifest's digest theirs.
pub(crate) fn matches(manifest: &Manifest, files: &[NamedFile]) -> bool {
    let content = |name: &str| files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice());
    let whole = manifest
        .artifacts
        .iter()
        .all(|artifact| content(&artifact.name).is_some_and(|bytes| Digest::of(bytes) == artifact.digest));
    whole && identify(manifest.vocab, manifest.tokenizer, content) == Some(manifest.digest)
}

/// Digest of where documents lie. Surprisals are left out: their last bits depend on the machine's logarithm.
fn layout(documents: &[u8]) -> Option<Digest> {
    let mut spans = Stream::documents_from_bytes(documents)?;
    spans.iter_mut().for_each(|span| span.true_bits = None);
    Some(Digest::of(&Stream::documents_to_bytes(&spans)))
}
