//! Splitting inside documents: blocks of 64 KiB, chosen by digest, with a gap of training text left out beside each.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use isoloss_sweep::Digest;

use super::{Parts, VALIDATION_BYTES_MIN};
use crate::source::Document;

/// A cut moves to the next line end if there is one within this many bytes, else to the next character.
const LINE_BYTES_MAX: usize = 1 << 10;

/// Blocks in the order of their digests until `target` bytes are reached. Equal documents lose equal blocks, and of
/// equal blocks one is scored.
pub(super) fn by_block(documents: Vec<Document>, target: usize, gap: usize) -> Parts {
    let mut seen = HashSet::new();
    let mut blocks: Vec<(Digest, usize, Range<usize>)> = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        if seen.insert(document.digest) {
            let ranges = cut(&document.text).into_iter();
            blocks.extend(ranges.map(|range| (Digest::of(&document.text[range.clone()]), index, range)));
        }
    }
    blocks.sort_by_key(|(digest, index, range)| (*digest, *index, range.start));
    let mut removed: HashMap<Digest, Vec<Range<usize>>> = HashMap::new();
    let mut validation: Vec<Document> = Vec::new();
    let mut kept = 0;
    for (digest, index, range) in blocks {
        let document = &documents[index];
        if validation.last().is_none_or(|last| last.digest != digest) {
            if kept >= target {
                break;
            }
            kept += range.len();
            validation.push(Document::new(document.text[range.clone()].to_vec(), None));
        }
        removed.entry(document.digest).or_default().push(range);
    }
    let mut train = Vec::with_capacity(documents.len());
    for document in documents {
        match removed.get(&document.digest) {
            None => train.push(document),
            Some(ranges) => train.extend(without(&document.text, ranges, gap)),
        }
    }
    Parts { train, validation }
}

/// Consecutive blocks of a text, the last one shorter.
fn cut(text: &[u8]) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = line_start(text, start + VALIDATION_BYTES_MIN);
        blocks.push(start..end);
        start = end;
    }
    blocks
}

/// The first line start at or after `place`, or the first character start where lines are long.
pub(super) fn line_start(text: &[u8], place: usize) -> usize {
    if place == 0 || place >= text.len() {
        return place.min(text.len());
    }
    let ahead = &text[place - 1..text.len().min(place + LINE_BYTES_MAX)];
    match ahead.iter().position(|&byte| byte == b'\n') {
        Some(line_end) => place + line_end,
        None => character_start(text, place),
    }
}

/// The first place from `place` on that is not inside a UTF-8 character. A character has at most three more bytes;
/// what has more is not UTF-8, and any place in it will do.
fn character_start(text: &[u8], place: usize) -> usize {
    let inside = |&byte: &&u8| byte & 0xc0 == 0x80;
    let skipped = text[place..].iter().take(3).take_while(inside).count();
    place + skipped
}

/// What is left of a text without `ranges` and without `gap` bytes on each side of them.
pub(super) fn without(text: &[u8], ranges: &[Range<usize>], gap: usize) -> Vec<Document> {
    let mut ranges: Vec<Range<usize>> = ranges.to_vec();
    ranges.sort_by_key(|range| range.start);
    let mut left = Vec::new();
    let mut start = 0;
    for range in ranges.into_iter().chain(std::iter::once(text.len() + gap..text.len() + gap)) {
        let end = range.start.saturating_sub(gap);
        if start < end {
            let end = character_start(text, end.min(text.len())).min(range.start);
            left.push(Document::new(text[start..end].to_vec(), None));
        }
        start = character_start(text, (range.end + gap).min(text.len()));
    }
    left
}
