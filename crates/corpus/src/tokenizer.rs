//! Text to tokens and back, exactly: decode(encode(x)) = x for any bytes. It does not know documents or streams.

mod bpe;

use std::path::PathBuf;

use isoloss_sweep::Digest;
use isoloss_sweep::corpus::TokenizerSpec;

use bpe::ByteLevel;

/// Byte 0 stands between documents when tokens are bytes.
const BYTE_BOUNDARY: u32 = 0;

/// A tokenizer that cannot be had, or that does not keep the text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot read the tokenizer {path}: {source}; name a tokenizer.json file")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("not a tokenizer.json: {0}")]
    Malformed(String),
    #[error("the tokenizer has no token for byte {byte:#04x}: only byte-level tokenizers keep every text")]
    MissingByte { byte: u8 },
    #[error("the tokenizer has no boundary token; expected one of {}", bpe::BOUNDARIES.join(", "))]
    MissingBoundary,
    #[error("the tokenizer changes the text near byte {at} of a document; use one without normalizer and added space")]
    Lossy { at: usize },
    #[error("bpe vocab {vocab} is too small: 256 bytes and a boundary need at least 257")]
    VocabTooSmall { vocab: u32 },
    #[error("training the tokenizer failed: {0}")]
    Training(String),
}

/// Bytes to tokens and back.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    kind: Kind,
    /// Bytes of text that each token stands for.
    pieces: Vec<Vec<u8>>,
    boundary: u32,
    json: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Kind {
    Bytes,
    ByteLevel(Box<ByteLevel>),
}

impl Tokenizer {
    /// One token per byte.
    pub fn bytes() -> Self {
        Self {
            kind: Kind::Bytes,
            pieces: (0..=u8::MAX).map(|byte| vec![byte]).collect(),
            boundary: BYTE_BOUNDARY,
            json: bpe::bytes_json(),
        }
    }

    /// Byte-pair encoding of at most `vocab` tokens, trained on `texts` in their order.
    pub fn train<'a>(vocab: u32, texts: impl Iterator<Item = &'a [u8]> + Send) -> Result<Self, TokenizerError> {
        if vocab < 257 {
            return Err(TokenizerError::VocabTooSmall { vocab });
        }
        Self::byte_level(&bpe::train(vocab, texts)?)
    }

    /// The tokenizer that `spec` asks for, from its `tokenizer.json`.
    pub fn load(spec: &TokenizerSpec, json: &[u8]) -> Result<Self, TokenizerError> {
        match spec {
            TokenizerSpec::Bytes => Ok(Self::bytes()),
            TokenizerSpec::Bpe { .. } | TokenizerSpec::File { .. } => Self::byte_level(json),
        }
    }

    fn byte_level(json: &[u8]) -> Result<Self, TokenizerError> {
        let (model, pieces) = ByteLevel::parse(json)?;
        Ok(Self { boundary: model.boundary(), kind: Kind::ByteLevel(Box::new(model)), pieces, json: json.to_vec() })
    }

    /// Appends the tokens of `text` to `out`. The text is never read as special tokens.
    pub fn encode(&self, text: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        match &self.kind {
            Kind::Bytes => out.extend(text.iter().map(|&byte| u32::from(byte))),
            Kind::ByteLevel(model) => {
                let start = out.len();
                model.encode(text, out)?;
                self.check(text, &out[start..])?;
            }
        }
        Ok(())
    }

    /// That the tokens stand for exactly this text.
    fn check(&self, text: &[u8], tokens: &[u32]) -> Result<(), TokenizerError> {
        let mut at = 0;
        for &token in tokens {
            let piece = self.token_bytes(token);
            if !text[at..].starts_with(piece) {
                return Err(TokenizerError::Lossy { at });
            }
            at += piece.len();
        }
        if at == text.len() { Ok(()) } else { Err(TokenizerError::Lossy { at }) }
    }

    /// The text of tokens. A boundary token inside gives its own spelling: streams keep boundaries apart.
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&token| self.token_bytes(token)).copied().collect()
    }

    /// The bytes that one token stands for; none for a token outside the vocabulary.
    pub fn token_bytes(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// Number of tokens, the boundary included.
    pub fn vocab(&self) -> u32 {
        self.pieces.len() as u32
    }

    /// The token before every document.
    pub fn boundary(&self) -> u32 {
        self.boundary
    }

    /// The `tokenizer.json` that other programs read.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Identity: the digest of the `tokenizer.json`.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.json)
    }
}

#[cfg(test)]
mod tests;
