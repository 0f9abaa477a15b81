//! Bytes to tokens: files, tokenizers, the synthetic language, splits, transforms, and what draws training batches and
//! validation windows from the result. It knows nothing of training, network or store.
//!
//! One way through: [`survey`] turns a [`CorpusSpec`](isoloss_sweep::CorpusSpec) into a folder named by digest;
//! [`Dataset::open`] opens the folder; a [`Sampler`] gives training batches and a [`Scoring`] what is scored.

mod baseline;
mod dataset;
pub mod language;
mod mix;
mod permutation;
mod sampler;
mod scoring;
mod shelf;
mod source;
mod split;
mod stream;
mod survey;
mod tokenizer;

use std::io;

pub use dataset::{Dataset, DatasetError};
pub use sampler::Sampler;
pub use scoring::Scoring;
pub use shelf::ShelfError;
pub use split::SplitError;
pub use stream::{Span, Stream};
pub use survey::{Progress, Stage, survey};
pub use tokenizer::{Tokenizer, TokenizerError};

/// Why a corpus cannot be surveyed, opened or measured.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    #[error("a codec failed on text in memory: {source}")]
    Codec { source: io::Error },
}
