//! Changes of the training text, each deterministic in the text itself. Validation text is never changed.

use std::collections::HashSet;
use std::ops::Range;

use isoloss_sweep::Digest;
use isoloss_sweep::corpus::{Transform, Unit};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::source::Document;

/// A transform that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    #[error("{transform}: fraction = {got} is not between 0 and 1")]
    Fraction { transform: &'static str, got: f64 },
    #[error("duplicate: copies = 0 would remove documents; 1 leaves them, 2 doubles them")]
    NoCopies,
}

/// Applies `transforms` in order. `lines` says that sentences are lines and the first line is a header: the layout of
/// the synthetic language.
pub(crate) fn apply(
    mut documents: Vec<Document>,
    transforms: &[Transform],
    lines: bool,
) -> Result<Vec<Document>, TransformError> {
    for (index, transform) in transforms.iter().enumerate() {
        let change = Change { index, lines };
        documents = match *transform {
            Transform::Duplicate { fraction, copies } => {
                check("duplicate", fraction)?;
                if copies == 0 {
                    return Err(TransformError::NoCopies);
                }
                change.duplicate(documents, fraction, copies)
            }
            Transform::Deduplicate => {
                let mut seen = HashSet::new();
                documents.retain(|document| seen.insert(document.digest));
                documents
            }
            Transform::Shuffle { unit } => {
                documents.into_iter().map(|document| change.shuffle(&document, unit)).collect()
            }
            Transform::Noise { fraction } => {
                check("noise", fraction)?;
                documents.into_iter().map(|document| change.noise(document, fraction)).collect()
            }
        };
    }
    Ok(documents)
}

fn check(transform: &'static str, fraction: f64) -> Result<(), TransformError> {
    if (0.0..=1.0).contains(&fraction) { Ok(()) } else { Err(TransformError::Fraction { transform, got: fraction }) }
}

/// One transform at its place in the list.
struct Change {
    index: usize,
    lines: bool,
}

impl Change {
    /// Randomness that depends on a document's text and the transform's place: equal documents stay equal.
    fn rng(&self, digest: Digest) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::from_seed(*digest.as_bytes());
        rng.set_stream(self.index as u64);
        rng
    }

    /// Chooses documents by a keyed order of their digests and strews the copies over the stream, so that a window
    /// rarely holds two of them.
    fn duplicate(&self, documents: Vec<Document>, fraction: f64, copies: u32) -> Vec<Document> {
        let chosen = (fraction * documents.len() as f64).round() as usize;
        let mut order: Vec<(u64, usize)> =
            documents.iter().enumerate().map(|(i, document)| (self.rng(document.digest).random(), i)).collect();
        order.sort_unstable();
        let span = (documents.len() as u64) << 32;
        let mut strewn = Vec::new();
        for &(_, index) in &order[..chosen] {
            let mut rng = self.rng(documents[index].digest);
            // Equal documents strew their copies differently.
            rng.set_word_pos(64 * index as u128 + 64);
            strewn.extend((1..copies).map(|_| (rng.random_range(0..span), documents[index].clone())));
        }
        let originals = documents.into_iter().enumerate().map(|(i, document)| ((i as u64) << 32, document));
        let mut placed: Vec<(u64, Document)> = originals.chain(strewn).collect();
        placed.sort_by_key(|&(place, _)| place);
        placed.into_iter().map(|(_, document)| document).collect()
    }

    /// Puts the units in random order into the places between the separators, which stay.
    fn shuffle(&self, document: &Document, unit: Unit) -> Document {
        let text = &document.text;
        let places = match unit {
            Unit::Words => runs(text, self.header(text)),
            Unit::Sentences if self.lines => lines(text, self.header(text)),
            Unit::Sentences => sentences(text),
        };
        let mut units = places.clone();
        units.shuffle(&mut self.rng(document.digest));
        let mut shuffled = Vec::with_capacity(text.len());
        let mut end = 0;
        for (place, unit) in places.into_iter().zip(units) {
            shuffled.extend_from_slice(&text[end..place.start]);
            shuffled.extend_from_slice(&text[unit]);
            end = place.end;
        }
        shuffled.extend_from_slice(&text[end..]);
        Document::new(shuffled, None)
    }

    /// Bytes of the header line, which stays first.
    fn header(&self, text: &[u8]) -> usize {
        if !self.lines {
            return 0;
        }
        text.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1)
    }

    fn noise(&self, document: Document, fraction: f64) -> Document {
        let mut rng = self.rng(document.digest);
        let mut text = document.text;
        for byte in &mut text {
            if rng.random_bool(fraction) {
                *byte = rng.random_range(b' '..=b'~');
            }
        }
        Document::new(text, None)
    }
}

/// Runs of bytes that are not white space, from `start` on.
fn runs(text: &[u8], start: usize) -> Vec<Range<usize>> {
    split_where(text, start, |byte| byte.is_ascii_whitespace())
}

/// Lines that are not empty, without their ends, from `start` on.
fn lines(text: &[u8], start: usize) -> Vec<Range<usize>> {
    split_where(text, start, |byte| byte == b'\n')
}

fn split_where(text: &[u8], start: usize, separates: impl Fn(u8) -> bool) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut begin = None;
    for (place, &byte) in text.iter().enumerate().skip(start) {
        match begin {
            None if !separates(byte) => begin = Some(place),
            Some(first) if separates(byte) => {
                ranges.push(first..place);
                begin = None;
            }
            _ => {}
        }
    }
    ranges.extend(begin.map(|first| first..text.len()));
    ranges
}

/// Sentences of natural text: up to a full stop, question or exclamation mark before white space, up to such a mark
/// of Chinese or Japanese, or up to an empty line. Abbreviations end sentences too.
fn sentences(text: &[u8]) -> Vec<Range<usize>> {
    const WIDE: [&[u8]; 3] = ["。".as_bytes(), "！".as_bytes(), "？".as_bytes()];
    let mut ranges = Vec::new();
    let mut begin = None;
    let mut place = 0;
    while place < text.len() {
        let rest = &text[place..];
        if begin.is_none() && !rest[0].is_ascii_whitespace() {
            begin = Some(place);
        }
        let wide = WIDE.iter().find(|mark| rest.starts_with(mark));
        let narrow = matches!(rest[0], b'.' | b'?' | b'!') && rest.get(1).is_none_or(u8::is_ascii_whitespace);
        let (end, next) = match wide {
            Some(mark) => (Some(place + mark.len()), place + mark.len()),
            None if narrow => (Some(place + 1), place + 1),
            None if rest.starts_with(b"\n\n") || rest.starts_with(b"\r\n\r\n") => (Some(place), place + 1),
            None => (None, place + 1),
        };
        if let Some(end) = end {
            ranges.extend(begin.take().map(|first| first..end));
        }
        place = next;
    }
    ranges.extend(begin.map(|first| first..text.len()));
    ranges
}

#[cfg(test)]
mod tests;
