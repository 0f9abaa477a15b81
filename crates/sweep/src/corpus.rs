//! What a corpus is, as asked for and as surveyed. No I/O: the `corpus` crate reads the files and builds the manifest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::count::Tokens;
use crate::digest::Digest;

/// A corpus as a sweep asks for it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusSpec {
    pub source: Source,
    pub tokenizer: TokenizerSpec,
    pub validation: Validation,
    /// Applied to the training part only, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<Transform>,
}

/// Where the bytes come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    Files {
        /// Paths and globs of `.txt`, `.gz`, `.zst` and `.jsonl` files; anything else is read as plain bytes.
        paths: Vec<String>,
        /// A line that ends a document inside a file; without it a file is a document.
        separator: Option<String>,
        /// The key of a `.jsonl` line that holds the text.
        field: String,
    },
    Synthetic {
        preset: Preset,
        /// Letters of the kinds of sentences, among `UGKQRN`; missing: all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sentences: Option<String>,
        /// Seed of the world (facts, parity tasks) and of the sampled text.
        seed: u64,
        /// Bytes of text to sample, validation included.
        bytes: u64,
    },
}

/// Size of the synthetic language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    Tiny,
    Small,
    Large,
}

/// Bytes to tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenizerSpec {
    /// One token per byte, 256 of them; byte 0 stands between documents.
    Bytes,
    /// Byte-level byte-pair encoding trained on the training part.
    Bpe { vocab: u32 },
    /// A `tokenizer.json` file.
    File { path: String },
}

/// Which text is kept from training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Validation {
    /// Documents ordered by BLAKE3 of content until at least this fraction and 64 KiB; with under 20 documents,
    /// 64 KiB blocks with a gap of one context on each side.
    Fraction(f64),
    /// The last part of the stream.
    Tail(f64),
    Files(Vec<String>),
}

/// A change of the training text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// This fraction of documents appears `copies` times.
    Duplicate { fraction: f64, copies: u32 },
    /// Documents whose content was seen before are left out.
    Deduplicate,
    /// Units inside a document in seeded random order.
    Shuffle { unit: Unit },
    /// This fraction of bytes replaced by uniform printable ones.
    Noise { fraction: f64 },
}

/// What is shuffled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Sentences,
    Words,
}

/// A surveyed corpus: what planning and training need to know of it. Stored as `manifest.json` beside its artifacts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    pub version: u32,
    /// Identity: both token streams, where their documents lie, and the tokenizer. So document contents in order,
    /// transforms and split are in it by what they do; file paths are not.
    pub digest: Digest,
    pub spec: CorpusSpec,
    /// Longest context that the gaps of the split were made for; a rebuild needs it.
    pub context: u32,
    pub vocab: u32,
    pub tokenizer: Digest,
    pub train: Part,
    pub validation: Part,
    /// Codecs on the validation text.
    pub baselines: Baselines,
    /// Files beside the manifest, each named with its size and digest.
    pub artifacts: Vec<Artifact>,
}

/// One side of the split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    pub documents: u64,
    /// Tokens of the stream, the boundary token before each document included.
    pub tokens: Tokens,
    /// Bytes of text, boundaries not counted.
    pub bytes: u64,
    /// Total surprisal in bits under the true source, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_bits: Option<f64>,
}

/// Bits per byte of simple codecs on the validation text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baselines {
    /// Entropy of the validation bytes' own histogram.
    pub order0: f64,
    /// gzip -9.
    pub gzip: f64,
    /// xz -9e.
    pub xz: f64,
}

/// A file that belongs to a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    pub name: String,
    pub bytes: u64,
    pub digest: Digest,
}
