//! One side of a corpus as tokens: the stream, and where its documents lie. Reading and writing of both files; it does
//! not know how the tokens were made.

/// Bytes of one record of the documents file: tokens, bytes of text, bits, each 8 bytes, little-endian.
const SPAN_BYTES: usize = 24;

/// Tokens in the narrowest of three widths that holds the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Packed {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
}

impl Packed {
    pub(crate) fn new(vocab: u32) -> Self {
        match vocab {
            0..=0x100 => Self::U8(Vec::new()),
            0x101..=0x1_0000 => Self::U16(Vec::new()),
            _ => Self::U32(Vec::new()),
        }
    }

    /// Appends tokens, each below the vocabulary that chose the width.
    pub(crate) fn extend(&mut self, tokens: &[u32]) {
        match self {
            Self::U8(all) => all.extend(tokens.iter().map(|&token| token as u8)),
            Self::U16(all) => all.extend(tokens.iter().map(|&token| token as u16)),
            Self::U32(all) => all.extend_from_slice(tokens),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::U8(all) => all.len(),
            Self::U16(all) => all.len(),
            Self::U32(all) => all.len(),
        }
    }

    /// Appends the tokens of `range` to `out`.
    pub(crate) fn copy(&self, range: std::ops::Range<usize>, out: &mut Vec<u32>) {
        match self {
            Self::U8(all) => out.extend(all[range].iter().map(|&token| u32::from(token))),
            Self::U16(all) => out.extend(all[range].iter().map(|&token| u32::from(token))),
            Self::U32(all) => out.extend_from_slice(&all[range]),
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::U8(all) => all.clone(),
            Self::U16(all) => all.iter().flat_map(|token| token.to_le_bytes()).collect(),
            Self::U32(all) => all.iter().flat_map(|token| token.to_le_bytes()).collect(),
        }
    }

    /// Tokens from a file's bytes; `None` if the last one is torn.
    pub(crate) fn from_bytes(vocab: u32, bytes: Vec<u8>) -> Option<Self> {
        Some(match Self::new(vocab) {
            Self::U8(_) => Self::U8(bytes),
            Self::U16(_) => {
                let (whole, []) = bytes.as_chunks::<2>() else {
                    return None;
                };
                Self::U16(whole.iter().map(|&token| u16::from_le_bytes(token)).collect())
            }
            Self::U32(_) => {
                let (whole, []) = bytes.as_chunks::<4>() else {
                    return None;
                };
                Self::U32(whole.iter().map(|&token| u32::from_le_bytes(token)).collect())
            }
        })
    }
}

/// One document of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Tokens, the boundary before the text included.
    pub tokens: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Surprisal of the text under the true source, where known.
    pub true_bits: Option<f64>,
}

/// Documents one after another, each with its boundary token before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    pub(crate) tokens: Packed,
    pub(crate) documents: Vec<Span>,
}

impl Stream {
    pub(crate) fn new(vocab: u32) -> Self {
        Self { tokens: Packed::new(vocab), documents: Vec::new() }
    }

    /// Tokens of the stream, boundaries included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The documents in order.
    pub fn documents(&self) -> &[Span] {
        &self.documents
    }

    /// Appends the tokens of `range` to `out`.
    pub fn copy(&self, range: std::ops::Range<usize>, out: &mut Vec<u32>) {
        self.tokens.copy(range, out);
    }

    /// The documents file. Unknown bits are written as NaN.
    pub(crate) fn documents_to_bytes(documents: &[Span]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(documents.len() * SPAN_BYTES);
        for span in documents {
            bytes.extend_from_slice(&span.tokens.to_le_bytes());
            bytes.extend_from_slice(&span.bytes.to_le_bytes());
            bytes.extend_from_slice(&span.true_bits.unwrap_or(f64::NAN).to_le_bytes());
        }
        bytes
    }

    /// Documents from a file's bytes; `None` if the last record is torn.
    pub(crate) fn documents_from_bytes(bytes: &[u8]) -> Option<Vec<Span>> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let (records, []) = words.as_chunks::<3>() else {
            return None;
        };
        let spans = records.iter().map(|&[tokens, bytes, bits]| Span {
            tokens: u64::from_le_bytes(tokens),
            bytes: u64::from_le_bytes(bytes),
            true_bits: Some(f64::from_le_bytes(bits)).filter(|bits| !bits.is_nan()),
        });
        Some(spans.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_widths_round_trip() {
        for vocab in [256, 257, 65_536, 65_537] {
            let mut packed = Packed::new(vocab);
            packed.extend(&[0, 7, vocab - 1]);
            let read = Packed::from_bytes(vocab, packed.to_bytes()).unwrap();
            let mut tokens = Vec::new();
            read.copy(1..3, &mut tokens);
            assert_eq!(tokens, [7, vocab - 1]);
        }
        assert_eq!(Packed::from_bytes(300, vec![0; 3]), None);
        let spans = [Span { tokens: 5, bytes: 4, true_bits: None }, Span { tokens: 2, bytes: 1, true_bits: Some(1.5) }];
        let bytes = Stream::documents_to_bytes(&spans);
        assert_eq!(Stream::documents_from_bytes(&bytes).unwrap(), spans);
        assert_eq!(Stream::documents_from_bytes(&bytes[1..]), None);
    }
}
