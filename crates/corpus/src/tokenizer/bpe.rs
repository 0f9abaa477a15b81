//! Byte-level byte-pair encoding by the `tokenizers` crate, with the care that invalid UTF-8 and exactness need.

use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel as ByteLevelSplit;
use tokenizers::{AddedToken, Tokenizer as Model};

use super::TokenizerError;

/// The boundary token of tokenizers trained here.
const BOUNDARY: &str = "<|endoftext|>";
/// Names that known tokenizers give their boundary, in order of preference.
pub(super) const BOUNDARIES: [&str; 6] = [BOUNDARY, "<|end_of_text|>", "<|begin_of_text|>", "</s>", "<s>", "<eos>"];
/// Longest text that is encoded at once: the crate keeps about a hundred bytes of state per token.
const PIECE_BYTES_MAX: usize = 1 << 16;

/// A byte-level model and what it takes to feed it bytes.
#[derive(Debug, Clone)]
pub(super) struct ByteLevel {
    model: Model,
    boundary: u32,
    /// Token of each single byte: what invalid UTF-8 is encoded with.
    bytes: [u32; 256],
}

impl ByteLevel {
    /// Reads a `tokenizer.json`; with the model come the bytes that each token stands for.
    pub(super) fn parse(json: &[u8]) -> Result<(Self, Vec<Vec<u8>>), TokenizerError> {
        let malformed = |error: tokenizers::Error| TokenizerError::Malformed(error.to_string());
        let mut model = Model::from_bytes(json).map_err(malformed)?;
        model.with_padding(None);
        model.with_truncation(None).map_err(malformed)?;
        model.set_encode_special_tokens(true);
        let mut bytes = [0; 256];
        for (byte, token) in (0..=u8::MAX).zip(&mut bytes) {
            let name = spelling(byte).to_string();
            *token = model.token_to_id(&name).ok_or(TokenizerError::MissingByte { byte })?;
        }
        let boundary = BOUNDARIES.iter().find_map(|name| model.token_to_id(name));
        let boundary = boundary.ok_or(TokenizerError::MissingBoundary)?;
        let pieces = pieces(&model);
        Ok((Self { model, boundary, bytes }, pieces))
    }

    pub(super) fn boundary(&self) -> u32 {
        self.boundary
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(&self, text: &[u8], out: &mut Vec<u32>) -> Result<(), TokenizerError> {
        for chunk in text.utf8_chunks() {
            for piece in cut(chunk.valid()) {
                let encoding = self.model.encode_fast(piece, false);
                let encoding = encoding.map_err(|error| TokenizerError::Malformed(error.to_string()))?;
                out.extend_from_slice(encoding.get_ids());
            }
            out.extend(chunk.invalid().iter().map(|&byte| self.bytes[usize::from(byte)]));
        }
        Ok(())
    }
}

/// Trains on the valid UTF-8 of `texts` and gives the `tokenizer.json`. The trainer orders ties by token, so equal
/// texts give equal tokenizers.
pub(super) fn train<'a>(vocab: u32, texts: impl Iterator<Item = &'a [u8]> + Send) -> Result<Vec<u8>, TokenizerError> {
    let failed = |error: tokenizers::Error| TokenizerError::Training(error.to_string());
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab as usize)
        .initial_alphabet((0..=u8::MAX).map(spelling).collect())
        .special_tokens(vec![AddedToken::from(BOUNDARY, true)])
        .build();
    let mut model = Model::new(BPE::default());
    model.with_pre_tokenizer(Some(ByteLevelSplit::new(false, false, true)));
    model.with_decoder(Some(ByteLevelSplit::new(false, false, true)));
    let pieces = texts.flat_map(<[u8]>::utf8_chunks).flat_map(|chunk| cut(chunk.valid()));
    model.train(&mut TrainerWrapper::from(trainer), pieces).map_err(failed)?;
    model.to_string(false).map(String::into_bytes).map_err(failed)
}

/// The tokenizer of plain bytes in the common format, for programs that read it.
pub(super) fn bytes_json() -> Vec<u8> {
    let vocab: serde_json::Map<_, _> = (0..=u8::MAX).map(|byte| (spelling(byte).to_string(), byte.into())).collect();
    let split = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": split, "post_processor": null, "decoder": split,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []
        }
    });
    json.to_string().into_bytes()
}

/// The character that byte-level vocabularies write for a byte (Radford et al. 2019): printable Latin-1 stands for
/// itself, the other bytes in order for the characters from U+0100 on.
fn spelling(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + rank).expect("the characters up to U+0143 exist")
}

/// The bytes of each token: added tokens are written as they are, the others in the byte-level spelling.
fn pieces(model: &Model) -> Vec<Vec<u8>> {
    let bytes: std::collections::HashMap<char, u8> = (0..=u8::MAX).map(|byte| (spelling(byte), byte)).collect();
    let added = model.get_added_tokens_decoder();
    let vocab = model.get_vocab(true);
    let count = vocab.values().max().map_or(0, |&last| last as usize + 1);
    let mut pieces = vec![Vec::new(); count];
    for (name, id) in vocab {
        let decoded: Option<Vec<u8>> = name.chars().map(|c| bytes.get(&c).copied()).collect();
        pieces[id as usize] = match decoded {
            Some(piece) if !added.contains_key(&id) => piece,
            _ => name.into_bytes(),
        };
    }
    pieces
}

/// Cuts a text behind line ends, or behind characters where lines are long, into pieces of bounded size.
fn cut(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = if rest.len() <= PIECE_BYTES_MAX {
            rest.len()
        } else {
            let boundary = (0..=PIECE_BYTES_MAX).rev().find(|&place| rest.is_char_boundary(place));
            let limit = boundary.expect("place 0 is a character boundary");
            rest[..limit].rfind('\n').map_or(limit, |place| place + 1)
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}
