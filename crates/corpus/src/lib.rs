//! Bytes to tokens: files, tokenizers, the synthetic language, splits, transforms, and what draws training batches and
//! validation windows from the result. It knows nothing of training, network or store.
//!
//! One way through: [`survey`] turns a [`CorpusSpec`](isoloss_sweep::CorpusSpec) into a folder named by digest;
//! [`Dataset::open`] opens the folder; a [`Sampler`] gives training batches and a [`Scoring`] what is scored.

mod baseline;
mod cache;
mod dataset;
mod identity;
pub mod language;
mod mix;
mod permutation;
mod sampler;
mod scoring;
mod shelf;
mod source;
mod split;
mod stats;
mod stream;
mod survey;
mod tokenizer;
mod transform;

use std::io;

use isoloss_sweep::Digest;
use isoloss_sweep::count::si;

pub use dataset::{Dataset, DatasetError};
pub use identity::prove;
pub use sampler::Sampler;
pub use scoring::Scoring;
pub use shelf::ShelfError;
pub use source::{SourceError, files};
pub use split::SplitError;
pub use stats::{Stats, stats};
pub use stream::{Span, Stream};
pub use survey::{Progress, Stage, install, rebuild, recall, survey, weigh};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use transform::TransformError;

/// Why a corpus cannot be surveyed, opened or measured.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error(
        "{}B of text take at least {}B of memory to survey, and {}B may be used for it",
        si(*text as f64), si(*needs as f64), si(*memory_bytes as f64)
    )]
    TooLarge { text: u64, needs: u64, memory_bytes: u64 },
    #[error("a codec failed on text in memory: {0}")]
    Codec(io::Error),
    #[error("the files here give corpus {got:?}, asked for was {want:?}: they are not the same text")]
    Differs { got: Digest, want: Digest },
    #[error("the files given are not those of corpus {digest:?}")]
    NotThese { digest: Digest },
}
