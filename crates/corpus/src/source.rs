//! Documents from where they come: the synthetic language or files. It reads; it does not split or tokenize.

use isoloss_sweep::Digest;
use isoloss_sweep::corpus::Preset;

use crate::language::Language;

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
        Self {
            digest: Digest::of(&text),
            text,
            true_bits,
        }
    }
}

/// The first documents of a language, until `bytes` bytes of text are there.
pub(crate) fn synthetic(preset: Preset, seed: u64, bytes: u64) -> Vec<Document> {
    let language = Language::new(preset, seed);
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
