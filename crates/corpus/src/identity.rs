//! What a corpus is known by: content alone. Paths, and the words in which a split or a transform was asked for, are
//! not in it; what they did to the streams is.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use isoloss_sweep::corpus::Part;
use isoloss_sweep::{Digest, Manifest};
use serde::Serialize;

use crate::dataset::{
    DatasetError, FORMAT_VERSION, MANIFEST, TOKENIZER, TRAIN, VALIDATION, check_size, documents_file, read,
    read_manifest, tokens_file,
};
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

/// The manifest of the folder `dir`, after reading all that it names: files, manifest and `corpus` must say the same. A
/// manifest that was rewritten together with its files stands for another corpus, and is refused. Not held by the digest
/// are what it leaves out: how the corpus was asked for, the baselines, and the surprisals of a synthetic text.
pub fn prove(dir: &Path, corpus: Digest) -> Result<Manifest, DatasetError> {
    let manifest = read_manifest(dir)?;
    let mut found = BTreeMap::new();
    for artifact in &manifest.artifacts {
        check_size(dir, artifact)?;
        let path = dir.join(&artifact.name);
        let got = digest_of(&path)?;
        if got != artifact.digest {
            return Err(DatasetError::Content { path, got, want: artifact.digest });
        }
        found.insert(artifact.name.clone(), got);
    }
    let path = dir.join(MANIFEST);
    let inconsistent = |what| DatasetError::Inconsistent { path: path.clone(), what };
    let listed = |name: &str| found.get(name).copied().ok_or_else(|| inconsistent("a file of every corpus is missing"));
    if listed(TOKENIZER)? != manifest.tokenizer {
        return Err(inconsistent("another tokenizer"));
    }
    let documents = |part: &str, said: &Part| {
        let name = documents_file(part);
        let bytes = read(&dir.join(&name))?;
        // What is parsed is what was read just now, whoever writes there meanwhile.
        if Digest::of(&bytes) != listed(&name)? || !says(&bytes, said) {
            return Err(inconsistent("other counts of tokens or documents"));
        }
        layout(&bytes).ok_or_else(|| inconsistent("a torn index"))
    };
    let got = Digest::of_json(&Identity {
        version: manifest.version,
        vocab: manifest.vocab,
        tokenizer: manifest.tokenizer,
        train: listed(&tokens_file(TRAIN))?,
        train_documents: documents(TRAIN, &manifest.train)?,
        validation: listed(&tokens_file(VALIDATION))?,
        validation_documents: documents(VALIDATION, &manifest.validation)?,
    });
    match [got, manifest.digest].into_iter().find(|digest| *digest != corpus) {
        Some(got) => Err(DatasetError::Other { path: dir.to_owned(), got, want: corpus }),
        None => Ok(manifest),
    }
}

fn digest_of(path: &Path) -> Result<Digest, DatasetError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })?;
    Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// Whether a part of a manifest sums up its documents.
fn says(documents: &[u8], part: &Part) -> bool {
    let Some(spans) = Stream::documents_from_bytes(documents) else { return false };
    spans.len() as u64 == part.documents
        && spans.iter().map(|span| span.tokens).sum::<u64>() == part.tokens.get()
        && spans.iter().map(|span| span.bytes).sum::<u64>() == part.bytes
        && spans.iter().map(|span| span.true_bits).sum::<Option<f64>>() == part.true_bits
}

/// Digest of where documents lie. Surprisals are left out: their last bits depend on the machine's logarithm.
fn layout(documents: &[u8]) -> Option<Digest> {
    let mut spans = Stream::documents_from_bytes(documents)?;
    spans.iter_mut().for_each(|span| span.true_bits = None);
    Some(Digest::of(&Stream::documents_to_bytes(&spans)))
}
