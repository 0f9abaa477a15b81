//! Which validation tokens are scored, in which windows: every text token of the chosen part once, boundaries never.
//! It prepares windows and adds up losses; the model is elsewhere.

use std::f64::consts::LN_2;

use isoloss_sweep::outcome::Score;

use crate::stream::{Span, Stream};

/// Windows of `context + 1` tokens with stride `context / 2` over the chosen part of the validation stream.
///
/// A target counts in the first window where it has at least `context / 2` tokens of history; near the start of the
/// stream, where that is not to be had, in the first window. Which bytes count depends on the stream and on the limit,
/// not on the context, so all runs of a sweep are scored on the same text.
#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    context: usize,
    tokens: Vec<u32>,
    /// `[windows, context]`: whether this target counts.
    counted: Vec<bool>,
    tokens_scored: u64,
    bytes: u64,
    true_bits: Option<f64>,
}

/// The part of a stream that is scored.
struct Chosen {
    /// Tokens from the start of the stream.
    len: usize,
    /// Places of boundary tokens in it.
    boundaries: Vec<usize>,
    bytes: u64,
    true_bits: Option<f64>,
}

impl Scoring {
    /// Scores whole documents while they fit into `bytes_max`; `token_bytes` says how many bytes of text a token is.
    pub(crate) fn new(stream: &Stream, context: u32, bytes_max: u64, token_bytes: impl Fn(u32) -> u64) -> Self {
        let context = context.max(1) as usize;
        let chosen = Chosen::of(stream, bytes_max, token_bytes);
        let mut text = vec![true; chosen.len];
        for &place in &chosen.boundaries {
            text[place] = false;
        }
        let padding = stream_boundary(stream);
        let mut scoring = Self {
            context,
            tokens: Vec::new(),
            counted: Vec::new(),
            tokens_scored: (chosen.len - chosen.boundaries.len()) as u64,
            bytes: chosen.bytes,
            true_bits: chosen.true_bits,
        };
        let stride = (context / 2).max(1);
        // The stream's first token is a boundary: an input, not a target.
        let mut next = 1;
        for nominal in (0..).step_by(stride) {
            if next >= chosen.len {
                break;
            }
            // The last window moves back, so that it is full of text rather than of padding.
            let start = usize::min(nominal, chosen.len.saturating_sub(context + 1));
            let end = usize::min(start + context + 1, chosen.len);
            stream.copy(start..end, &mut scoring.tokens);
            scoring.tokens.extend(std::iter::repeat_n(padding, start + context + 1 - end));
            let counts = |target: usize| target >= next && target < end && text[target];
            scoring.counted.extend((start + 1..=start + context).map(counts));
            next = end;
        }
        scoring
    }

    /// Number of windows.
    pub fn windows(&self) -> usize {
        self.counted.len() / self.context
    }

    /// Tokens of windows `first..first + count`, row-major `[count, context + 1]`.
    pub fn tokens(&self, first: usize, count: usize) -> &[u32] {
        let width = self.context + 1;
        &self.tokens[first * width..(first + count) * width]
    }

    /// For each target of windows `first..first + count`, `[count, context]`, whether it counts.
    pub fn counted(&self, first: usize, count: usize) -> &[bool] {
        &self.counted[first * self.context..(first + count) * self.context]
    }

    /// Sum of the losses that count, in f64 and in order; `losses` is `[count, context]` from window `first` on.
    pub fn nats(&self, first: usize, losses: &[f32]) -> f64 {
        let counted = &self.counted[first * self.context..][..losses.len()];
        losses.iter().zip(counted).filter(|(_, counted)| **counted).map(|(&loss, _)| f64::from(loss)).sum()
    }

    /// The score of a model whose losses that count add up to `nats`.
    pub fn score(&self, nats: f64) -> Score {
        let bytes = self.bytes as f64;
        Score {
            loss_nats: nats / self.tokens_scored as f64,
            bits_per_byte: nats / (LN_2 * bytes),
            tokens: self.tokens_scored,
            bytes: self.bytes,
            true_bits_per_byte: self.true_bits.map(|bits| bits / bytes),
        }
    }

    pub fn context(&self) -> usize {
        self.context
    }

    /// Text tokens that count.
    pub fn tokens_scored(&self) -> u64 {
        self.tokens_scored
    }

    /// Bytes of text behind the tokens that count.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True surprisal of exactly these bytes, where known.
    pub fn true_bits(&self) -> Option<f64> {
        self.true_bits
    }
}

impl Chosen {
    /// Whole documents while they fit. Where the surprisal is known the choice ends there (with one document at
    /// least), so that it stays known; otherwise the next document is cut at a token.
    fn of(stream: &Stream, bytes_max: u64, token_bytes: impl Fn(u32) -> u64) -> Self {
        let mut chosen = Self { len: 0, boundaries: Vec::new(), bytes: 0, true_bits: Some(0.0) };
        for span in &stream.documents {
            if chosen.bytes + span.bytes <= bytes_max || (chosen.len == 0 && span.true_bits.is_some()) {
                chosen.take(span);
            } else {
                if span.true_bits.is_none() {
                    chosen.take_some(stream, span, bytes_max, token_bytes);
                }
                break;
            }
        }
        chosen
    }

    fn take(&mut self, span: &Span) {
        self.boundaries.push(self.len);
        self.len += span.tokens as usize;
        self.bytes += span.bytes;
        self.true_bits = self.true_bits.zip(span.true_bits).map(|(sum, bits)| sum + bits);
    }

    /// Tokens of one document while they fit, and at least one where nothing is chosen yet.
    fn take_some(&mut self, stream: &Stream, span: &Span, bytes_max: u64, token_bytes: impl Fn(u32) -> u64) {
        let mut tokens = Vec::new();
        stream.copy(self.len + 1..self.len + span.tokens as usize, &mut tokens);
        let before = self.bytes;
        let fitting = tokens
            .iter()
            .take_while(|&&token| {
                let fits = self.bytes + token_bytes(token) <= bytes_max || self.bytes == 0;
                self.bytes += if fits { token_bytes(token) } else { 0 };
                fits
            })
            .count();
        if self.bytes > before {
            self.boundaries.push(self.len);
            self.len += 1 + fitting;
            self.true_bits = None;
        }
    }
}

/// The boundary token: the stream's first. Behind the last target its value has no influence on what counts.
fn stream_boundary(stream: &Stream) -> u32 {
    let mut first = Vec::new();
    stream.copy(0..stream.len().min(1), &mut first);
    first.first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
